"""Both sides of a run: learnt from the training rows, left in the run directory, read back from it.

vocabulary.source.txt, vocabulary.target.txt    `weir.training.data.vocabulary`
subwords.source.model, subwords.target.model    of a side that is cut into subwords
"""

from dataclasses import dataclass
from pathlib import Path

from weir.training.data.pairs import PairData
from weir.training.data.segment import Segmenter, Side, learn_side
from weir.training.data.vocabulary import Vocabulary
from weir.training.errors import RunError
from weir.training.run_directory import write_atomically
from weir.training.seq2seq.recipe import Seq2SeqRecipe, SideSettings

VOCABULARY = "vocabulary.{}.txt"
SUBWORDS = "subwords.{}.model"


@dataclass(frozen=True, slots=True)
class Sides:
    """How both texts of a pair become numbers."""

    source: Side
    target: Side


def learn_sides(train: PairData, recipe: Seq2SeqRecipe) -> Sides:
    """Both sides, of the training rows only.

    Raises:
        DataError: a vocabulary that cannot be made.
    """
    return Sides(
        source=_learn(list(train.sources), recipe.source),
        target=_learn([pair.target for pair in train.pairs()], recipe.target),
    )


def write_sides(sides: Sides, out: Path) -> None:
    """Leave both in a run directory."""
    for name, side in (("source", sides.source), ("target", sides.target)):
        write_atomically(out / VOCABULARY.format(name), side.vocabulary.lines().encode())
        if side.segmenter.model is not None:
            write_atomically(out / SUBWORDS.format(name), side.segmenter.model)


def read_sides(run: Path, recipe: Seq2SeqRecipe) -> Sides:
    """Both, as `write_sides` left them.

    Raises:
        RunError: a file cannot be read.
        DataError: one is broken.
    """
    return Sides(
        source=_read(run, "source", recipe.source), target=_read(run, "target", recipe.target)
    )


def _learn(texts: list[str], settings: SideSettings) -> Side:
    return learn_side(
        texts,
        settings.rule,
        lower=settings.lower,
        minimum_count=settings.minimum_count,
        maximum=settings.maximum,
        kind=settings.kind,
    )


def _read(run: Path, name: str, settings: SideSettings) -> Side:
    path = run / VOCABULARY.format(name)
    try:
        vocabulary = Vocabulary.parse(path.read_bytes().decode(), str(path))
        model = None
        if settings.rule == "subwords":
            path = run / SUBWORDS.format(name)
            model = path.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    return Side(Segmenter(settings.rule, settings.lower, model), vocabulary)
