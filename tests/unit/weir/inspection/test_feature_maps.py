import functools

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers import image_files
from tests.helpers.image_networks import SIDE, lenet5
from weir.bundle.contract import Preprocessing
from weir.bundle.external_data import ResolvedGraph
from weir.inspection.errors import InspectionError, InvalidPicture
from weir.inspection.feature_maps import feature_maps, find_blocks, read_picture

X = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
PICTURES = Preprocessing(
    input="image", height=8, width=8, channels=3, resize="stretch", output="probabilities"
)
CONV = "Conv<pads = [1, 1, 1, 1]>"


def graph(text: str) -> ResolvedGraph:
    """A graph in ONNX's text form with the weights a.w0 to a.w3, which keep 3 x 16 x 16, and two.

    In the text they are called w0 to w3.
    """
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[batch, 3, 16, 16] x) => (float y) {{{text}}}"""
    )
    for node in model.graph.node:
        node.input[:] = [
            f"a.{name}" if name in ("w0", "w1", "w2", "w3") else name for name in node.input
        ]
    random = np.random.default_rng(1)
    for number in range(4):
        weights = random.normal(size=(3, 3, 3, 3)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, f"a.w{number}"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2], np.float32), "two"))
    return ResolvedGraph(model.SerializeToString())


def blocks(model: ResolvedGraph) -> list[tuple[str, str]]:
    """The output and the layer of each block."""
    found = find_blocks(onnx.load_model_from_string(model.model).graph)
    return [(block.tensor, block.layer) for block in found]


def module_outputs(image: Tensor) -> dict[str, Tensor]:
    """The output of each module of LeNet-5, by torch itself."""
    network, whole, _ = lenet5()
    outputs: dict[str, Tensor] = {}

    def keep(module: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[module] = output

    handles = [
        module.register_forward_hook(functools.partial(keep, path))
        for path, module in network.named_modules()
    ]
    with torch.no_grad():
        whole(image)
    for handle in handles:
        handle.remove()
    return outputs


def test_feature_maps_are_what_torch_computes() -> None:
    image = torch.randint(0, 256, (1, SIDE, SIDE, 1), dtype=torch.uint8)
    outputs = module_outputs(image)

    found = feature_maps(ResolvedGraph(lenet5().model), {"image": image.numpy()})

    expected = [
        ("network.c1", functional.relu(outputs["c1"])),
        ("", outputs["s2"]),
        ("network.c3", functional.relu(outputs["c3"])),
        ("", outputs["s4"]),
    ]
    assert [each.block.layer for each in found] == [layer for layer, _ in expected]
    assert [each.block.operators[-1] for each in found] == ["Relu", "MaxPool"] * 2
    for each, (_, output) in zip(found, expected, strict=True):
        assert each.maps.dtype == np.float32 and each.maps.std() > 0
        np.testing.assert_allclose(each.maps, output[0].numpy(), rtol=1e-5, atol=1e-5)


def test_only_the_first_blocks_are_run_if_there_are_more() -> None:
    model = graph(f"a = {CONV}(x, w0) b = {CONV}(a, w1) y = {CONV}(b, w2)")

    found = feature_maps(model, {"x": X}, most_blocks=2)

    assert [each.block.tensor for each in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            f"a = {CONV}(x, w0) b = Sigmoid(a) c = Mul(a, b) y = {CONV}(c, w1)",
            [("c", "a.w0"), ("y", "a.w1")],
            id="activation of two nodes",
        ),
        pytest.param(
            f"a = {CONV}(x, w0) b = Mul(a, two) c = Relu(b) y = GlobalAveragePool(c)",
            [("c", "a.w0")],
            id="scale and activation",
        ),
        pytest.param(
            f"""a = {CONV}(x, w0) b = Relu(a) c = {CONV}(b, w1) d = Add(c, b) e = Relu(d)
            y = {CONV}(e, w2)""",
            [("b", "a.w0"), ("e", "a.w1"), ("y", "a.w2")],
            id="residual block",
        ),
        pytest.param(
            f"""a = {CONV}(x, w0) b = Relu(a) c = {CONV}(b, w1) d = {CONV}(b, w2)
            e = Concat<axis = 1>(c, d) y = MaxPool<kernel_shape = [2, 2]>(e)""",
            [("b", "a.w0"), ("e", "a"), ("y", "")],
            id="branches",
        ),
        pytest.param(
            f"""a = {CONV}(x, w0) b = Relu(a) c = MaxPool<kernel_shape = [1, 1]>(b)
            d = {CONV}(c, w1) e = Tanh(d) y = Concat<axis = 1>(x, e)""",
            [("b", "a.w0"), ("c", ""), ("e", "a.w1")],
            id="never narrow",
        ),
        pytest.param(
            f"""a = {CONV}(x, w0) sizes = Shape(x) b = Relu(a) c = {CONV}(b, w1)
            y = Reshape(c, sizes)""",
            [("b", "a.w0"), ("c", "a.w1")],
            id="sizes of the input",
        ),
        pytest.param(
            f"""a = {CONV}(x, w0) b = Pad(a, margin) y = {CONV}(b, w1)""",
            [("a", "a.w0"), ("y", "a.w1")],
            id="padding",
        ),
        pytest.param("y = Relu(x)", [], id="no convolution"),
    ],
)  # fmt: skip
def test_a_block_ends_where_the_network_narrows(text: str, expected: list[tuple[str, str]]) -> None:
    assert blocks(graph(text)) == expected


def test_a_tensor_that_a_branch_of_the_graph_uses_is_waited_for() -> None:
    model = graph(
        f"""a = {CONV}(x, w0) b = {CONV}(a, w1)
        y = If (is_high) <
            then_branch = t () => (float t1) {{ t1 = Neg(a) }},
            else_branch = e () => (float e1) {{ e1 = Neg(b) }}
        >"""
    )

    assert ("b", "a.w1") not in blocks(model)


def test_maps_of_a_graph_are_its_tensors() -> None:
    model = graph(f"a = {CONV}(x, w0) b = Relu(a) y = MaxPool<kernel_shape = [2, 2]>(b)")
    weights = numpy_helper.to_array(onnx.load_model_from_string(model.model).graph.initializer[0])
    convolved = functional.conv2d(torch.from_numpy(X), torch.from_numpy(weights.copy()), padding=1)
    expected = functional.max_pool2d(convolved.relu(), 2, stride=1)

    found = feature_maps(model, {"x": X})

    assert [each.block.tensor for each in found] == ["b", "y"]
    np.testing.assert_allclose(found[1].maps, expected[0].numpy(), rtol=1e-4, atol=1e-4)


def test_outputs_of_one_pixel_are_no_maps() -> None:
    model = graph(f"a = {CONV}(x, w0) y = MaxPool<kernel_shape = [16, 16]>(a)")

    assert [tensor for tensor, _ in blocks(model)] == ["a", "y"]
    assert [each.block.tensor for each in feature_maps(model, {"x": X})] == ["a"]


def test_a_graph_without_blocks_has_no_maps() -> None:
    assert list(feature_maps(graph("y = Relu(x)"), {"x": X})) == []


def test_a_graph_that_onnx_runtime_refuses_is_an_error() -> None:
    model = graph(f"a = {CONV}(x, w0) y = NoSuchOperator(a)")

    with pytest.raises(InspectionError, match="NoSuchOperator"):
        feature_maps(model, {"x": X})


def test_a_picture_becomes_the_pixels_that_the_server_makes() -> None:
    inputs = read_picture(image_files.PNG, PICTURES)

    assert list(inputs) == ["image"]
    assert inputs["image"].dtype == np.uint8
    np.testing.assert_array_equal(inputs["image"], image_files.PIXELS[np.newaxis])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "picture: expected JPEG or PNG, got no bytes"),
        (b"no picture", "picture: expected JPEG or PNG, got something else"),
        (image_files.PNG[:60], "picture: the PNG is damaged or cut short"),
    ],
    ids=["empty", "text", "cut short"],
)
def test_a_file_that_is_no_picture_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(InvalidPicture, match=f"^{message}$"):
        read_picture(data, PICTURES)
