"""Vocabularies: tokens and their ids, and the text file that stores them.

The text file has one entry per line; an entry's id is the number of lines above it. Every line, the
last included, ends with a line feed. The first four lines are the special entries:

    <pad>     0    padding of a batch; no token has it
    <unk>     1    any token without an entry
    <s>       2    begin of a decoder's output
    </s>      3    end of a decoder's output
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from weir.training.errors import DataError

PAD, UNKNOWN, BEGIN, END = range(4)
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


@dataclass(frozen=True)
class Vocabulary:
    """Entries in the order of their ids, the special ones first.

    Each entry is one line of the text file: not empty, without line breaks, and unique.
    """

    entries: tuple[str, ...]

    def __post_init__(self) -> None:
        _check(self.entries, "vocabulary", "entry")

    @staticmethod
    def build(
        sequences: Iterable[Iterable[str]], *, minimum_count: int = 1, maximum: int | None = None
    ) -> "Vocabulary":
        """Build the vocabulary of a training set: most frequent tokens first, ties sorted.

        Args:
            maximum: number of entries, the special ones included; None keeps all.
        """
        counts = Counter(token for sequence in sequences for token in sequence)
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        frequent = [token for token, count in ranked if count >= minimum_count]
        # A text may contain the spelling of a special entry; it does not get that entry's id.
        entries = (*SPECIAL, *(token for token in frequent if token not in SPECIAL))
        return Vocabulary(entries if maximum is None else entries[: max(maximum, len(SPECIAL))])

    def __len__(self) -> int:
        return len(self.entries)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The ids of tokens; never PAD, BEGIN or END, even if a text contains their spelling."""
        return [self._ids.get(token, UNKNOWN) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The entries of ids, special entries included; `DataError` for an id without an entry."""
        found = list(ids)
        for each in found:
            if not 0 <= each < len(self.entries):
                raise DataError(f"vocabulary: expected ids of 0 to {len(self) - 1}, got {each}")
        return [self.entries[each] for each in found]

    def lines(self) -> str:
        """The content of the text file."""
        return "".join(f"{entry}\n" for entry in self.entries)

    @staticmethod
    def parse(content: str, source: str) -> "Vocabulary":
        """Parse a text file's content, as `lines` makes it; `DataError` names `source` and line."""
        *entries, rest = content.split("\n")
        if rest:
            raise DataError(
                f"{source}, line {len(entries) + 1}: expected a line feed at its end, got none"
            )
        _check(tuple(entries), source, "line")
        return Vocabulary(tuple(entries))

    @cached_property
    def _ids(self) -> dict[str, int]:
        first = len(SPECIAL)
        return {entry: first + row for row, entry in enumerate(self.entries[first:])}


def _check(entries: tuple[str, ...], source: str, unit: str) -> None:
    """Reject entries that a text file cannot store; lines count from 1, entries are ids."""
    first = 1 if unit == "line" else 0
    for place, special in enumerate(SPECIAL):
        found = repr(entries[place]) if place < len(entries) else "nothing"
        if found != repr(special):
            raise DataError(f"{source}, {unit} {first + place}: expected {special!r}, got {found}")
    seen: dict[str, int] = {}
    for place, entry in enumerate(entries, first):
        # Every line break that any reader knows, so that all readers count the same lines.
        if entry.splitlines() != [entry]:
            raise DataError(
                f"{source}, {unit} {place}: expected text without line breaks, got {entry!r}"
            )
        if seen.setdefault(entry, place) != place:
            raise DataError(
                f"{source}, {unit} {place}: expected each entry once, "
                f"got {entry!r} of {unit} {seen[entry]} again"
            )
