"""Rows with equal contents, which make a test easier if they are on both sides of a division."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from hashlib import blake2b

EQUAL_ROWS = "equal rows"
"""The name of the note in `RunRecord.test_notes`."""


def describe_equal_rows(
    train: Iterable[Hashable], validation: Sequence[Hashable], test: Sequence[Hashable]
) -> dict[str, str]:
    """The note on equal rows of a run, given the contents of the rows; empty if all rows differ."""
    counts = Counter(train)
    shared = [
        f"{count:,} of {len(rows):,} {name} rows are also training rows"
        for name, rows in (("test", test), ("validation", validation))
        if (count := sum(each in counts for each in rows))
    ]
    if shared:
        return {EQUAL_ROWS: "; ".join(shared)}
    counts.update(validation)
    counts.update(test)
    equal = sum(count for count in counts.values() if count > 1)
    if not equal:
        return {}
    return {
        EQUAL_ROWS: f"{equal:,} of {counts.total():,} rows are equal to another row; "
        "no training row is also a validation or test row"
    }


def digest(content: bytes) -> bytes:
    """A short key of a content; equal contents have equal keys."""
    return blake2b(content, digest_size=16).digest()
