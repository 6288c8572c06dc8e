r"""CoNLL-U, the format of Universal Dependencies, and the English Web Treebank that comes in it.

One word per line in ten columns, a blank line after each sentence:

    # text = They buy books.
    1 \t They \t they \t PRON \t PRP \t Case=Nom|Number=Plur \t 2 \t nsubj \t _ \t _

Of https://universaldependencies.org/format.html this module reads what tagging needs. Comments,
multiword tokens (ID `1-2`) and empty nodes (ID `1.1`) are skipped, so a row is the syntactic words
in their order. A FORM may contain spaces. A missing value is `_`.

English Web Treebank: N. Silveira et al., "A Gold Standard Dependency Corpus for English", LREC
2014; CC BY-SA 4.0. The official split has 12,544 sentences for training, 2,001 for development and
2,077 for test, as of 2025-05-10 (after release 2.15). Results on another release are not
comparable, because tags were corrected from one to the next.
"""

import re
from pathlib import Path
from typing import get_args

from weir.training.data.download import DataFolders, RemoteFile, locate, remote_files
from weir.training.data.images import combine_checksums
from weir.training.data.lines import Line, read_lines
from weir.training.data.text import SequenceSplit, TextData, TextRow
from weir.training.errors import DataError

COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
TAG_COLUMNS = ("upos", "xpos", "deprel")
FEATURE = "feats:"
MISSING = "_"
_SKIPPED = re.compile(r"[0-9]+-[0-9]+|[0-9]+\.[0-9]+")

EWT = "ewt"
EWT_FOLDER = "ud-english-ewt"
_REMOTE = remote_files(
    "https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/15d613d/",
    """\
3fb78e2b55482c8ee00caa653af436c88c9e5bc9a73ce26e4ae3ddc79d2b7e7b 14203025 en_ewt-ud-train.conllu
531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6 1805545 en_ewt-ud-dev.conllu
e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd 1804515 en_ewt-ud-test.conllu
""",
)
EWT_FILES: dict[SequenceSplit, RemoteFile] = {
    split: _REMOTE[f"en_ewt-ud-{split}.conllu"] for split in get_args(SequenceSplit)
}


def load_treebank(split: SequenceSplit, folders: DataFolders, *, column: str = "upos") -> TextData:
    """Load one split of the English Web Treebank; errors as `read_conllu` and `locate`."""
    rows = read_conllu(locate(EWT_FOLDER, EWT_FILES[split], folders), column=column)
    digest = combine_checksums((file.name, file.sha256) for file in EWT_FILES.values())
    return TextData.of(EWT, rows, is_tagged=True, checksum=digest)


def read_conllu(path: Path, *, column: str = "upos") -> list[TextRow]:
    """Read the sentences of a file: words and, for each word, the tag in one column.

    Args:
        column: `upos`, `xpos`, `deprel`, or `feats:NAME` for one feature, such as `feats:Number`. A
            word without that feature has the tag `_`.

    Raises:
        DataError: unknown column, or a broken file; the message names the line.
    """
    is_feature = column.startswith(FEATURE) and column != FEATURE
    if column not in TAG_COLUMNS and not is_feature:
        known = ", ".join(TAG_COLUMNS)
        raise DataError(f"column: expected {known} or {FEATURE}NAME, got {column!r}")
    rows: list[TextRow] = []
    words: list[tuple[str, str]] = []
    for line in [*read_lines(path), Line("", "")]:
        if line.text.startswith("#"):
            continue
        if line.text:
            words += _read_word(line, len(words) + 1, column)
        elif words:
            rows.append(TextRow(tuple(form for form, _ in words), tuple(tag for _, tag in words)))
            words = []
    if not rows:
        raise DataError(f"{path}: expected sentences in CoNLL-U, got none")
    return rows


def _read_word(line: Line, number: int, column: str) -> list[tuple[str, str]]:
    """The form and tag of a line; empty for a line that is skipped."""
    fields = line.text.split("\t")
    if len(fields) != len(COLUMNS):
        raise DataError(
            f"{line.place}: expected {len(COLUMNS)} columns between tabs, got {len(fields)}"
        )
    if _SKIPPED.fullmatch(fields[0]):
        return []
    if fields[0] != str(number):
        raise DataError(f"{line.place}: expected the ID {number}, got {fields[0]!r}")
    if not fields[1]:
        raise DataError(f"{line.place}: expected a word in column FORM, got nothing")
    return [(fields[1], _read_tag(line, fields, column))]


def _read_tag(line: Line, fields: list[str], column: str) -> str:
    if column in TAG_COLUMNS:
        name = column.upper()
        tag = fields[COLUMNS.index(name)]
        if tag in ("", MISSING):
            raise DataError(f"{line.place}: expected a tag in column {name}, got {tag!r}")
        return tag
    feats = fields[COLUMNS.index("FEATS")]
    for feature in feats.split("|") if feats != MISSING else ():
        name, equals, value = feature.partition("=")
        if not (name and equals and value):
            raise DataError(f"{line.place}: expected NAME=VALUE in column FEATS, got {feats!r}")
        if name == column.removeprefix(FEATURE):
            return value
    return MISSING
