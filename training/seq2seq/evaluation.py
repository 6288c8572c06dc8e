"""Evaluation of sequence to sequence: outputs of a search, their scores, and samples to read.

Error rates and correct outputs compare tokens of the target side, so case is no error if the
tokenizer lowers it. An output is correct if it is any of its references, and its distance is that
to the nearest reference. Translations are scored by BLEU (K. Papineni et al., 2002) as sacrebleu
computes it (M. Post, 2018), on text against the references as written: sacrebleu's own tokenisation
makes scores comparable.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from sacrebleu.metrics.bleu import BLEU

from weir.training.batching import PackedRows, shortest_first
from weir.training.class_scores import BASELINE, Baseline
from weir.training.data.pairs import PairData
from weir.training.data.tokenizer import Sides
from weir.training.errors import DataError
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.run_directory import Evaluation, write_atomically
from weir.training.seq2seq.batches import encode
from weir.training.seq2seq.recipes import SearchSettings, Seq2SeqRecipe
from weir.training.seq2seq.search import Hypothesis, beam, greedy, stepper_of

GREEDY, BEAM = "", "_beam"
"""Suffixes of metric names, by search."""
SAMPLE_ROWS = 20

Tokens = Sequence[str]


@dataclass(frozen=True, slots=True)
class BleuScore:
    """A score of 0 to 100, and sacrebleu's signature of the settings."""

    score: float
    signature: str


@torch.inference_mode()
def generate(
    network: EncoderDecoder,
    sources: Sequence[str],
    sides: Sides,
    settings: SearchSettings,
    *,
    width: int,
) -> list[Hypothesis]:
    """The best hypothesis for each source, in the order of the sources; a width of 1 is greedy.

    The network is on the CPU; it is put into eval mode.
    """
    network.eval()
    packed = PackedRows.of_ids(encode(sources, sides.source, "sources"))
    best: list[Hypothesis | None] = [None] * len(packed)
    power = settings.length_power
    for rows in shortest_first(packed.lengths):
        lengths = packed.lengths[rows]
        memory = network.encode(packed.take(rows, 0), lengths)
        step = stepper_of(network, memory, lengths)
        limits = torch.full((len(rows),), settings.most_tokens)
        if width == 1:
            found = greedy(step, memory.state, limits, length_power=power)
        else:
            ranked = beam(step, memory.state, limits, width=width, length_power=power)
            found = [hypotheses[0] for hypotheses in ranked]
        for row, hypothesis in zip(rows.tolist(), found, strict=True):
            best[row] = hypothesis
    return [hypothesis for hypothesis in best if hypothesis is not None]


def score(
    greedy_outputs: Sequence[Hypothesis],
    beam_outputs: Sequence[Hypothesis] | None,
    data: PairData,
    sides: Sides,
    recipe: Seq2SeqRecipe,
) -> Evaluation:
    """Score each search by the recipe's metrics; the accuracy is that of the greedy outputs."""
    searches = {GREEDY: greedy_outputs}
    if beam_outputs is not None:
        searches[BEAM] = beam_outputs
    references = references_of(data, sides)
    accuracy = exact_accuracy(tokens_of(greedy_outputs, sides), references)
    metrics: dict[str, float] = {}
    notes: dict[str, str] = {}
    for suffix, outputs in searches.items():
        if recipe.score == "bleu":
            scored = bleu(texts_of(outputs, sides), data.references, lower=True)
            metrics[f"bleu{suffix}"] = scored.score
            notes["sacrebleu"] = scored.signature
        else:
            tokens = tokens_of(outputs, sides)
            metrics[f"word_error_rate{suffix}"] = word_error_rate(tokens, references)
            metrics[f"token_error_rate{suffix}"] = token_error_rate(tokens, references)
    return Evaluation(accuracy, None, metrics, notes)


def copy_or_most_frequent(
    train: PairData, test: PairData, sides: Sides, recipe: Seq2SeqRecipe
) -> Baseline:
    """The baseline of pairs: each source is copied, or gets the target that most sources have.

    Of the two, the one that is right for more training rows.
    """
    counts = Counter(pair.target for pair in train.pairs())
    target, count = counts.most_common(1)[0]
    copied = sum(
        source in accepted for source, accepted in zip(train.sources, train.references, strict=True)
    )
    if recipe.score == "bleu" or copied >= count:
        texts, note = list(test.sources), "every source is its own target"
    else:
        texts = [target] * len(test)
        note = f"every source gets {target!r}, the most frequent target of the training rows"
    if recipe.score == "bleu":
        score = bleu(texts, test.references, lower=True).score
        return Baseline({f"{BASELINE}bleu": score}, note)
    tokens, references = list(map(sides.target.tokenizer.split, texts)), references_of(test, sides)
    metrics = {
        f"{BASELINE}word_error_rate": word_error_rate(tokens, references),
        f"{BASELINE}token_error_rate": token_error_rate(tokens, references),
    }
    return Baseline(metrics, note)


