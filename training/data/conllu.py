r"""Tokens and tags in columns: CoNLL-U and other CoNLL formats, and the English Web Treebank.

One word per line, a blank line after each sentence. CoNLL-U, the format of Universal Dependencies
(https://universaldependencies.org/format.html), has ten columns:

    # text = They buy books.
    1 \t They \t they \t PRON \t PRP \t Case=Nom|Number=Plur \t 2 \t nsubj \t _ \t _

Of it this module reads what tagging needs. Comments, multiword tokens (ID `1-2`) and empty nodes
(ID `1.1`) are skipped, so a row is the syntactic words in their order. A FORM may contain spaces. A
missing value is `_`. The last columns may be missing in the whole file, if HEAD is there. A line
`# global.columns = ID FORM …` names the columns of another layout (CoNLL-U Plus).

A file without IDs has the word in its first column and its tag in the second one, or in that which
a number names (CoNLL-2000, CoNLL-2003, WNUT). Spaces separate columns if no tab does.

Rules for files of other tools: a line of white space is blank; spaces around a column do not count;
IDs may begin at any number; a line `-DOCSTART-` ends a sentence; a line that begins with `#` is a
word if the file has no IDs and the line as many columns as the others.

English Web Treebank: N. Silveira et al., "A Gold Standard Dependency Corpus for English", LREC
2014; CC BY-SA 4.0. The official split has 12,544 sentences for training, 2,001 for development and
2,077 for test, as of 2025-05-10 (after release 2.15). Results on another release are not
comparable, because tags were corrected from one to the next.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from weir.training.data.download import DataFolders, RemoteFile, locate, remote_files
from weir.training.data.images import combine_checksums
from weir.training.data.lines import Line, read_lines
from weir.training.data.text import SequenceSplit, TextData, TextRow
from weir.training.errors import DataError

COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
TAG_COLUMNS = ("upos", "xpos", "deprel")
FEATURE = "feats:"
MISSING = "_"
CONLL_ENDINGS = tuple(
    f"{name}{packed}" for packed in ("", ".gz") for name in (".conllu", ".conllup", ".conll")
)
"""File names of this format."""

_SKIPPED = re.compile(r"[0-9]+-[0-9]+|[0-9]+\.[0-9]+")
_ID = re.compile(rf"[0-9]+|{_SKIPPED.pattern}")
_NUMBER = re.compile(r"[1-9][0-9]*", re.ASCII)
_COMMENT = re.compile(r"#\s*(?P<key>\w[\w.:-]*)\s*=\s*(?P<value>.*)")
_DOCUMENT = "-DOCSTART-"
_HEAD = COLUMNS.index("HEAD")
_INVISIBLE = " \ufeff"

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


class _Word(NamedTuple):
    line: Line
    fields: list[str]


class _Sentence(NamedTuple):
    words: list[_Word]
    text: str | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The columns of a file.

    names: None for a file without IDs; a column of unknown content has its number.
    first: the first word.
    """

    first: _Word
    names: tuple[str, ...] | None

    @property
    def count(self) -> int:
        return len(self.first.fields)

    @property
    def form(self) -> int:
        return self.names.index("FORM") if self.names else 0

    def tag_index(self, column: str, path: Path) -> int:
        """The place of the tag; `DataError` if the file lacks the column."""
        if self.count == 1:
            raise DataError(
                f"{self.first.line.place}: expected a word and its tag, with a tab or a space "
                f"between, got {self.first.fields[0]!r}"
            )
        if _NUMBER.fullmatch(column):
            if int(column) > self.count:
                raise DataError(f"{path}: expected --column up to {self.count}, got {column}")
            return int(column) - 1
        name = "FEATS" if column.startswith(FEATURE) else column.upper()
        if self.names is not None and name in self.names:
            return self.names.index(name)
        if self.names is None and self.count == 2:
            if name == "UPOS":
                return 1
            raise DataError(f"{path}: words and tags alone need no --column, got {column}")
        choices = [
            f"{number} ({field})"
            for number, field in enumerate(self.first.fields, 1)
            if number > self.form + 1
        ]
        if len(choices) < 2:
            raise DataError(f"{path}: expected a column {name}, got {', '.join(self.names or ())}")
        raise DataError(
            f"{self.first.line.place}: expected the number of the tag's column, --column "
            f"{', '.join(choices[:-1])} or {choices[-1]}, because the columns are not those of "
            f"CoNLL-U; got {column}"
        )


