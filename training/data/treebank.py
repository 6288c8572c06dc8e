"""English Web Treebank of Universal Dependencies: sentences of the web whose words are tagged.

N. Silveira et al., "A Gold Standard Dependency Corpus for English", LREC 2014; CC BY-SA 4.0. The official
split: 12,544 sentences to train on, 2,001 to develop and 2,077 to test, as of 2025-05-10 (after release 2.15).
Figures reached with another release are not comparable: tags were corrected from one to the next.
"""

from weir.training.data.conllu import read_conllu
from weir.training.data.download import Places, RemoteFile, locate
from weir.training.data.images import combine_checksums
from weir.training.data.text import SequenceSplit, TextData

NAME = "ewt"
FOLDER = "ud-english-ewt"
_BASE = "https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/15d613d/"
FILES: dict[SequenceSplit, RemoteFile] = {
    "train": RemoteFile(
        _BASE + "en_ewt-ud-train.conllu",
        14_203_025,
        "3fb78e2b55482c8ee00caa653af436c88c9e5bc9a73ce26e4ae3ddc79d2b7e7b",
    ),
    "dev": RemoteFile(
        _BASE + "en_ewt-ud-dev.conllu",
        1_805_545,
        "531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6",
    ),
    "test": RemoteFile(
        _BASE + "en_ewt-ud-test.conllu",
        1_804_515,
        "e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd",
    ),
}


def load_treebank(split: SequenceSplit, places: Places, *, column: str = "upos") -> TextData:
    """Find, verify and read one split, of the plain files or of gzipped ones.

    Args:
        split: one of the official three.
        places: where to look.
        column: which tag, see `read_conllu`.

    Raises:
        DataError: no such column, or a file that is not the canonical one.
        DownloadError: a file is nowhere here and could not be fetched.
    """
    rows = read_conllu(locate(FOLDER, FILES[split], places), column=column)
    digest = combine_checksums((file.name, file.sha256) for file in FILES.values())
    return TextData.of(NAME, rows, is_tagged=True, checksum=digest)
