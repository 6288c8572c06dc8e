from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests.helpers.image_networks import lenet5
from weir.bundle import external_data
from weir.bundle.external_data import ResolvedGraph
from weir.export import fp16, static_quantisation
from weir.inspection.kernels import first_convolution

Array = NDArray[Any]


def graph(text: str, **constants: Array) -> ResolvedGraph:
    """A graph in ONNX's text form, whose weights `w` are among the constants."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 21]> g (float[1, 2, 8, 8] x) => (float y) {{{text}}}'
    )
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    return ResolvedGraph(model.SerializeToString())


WEIGHTS = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
CENTRED = np.random.default_rng(1).integers(-127, 128, (4, 2, 3, 3)).astype(np.int8)


def test_kernels_of_an_exported_network_are_its_weights() -> None:
    network, _, model = lenet5()

    kernels = first_convolution(ResolvedGraph(model))

    assert kernels is not None
    assert kernels.layer == "network.c1"
    assert kernels.weights.dtype == np.float32
    expected = network.get_parameter("c1.weight").detach().numpy()
    np.testing.assert_array_equal(kernels.weights, expected)


def test_kernels_of_fp16_are_the_weights_rounded() -> None:
    network, _, model = lenet5()

    kernels = first_convolution(ResolvedGraph(fp16.convert(model)))

    assert kernels is not None
    expected = network.get_parameter("c1.weight").detach().numpy()
    np.testing.assert_array_equal(kernels.weights, expected.astype(np.float16))


def test_kernels_of_int8_are_within_half_a_step_of_the_weights() -> None:
    network, _, model = lenet5()
    images = np.random.default_rng(3).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    prepared = static_quantisation.preprocess(model)
    int8 = static_quantisation.quantise(prepared, iter([{"image": images}]))

    kernels = first_convolution(ResolvedGraph(int8))

    assert kernels is not None
    expected = network.get_parameter("c1.weight").detach().numpy()
    # 7 bits for each kernel: 63 steps on each side of zero.
    half_steps = np.abs(expected).max(axis=(1, 2, 3), keepdims=True) / 63 / 2
    assert (np.abs(kernels.weights - expected) <= half_steps * 1.01).all()
    assert (kernels.weights != expected).any()


@pytest.mark.parametrize(
    "text",
    [
        "y = Conv(x, w)",
        "same = Identity(w) y = Conv(x, same)",
        "float = Cast<to = 1>(w) y = Conv(x, float)",
        "again = Identity(w) same = Identity(again) y = Conv(x, same)",
    ],
    ids=["initializer", "identity", "cast", "two nodes"],
)
def test_kernels_are_found_behind_simple_nodes(text: str) -> None:
    kernels = first_convolution(graph(text, w=WEIGHTS))

    assert kernels is not None
    assert kernels.layer == "w"
    np.testing.assert_array_equal(kernels.weights, WEIGHTS)


def test_kernels_in_a_constant_are_found() -> None:
    node = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHTS))
    found = graph("y = Conv(x, w)")
    model = onnx.load_model_from_string(found.model)
    model.graph.node.insert(0, node)

    kernels = first_convolution(ResolvedGraph(model.SerializeToString()))

    assert kernels is not None
    np.testing.assert_array_equal(kernels.weights, WEIGHTS)


@pytest.mark.parametrize(
    ("scale", "zero", "axis"),
    [
        (np.float32(0.5), np.int8(3), 1),
        (np.array([0.5, 1, 2, 4], np.float32), np.array([1, -2, 3, 0], np.int8), 0),
        (np.array([0.5, 2], np.float32), np.array([1, -2], np.int8), 1),
    ],
    ids=["tensor", "kernel", "input"],
)
def test_quantised_kernels_are_what_the_reference_makes_of_them(
    scale: Array, zero: Array, axis: int
) -> None:
    text = f"w = DequantizeLinear<axis = {axis}>(q, scale, zero) y = Conv(x, w)"
    constants = {"q": CENTRED, "scale": np.asarray(scale), "zero": np.asarray(zero)}

    kernels = first_convolution(graph(text, **constants))

    assert kernels is not None
    assert kernels.layer == "q"
    reference = onnx.reference.ReferenceEvaluator(
        onnx.parser.parse_model(
            f"""<ir_version: 10, opset_import: ["" : 21]>
            g (int8[4, 2, 3, 3] q, float[N] scale, int8[N] zero) => (float[4, 2, 3, 3] w)
            {{ w = DequantizeLinear<axis = {axis}>(q, scale, zero) }}"""
        )
    )
    (expected,) = reference.run(None, constants)
    np.testing.assert_array_equal(kernels.weights, expected)


def test_kernels_in_external_data_are_read() -> None:
    weights = np.random.default_rng(2).normal(size=(64, 2, 4, 4)).astype(np.float32)
    model = onnx.load_model_from_string(graph("y = Conv(x, w)", w=weights).model)
    (tensor,) = model.graph.initializer
    stored = tensor.raw_data
    onnx.external_data_helper.set_external_data(tensor, "data")
    tensor.ClearField("raw_data")
    resolved = external_data.resolve(model.SerializeToString(), {"data": stored}.__getitem__)
    assert resolved.external

    kernels = first_convolution(resolved)

    assert kernels is not None
    np.testing.assert_array_equal(kernels.weights, weights)


def test_a_convolution_over_one_axis_has_kernels_of_height_one() -> None:
    weights = WEIGHTS[:, :, 0]

    kernels = first_convolution(graph("y = Conv(x, w)", w=weights))

    assert kernels is not None
    np.testing.assert_array_equal(kernels.weights, weights[:, :, np.newaxis])


def test_the_first_convolution_with_stored_weights_counts() -> None:
    found = graph("made = Add(x, x) h = Conv(x, made) y = Conv(h, w)", w=WEIGHTS)

    kernels = first_convolution(found)

    assert kernels is not None
    assert kernels.layer == "w"


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        ("y = MatMul(x, w)", {"w": np.zeros((8, 4), np.float32)}),
        ("y = Conv(x, x)", {}),
        ("y = Conv(x, w)", {"w": np.zeros((4, 2, 3, 3, 3), np.float32)}),
    ],
    ids=["dense", "computed", "three axes"],
)
def test_without_such_a_convolution_there_are_no_kernels(
    text: str, constants: dict[str, Array]
) -> None:
    assert first_convolution(graph(text, **constants)) is None
