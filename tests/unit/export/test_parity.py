from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from tests.helpers.sequence_networks import (
    Forgetful,
    Mean,
    Recurrent,
    Scores,
    Tagger,
    Tags,
    class_spec,
    mask_of,
    recurrent_spec,
    tag_spec,
)
from tests.helpers.sequence_networks import examples as sequences
from weir.bundle.contract import Tolerance
from weir.bundle.reader import read
from weir.export.errors import ExportError, ParityError
from weir.export.parity import measure, run_network
from weir.export.publishing import publish
from weir.export.samples import batches
from weir.export.spec import ExportSpec


def perturbed(model: bytes, name: str, change: float) -> bytes:
    """The same graph with one weight of one initializer moved."""
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


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layer_is_one_node_and_blind_to_padding(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Recurrent(kind).eval()

    published = publish(network, sequences(), recurrent_spec(), to=tmp_path, name="tagger")

    graph = onnx.load_model_from_string(read(published.path).model).graph
    assert [node.op_type for node in graph.node if node.op_type == kind] == [kind]
    assert published.parity.max_absolute < 1e-6
    assert published.parity.rows == 95


def test_what_stands_beyond_a_row_is_not_compared(tmp_path: Path) -> None:
    """Not with PyTorch either: here the graph writes something else there than the network."""

    class Blank(nn.Module):
        def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
            mask = mask_of(lengths, tokens.shape[1]).squeeze(-1)
            beyond = 7.0 if torch.onnx.is_in_onnx_export() else float("nan")
            return torch.where(mask > 0, tokens.to(torch.float32), beyond)

    spec = recurrent_spec(outputs=["y"], labels={})

    published = publish(Blank(), sequences(), spec, to=tmp_path, name="blank")

    assert published.parity.max_absolute == 0.0


def test_network_that_reads_padding_is_not_published(tmp_path: Path) -> None:
    torch.manual_seed(0)

    with pytest.raises(
        ParityError,
        match=r"output logits: row \d of a batch \(time \d+ padded to \d+\) is not what it is "
        r"alone, "
        "so rows of unequal length may not share a batch",
    ):
        publish(Forgetful().eval(), sequences(), class_spec(), to=tmp_path, name="forgetful")

    assert list(tmp_path.iterdir()) == []


def test_letters_are_padded_too(tmp_path: Path) -> None:
    class Counting(Tagger):
        """Takes a word's width in the batch for a feature."""

        def forward(self, tokens: Tensor, characters: Tensor, lengths: Tensor) -> Tags:
            tags = super().forward(tokens, characters, lengths)
            return Tags(tags.logits + characters.shape[2], tags.tag_ids)

    torch.manual_seed(0)
    given = sequences(has_letters=True)
    assert publish(Tagger().eval(), given, tag_spec(), to=tmp_path, name="tagger").version == 1

    with pytest.raises(
        ParityError, match=r"time \d+ padded to \d+, letters \d padded to \d\) is not"
    ):
        publish(Counting().eval(), given, tag_spec(), to=tmp_path, name="counting")


def test_graph_that_knows_the_examples_length_is_not_published(tmp_path: Path) -> None:
    """As unrolled loops do: all is well for rows of up to the traced length."""

    class Unrolled(Mean):
        def forward(self, tokens: Tensor, lengths: Tensor) -> Scores:
            if torch.onnx.is_in_onnx_export():
                tokens, lengths = tokens[:, :9], lengths.clamp(max=9)
            return super().forward(tokens, lengths)

    torch.manual_seed(0)

    with pytest.raises(ParityError, match="PyTorch and ONNX Runtime differ by"):
        publish(Unrolled().eval(), sequences(), class_spec(), to=tmp_path, name="unrolled")
