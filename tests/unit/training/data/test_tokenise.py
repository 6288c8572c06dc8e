"""How texts are cut, in any script."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.training.data.tokenise import tokenise


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("What's up, Doc?", "What|'|s|up|,|Doc|?"),
        ("It costs $3.50 -- or 20% off!", "It|costs|$|3|.|50|-|-|or|20|%|off|!"),
        ("snake_case B2B 20th", "snake_case|B2B|20th"),
        ("Cafe\u0301 na\u00efve", "Caf\u00e9|na\u00efve"),
        ("Где Москва?", "Где|Москва|?"),
        ("क्या हिन्दी कठिन है?", "क्या|हिन्दी|कठिन|है|?"),
        ("هل هذا كِتَاب؟", "هل|هذا|كِتَاب|؟"),
        ("می\u200cروم", "می\u200cروم"),
        ("我住在2楼。カナです", "我|住|在|2|楼|。|カ|ナ|で|す"),
        ("한국어 공부", "한국어|공부"),
        ("I \u2764\ufe0f it \U0001f600\U0001f600", "I|\u2764\ufe0f|it|\U0001f600|\U0001f600"),
        ("\t\u00a0 \u3000\n", ""),
    ],
    ids=[
        "apostrophe",
        "numbers",
        "mixed words",
        "composed",
        "Cyrillic",
        "vowel signs",
        "Arabic",
        "joiner",
        "Han",
        "Hangul",
        "symbols",
        "blank",
    ],
)
def test_words_numbers_and_single_marks_are_tokens(text: str, tokens: str) -> None:
    assert tokenise(text, lower=False) == [token for token in tokens.split("|") if token]


def test_lower_case_is_made_on_request_only() -> None:
    assert tokenise("The ÉTÉ", lower=True) == ["the", "été"]
    assert tokenise("The ÉTÉ", lower=False) == ["The", "ÉTÉ"]


@given(st.text())
def test_what_was_cut_is_cut_the_same_again(text: str) -> None:
    once = tokenise(text, lower=False)

    assert tokenise(" ".join(once), lower=False) == once
    assert "".join(once) == "".join(unicodedata.normalize("NFC", text).split())


def test_every_mark_stays_with_its_word() -> None:
    marks = [chr(code) for code in range(sys.maxunicode + 1)]
    marks = [mark for mark in marks if unicodedata.category(mark).startswith("M")]

    for mark in marks:
        word = unicodedata.normalize("NFC", f"a{mark}b")
        assert tokenise(word, lower=False) == [word], hex(ord(mark))
