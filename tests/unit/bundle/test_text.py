"""The rule of words in a bundle is that of training."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.bundle.text import tokenise
from weir.training.data import tokenise as training

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


@pytest.mark.parametrize("text", REAL, ids=[str(number) for number in range(len(REAL))])
def test_real_texts_are_cut_as_in_training(text: str) -> None:
    assert tokenise(text) == training.tokenise(text, lower=False)
    assert tokenise(text.lower()) == training.tokenise(text, lower=True)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
@settings(derandomize=True, deadline=None, database=None)
def test_odd_texts_are_cut_as_in_training(text: str) -> None:
    assert tokenise(text) == training.tokenise(text, lower=False)
    assert tokenise(text.lower()) == training.tokenise(text, lower=True)


def test_every_mark_is_one_to_both() -> None:
    """Each character of Unicode between two letters."""
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            text = f"a{chr(code)}b"
            assert tokenise(text) == training.tokenise(text, lower=False), hex(code)