@dataclass(frozen=True, slots=True)
class _File:
    """The lines of a file, and how they are cut."""

    lines: list[Line]
    layout: _Layout
    has_tabs: bool

    @staticmethod
    def open(path: Path) -> "_File":
        """Read a file; `DataError` if it has no words."""
        lines = [Line(line.place, line.text.strip(_INVISIBLE)) for line in read_lines(path)]
        first = next((line for line in lines if _is_word(line)), None)
        if first is None:
            raise DataError(f"{path}: expected sentences in CoNLL-U, got none")
        has_tabs = "\t" in first.text
        return _File(lines, _find_layout(lines, first, has_tabs=has_tabs), has_tabs)

    def sentences(self) -> Iterator[_Sentence]:
        """Its sentences, one by one; `DataError` names a broken line."""
        return _read_sentences(self.lines, self.layout, has_tabs=self.has_tabs)


def read_tokens(path: Path) -> list[tuple[str, ...]]:
    """The tokens of each sentence, which need no tags; errors as `read_conllu`."""
    file = _File.open(path)
    return [
        tuple(_form(word, file.layout) for word in sentence.words) for sentence in file.sentences()
    ]


def read_conllu(path: Path, *, column: str = "upos") -> list[TextRow]:
    """Read the sentences of a file: words and, for each word, the tag in one column.

    Args:
        column: `upos`, `xpos`, `deprel`, or `feats:NAME` for one feature, such as `feats:Number`; a
            word without that feature has the tag `_`. Or the number of a column, from 1. `upos` is
            also the second column of a file of words and tags.

    Raises:
        DataError: unknown column, or a broken file; the message names the line.
    """
    is_feature = column.startswith(FEATURE) and column != FEATURE
    if column not in TAG_COLUMNS and not is_feature and not _NUMBER.fullmatch(column):
        known = ", ".join(TAG_COLUMNS)
        raise DataError(f"column: expected {known}, {FEATURE}NAME or a number, got {column!r}")
    file = _File.open(path)
    layout = file.layout
    index = layout.tag_index(column, path)
    rows = []
    for sentence in file.sentences():
        forms, tags = [], []
        for word in sentence.words:
            forms.append(_form(word, layout))
            tag = _read_feature(word, index, column) if is_feature else word.fields[index]
            if not tag or (tag == MISSING and layout.names and not is_feature):
                hint = _full_columns(file.sentences(), layout)
                name = layout.names[index] if layout.names else str(index + 1)
                raise DataError(
                    f"{word.line.place}: expected a tag in column {name}, got {tag!r}{hint}"
                )
            tags.append(tag)
        rows.append(TextRow(tuple(forms), tuple(tags), sentence.text))
    return rows


def _form(word: _Word, layout: _Layout) -> str:
    form = word.fields[layout.form]
    if not form:
        raise DataError(f"{word.line.place}: expected a word in column FORM, got nothing")
    return form


def _is_word(line: Line) -> bool:
    return bool(line.text.strip()) and line.text[0] != "#" and not line.text.startswith(_DOCUMENT)


def _split(text: str, *, has_tabs: bool) -> list[str]:
    if not has_tabs:
        return text.split()
    fields = text.split("\t")
    return [field.strip(" ") for field in fields] if " " in text else fields


