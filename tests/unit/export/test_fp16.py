from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from weir.bundle.golden import Golden
from weir.bundle.reader import read
from weir.export import fp16
from weir.export.errors import ExportError, ParityError
from weir.export.graph import convert
from weir.export.publishing import publish
from weir.export.runs.images import ImageGraph, ImageOutputs
from weir.export.runtime import open_session
from weir.export.spec import ExportSpec

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
IMAGES = ExportSpec(architecture="small", outputs=ImageOutputs._fields)


class Small(nn.Module):
    """Parallel convolutions as in Inception, and squares as in response normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 4, 3, padding=1)
        self.right = nn.Conv2d(3, 4, 1)
        self.normalise = nn.LocalResponseNorm(3)
        self.pool = nn.AvgPool2d(3, stride=2)
        self.fc = nn.Linear(8, 5)

    def forward(self, image: Tensor) -> Tensor:
        both = torch.cat([self.left(image).relu(), self.right(image).relu()], dim=1)
        pooled = self.pool(self.normalise(both)).mean(dim=(2, 3))
        logits: Tensor = self.fc(pooled)
        return logits


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return ImageGraph(Small(), [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]).eval()


@pytest.fixture(scope="module")
def images() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = (6, 8, 8, 3)
    return {"image": torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)}


@pytest.fixture(scope="module")
def exact(network: nn.Module, images: dict[str, Tensor]) -> bytes:
    return convert(network, images, IMAGES)


def kinds(model: bytes) -> dict[str, int]:
    """Element types by name, as a checker infers them."""
    proto = onnx.load_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {weight.name: weight.data_type for weight in graph.initializer}


def test_inputs_and_outputs_keep_their_types(exact: bytes) -> None:
    graph = onnx.load_from_string(fp16.convert(exact)).graph

    described = [
        (value.name, value.type.tensor_type.elem_type) for value in [*graph.input, *graph.output]
    ]
    assert described == [
        ("image", TensorProto.UINT8),
        ("logits", FLOAT),
        ("probabilities", FLOAT),
    ]


def test_work_is_in_half_and_what_is_delicate_is_not(exact: bytes) -> None:
    model = fp16.convert(exact)

    types = kinds(model)
    used: dict[str, set[int]] = {}
    for node in onnx.load_from_string(model).graph.node:
        used.setdefault(node.op_type, set()).update(
            types[name] for name in node.input if types.get(name) in (FLOAT, HALF)
        )
    for work in ("Conv", "Relu", "Concat", "Gemm"):
        assert used[work] == {HALF}
    for delicate in ("Softmax", "Pow", "Div", "Sub"):
        assert used[delicate] == {FLOAT}


def test_weights_take_half_the_place(network: nn.Module, exact: bytes) -> None:
    model = fp16.convert(exact)

    bytes_saved = 2 * sum(weight.numel() for weight in network.parameters())
    weights = onnx.load_from_string(model).graph.initializer
    before = onnx.load_from_string(exact).graph.initializer
    sizes = [
        sum(numpy_helper.to_array(weight).nbytes for weight in each) for each in (before, weights)
    ]
    assert sizes[0] - sizes[1] == bytes_saved


def test_simulation_rounds_as_numpy_does() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).eval()
    spec = ExportSpec(architecture="linear", outputs=["logits"])
    x = torch.randn(5, 4)
    simulated = fp16.simulate(fp16.convert(convert(layer, {"input": x}, spec)))

    (logits,) = open_session(simulated).run(["logits"], {"input": x.numpy()})

    def rounded(tensor: Tensor) -> np.ndarray:
        return tensor.detach().numpy().astype(np.float16).astype(np.float32)

    expected = (rounded(x) @ rounded(layer.weight).T + rounded(layer.bias)).astype(np.float16)
    np.testing.assert_allclose(logits, expected.astype(np.float32), rtol=1e-3)
    assert np.array_equal(logits, logits.astype(np.float16))


def test_half_is_close_to_pytorch(
    network: nn.Module, images: dict[str, Tensor], tmp_path: Path
) -> None:
    published = publish(network, images, IMAGES, to=tmp_path, name="small", precision="fp16")

    contract = read(published.path).contract
    assert (contract.precision, contract.providers) == ("fp16", ["cuda"])
    golden = read(published.path).golden()
    assert golden is not None
    assert contract.tolerance == fp16.tolerance(golden)
    assert contract.parity == published.parity
    # Rounding shows: the CPU's own FP32 would be within 1e-6.
    assert 1e-5 < published.parity.max_absolute < 1e-2


def test_tolerance_grows_with_the_outputs() -> None:
    large = Golden(
        {}, {"logits": np.array([[-40.0, 2.0]]), "probabilities": np.array([[0.0, 1.0]])}
    )
    small = Golden({}, {"logits": np.array([[0.25]])})

    assert fp16.tolerance(large).absolute == pytest.approx(0.2)
    assert fp16.tolerance(small).absolute == pytest.approx(0.005)


def test_values_beyond_the_range_close_the_gate(tmp_path: Path) -> None:
    class Overflowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(2, 2), nn.Linear(2, 2)
            nn.init.constant_(self.up.weight, 5e4)
            nn.init.constant_(self.down.weight, 1e-5)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.down(self.up(x))
            return y

    spec = ExportSpec(architecture="any", outputs=["y"])

    with pytest.raises(ParityError, match="output y: PyTorch and ONNX Runtime differ by inf"):
        publish(
            Overflowing(), {"x": torch.ones(3, 2)}, spec, to=tmp_path, name="m", precision="fp16"
        )

    assert list(tmp_path.iterdir()) == []


def test_weight_beyond_the_range_is_named() -> None:
    layer = nn.Linear(2, 2).eval()
    nn.init.constant_(layer.bias, 1e6)
    spec = ExportSpec(architecture="linear", outputs=["y"])
    model = convert(layer, {"input": torch.ones(3, 2)}, spec)

    with pytest.raises(ExportError, match=r"fp16: bias: a weight of 1e\+06 is beyond its range"):
        fp16.convert(model)


def test_graph_inside_a_node_is_refused() -> None:
    value = helper.make_tensor_value_info("y", FLOAT, [1])
    constant = helper.make_node("Constant", [], ["y"], value_floats=[1.0])
    branch = helper.make_graph([constant], "branch", [], [value])
    choice = helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [choice], "g", [helper.make_tensor_value_info("c", TensorProto.BOOL, [])], [value]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    with pytest.raises(ExportError, match="fp16: node choice: expected no subgraph"):
        fp16.convert(model.SerializeToString())
