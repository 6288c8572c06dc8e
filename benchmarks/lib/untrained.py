"""Bundles of every kind of network with random weights: they need neither data nor training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from weir.bundle.contract import Preprocessing, Series
from weir.bundle.sequences import PaddedAxis
from weir.export.publishing import Published, publish
from weir.export.runs.images import INPUT, ImageGraph, ImageOutputs
from weir.export.runs.text import (
    CHARACTERS,
    FRAMES,
    LENGTHS,
    LETTERS,
    TIME,
    TOKENS,
    ClassifierOutputs,
    FrameGraph,
    TaggerOutputs,
    WordGraph,
)
from weir.export.seq2seq.publishing import publish_pair
from weir.export.seq2seq.spec import PairSpec
from weir.export.spec import ExportSpec
from weir.training.models import build
from weir.training.models.decoder import DecoderCell
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.models.sequences import build_frame_network, build_text_network
from weir.training.models.series import build_forecaster

Precision = Literal["fp32", "fp16"]

SIDES = {"lenet5": 28, "alexnet": 224, "inception-v1": 32, "inception-v3": 299}
"""Image networks, and the side of their pictures."""
_LABELS = tuple(f"class{number}" for number in range(10))
_CLASSES = len(_LABELS)
_ROWS = 8
_STEPS = 20
_WORDS, _CHARACTERS, _LETTERS = 1000, 40, 8
_PHONES = 44


def publish_untrained(name: str, to: Path, precision: Precision = "fp32") -> Published:
    """Publish a network of `NAMES`; the weights are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _PUBLISHERS[name](name, to, precision)


def _publish_image(name: str, to: Path, precision: Precision) -> Published:
    side, channels = SIDES[name], 1 if name == "lenet5" else 3
    network = build(name, classes=_CLASSES, height=side, width=side, channels=channels)
    pictures = torch.randint(0, 256, (_ROWS, side, side, channels), dtype=torch.uint8)
    preprocessing = Preprocessing(
        input=INPUT,
        height=side,
        width=side,
        channels=1 if channels == 1 else 3,
        resize="stretch",
        output=ImageOutputs._fields[1],
    )
    spec = ExportSpec(
        task="image-classification",
        architecture=name,
        outputs=ImageOutputs._fields,
        labels=dict.fromkeys(ImageOutputs._fields, _LABELS),
        preprocessing=preprocessing,
    )
    graph = ImageGraph(network, [0.5] * channels, [0.25] * channels)
    return publish(graph, {INPUT: pictures}, spec, to=to, name=name, precision=precision)


def _lengths() -> Tensor:
    lengths = torch.randint(1, _STEPS + 1, (_ROWS,))
    lengths[0] = _STEPS
    return lengths


def _publish_rows(
    name: str,
    to: Path,
    precision: Precision,
    *,
    module: nn.Module,
    rows: Mapping[str, Tensor],
    outputs: tuple[str, ...],
) -> Published:
    """Publish a network over rows of unequal length."""
    axes = {each: {0: "batch", 1: TIME} for each in rows if each != LENGTHS}
    if CHARACTERS in rows:
        axes[CHARACTERS] |= {2: LETTERS}
    padding = dict.fromkeys(axes, 0)
    padded = {TIME: PaddedAxis(maximum=512, lengths=LENGTHS, padding=padding)}
    if CHARACTERS in rows:
        padded[LETTERS] = PaddedAxis(maximum=_LETTERS, padding={CHARACTERS: 0})
    spec = ExportSpec(
        architecture=name,
        outputs=outputs,
        axes={**axes, LENGTHS: {0: "batch"}},
        padded_axes=padded,
    )
    return publish(module, rows, spec, to=to, name=name, precision=precision)


def _publish_words(name: str, to: Path, precision: Precision) -> Published:
    """Classifiers and taggers of words: an LSTM with letters, a GRU, and a TDNN."""
    is_tagging = name != "question"
    network = build_text_network(
        {"question": "lstm", "tagger": "lstm", "stress": "gru", "tdnn": "tdnn"}[name],  # type: ignore[arg-type]
        words=_WORDS,
        classes=_CLASSES,
        letters={"characters": _CHARACTERS} if name == "tagger" else None,
        pool=None if is_tagging else "last",
        bidirectional=name != "tdnn",
        layers=2,
    )
    rows = {TOKENS: torch.randint(1, _WORDS, (_ROWS, _STEPS)), LENGTHS: _lengths()}
    if name == "tagger":
        rows[CHARACTERS] = torch.randint(1, _CHARACTERS, (_ROWS, _STEPS, _LETTERS))
    outputs = TaggerOutputs._fields if is_tagging else ClassifierOutputs._fields
    graph = WordGraph(network, is_tagging=is_tagging)
    return _publish_rows(name, to, precision, module=graph, rows=rows, outputs=outputs)


def _publish_frames(name: str, to: Path, precision: Precision) -> Published:
    """A classifier of frames with simple recurrent cells."""
    network = build_frame_network(
        "rnn", features=28, mean=30.0, std=70.0, classes=_CLASSES, bidirectional=True
    )
    frames = torch.randint(0, 256, (_ROWS, _STEPS, 28), dtype=torch.uint8)
    rows = {FRAMES: frames, LENGTHS: _lengths()}
    return _publish_rows(
        name,
        to,
        precision,
        module=FrameGraph(network),
        rows=rows,
        outputs=ClassifierOutputs._fields,
    )


def _publish_series(name: str, to: Path, precision: Precision) -> Published:
    lags, horizon = 24, 6
    network = build_forecaster(
        "narx" if name == "narx" else "lstm",
        mean=[0.0, 1.0],
        std=[1.0, 2.0],
        lags=lags,
        horizon=horizon,
    )
    spec = ExportSpec(
        task="forecasting",
        architecture=name,
        outputs=["forecast"],
        series=Series(target="y", exogenous=["u"], lags=lags, horizon=horizon),
    )
    history = {"history": torch.randn(_ROWS, lags, 2)}
    return publish(network, history, spec, to=to, name=name, precision=precision)


def _publish_words_to_phones(name: str, to: Path, _precision: Precision) -> Published:
    """An encoder-decoder with attention; its weights are scaled so that its answers differ."""
    cell: DecoderCell = "lstm" if name == "pronounce-lstm" else "gru"
    network = EncoderDecoder(
        source_words=_CHARACTERS, target_words=_PHONES, cell=cell, word_size=64, hidden=96
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(2.0)
    sources = {TOKENS: torch.randint(4, _CHARACTERS, (24, 12)), LENGTHS: torch.arange(24) % 12 + 1}
    spec = PairSpec(architecture=name, maximum_source_steps=32, maximum_steps=20)
    return publish_pair(network, sources, spec, to=to, name=name)


_PUBLISHERS: Mapping[str, Callable[[str, Path, Precision], Published]] = {
    **dict.fromkeys(SIDES, _publish_image),
    **dict.fromkeys(("question", "tagger", "stress", "tdnn"), _publish_words),
    "row-digits": _publish_frames,
    **dict.fromkeys(("narx", "series-lstm"), _publish_series),
    **dict.fromkeys(("pronounce", "pronounce-lstm"), _publish_words_to_phones),
}

NAMES = tuple(_PUBLISHERS)
PAIRS = ("pronounce", "pronounce-lstm")
"""The encoder-decoders, which have no FP16."""
