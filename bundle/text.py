r"""How a text becomes words: what `words` means in a contract's `tokenisation`.

Training cuts by the same rule (`weir.training.data.tokenise`, which imports none of ours, so it is written there
again); a test holds the two against each other. The rule is complete:

1. The text is put into Unicode normal form C.
2. From left to right, the first of these that fits, as long as it can be, is a token:
   - a Han, Hiragana or Katakana character with the marks after it, for there no spaces part words;
   - a word: a run of letters, digits, underscores (Python's `\w`) and marks;
   - any other character with the marks after it, unless it is white space (`\s`).
3. White space parts tokens and is dropped.

Marks are the characters of Unicode's general category M, vowel signs and accents, and the two joiners
U+200C and U+200D. So `don't stop!` gives `don ' t stop !`, the same as `don 't stop !` does: text that was
already cut, as treebanks have it, is cut like running text. Thai, Lao, Khmer and Burmese, which write words
without spaces too, stay whole phrases. Unicode's tables are those of the Python that runs.
"""

import re
import unicodedata
from functools import cache
from itertools import groupby

CHARACTERS = "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
"""Han, Hiragana and Katakana, as a part of a regular expression's set."""
JOINERS = "\u200c\u200d"
_MARKS_FROM, _MARKS_UNTIL, _SELECTORS = 0x300, 0x20000, "\U000e0100-\U000e01ef"


def tokenise(text: str) -> list[str]:
    """The words and marks of a text, in normal form C; none of a text that is blank."""
    return _pattern().findall(unicodedata.normalize("NFC", text))


@cache
def _pattern() -> re.Pattern[str]:
    marks = all_marks()
    return re.compile(
        rf"[{CHARACTERS}][{marks}]*|(?:[^\W{CHARACTERS}]|[{marks}])+|[^\w\s][{marks}]*"
    )


@cache
def all_marks() -> str:
    """The marks as ranges of a regular expression's set; past U+1FFFF, which takes long to look through, there are selectors only."""
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
