"""Where the steps of an answer looked: in a terminal, and as a picture."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from weir.client.errors import WeirError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from weir.client.results import Generated

_SPACE = "\u2581"
"""Where a subword begins a word."""
_SHADES = " ░▒▓█"
_FROM = (0.05, 0.2, 0.4, 0.7)
"""The weights that the shades begin at: a step that looks everywhere shows where most."""
_CELL = 2
_MOST_LETTERS = 12


class TooWide(WeirError):
    """It has no room in the terminal."""


def print_attention(result: "Generated", console: Console) -> None:
    """A row for each token of the best answer, shaded where it looked; the source is read downwards.

    Raises:
        TooWide: the source is, for the terminal.
        WeirError: the model looks nowhere.
    """
    weights, across, down = _drawn(result)
    margin = max(map(len, down)) + 1
    if margin + _CELL * len(across) > console.width:
        raise TooWide(
            f"attention: {len(across)} tokens are too wide for {console.width} columns: --out draws them"
        )
    height = max(map(len, across))
    for line in range(height):
        letters = [label.rjust(height)[line].ljust(_CELL) for label in across]
        console.print(Text(" " * margin + "".join(letters).rstrip()), soft_wrap=True)
    for label, row in zip(down, weights, strict=True):
        cells = "".join(_shade(weight) * _CELL for weight in row)
        console.print(Text(label.rjust(margin - 1) + " " + cells), soft_wrap=True)


def attention_picture(result: "Generated") -> "Figure":
    """The same as a picture, in % of each step's attention; WeirError if the model looks nowhere."""
    from matplotlib.figure import Figure

    weights, across, down = _drawn(result)
    size = (2.0 + 0.42 * len(across), 1.6 + 0.34 * len(down))
    figure = Figure(figsize=(max(size[0], 4.5), max(size[1], 3.0)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(across)), across, parse_math=False)
    if max(map(len, across)) > 2:
        axes.tick_params(axis="x", labelrotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down, parse_math=False)
    for row, column in zip(*(weights >= 0.1).nonzero(), strict=True):
        colour = "white" if weights[row, column] > 0.5 else "black"
        percent = f"{100 * weights[row, column]:.0f}"
        axes.text(column, row, percent, ha="center", va="center", color=colour, size=8)
    axes.set_xlabel("source")
    axes.set_ylabel("output")
    axes.set_title(f"{result.model}: where each step looks, in %", size=10, loc="left")
    return figure


def _drawn(result: "Generated") -> "tuple[NDArray[Any], list[str], list[str]]":
    """Weights (steps, source tokens), and the labels of both."""
    best = result.hypotheses[0]
    if best.attention is None:
        raise WeirError(f"{result.model}: it looks nowhere: the model has no attention")
    end = ["(end)"] if len(best.attention) > len(best.tokens) else []
    return best.attention, _labels(result.source), [*_labels(best.tokens), *end]


def _labels(tokens: Sequence[str]) -> list[str]:
    """Tokens as they are read: of subwords no mark where a word begins, a hyphen where it goes on."""
    if any(token.startswith(_SPACE) for token in tokens):
        shown = [
            token.removeprefix(_SPACE)
            if token.startswith(_SPACE) or not token[:1].isalnum()
            else f"-{token}"
            for token in tokens
        ]
    else:
        shown = list(tokens)
    return [_shortened(visible(label)) for label in shown]


def visible(token: str) -> str:
    """The same, a space as a sign."""
    return token if token.strip() else "␣"


def _shortened(label: str) -> str:
    return label if len(label) <= _MOST_LETTERS else f"{label[: _MOST_LETTERS - 1]}…"


def _shade(weight: float) -> str:
    return _SHADES[bisect_right(_FROM, weight)]