def summarise(metrics: Mapping[str, float], recipe: Seq2SeqRecipe) -> str:
    """One line with the metrics of `score`."""
    line = f"test {_summarise_search(metrics, GREEDY)}"
    if any(name.endswith(BEAM) for name in metrics):
        width, of_beam = recipe.search.beam_width, _summarise_search(metrics, BEAM)
        line += f", by beam of {width}: {of_beam}"
    of_baseline = {
        f"{name.removeprefix(BASELINE)}{BASELINE}": value
        for name, value in metrics.items()
        if name.startswith(BASELINE)
    }
    if of_baseline:
        line += f" (baseline: {_summarise_search(of_baseline, BASELINE)})"
    return line


def _summarise_search(metrics: Mapping[str, float], suffix: str) -> str:
    """The metrics of one search; those of greedy search, which come first, have names."""
    if f"bleu{suffix}" in metrics:
        value = f"{metrics[f'bleu{suffix}']:.1f}"
        return value if suffix else f"BLEU {value}"
    words, tokens = (metrics[f"{unit}_error_rate{suffix}"] for unit in ("word", "token"))
    if suffix:
        return f"{100 * words:.1f} %, {100 * tokens:.1f} %"
    return f"word error rate {100 * words:.1f} %, token error rate {100 * tokens:.1f} %"


def tokens_of(outputs: Sequence[Hypothesis], sides: Sides) -> list[list[str]]:
    """The tokens of each output."""
    return [sides.target.decode(hypothesis.tokens) for hypothesis in outputs]


def texts_of(outputs: Sequence[Hypothesis], sides: Sides) -> list[str]:
    """The text of each output."""
    return [sides.target.text(hypothesis.tokens) for hypothesis in outputs]


def references_of(data: PairData, sides: Sides) -> list[list[list[str]]]:
    """The tokens of each row's references."""
    split = sides.target.tokenizer.split
    return [[split(text) for text in accepted] for accepted in data.references]


def exact_accuracy(outputs: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of rows whose output equals a reference; `DataError` if a row lacks one."""
    _require_rows(outputs, references)
    correct = sum(
        any(list(output) == list(reference) for reference in accepted)
        for output, accepted in zip(outputs, references, strict=True)
    )
    return correct / len(outputs)


def word_error_rate(outputs: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """The share of rows whose output equals none of the references; errors as `exact_accuracy`."""
    return 1.0 - exact_accuracy(outputs, references)


def token_error_rate(outputs: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Edit distance to the nearest references, divided by their tokens; above 1 for long outputs.

    Of equally near references the first counts. Errors as `exact_accuracy`.
    """
    _require_rows(outputs, references)
    edits = tokens = 0
    for output, accepted in zip(outputs, references, strict=True):
        distances = [edit_distance(output, reference) for reference in accepted]
        nearest = min(distances)
        edits += nearest
        tokens += len(accepted[distances.index(nearest)])
    if not tokens:
        raise DataError("scores: expected references with tokens, got none")
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
        lower: whether case is ignored on both sides; the signature says so.
    """
    _require_rows(outputs, references)
    metric = BLEU(lowercase=lower)
    most = max(map(len, references))
    streams = [
        [accepted[place] if place < len(accepted) else None for accepted in references]
        for place in range(most)
    ]
    # None marks a row with fewer references; sacrebleu's annotation lacks it.
    value = metric.corpus_score(list(outputs), streams).score  # type: ignore[arg-type]
    return BleuScore(float(value), str(metric.get_signature()))


def _require_rows(outputs: Sequence[object], references: Sequence[Sequence[object]]) -> None:
    if not outputs or len(outputs) != len(references):
        raise DataError(
            f"scores: expected rows with references, got {len(outputs)} and {len(references)}"
        )
    for row, accepted in enumerate(references):
        if not accepted:
            raise DataError(f"scores, row {row}: expected references, got none")


def write_samples(outputs: Sequence[Hypothesis], data: PairData, sides: Sides, path: Path) -> None:
    """Write `mark<TAB>source<TAB>output<TAB>references` of 20 test rows, correct outputs first.

    Half of them are correct if there are enough of both kinds. Rows are spread over the set; a bar
    separates references.
    """
    tokens, accepted = tokens_of(outputs, sides), references_of(data, sides)
    is_correct = [output in own for output, own in zip(tokens, accepted, strict=True)]
    right = [row for row, correct in enumerate(is_correct) if correct]
    wrong = [row for row, correct in enumerate(is_correct) if not correct]
    # If one kind has too few rows, the other fills up.
    right = _spread(right, max(SAMPLE_ROWS // 2, SAMPLE_ROWS - len(wrong)))
    wrong = _spread(wrong, SAMPLE_ROWS - len(right))
    texts = texts_of(outputs, sides)
    lines = [
        "\t".join((mark, data.sources[row], texts[row], " | ".join(data.references[row])))
        for mark, rows in (("right", right), ("wrong", wrong))
        for row in rows
    ]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def _spread(rows: Sequence[int], count: int) -> list[int]:
    count = min(count, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]
