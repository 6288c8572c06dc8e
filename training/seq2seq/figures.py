"""The attention figure: a matrix of weights for each of a few outputs, source by output."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from weir.bundle.text import SUBWORD_SPACE
from weir.training.data.pairs import PairData
from weir.training.data.tokenizer import Sides
from weir.training.figures import label_axes, save
from weir.training.seq2seq.search import Hypothesis

SHOWN = 4
MOST_TOKENS = 16
"""Of either side: more labels would not be readable."""
_TITLE_LETTERS = 58


def draw_attention(outputs: Sequence[Hypothesis], data: PairData, sides: Sides, path: Path) -> None:
    """Draw four complete outputs, if any, from the longest quarter of those that are readable."""
    shown = choose(outputs, [sides.source.tokenizer.split(source) for source in data.sources])
    if not shown:
        return
    figure = Figure(figsize=(12.0, 12.0), layout="constrained")
    panels = figure.subplots(2, 2, squeeze=False).flatten()
    for axes, row in zip(panels, shown, strict=False):
        output, attention = sides.target.decode(outputs[row].tokens), outputs[row].attention
        if attention is not None:
            _draw(axes, attention, sides.source.tokenizer.split(data.sources[row]), output)
            _entitle(axes, data.sources[row], sides.target.text(outputs[row].tokens))
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.suptitle("attention weights of each output step, in %", size=12)
    save(figure, path)


def choose(outputs: Sequence[Hypothesis], sources: Sequence[Sequence[str]]) -> list[int]:
    """The rows to draw, the longest output first, by outputs and source tokens of each row."""
    rows = [
        row
        for row, (hypothesis, source) in enumerate(zip(outputs, sources, strict=True))
        if hypothesis.is_complete
        and 1 <= len(hypothesis.tokens) <= MOST_TOKENS
        and len(source) <= MOST_TOKENS
    ]
    rows.sort(key=lambda row: -len(outputs[row].tokens))
    return rows[:: max(1, len(rows) // (4 * SHOWN))][:SHOWN]


def _draw(axes: Axes, attention: Tensor, source: list[str], output: list[str]) -> None:
    weights = attention[:, : len(source)].numpy()  # (n, T), the end step last
    axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    label_axes(axes, _labels(source), [*_labels(output), "(end)"], size=11)
    for row, column in zip(*(weights >= 0.1).nonzero(), strict=True):
        colour = "white" if weights[row, column] > 0.5 else "black"
        text = f"{100 * weights[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, size=8)
    axes.set_xlabel("source")
    axes.set_ylabel("output")


def _labels(tokens: Sequence[str]) -> list[str]:
    """Tokens as labels: a subword that continues a word begins with a hyphen."""
    if not any(token.startswith(SUBWORD_SPACE) for token in tokens):
        return [token if token.strip() else "␣" for token in tokens]
    return [_label(token) for token in tokens]


def _label(subword: str) -> str:
    if subword.startswith(SUBWORD_SPACE):
        return subword.removeprefix(SUBWORD_SPACE) or "␣"
    return f"-{subword}" if subword[:1].isalnum() else subword


def _entitle(axes: Axes, source: str, output: str) -> None:
    lines = (source, f"→ {output}")
    cut = [
        f"{line[: _TITLE_LETTERS - 1]}…" if len(line) > _TITLE_LETTERS else line for line in lines
    ]
    axes.set_title("\n".join(cut), parse_math=False, size=11, loc="left")
