"""The recurrent stack as a graph: one operator a layer, and the numbers of packed PyTorch."""

import copy
import functools
from collections import Counter
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from weir.export.graph import OPSET, convert
from weir.export.spec import ExportSpec
from weir.training.models.recurrent import ONNX_OPERATORS, Cell, Recurrent

SPEC = ExportSpec(
    architecture="recurrent",
    outputs=["states", "last"],
    axes={"sequence": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
)
TOLERANCE = 1e-6
"""Sums of at most 22 float32 products of size 1, in another order."""

every_cell = pytest.mark.parametrize("cell", get_args(Cell), ids=str)
every_direction = pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
every_depth = pytest.mark.parametrize("layers", [1, 2], ids=["1 layer", "2 layers"])


def batch(lengths: list[int], steps: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(lengths))
    sequence = torch.randn(len(lengths), steps, 5, generator=generator)
    return {"sequence": sequence, "lengths": torch.tensor(lengths)}


def exported(network: Recurrent) -> bytes:
    return convert(network, batch([7, 5, 2], 7), SPEC)


@functools.cache
def made(cell: Cell, layers: int, *, bidirectional: bool) -> tuple[Recurrent, bytes]:
    """A network and its graph."""
    torch.manual_seed(0)
    network = Recurrent(cell, 5, 11, layers=layers, bidirectional=bidirectional).eval()
    return network, exported(network)


def run(model: bytes, inputs: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    states, last = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return states, last


@every_cell
@every_direction
@every_depth
def test_graph_agrees_with_packed_torch(cell: Cell, layers: int, *, bidirectional: bool) -> None:
    network, model = made(cell, layers, bidirectional=bidirectional)

    for lengths, steps in (([1], 1), ([3, 9, 1, 6, 9], 9), ([40, 2], 43)):
        inputs = batch(lengths, steps)
        states, last = run(model, inputs)
        with torch.inference_mode():
            expected = network(**inputs)
        np.testing.assert_allclose(states, expected.states.numpy(), atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(last, expected.last.numpy(), atol=TOLERANCE, rtol=0)
        for row, length in enumerate(lengths):
            assert not states[row, length:].any()


@every_cell
@every_direction
@every_depth
def test_padding_changes_nothing_in_the_graph(
    cell: Cell, layers: int, *, bidirectional: bool
) -> None:
    _, model = made(cell, layers, bidirectional=bidirectional)
    lengths = [3, 9, 1, 6]
    inputs = batch(lengths, 12)

    states, last = run(model, inputs)

    for row, length in enumerate(lengths):
        one = {
            "sequence": inputs["sequence"][row : row + 1, :length],
            "lengths": inputs["lengths"][row : row + 1],
        }
        states_alone, last_alone = run(model, one)
        np.testing.assert_allclose(states[row, :length], states_alone[0], atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(last[row], last_alone[0], atol=TOLERANCE, rtol=0)


@every_cell
@every_direction
def test_each_layer_is_one_operator_with_its_weights(cell: Cell, *, bidirectional: bool) -> None:
    network, written = made(cell, 2, bidirectional=bidirectional)

    model = onnx.load_model_from_string(written)

    nodes = [node for node in model.graph.node if node.op_type == ONNX_OPERATORS[cell]]
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    directions, gates = 1 + bidirectional, {"rnn": 1, "gru": 3, "lstm": 4}[cell]
    casts = [node.output[0] for node in model.graph.node if node.op_type == "Cast"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    for node, inputs in zip(nodes, (5, 11 * directions), strict=True):
        assert weights[node.input[1]] == [directions, gates * 11, inputs]
        assert weights[node.input[2]] == [directions, gates * 11, 11]
        assert weights[node.input[3]] == [directions, 2 * gates * 11]
        assert [node.input[4]] == casts  # the lengths as int32, made once
    allowed = {"Transpose", "Cast", "Squeeze", "Shape", "Concat", "Reshape", nodes[0].op_type}
    assert set(Counter(node.op_type for node in model.graph.node)) <= allowed
    assert sum(np.prod(dims) for dims in weights.values()) < 1.01 * sum(
        weight.numel() for weight in network.parameters()
    )


def test_last_comes_from_the_operator() -> None:
    graph = onnx.load_model_from_string(made("lstm", 1, bidirectional=False)[1]).graph
    (node,) = [node for node in graph.node if node.op_type == "LSTM"]
    makers = {output: node for node in graph.node for output in node.output}

    name = "last"
    while makers[name] is not node:
        name = makers[name].input[0]

    assert name == node.output[1]


def test_graph_has_the_weights_of_now() -> None:
    network = copy.deepcopy(made("gru", 1, bidirectional=False)[0])
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1)
    inputs = batch([4, 2], 4)

    states, _ = run(exported(network), inputs)

    expected = network(**inputs).states.detach().numpy()
    np.testing.assert_allclose(states, expected, atol=TOLERANCE, rtol=0)


def test_same_network_gives_the_same_bytes() -> None:
    network, model = made("lstm", 2, bidirectional=True)

    assert exported(network) == model
