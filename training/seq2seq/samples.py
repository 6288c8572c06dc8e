"""Twenty outputs to read, half of them right where there are as many."""

from collections.abc import Sequence
from pathlib import Path

from weir.training.data.pairs import PairData
from weir.training.run_directory import write_atomically
from weir.training.seq2seq.evaluation import references_of, texts_of, tokens_of
from weir.training.seq2seq.hypotheses import Hypothesis
from weir.training.seq2seq.sides import Sides

COUNT = 20


def leave_samples(found: Sequence[Hypothesis], data: PairData, sides: Sides, path: Path) -> None:
    """Write `mark<TAB>source<TAB>output<TAB>references` of twenty test rows, the right ones first.

    They are spread over the set; between two references stands a bar.
    """
    outputs, accepted = tokens_of(found, sides), references_of(data, sides)
    is_right = [output in own for output, own in zip(outputs, accepted, strict=True)]
    right = [row for row, is_so in enumerate(is_right) if is_so]
    wrong = [row for row, is_so in enumerate(is_right) if not is_so]
    # What one kind has too few of, the other fills up.
    good = _spread(right, max(COUNT // 2, COUNT - len(wrong)))
    bad = _spread(wrong, COUNT - len(good))
    texts = texts_of(found, sides)
    lines = [
        "\t".join((mark, data.sources[row], texts[row], " | ".join(data.references[row])))
        for mark, rows in (("right", good), ("wrong", bad))
        for row in rows
    ]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def _spread(rows: Sequence[int], count: int) -> list[int]:
    count = min(count, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]
