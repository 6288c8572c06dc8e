"""Text files of the user, plain or gzipped, in one of three formats.

    LABEL<TAB>text to classify          a row per line; recognised by the tab in the first line
    token/TAG token/TAG token/TAG       a sentence per line, with the tag of each token
    *.conllu, *.conllup, *.conll        a token per line (see `weir.training.data.conllu`)

Blank lines are skipped. A text to classify is split into tokens by a rule of `weir.bundle.text`. In
`token/TAG` the last slash separates, so a token may contain slashes. Only spaces separate one pair
from the next.
"""

from pathlib import Path

from weir.bundle.text import Rule, split_text
from weir.training.data.conllu import CONLL_ENDINGS, read_conllu
from weir.training.data.download import checksum
from weir.training.data.lines import Line, read_lines
from weir.training.data.text import TextData, TextRow
from weir.training.errors import DataError


def load_file(
    path: Path, *, lower: bool = False, column: str = "upos", rule: Rule = "words"
) -> TextData:
    """Read all rows of a file, by the options of `load_text`; `DataError` names file and line."""
    if path.name.endswith(CONLL_ENDINGS):
        rows, is_tagged = read_conllu(path, column=column), True
    else:
        lines = [line for line in read_lines(path) if line.text.strip()]
        if not lines:
            raise DataError(f"{path}: expected lines of text, got none")
        is_tagged = "\t" not in lines[0].text
        rows = [
            _read_tagged(line, is_first=line is lines[0])
            if is_tagged
            else _read_labelled(line, rule, lower=lower)
            for line in lines
        ]
    return TextData.of(str(path.resolve()), rows, is_tagged=is_tagged, checksum=checksum(path))


def count_words(path: Path) -> int:
    """Count the words of a file, without comments; `DataError` if it cannot be read."""
    lines = (line.text for line in read_lines(path))
    if path.name.endswith(CONLL_ENDINGS):
        return sum(1 for text in lines if text.strip() and not text.startswith("#"))
    return sum(len(text.split()) for text in lines)


def _read_labelled(line: Line, rule: Rule, *, lower: bool) -> TextRow:
    label, _, text = line.text.partition("\t")
    tokens = split_text(text.lower() if lower else text, rule)
    if not (label.strip() and tokens):
        raise DataError(f"{line.place}: expected LABEL<TAB>text, got {line.text!r}")
    return TextRow(tuple(tokens), (label.strip(),))


def _read_tagged(line: Line, *, is_first: bool) -> TextRow:
    tokens: list[str] = []
    tags: list[str] = []
    for pair in line.text.split(" "):
        if not pair:
            continue
        token, _, tag = pair.rpartition("/")
        if not (token and tag) or "\t" in pair:
            # The first line is read as tagged because it has no tab; the missing tab may be the
            # error.
            or_labelled = "LABEL<TAB>text (there is no tab) or " if is_first else ""
            hint = "; a file of a word and its tag a line has a name in .conll" if is_first else ""
            raise DataError(
                f"{line.place}: expected {or_labelled}token/TAG with a space between two, "
                f"got {pair!r}{hint}"
            )
        tokens.append(token)
        tags.append(tag)
    return TextRow(tuple(tokens), tuple(tags))
