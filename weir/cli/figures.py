"""Figures: files by matplotlib, and the attention heat map, which a terminal shows too."""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from weir.cli.error_hints import requires
from weir.client.errors import UsageError, WeirError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from weir.client.results import Generated

_SUFFIXES = (".png", ".svg")
# SentencePiece's mark of a subword that begins a word.
_WORD_START = "\u2581"
_SHADES = " ░▒▓█"
# The lowest weight of each shade but the first; low enough to show the maximum of a flat step.
_SHADE_WEIGHTS = (0.05, 0.2, 0.4, 0.7)
_CELL_COLUMNS = 2
_MAX_LABEL_LETTERS = 12


class TooWide(WeirError):
    """The heat map is wider than the terminal."""


def require_figure_path(path: Path | None, option: str) -> None:
    """Check the suffix and matplotlib before the server works; UsageError or MissingExtra."""
    if path is None:
        return
    if path.suffix not in _SUFFIXES:
        raise UsageError(
            f"{option}: expected a name that ends in {' or '.join(_SUFFIXES)}, got {path}"
        )
    with requires("plot"):
        import matplotlib.figure as _  # noqa: F401


def save(figure: "Figure", path: Path) -> None:
    """Write a figure to a file; WeirError if that fails."""
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise WeirError(f"{path}: {error.strerror or error}") from error


def print_attention(result: "Generated", console: Console) -> None:
    """Print the heat map of the best hypothesis: output tokens down, source tokens across.

    TooWide if the source has too many tokens for the terminal, WeirError without attention.
    """
    weights, across, down = _heat_map(result)
    margin = max(map(len, down)) + 1
    if margin + _CELL_COLUMNS * len(across) > console.width:
        raise TooWide(
            f"attention: {len(across)} tokens are too wide for {console.width} columns: "
            "--out draws them"
        )
    height = max(map(len, across))
    for line in range(height):
        letters = [label.rjust(height)[line].ljust(_CELL_COLUMNS) for label in across]
        console.print(Text(" " * margin + "".join(letters).rstrip()), soft_wrap=True)
    for label, row in zip(down, weights, strict=True):
        shades = (_SHADES[bisect_right(_SHADE_WEIGHTS, weight)] for weight in row)
        cells = "".join(shade * _CELL_COLUMNS for shade in shades)
        console.print(Text(label.rjust(margin - 1) + " " + cells), soft_wrap=True)


def attention_figure(result: "Generated") -> "Figure":
    """The heat map as a figure, in % of each step; WeirError if the model has no attention."""
    from matplotlib.figure import Figure

    weights, across, down = _heat_map(result)
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
    axes.set_title(f"{result.model}: attention of each step, in %", size=10, loc="left")
    return figure


def _heat_map(result: "Generated") -> "tuple[NDArray[Any], list[str], list[str]]":
    """Weights (steps, source tokens), and the labels of source tokens and steps."""
    best = result.hypotheses[0]
    if best.attention is None:
        raise WeirError(f"{result.model}: the model has no attention")
    end = ["(end)"] if len(best.attention) > len(best.tokens) else []
    return best.attention, _labels(result.source), [*_labels(best.tokens), *end]


def _labels(tokens: Sequence[str]) -> list[str]:
    """Readable tokens: a subword loses its word-start mark, or gets a hyphen inside a word."""
    if any(token.startswith(_WORD_START) for token in tokens):
        shown = [
            token.removeprefix(_WORD_START)
            if token.startswith(_WORD_START) or not token[:1].isalnum()
            else f"-{token}"
            for token in tokens
        ]
    else:
        shown = list(tokens)
    return [_shortened(visible(label)) for label in shown]


def visible(token: str) -> str:
    """The same token; a blank one as a visible sign."""
    return token if token.strip() else "␣"


def _shortened(label: str) -> str:
    return label if len(label) <= _MAX_LABEL_LETTERS else f"{label[: _MAX_LABEL_LETTERS - 1]}…"
