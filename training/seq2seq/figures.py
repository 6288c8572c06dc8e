"""Where the decoder looks: a matrix for each of a few outputs, source across, output down."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from weir.training.data.pairs import PairData
from weir.training.data.subwords import SPACE
from weir.training.figures import save
from weir.training.seq2seq.hypotheses import Hypothesis
from weir.training.seq2seq.sides import Sides

SHOWN = 4
MOST_TOKENS = 16
"""Of either side: more labels could not be read."""
_TITLE_LETTERS = 58


def draw_attention(found: Sequence[Hypothesis], data: PairData, sides: Sides, path: Path) -> None:
    """Four outputs that came to their end, from the longest quarter of those that can still be read.

    Where there is none, no picture is left.
    """
    shown = chosen(found, [sides.source.segmenter.split(source) for source in data.sources])
    if not shown:
        return
    figure = Figure(figsize=(12.0, 12.0), layout="constrained")
    panels = figure.subplots(2, 2, squeeze=False).flatten()
    for axes, row in zip(panels, shown, strict=False):
        output, attention = sides.target.decode(found[row].tokens), found[row].attention
        if attention is not None:
            _draw(axes, attention, sides.source.segmenter.split(data.sources[row]), output)
            _entitle(axes, data.sources[row], sides.target.text(found[row].tokens))
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.suptitle("where each step of the output looks, in % of its attention", size=12)
    save(figure, path)


def chosen(found: Sequence[Hypothesis], sources: Sequence[Sequence[str]]) -> list[int]:
    """The rows that are shown, the longest output first.

    Args:
        found: with the attention of each step.
        sources: the tokens of each row.
    """
    rows = [
        row
        for row, (hypothesis, source) in enumerate(zip(found, sources, strict=True))
        if hypothesis.is_complete
        and 1 <= len(hypothesis.tokens) <= MOST_TOKENS
        and len(source) <= MOST_TOKENS
    ]
    rows.sort(key=lambda row: -len(found[row].tokens))
    return rows[:: max(1, len(rows) // (4 * SHOWN))][:SHOWN]


def _draw(axes: Axes, attention: Tensor, source: list[str], output: list[str]) -> None:
    weights = attention[:, : len(source)].numpy()  # (n, T), the end's step the last
    axes.imshow(weights, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    across, down = _labels(source), [*_labels(output), "(end)"]
    is_long = max(map(len, across)) > 2
    axes.set_xticks(range(len(across)), across, parse_math=False, size=11)
    if is_long:
        axes.tick_params(axis="x", labelrotation=45)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(down)), down, parse_math=False, size=11)
    for row, column in zip(*(weights >= 0.1).nonzero(), strict=True):
        colour = "white" if weights[row, column] > 0.5 else "black"
        text = f"{100 * weights[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", color=colour, size=8)
    axes.set_xlabel("source")
    axes.set_ylabel("output")


def _labels(tokens: Sequence[str]) -> list[str]:
    """Tokens as they are read: no mark where a subword begins a word, a hyphen where it goes one on."""
    if not any(token.startswith(SPACE) for token in tokens):
        return [token if token.strip() else "␣" for token in tokens]
    return [_label(token) for token in tokens]


def _label(subword: str) -> str:
    if subword.startswith(SPACE):
        return subword.removeprefix(SPACE) or "␣"
    return f"-{subword}" if subword[:1].isalnum() else subword


def _entitle(axes: Axes, source: str, output: str) -> None:
    lines = (source, f"→ {output}")
    cut = [
        f"{line[: _TITLE_LETTERS - 1]}…" if len(line) > _TITLE_LETTERS else line for line in lines
    ]
    axes.set_title("\n".join(cut), parse_math=False, size=11, loc="left")
