import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.sequence_networks import CLASSES, TIME, WORDS, Mean, Tagger, class_spec, tag_spec
from tests.helpers.sequence_networks import examples as sequences
from weir.bundle.contract import Batching, Provenance
from weir.bundle.errors import InvalidName, VersionExists
from weir.bundle.reader import read
from weir.bundle.repository import versions
from weir.bundle.sequences import ValueRange
from weir.export import graph, large_graph
from weir.export.errors import ExportError, ParityError
from weir.export.int8 import StaticInt8
from weir.export.publishing import publish
from weir.export.spec import ExportSpec


class Diverging(nn.Module):
    """An exporter's fault, played: the graph computes a little more than the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits * 1.001 if torch.onnx.is_in_onnx_export() else logits


def test_published_bundle_is_complete(
    network: nn.Module, examples: dict[str, Tensor], tmp_path: Path
) -> None:
    training = Provenance(recipe="r", data="d", data_checksum="c", seed=1, metrics={"loss": 0.5})
    spec = ExportSpec(
        architecture="linear",
        outputs=["logits"],
        labels={"logits": ["a", "b", "c"]},
        batching=Batching(max_rows=8),
        examples="five rows",
        training=training,
        commit="abc",
    )

    published = publish(network, examples, spec, to=tmp_path, name="mine")

    assert published.path == tmp_path / "mine" / "1" and published.version == 1
    bundle = read(published.path)
    assert published.size_bytes == sum(len(data) for data in bundle.files.values())
    contract = bundle.contract
    assert contract.parity == published.parity
    assert contract.parity is not None and contract.parity.examples == "five rows"
    assert (contract.architecture, contract.task, contract.commit) == ("linear", "other", "abc")
    assert contract.training == training and contract.batching.max_rows == 8
    assert bundle.labels("logits") == ["a", "b", "c"]
    assert {"torch", "onnx", "onnxruntime"} <= set(contract.versions)


def test_golden_outputs_replay(
    *,
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    model: bytes,
    reuse_graph: Callable[[bytes], None],
    tmp_path: Path,
) -> None:
    reuse_graph(model)
    bundle = read(publish(network, examples, spec, to=tmp_path, name="mine").path)

    golden = bundle.golden()
    assert golden is not None
    np.testing.assert_array_equal(golden.inputs["x"], examples["x"][:4].numpy())
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], dict(golden.inputs))[0]
    np.testing.assert_allclose(logits, golden.outputs["logits"], rtol=1e-5, atol=1e-5)


def test_network_is_exported_in_eval_mode(
    network: nn.Module, examples: dict[str, Tensor], spec: ExportSpec, tmp_path: Path
) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            dropped: Tensor = self.dropout(self.network(x))
            return dropped

    published = publish(Dropping().train(), examples, spec, to=tmp_path, name="mine")

    assert published.parity.max_absolute < 1e-5


def test_fault_of_the_exporter_closes_the_gate(
    network: nn.Module, examples: dict[str, Tensor], spec: ExportSpec, tmp_path: Path
) -> None:
    with pytest.raises(ParityError, match="nothing was published"):
        publish(Diverging(network), examples, spec, to=tmp_path, name="mine")

    assert list(tmp_path.iterdir()) == []


def test_fault_in_the_graph_closes_the_gate(
    *,
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    tmp_path: Path,
    model: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faulty = bytearray(model)
    weight = network.get_parameter("project.weight").detach().numpy().tobytes()
    assert model.count(weight) == 1
    faulty[model.index(weight) + 2] ^= 0x40  # one bit of one weight
    monkeypatch.setattr(graph, "convert", lambda *_: bytes(faulty))

    with pytest.raises(ParityError):
        publish(network, examples, spec, to=tmp_path, name="mine")
    assert list(tmp_path.iterdir()) == []


def test_large_weights_are_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 32))
    rows = {"input": torch.randn(5, 40)}
    large = ExportSpec(architecture="dense", outputs=["y"])
    # In place of weights of 2 GiB, which take a minute.
    monkeypatch.setattr(large_graph, "MOST_INSIDE_BYTES", 10_000)

    published = publish(module, rows, large, to=tmp_path, name="dense")

    assert {path.name for path in published.path.iterdir()} == {
        "golden.npz", "model.json", "model.onnx", "model.onnx.data"
    }  # fmt: skip
    bundle = read(published.path)
    assert [tensor.shape for tensor in bundle.graphs["model"].external] == [(64, 40), (32, 64)]
    assert published.parity.max_absolute < 1e-5
    with pytest.raises(ExportError, match="expected fp32 for weights of 2 GiB and more, got fp16"):
        publish(module, rows, large, to=tmp_path, name="dense", precision="fp16")


def test_versions_go_up_and_stay(
    *,
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    tmp_path: Path,
    model: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graph, "convert", lambda *_: model)
    for _ in range(2):
        publish(network, examples, spec, to=tmp_path, name="mine")

    with pytest.raises(VersionExists):
        publish(network, examples, spec, to=tmp_path, name="mine", version=2)
    assert publish(network, examples, spec, to=tmp_path, name="mine", version=9).version == 9
    assert versions(tmp_path / "mine") == [1, 2, 9]


def test_outputs_with_the_same_labels_share_a_file(tmp_path: Path) -> None:
    class Three(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return x * 1, x * 2, x[:, :1] * 3

    spec = ExportSpec(
        architecture="three",
        outputs=["a", "b", "c"],
        labels={"a": ["x", "y"], "b": ["x", "y"], "c": ["z"]},
    )

    bundle = read(publish(Three(), {"x": torch.ones(2, 2)}, spec, to=tmp_path, name="m").path)

    assert bundle.contract.labels["a"] == bundle.contract.labels["b"] == "labels.txt"
    assert (bundle.labels("b"), bundle.labels("c")) == (["x", "y"], ["z"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"logits": ["a", "b"]}}, r"got 2 for shape \(4, 3\)"),
        ({"axes": {"x": {1: "time"}}}, "expected an axis named 'batch'"),
        ({"axes": {"x": {7: "batch"}}}, "expected axes below 2"),
    ],
    ids=["labels", "no-batch", "no-such-axis"],
)
def test_contract_that_does_not_fit_is_refused(
    network: nn.Module,
    examples: dict[str, Tensor],
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    spec = ExportSpec(architecture="linear", outputs=["logits"], **changes)  # type: ignore[arg-type]

    with pytest.raises(ExportError, match=message):
        publish(network, examples, spec, to=tmp_path, name="mine")

    assert list(tmp_path.iterdir()) == []


def test_no_inputs(network: nn.Module, spec: ExportSpec, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at least one tensor"):
        publish(network, {}, spec, to=tmp_path, name="mine")


def test_tensors_elsewhere_are_refused(
    network: nn.Module, spec: ExportSpec, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="expected a tensor on the CPU, got meta"):
        publish(network, {"x": torch.ones(2, 4, device="meta")}, spec, to=tmp_path, name="mine")


def test_bad_target_is_refused_before_the_work(
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "mine" / "1").mkdir(parents=True)
    monkeypatch.delattr(graph, "convert")

    with pytest.raises(InvalidName):
        publish(network, examples, spec, to=tmp_path, name="../mine")
    with pytest.raises(VersionExists):
        publish(network, examples, spec, to=tmp_path, name="mine", version=1)


def test_published_network_is_left_in_the_mode_it_was_in(
    network: nn.Module, examples: dict[str, Tensor], spec: ExportSpec, tmp_path: Path
) -> None:
    network.train()

    publish(network, examples, spec, to=str(tmp_path), name="m")

    assert all(part.training for part in network.modules())


def test_sequences_are_described(tmp_path: Path) -> None:
    spec = class_spec()

    bundle = read(publish(Mean(), sequences(), spec, to=tmp_path, name="mean").path)

    contract = bundle.contract
    assert contract.task == "sequence-classification"
    assert contract.padded_axes == {"time": TIME}
    assert contract.value_ranges == {"tokens": ValueRange(maximum=19)}
    assert contract.tokenisation == spec.tokenisation
    assert contract.vocabularies == {"tokens": "vocabulary.tokens.txt"}
    assert bundle.vocabulary("tokens") == WORDS
    assert bundle.labels("probabilities") == CLASSES


def test_recorded_rows_are_padded(tmp_path: Path) -> None:
    published = publish(
        Tagger(), sequences(has_letters=True), tag_spec(), to=tmp_path, name="tagger"
    )

    golden = read(published.path).golden()

    assert golden is not None
    assert golden.inputs["lengths"].tolist() == [9, 6, 3, 1]
    assert golden.inputs["characters"].shape[:2] == golden.outputs["tag_ids"].shape == (4, 9)


def test_every_input_with_axes_needs_an_example(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"axes: expected inputs of the examples, .* got \['characters'\]"
    ):
        publish(Tagger(), sequences(), tag_spec(), to=tmp_path, name="tagger")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": torch.sin}, "module: expected torch.nn.Module, got builtin_function"),
        ({"contract": {"outputs": ["logits"]}}, "contract: expected ExportSpec, got dict"),
        ({"example_inputs": (torch.zeros(2, 4),)}, "expected tensors by the names .* got tuple"),
        ({"example_inputs": {"x": "text"}}, "x: expected a tensor or an array, got str"),
        ({"precision": "int8"}, r"precision: expected .*StaticInt8\(\.\.\.\).* got 'int8'"),
        ({"precision": StaticInt8}, r"precision: expected .*DynamicInt8\(\.\.\.\), got StaticInt8"),
    ],
)
def test_argument_of_another_type_is_refused(
    *,
    change: dict[str, object],
    message: str,
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    tmp_path: Path,
) -> None:
    arguments: dict[str, object] = {
        "module": network, "example_inputs": examples, "contract": spec, **change
    }  # fmt: skip

    with pytest.raises(ExportError, match=message):
        publish(**arguments, to=tmp_path, name="mine")  # type: ignore[arg-type]


def test_sizes_that_were_fixed_are_said(
    *,
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    model: bytes,
    reuse_graph: Callable[[bytes], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reuse_graph(model)

    published = publish(network, examples, spec, to=tmp_path, name="mine")

    assert published.fixed_axes == {"x": {1: 4}}
    assert caplog.messages == [
        "axes with a fixed size, as in the examples: x ['batch', 4]; `axes` names those that vary"
    ]


def test_sizes_that_the_specification_fixes_are_no_warning(
    *,
    network: nn.Module,
    examples: dict[str, Tensor],
    model: bytes,
    reuse_graph: Callable[[bytes], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reuse_graph(model)
    spec = ExportSpec(architecture="linear", outputs=["logits"], axes={"x": {0: "batch"}})

    with caplog.at_level(logging.INFO, "weir.export"):
        published = publish(network, examples, spec, to=tmp_path, name="mine")

    assert published.fixed_axes == {"x": {1: 4}}
    (record,) = [each for each in caplog.records if "fixed size" in each.getMessage()]
    assert record.levelno == logging.INFO and "x ['batch', 4]" in record.getMessage()


class ChannelsLast(nn.Module):
    """Pictures that are normalised with the channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised pictures, channels first: x (B, 64, 64, 1)."""
        normal = (x / 255 - 0.5) / 0.25
        return normal.permute(0, 3, 1, 2)  # (B, 1, 64, 64)


def test_what_is_avoidable_of_a_run_is_logged_with_its_fix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    examples = {"x": torch.rand(4, 64, 64, 1)}
    spec = ExportSpec(architecture="made up", outputs=["y"])

    published = publish(ChannelsLast(), examples, spec, to=tmp_path, name="mine")

    (line,) = published.advice
    assert "by channels-last broadcast" in line and "Transpose to [N, C, H, W] first" in line
    assert line in caplog.messages
