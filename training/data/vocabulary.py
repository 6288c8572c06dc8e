"""Tokens and their numbers, as the embedding of a network sees them.

The text file form has one entry a line; an entry's id is the number of lines above it. Lines end with a
line feed, the last one too, and the first four are the special entries:

    <pad>     0    fills a batch up; no token has it
    <unk>     1    any token that is no entry
    <s>       2    where a decoder begins
    </s>      3    where a decoder ends
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

    Each is a line of its own in the text file: not empty, without line breaks, and there once.
    """

    entries: tuple[str, ...]

    def __post_init__(self) -> None:
        _check(self.entries, "vocabulary", "entry")

    @staticmethod
    def build(
        sequences: Iterable[Iterable[str]], *, minimum_count: int = 1, maximum: int | None = None
    ) -> "Vocabulary":
        """The tokens of a training set, most frequent first, those of one frequency in sorted order.

        Args:
            sequences: rows of tokens.
            minimum_count: a token that comes less often is left out.
            maximum: of entries, the special ones counted; none keeps all.

        Raises:
            DataError: a token is empty or has a line break.
        """
        counts = Counter(token for sequence in sequences for token in sequence)
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        frequent = [token for token, count in ranked if count >= minimum_count]
        # A text may spell a special entry; it is not given that entry's meaning.
        entries = (*SPECIAL, *(token for token in frequent if token not in SPECIAL))
        return Vocabulary(entries if maximum is None else entries[: max(maximum, len(SPECIAL))])

    def __len__(self) -> int:
        return len(self.entries)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """The ids of tokens; never PAD, BEGIN or END, even where a text spells them."""
        return [self._ids.get(token, UNKNOWN) for token in tokens]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """The entries of ids, special ones as they are written.

        Raises:
            DataError: an id that no entry has.
        """
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
        """Read the content of a text file back.

        Args:
            content: what `lines` gave, its line ends untouched.
            source: the file's name, for errors.

        Raises:
            DataError: names the file, the line, what was expected and what came.
        """
        *entries, rest = content.split("\n")
        if rest:
            raise DataError(
                f"{source}, line {len(entries) + 1}: expected a line feed at its end, found none"
            )
        _check(tuple(entries), source, "line")
        return Vocabulary(tuple(entries))

    @cached_property
    def _ids(self) -> dict[str, int]:
        first = len(SPECIAL)
        return {entry: first + row for row, entry in enumerate(self.entries[first:])}


def _check(entries: tuple[str, ...], source: str, unit: str) -> None:
    """Refuse what could not be written and read back; a line is counted from 1, an entry is an id."""
    first = 1 if unit == "line" else 0
    for place, special in enumerate(SPECIAL):
        found = repr(entries[place]) if place < len(entries) else "nothing"
        if found != repr(special):
            raise DataError(
                f"{source}, {unit} {first + place}: expected {special!r}, found {found}"
            )
    seen: dict[str, int] = {}
    for place, entry in enumerate(entries, first):
        # Every break that any reader knows, so that all readers count the same lines.
        if entry.splitlines() != [entry]:
            raise DataError(
                f"{source}, {unit} {place}: expected text without line breaks, found {entry!r}"
            )
        if seen.setdefault(entry, place) != place:
            raise DataError(
                f"{source}, {unit} {place}: expected each entry once, "
                f"found {entry!r} of {unit} {seen[entry]} again"
            )