def _find_layout(lines: Sequence[Line], first: Line, *, has_tabs: bool) -> _Layout:
    """The columns, as a comment names them or the words show them."""
    fields = _split(first.text, has_tabs=has_tabs)
    for line in lines:
        comment = _COMMENT.fullmatch(line.text) if line.text.startswith("#") else None
        if comment and comment["key"] == "global.columns":
            names = tuple(comment["value"].split())
            if "FORM" not in names or len(names) != len(fields):
                raise DataError(
                    f"{line.place}: expected the names of {len(fields)} columns, FORM among them, "
                    f"got {' '.join(names)}"
                )
            return _Layout(_Word(first, fields), names)
    while len(fields) not in (2, len(COLUMNS)) and not fields[-1]:
        fields.pop()
    count, word = len(fields), _Word(first, fields)
    if count == len(COLUMNS) and _ID.fullmatch(fields[0]):
        return _Layout(word, COLUMNS)
    words = [_split(line.text, has_tabs=has_tabs) for line in lines if _is_word(line)]
    if count <= 2 or not all(_ID.fullmatch(word[0]) for word in words):
        return _Layout(word, None)
    heads = (word[_HEAD] for word in words if len(word) > _HEAD)
    if _HEAD < count < len(COLUMNS) and all(head.isdigit() or head == MISSING for head in heads):
        return _Layout(word, COLUMNS[:count])
    return _Layout(word, ("ID", "FORM", *map(str, range(3, count + 1))))


def _read_sentences(
    lines: Sequence[Line], layout: _Layout, *, has_tabs: bool
) -> Iterator[_Sentence]:
    id_index = layout.names.index("ID") if layout.names and "ID" in layout.names else None
    words: list[_Word] = []
    text: str | None = None
    for line in [*lines, Line("", "")]:
        if not line.text.strip() or line.text.startswith(_DOCUMENT):
            if words:
                yield _Sentence(words, text)
                words, text = [], None
            continue
        fields = _split(line.text, has_tabs=has_tabs)
        if line.text[0] == "#":
            comment = _COMMENT.fullmatch(line.text)
            if comment and comment["key"] == "text":
                text = comment["value"]
            if comment or id_index is not None or len(fields) != layout.count:
                continue
        _require_count(line, fields, layout.count, has_tabs=has_tabs)
        if id_index is not None:
            if _SKIPPED.fullmatch(fields[id_index]):
                continue
            _require_id(line, fields[id_index], words, id_index)
        words.append(_Word(line, fields))


def _require_count(line: Line, fields: list[str], count: int, *, has_tabs: bool) -> None:
    """Require as many columns as the first word has; drop empty ones behind them."""
    while len(fields) > count and not fields[-1]:
        fields.pop()
    if len(fields) != count:
        hint = ""
        if has_tabs and len(line.text.split()) == count:
            hint = "; a space stands where a tab should be"
        raise DataError(
            f"{line.place}: expected {count} columns between {'tabs' if has_tabs else 'spaces'}, "
            f"got {len(fields)}{hint}"
        )


def _require_id(line: Line, identifier: str, words: Sequence[_Word], index: int) -> None:
    """Require the ID after the word before; a sentence may begin at any."""
    first = words[0].fields[index] if words else identifier
    # Python reads no number of thousands of digits.
    expected = int(first) + len(words) if first.isdecimal() and len(first) < 10 else 1
    if identifier == str(expected) and identifier.isascii():
        return
    hint = "; a blank line goes between two sentences" if words and identifier == first else ""
    raise DataError(f"{line.place}: expected the ID {expected}, got {identifier!r}{hint}")


def _full_columns(sentences: Iterable[_Sentence], layout: _Layout) -> str:
    """A hint at another column that has a tag for every word."""
    names = layout.names or ()
    full = [names.index(tag.upper()) for tag in TAG_COLUMNS if tag.upper() in names]
    for word in itertools.chain.from_iterable(sentence.words for sentence in sentences):
        full = [index for index in full if word.fields[index] not in ("", MISSING)]
    if not full:
        return ""
    name = names[full[0]]
    return f"; every word has one in {name}: --column {name.lower()}"


def _read_feature(word: _Word, index: int, column: str) -> str:
    feats = word.fields[index]
    for feature in feats.split("|") if feats != MISSING else ():
        name, equals, value = feature.partition("=")
        if not (name and equals and value):
            raise DataError(
                f"{word.line.place}: expected NAME=VALUE in column FEATS, got {feats!r}"
            )
        if name == column.removeprefix(FEATURE):
            return value
    return MISSING
