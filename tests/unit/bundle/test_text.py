"""The rule `words`, against an oracle that scans characters without regular expressions."""

import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.bundle.text import normalise, tokenise

REAL = [
    "What's up, Doc? It costs $3.50 -- or 20% off!",
    "How did serfdom develop in and then leave Russia ?",
    "snake_case B2B 20th \u00a0 \u3000 tab\tand\nline",
    "Cafe\u0301 naïve İstanbul STRASSE Straße ΟΔΟΣ",
    "Где Москва? क्या हिन्दी कठिन है? هل هذا كِتَاب؟ می\u200cروم",
    "我住在2楼。カナです 한국어 공부 ภาษาไทย",
    "I \u2764\ufe0f it \U0001f600\U0001f600 \U000e0100 \U0001f1e9\U0001f1ea",
    "",
]
PIECES = st.sampled_from([*"aZ1_ .,'-é\u0301\u0323\u200d漢ー가क\u093e\ufe0f\u00a0\n", "don't", "İ"])
IDEOGRAPHS = (
    range(0x3005, 0x3008),
    range(0x3040, 0x3100),
    range(0x31F0, 0x3200),
    range(0x3400, 0x4DC0),
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),
    range(0xFF66, 0xFFA0),
    range(0x20000, 0x40000),
)
"""Han, Hiragana and Katakana."""


def is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M") or character in "\u200c\u200d"


def is_ideograph(character: str) -> bool:
    return any(ord(character) in block for block in IDEOGRAPHS)


def is_letter(character: str) -> bool:
    return (character.isalnum() or character == "_") and not is_ideograph(character)


def scan(text: str) -> list[str]:
    """The tokens of a text, one character after the other."""
    tokens: list[str] = []
    kind = ""
    for character in unicodedata.normalize("NFC", text):
        if (kind and is_mark(character)) or (kind == "word" and is_letter(character)):
            tokens[-1] += character
        elif character.isspace():
            kind = ""
        else:
            is_word = is_letter(character) or (is_mark(character) and not is_ideograph(character))
            kind = "word" if is_word else "single"
            tokens.append(character)
    return tokens


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
    assert tokenise(text) == [token for token in tokens.split("|") if token]


@pytest.mark.parametrize("text", REAL, ids=[str(number) for number in range(len(REAL))])
def test_real_texts_split_as_the_oracle_does(text: str) -> None:
    assert tokenise(text) == scan(text)
    assert tokenise(text.lower()) == scan(text.lower())


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
@settings(derandomize=True, deadline=None, database=None)
def test_odd_texts_split_as_the_oracle_does(text: str) -> None:
    assert tokenise(text) == scan(text)
    assert tokenise(text.lower()) == scan(text.lower())


def test_every_character_between_two_letters_splits_as_the_oracle_does() -> None:
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            text = f"a{chr(code)}b"
            assert tokenise(text) == scan(text), hex(code)


@given(st.text())
@settings(derandomize=True, deadline=None, database=None)
def test_tokens_joined_with_spaces_split_the_same_again(text: str) -> None:
    once = tokenise(text)

    assert tokenise(" ".join(once)) == once
    assert "".join(once) == "".join(unicodedata.normalize("NFC", text).split())


def test_every_mark_stays_with_its_word() -> None:
    marks = [chr(code) for code in range(sys.maxunicode + 1)]
    marks = [mark for mark in marks if unicodedata.category(mark).startswith("M")]

    for mark in marks:
        word = unicodedata.normalize("NFC", f"a{mark}b")
        assert tokenise(word) == [word], hex(ord(mark))


@pytest.mark.parametrize(
    ("text", "is_subwords", "expected"),
    [
        (" a\n\u3000b\t", False, "a b"),
        ("e\u0301", False, "\u00e9"),
        ("a\u2581b", False, "a\u2581b"),
        ("\u2581a\u2581\u2581b", True, "a b"),
        (" \n", False, ""),
    ],
    ids=["white space", "normal form", "not subwords", "subwords", "blank"],
)
def test_normalised_text(text: str, is_subwords: bool, expected: str) -> None:  # noqa: FBT001
    assert normalise(text, is_subwords=is_subwords) == expected
