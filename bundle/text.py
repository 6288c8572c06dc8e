r"""The tokenisation rules `words`, `spaces` and `letters`, which training and the server share.

`spaces` and `letters` split a text that `normalise` has made: at its spaces, or into its
characters. The rules of `words`:

1. The text is put into Unicode normal form C.
2. From left to right, the longest match of the first alternative that fits is a token:
   - a Han, Hiragana or Katakana character with the marks after it (no spaces separate words there);
   - a word: a run of letters, digits, underscores (Python's `\w`) and marks;
   - any other character with the marks after it, unless it is white space (`\s`).
3. White space separates tokens and is dropped.

Marks are the characters of Unicode's general category M (vowel signs and accents) and the two
joiners U+200C and U+200D. `don't stop!` gives `don ' t stop !`, and so does `don 't stop !`: text
that comes split, as in treebanks, is split like running text. Thai, Lao, Khmer and Burmese also
write words without spaces; their phrases stay whole. Unicode's tables are those of the running
Python.
"""

import re
import unicodedata
from functools import cache
from itertools import groupby
from typing import Literal

Rule = Literal["words", "spaces", "letters"]

CHARACTERS = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Han, Hiragana and Katakana, as part of a regular expression's set."""
JOINERS = "\u200c\u200d"
SUBWORD_SPACE = "\u2581"
"""Stands for white space in a subword; in a text it counts as white space."""
_MARKS_FROM, _MARKS_UNTIL, _SELECTORS = 0x300, 0x20000, "\U000e0100-\U000e01ef"


def split_text(text: str, rule: Rule) -> list[str]:
    """Split a text into tokens by a rule; a blank text has none."""
    if rule == "words":
        return tokenise(text)
    normal = normalise(text)
    return normal.split() if rule == "spaces" else list(normal)


def tokenise(text: str) -> list[str]:
    """Split a text into tokens in normal form C; a blank text has none."""
    return _pattern().findall(unicodedata.normalize("NFC", text))


def normalise(text: str, *, is_subwords: bool = False) -> str:
    """The text that `letters`, `spaces` and `subwords` split.

    It is in normal form C; each run of white space is one space, and there is none at its ends.
    """
    normal = unicodedata.normalize("NFC", text)
    return " ".join((normal.replace(SUBWORD_SPACE, " ") if is_subwords else normal).split())


@cache
def _pattern() -> re.Pattern[str]:
    marks = all_marks()
    return re.compile(
        rf"[{CHARACTERS}][{marks}]*|(?:[^\W{CHARACTERS}]|[{marks}])+|[^\w\s][{marks}]*"
    )


@cache
def all_marks() -> str:
    """All marks, as ranges of a regular expression's set.

    Past U+1FFFF the only marks are the variation selectors; a search there would take long.
    """
    codes = [
        code
        for code in range(_MARKS_FROM, _MARKS_UNTIL)
        if unicodedata.category(chr(code)).startswith("M")
    ]
    runs = [
        [code for _, code in run]
        for _, run in groupby(enumerate(codes), key=lambda pair: pair[1] - pair[0])
    ]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs) + _SELECTORS + JOINERS
