"""Whole sequence networks as graphs: names, axes, operators, and no trace of padding."""

import functools
from collections import Counter
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.export.graph import OPSET, convert
from weir.export.spec import ExportSpec
from weir.training.models.sequences import (
    EncoderKind,
    Pool,
    build_frame_network,
    build_text_network,
)

TOLERANCE = 1e-6
AXES = {
    "tokens": {0: "batch", 1: "time"},
    "frames": {0: "batch", 1: "time"},
    "lengths": {0: "batch"},
    "characters": {0: "batch", 1: "time", 2: "letters"},
}
SPEC = ExportSpec(architecture="sequences", outputs=["logits"], axes=AXES)
OPERATORS = {"rnn": ["RNN"], "gru": ["GRU"], "lstm": ["LSTM"], "tdnn": []}

WITH_LETTERS = ("tokens", "lengths", "characters")

every_kind = pytest.mark.parametrize("kind", get_args(EncoderKind), ids=str)
every_pool = pytest.mark.parametrize("pool", get_args(Pool), ids=str)


def batch(names: tuple[str, ...], lengths: list[int], steps: int) -> dict[str, Tensor]:
    """Random inputs, beyond the lengths too."""
    generator = torch.Generator().manual_seed(len(lengths))
    shape = (len(lengths), steps)
    known = {
        "tokens": torch.randint(1, 20, shape, generator=generator),
        "frames": torch.randint(0, 256, (*shape, 8), generator=generator).to(torch.uint8),
        "lengths": torch.tensor(lengths),
        "characters": torch.randint(0, 10, (*shape, 6), generator=generator),
    }
    return {name: known[name] for name in names}


@functools.cache
def tagger(kind: EncoderKind) -> tuple[nn.Module, bytes]:
    """A network and its graph."""
    torch.manual_seed(0)
    network = build_text_network(
        kind,
        pool=None,
        words=20,
        classes=4,
        hidden=8,
        layers=2,
        bidirectional=True,
        letters={"characters": 10},
    ).eval()
    return network, convert(network, batch(WITH_LETTERS, [7, 5, 2], 7), SPEC)


def run(model: bytes, inputs: dict[str, Tensor]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    assert isinstance(logits, np.ndarray)
    return logits


def check(network: nn.Module, model: bytes, names: tuple[str, ...], *, by_step: bool) -> None:
    """Hold batches against PyTorch, and each row in a batch against itself without padding."""
    for lengths, steps in (([1], 1), ([4], 4), ([3, 9, 1, 6], 12)):
        inputs = batch(names, lengths, steps)
        logits = run(model, inputs)
        with torch.inference_mode():
            expected = network(**inputs).numpy()
        np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)
        for row, length in enumerate(lengths):
            one = {name: value[row : row + 1] for name, value in inputs.items()}
            cut = {name: one[name] if name == "lengths" else one[name][:, :length] for name in one}
            ours = logits[row, :length] if by_step else logits[row]
            np.testing.assert_allclose(ours, run(model, cut)[0], atol=TOLERANCE, rtol=0)


def axes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(("kind", "pool"), [("gru", "mean"), ("tdnn", "last")], ids=str)
def test_text_classifier_is_the_same_graph(kind: EncoderKind, pool: Pool) -> None:
    torch.manual_seed(0)
    network = build_text_network(kind, words=20, classes=4, hidden=8, pool=pool).eval()

    names = ("tokens", "lengths")

    model = convert(network, batch(names, [7, 5, 2], 7), SPEC)

    check(network, model, names, by_step=False)
    graph = onnx.load_model_from_string(model).graph
    assert {value.name: axes(value) for value in graph.input} == {
        "tokens": ["batch", "time"],
        "lengths": ["batch"],
    }
    assert axes(graph.output[0]) == ["batch", 4]


@every_kind
@every_pool
def test_frame_classifier_is_the_same_graph(kind: EncoderKind, pool: Pool) -> None:
    torch.manual_seed(0)
    network = build_frame_network(
        kind, features=8, mean=0.1, std=0.3, classes=4, hidden=8, pool=pool
    ).eval()

    names = ("frames", "lengths")

    model = convert(network, batch(names, [7, 5, 2], 7), SPEC)

    check(network, model, names, by_step=False)
    graph = onnx.load_model_from_string(model).graph
    assert {value.name: axes(value) for value in graph.input} == {
        "frames": ["batch", "time", 8],
        "lengths": ["batch"],
    }
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


@every_kind
def test_tagger_is_the_same_graph(kind: EncoderKind) -> None:
    network, written = tagger(kind)

    check(network, written, WITH_LETTERS, by_step=True)
    model = onnx.load_model_from_string(written)
    assert {value.name: axes(value) for value in model.graph.input} == {
        "tokens": ["batch", "time"],
        "lengths": ["batch"],
        "characters": ["batch", "time", "letters"],
    }
    assert axes(model.graph.output[0]) == ["batch", "time", 4]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]


@every_kind
def test_layers_are_counted_in_the_graph(kind: EncoderKind) -> None:
    _, model = tagger(kind)

    graph = onnx.load_model_from_string(model).graph
    counts = Counter(node.op_type for node in graph.node)
    weights = {tensor.name for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in ("RNN", "GRU", "LSTM")]
    casts = [node for node in graph.node if node.op_type == "Cast" and "lengths" in node.input]
    assert [node.op_type for node in nodes] == 2 * OPERATORS[kind]
    # The convolution over letters is written as sums of tables.
    assert counts["Conv"] == (2 if kind == "tdnn" else 0)
    assert not counts["Loop"] + counts["Scan"] + counts["If"]
    for node in nodes:
        assert set(node.input[1:4]) <= weights
        assert [node.input[4]] == [cast.output[0] for cast in casts]


def test_more_letters_of_padding_change_nothing() -> None:
    inputs = batch(WITH_LETTERS, [7, 5, 2], 7)
    _, model = tagger("lstm")
    wider = nn.functional.pad(inputs["characters"], (0, 5))

    logits = run(model, {**inputs, "characters": wider})

    np.testing.assert_allclose(logits, run(model, inputs), atol=TOLERANCE, rtol=0)
