"""How near outputs are to what was wanted, in the terms of each field.

Pronunciations are scored by word and phoneme error rate: an output is right that is any of its references,
and its distance is that to the nearest. Translations are scored by BLEU (K. Papineni et al., 2002) as
sacrebleu computes it (M. Post, 2018), on joined text, for then its own tokenisation decides and figures
compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics.bleu import BLEU

from weir.training.errors import DataError

Tokens = Sequence[str]


@dataclass(frozen=True, slots=True)
class BleuScore:
    """A score of 0 to 100, and the settings that it belongs to, as sacrebleu signs them."""

    score: float
    signature: str


def exact_accuracy(outputs: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of rows whose output is one of the references.

    Args:
        outputs: the tokens of each row; texts will do too.
        references: of each row, one or more.

    Raises:
        DataError: no rows, not as many of the one as of the other, or a row without references.
    """
    _require_rows(outputs, references)
    right = sum(
        any(list(output) == list(reference) for reference in accepted)
        for output, accepted in zip(outputs, references, strict=True)
    )
    return right / len(outputs)


def word_error_rate(outputs: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of words whose output is none of the references, under the same conditions."""
    return 1.0 - exact_accuracy(outputs, references)


def token_error_rate(outputs: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Edits to the nearest references over the tokens of those; above 1 where outputs run on.

    Of references that are as near, the one listed first counts. The same conditions hold.
    """
    _require_rows(outputs, references)
    edits = tokens = 0
    for output, accepted in zip(outputs, references, strict=True):
        distances = [edit_distance(output, reference) for reference in accepted]
        nearest = min(distances)
        edits += nearest
        tokens += len(accepted[distances.index(nearest)])
    if not tokens:
        raise DataError("scores: expected references with tokens, found none")
    return edits / tokens


def edit_distance(left: Tokens, right: Tokens) -> int:
    """The fewest tokens to insert, delete or replace (V. Levenshtein, 1966)."""
    before = list(range(len(right) + 1))
    for row, token in enumerate(left, 1):
        now = [row]
        for column, other in enumerate(right, 1):
            replaced = before[column - 1] + (token != other)
            now.append(min(replaced, before[column] + 1, now[-1] + 1))
        before = now
    return before[-1]


def bleu(outputs: Sequence[str], references: Sequence[Sequence[str]], *, lower: bool) -> BleuScore:
    """Corpus BLEU with sacrebleu's defaults (4-grams, tokenisation 13a, exponential smoothing).

    Args:
        outputs: joined texts.
        references: of each row, one or more, as they were written.
        lower: whether case is passed over, on both sides; the signature says which.

    Raises:
        DataError: as above.
    """
    _require_rows(outputs, references)
    metric = BLEU(lowercase=lower)
    most = max(map(len, references))
    streams = [
        [accepted[place] if place < len(accepted) else None for accepted in references]
        for place in range(most)
    ]
    # None is how sacrebleu is told that a row has fewer; its annotation does not say so.
    score = metric.corpus_score(list(outputs), streams).score  # type: ignore[arg-type]
    return BleuScore(float(score), str(metric.get_signature()))


def _require_rows(outputs: Sequence[object], references: Sequence[Sequence[object]]) -> None:
    if not outputs or len(outputs) != len(references):
        raise DataError(
            f"scores: expected rows with references, found {len(outputs)} and {len(references)}"
        )
    for row, accepted in enumerate(references):
        if not accepted:
            raise DataError(f"scores, row {row}: expected references, found none")
