from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from bundle.contract import Tolerance
from export.errors import ExportError, ParityError
from export.parity import compare, measure, run_network
from export.publishing import publish
from export.samples import batches
from export.spec import ExportSpec

STRICT = Tolerance(absolute=1e-5, relative=1e-5)


def normal(low: float, high: float) -> st.SearchStrategy[float]:
    # Something in the same process may have told the processor to flush subnormal numbers to zero.
    return st.floats(low, high, allow_subnormal=False)


def perturbed(model: bytes, name: str, change: float) -> bytes:
    """The same graph with one weight of one initialiser moved."""
    proto = onnx.load_model_from_string(model)
    for tensor in proto.graph.initializer:
        if name in tensor.name:
            values = numpy_helper.to_array(tensor).copy()
            values.flat[0] += change
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return proto.SerializeToString()


def test_gate_is_open_for_the_same_network(
    network: nn.Module, examples: dict[str, Tensor], spec: ExportSpec, model: bytes
) -> None:
    parity = measure(network, model, batches(examples, spec), spec)

    assert parity.max_absolute < 1e-5
    assert parity.rows == 92
    assert parity.batch_sizes == [1, 2, 3, 8, 32]


@pytest.mark.parametrize("change", [1e-3, 1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_gate_closes_on_a_planted_fault(
    *,
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    model: bytes,
    name: str,
    change: float,
) -> None:
    faulty = perturbed(model, name, change)

    with pytest.raises(ParityError, match="output logits: PyTorch and ONNX Runtime differ by"):
        measure(network, faulty, batches(examples, spec), spec)


def test_gate_compares_with_the_tolerance_given(
    network: nn.Module, examples: dict[str, Tensor], model: bytes
) -> None:
    spec = ExportSpec(
        architecture="linear", outputs=["logits"], tolerance=Tolerance(absolute=0.1, relative=0)
    )

    parity = measure(network, perturbed(model, "bias", 0.05), batches(examples, spec), spec)

    assert parity.max_absolute == pytest.approx(0.05, rel=1e-3)


def test_gate_closes_on_another_type(
    network: nn.Module, examples: dict[str, Tensor], spec: ExportSpec, model: bytes
) -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return network(x).double()  # type: ignore[no-any-return]

    with pytest.raises(ParityError, match="PyTorch gives float64"):
        measure(Double(), model, batches(examples, spec), spec)


def test_network_that_returns_something_else(
    network: nn.Module, examples: dict[str, Tensor]
) -> None:
    with pytest.raises(ExportError, match=r"forward: expected tensors for \['a', 'b'\]"):
        run_network(network, examples, ExportSpec(architecture="any", outputs=["a", "b"]))


@given(st.lists(st.tuples(normal(-1e3, 1e3), normal(-1e-4, 1e-4)), min_size=1))
def test_agrees_with_numpy(pairs: list[tuple[float, float]]) -> None:
    expected, gaps = np.array(pairs).T
    actual = expected + gaps

    is_close = bool(np.allclose(actual, expected, rtol=1e-5, atol=1e-5))

    assert (compare(actual, expected, STRICT).excess <= 0.0) == is_close


def test_largest_differences_are_reported() -> None:
    difference = compare(np.array([1.0, 10.5, 0.0]), np.array([1.1, 10.0, 1e-9]), STRICT)

    assert difference.absolute == pytest.approx(0.5)
    assert difference.relative == pytest.approx(0.1 / 1.1)


def test_masked_logits_agree() -> None:
    masked = np.array([-np.inf, 1.0], np.float32)

    assert compare(masked, masked, STRICT).excess == 0.0


@pytest.mark.parametrize(
    ("actual", "expected"),
    [([np.nan], [1.0]), ([1.0], [np.nan]), ([np.nan], [np.nan]), ([np.inf], [-np.inf])],
    ids=["in-graph", "in-network", "in-both", "opposite-infinities"],
)
def test_what_is_no_number_never_passes(actual: list[float], expected: list[float]) -> None:
    difference = compare(np.array(actual), np.array(expected), STRICT)

    assert not difference.excess <= 0.0


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.uint8])
def test_integers_must_be_equal(dtype: type[np.generic]) -> None:
    loose = Tolerance(absolute=10, relative=10)
    zero, one = np.zeros(2, dtype), np.ones(2, dtype)

    assert compare(one, one, loose).excess <= 0.0
    assert compare(zero, one, loose).excess > 0.0


def test_empty_outputs_agree() -> None:
    assert compare(np.zeros((0, 3)), np.zeros((0, 3)), STRICT).excess <= 0.0


def test_network_sees_no_gradients(network: nn.Module, spec: ExportSpec) -> None:
    x = torch.ones(1, 4, requires_grad=True)

    assert run_network(network, {"x": x}, spec)["logits"].shape == (1, 3)


class Mixing(nn.Module):
    """Each row's result depends on the others: such a network must not be batched."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)  # (B, 3)


def test_rows_that_depend_on_each_other_are_not_published_as_a_batch(tmp_path: Path) -> None:
    spec = ExportSpec(architecture="mixing", outputs=["y"])

    with pytest.raises(ParityError, match="row 0 of a batch is not what it is alone"):
        publish(Mixing(), {"x": torch.randn(8, 3)}, spec, to=tmp_path, name="mixing")

    assert list(tmp_path.rglob("model.json")) == []


def test_such_a_network_is_published_without_a_batch_axis(tmp_path: Path) -> None:
    spec = ExportSpec(architecture="mixing", outputs=["y"], batch_axis=None)

    published = publish(Mixing(), {"x": torch.randn(8, 3)}, spec, to=tmp_path, name="mixing")

    assert (published.path / "model.json").is_file()
