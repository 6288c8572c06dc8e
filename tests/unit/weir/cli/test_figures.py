import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from weir.cli.figures import attention_figure, print_attention
from weir.client.errors import WeirError
from weir.client.results import Generated, Hypothesis


def answer(source: list[str], tokens: list[str], weights: Any) -> Generated:
    attention = None if weights is None else np.array(weights, np.float32)
    best = Hypothesis("", tokens, 0.0, 0.0, is_complete=True, attention=attention)
    return Generated("model", "1", [best], source, [])


def printed(result: Generated) -> list[str]:
    console = Console(file=io.StringIO(), width=60)
    print_attention(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_shades_say_how_much_and_the_end_has_a_row() -> None:
    weights = [[0.04, 0.1, 0.3, 0.5, 0.9], [0, 0, 0, 0, 1]]

    assert printed(answer([*"abcde"], ["x"], weights)) == [
        "      a b c d e",
        "    x   ░░▒▒▓▓██",
        "(end)         ██",
    ]


def test_words_are_read_downwards_and_subwords_where_they_begin() -> None:
    result = answer(["\u2581on", "e", "\u2581", "."], ["\u2581a"], [[1, 0, 0, 0]])

    assert printed(result) == ["  o -", "  n e ␣ .", "a ██      "]


def test_long_tokens_are_cut_short_and_a_space_is_seen() -> None:
    result = answer(["a" * 20, " "], ["[b]"], [[1, 0]])

    lines = printed(result)

    assert len(lines) == 13 and lines[-2].split() == ["…", "␣"] and lines[-1].startswith("[b]")


def test_picture_has_a_label_for_each_token() -> None:
    figure = attention_figure(answer(["one", "$x$"], ["b"], [[0.2, 0.8], [0.5, 0.5]]))

    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["one", "$x$"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "(end)"]
    assert {text.get_text() for text in axes.texts} == {"20", "80", "50"}


def test_model_that_looks_nowhere_says_so() -> None:
    with pytest.raises(WeirError, match="model: the model has no attention"):
        printed(answer(["a"], ["b"], None))
