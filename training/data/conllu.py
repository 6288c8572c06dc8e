r"""CoNLL-U, the format of Universal Dependencies: one word a line, ten columns, a blank line after a sentence.

    # text = They buy books.
    1 \t They \t they \t PRON \t PRP \t Case=Nom|Number=Plur \t 2 \t nsubj \t _ \t _

Of https://universaldependencies.org/format.html what tagging needs: comments, multiword tokens (ID `1-2`)
and empty nodes (ID `1.1`) are passed over, so that a row is the syntactic words in their order. A FORM may
hold spaces. What is missing is written `_`.
"""

import re
from pathlib import Path

from weir.training.data.text import TextRow
from weir.training.data.textfile import Line, read_lines
from weir.training.errors import DataError

COLUMNS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
TAG_COLUMNS = ("upos", "xpos", "deprel")
FEATURE = "feats:"
MISSING = "_"
_PASSED_OVER = re.compile(r"[0-9]+-[0-9]+|[0-9]+\.[0-9]+")


def read_conllu(path: Path, *, column: str = "upos") -> list[TextRow]:
    """The sentences of a file, plain or gzipped: words and, for each, the tag of one column.

    Args:
        path: gzipped if its name ends with `.gz`.
        column: `upos`, `xpos`, `deprel`, or `feats:NAME` for one feature, as `feats:Number`; a word
            without that feature is tagged `_`.

    Raises:
        DataError: no such column, or a broken file: names the line, what was expected and what came.
    """
    is_feature = column.startswith(FEATURE) and column != FEATURE
    if column not in TAG_COLUMNS and not is_feature:
        known = ", ".join(TAG_COLUMNS)
        raise DataError(f"column: expected {known} or {FEATURE}NAME, found {column!r}")
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
        raise DataError(f"{path}: expected sentences in CoNLL-U, found none")
    return rows


def _read_word(line: Line, number: int, column: str) -> list[tuple[str, str]]:
    """The form and tag of a line; nothing of one that is passed over."""
    fields = line.text.split("\t")
    if len(fields) != len(COLUMNS):
        raise DataError(
            f"{line.place}: expected {len(COLUMNS)} columns between tabs, found {len(fields)}"
        )
    if _PASSED_OVER.fullmatch(fields[0]):
        return []
    if fields[0] != str(number):
        raise DataError(f"{line.place}: expected the ID {number}, found {fields[0]!r}")
    if not fields[1]:
        raise DataError(f"{line.place}: expected a word in column FORM, found nothing")
    return [(fields[1], _read_tag(line, fields, column))]


def _read_tag(line: Line, fields: list[str], column: str) -> str:
    if column in TAG_COLUMNS:
        name = column.upper()
        tag = fields[COLUMNS.index(name)]
        if tag in ("", MISSING):
            raise DataError(f"{line.place}: expected a tag in column {name}, found {tag!r}")
        return tag
    feats = fields[COLUMNS.index("FEATS")]
    for feature in feats.split("|") if feats != MISSING else ():
        name, equals, value = feature.partition("=")
        if not (name and equals and value):
            raise DataError(f"{line.place}: expected NAME=VALUE in column FEATS, found {feats!r}")
        if name == column.removeprefix(FEATURE):
            return value
    return MISSING
