import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.onnx._internal.exporter._registration import ONNXRegistry

from tests.helpers.sequence_networks import Tagger, recurrent_spec, tag_spec
from tests.helpers.sequence_networks import examples as sequences
from weir.bundle import external_data
from weir.export.errors import BrokenGraph, NotExportable
from weir.export.graph import OPSET, check, convert
from weir.export.spec import ExportSpec


class FixedBatch(nn.Module):
    """Writes the number of rows it was traced with into the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(int(x.shape[0]), 2, 2)[: x.shape[0]].reshape(3, 4)


class Undecidable(nn.Module):
    """What it does depends on values, which no trace can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if float(x.sum()) > 0 else x - 1


class Packing(nn.Module):
    """Packs its rows, as networks in torch's tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        state: Tensor = self.recurrent(packed)[1]
        return state[0]


class Running(nn.Module):
    """Sums over time, one input a matrix, the other a vector."""

    def forward(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.cumsum(x, dim=1) * scale[:, None]
        return total, total.amax(dim=1)


def loaded(model: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(model)


def test_batch_is_really_dynamic(network: nn.Module, model: bytes) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for rows in (1, 2, 5, 17):
        x = torch.randn(rows, 4)
        with torch.inference_mode():
            expected = network(x).numpy()
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, atol=1e-6)


def test_axes_are_named(model: bytes) -> None:
    graph = loaded(model).graph

    for value in [*graph.input, *graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_opset_is_pinned_and_weights_are_inside(model: bytes) -> None:
    assert [(entry.domain, entry.version) for entry in loaded(model).opset_import] == [("", OPSET)]
    assert external_data.locations(model) == []
    assert sum(np.prod(tensor.dims) for tensor in loaded(model).graph.initializer) == 15


def test_one_example_row_is_enough(network: nn.Module, spec: ExportSpec) -> None:
    check(loaded(convert(network, {"x": torch.ones(1, 4)}, spec)), ["x"], spec)


def test_nothing_of_this_machine_is_left(model: bytes) -> None:
    assert str(Path(torch.__file__).parent).encode() not in model
    assert Path(__file__).name.encode() not in model
    assert b"stack_trace" not in model


def test_the_same_network_gives_the_same_bytes(
    network: nn.Module, examples: dict[str, Tensor], spec: ExportSpec, model: bytes
) -> None:
    assert convert(network, examples, spec) == model


def test_exporter_is_quiet(
    *,
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    uncached_operators: Callable[..., ONNXRegistry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(uncached_operators))

    with caplog.at_level(logging.WARNING):
        convert(network, examples, spec)

    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_several_inputs_and_axes() -> None:
    spec = ExportSpec(
        architecture="running",
        outputs=["total", "greatest"],
        axes={"x": {0: "batch", 1: "time"}, "scale": {0: "batch"}},
    )
    module = Running().eval()

    model = convert(module, {"x": torch.randn(4, 6), "scale": torch.ones(4)}, spec)

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for rows, steps in [(1, 1), (2, 9), (5, 3)]:
        x = np.ones((rows, steps), np.float32)
        total, greatest = session.run(None, {"x": x, "scale": np.full(rows, 2, np.float32)})
        np.testing.assert_allclose(total, 2 * np.cumsum(x, axis=1))
        np.testing.assert_allclose(greatest, np.full(rows, 2.0 * steps))


def test_without_a_batch_axis(network: nn.Module) -> None:
    spec = ExportSpec(architecture="linear", outputs=["logits"], batch_axis=None)

    graph = loaded(convert(network, {"x": torch.randn(2, 4)}, spec)).graph

    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim] == [2, 4]


def test_dictionary_outputs() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"z": x * 2, "a": x * 3}

    spec = ExportSpec(architecture="named", outputs=["double", "triple"])

    model = convert(Named().eval(), {"x": torch.randn(3, 2)}, spec)

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    triple = session.run(["triple"], {"x": np.ones((1, 2), np.float32)})[0]
    np.testing.assert_array_equal(triple, [[3, 3]])


@pytest.mark.parametrize("module", [FixedBatch(), Undecidable()], ids=["fixed", "undecidable"])
def test_what_cannot_be_exported_is_refused_in_one_line(
    module: nn.Module, examples: dict[str, Tensor], spec: ExportSpec
) -> None:
    with pytest.raises((BrokenGraph, NotExportable)) as raised:
        convert(module.eval(), examples, spec)

    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("outputs", [["a", "b"]], ids=["too-many"])
def test_output_names_must_fit(
    network: nn.Module, examples: dict[str, Tensor], outputs: list[str]
) -> None:
    with pytest.raises(BrokenGraph, match="outputs: expected"):
        convert(network, examples, ExportSpec(architecture="linear", outputs=outputs))


def test_axis_that_became_fixed_is_refused(model: bytes, spec: ExportSpec) -> None:
    broken = loaded(model)
    broken.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3

    with pytest.raises(BrokenGraph, match="input x: expected varying axes"):
        check(broken, ["x"], spec)


def test_output_without_the_batch_axis_is_refused(model: bytes, spec: ExportSpec) -> None:
    broken = loaded(model)
    broken.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"

    with pytest.raises(BrokenGraph, match="tensor logits: expected axis 'batch' first"):
        check(broken, ["x"], spec)


def test_checker_and_shape_inference_are_asked(model: bytes, spec: ExportSpec) -> None:
    broken = loaded(model)
    broken.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 99

    with pytest.raises(BrokenGraph, match="not valid ONNX"):
        check(broken, ["x"], spec)


def axes_of(model: bytes) -> dict[str, list[str | int]]:
    graph = loaded(model).graph
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }


def test_axes_of_sequences_are_named() -> None:
    model = convert(Tagger().eval(), sequences(has_letters=True), tag_spec())

    assert axes_of(model) == {
        "tokens": ["batch", "time"],
        "characters": ["batch", "time", "letters"],
        "lengths": ["batch"],
        "logits": ["batch", "time", 3],
        "tag_ids": ["batch", "time"],
    }


def test_single_token_of_a_single_letter_is_enough_to_trace() -> None:
    one = {
        "tokens": torch.ones(1, 1, dtype=torch.int64),
        "characters": torch.ones(1, 1, 1, dtype=torch.int64),
        "lengths": torch.ones(1, dtype=torch.int64),
    }

    model = convert(Tagger().eval(), one, tag_spec())

    assert axes_of(model)["characters"] == ["batch", "time", "letters"]


def test_length_that_comes_out_as_it_went_in_keeps_its_name() -> None:
    class Detour(nn.Module):
        def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
            longer = nn.functional.pad(tokens, (2, 0)).to(torch.float32)[:, None]
            weight = torch.ones(1, 1, 3)
            return nn.functional.conv1d(longer, weight).squeeze(1) + lengths[:, None]

    model = convert(Detour().eval(), sequences(), recurrent_spec(outputs=["y"], labels={}))

    assert axes_of(model)["y"] == ["batch", "time"]


def test_output_of_another_length_is_refused() -> None:
    class Halving(nn.Module):
        def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
            return tokens[:, ::2] + lengths[:, None]

    spec = recurrent_spec(outputs=["y"], labels={})

    with pytest.raises(
        BrokenGraph, match=r"output y: expected varying axes among.*got \['batch', "
    ):
        convert(Halving().eval(), sequences(), spec)


def test_packed_sequence_is_refused_with_what_replaces_it() -> None:
    spec = ExportSpec(
        architecture="packing",
        outputs=["state"],
        axes={"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
    )
    examples = {"x": torch.randn(3, 5, 4), "lengths": torch.tensor([5, 1, 3])}

    with pytest.raises(NotExportable, match=r"pack_padded_sequence.*Recurrent\.from_torch"):
        convert(Packing().eval(), examples, spec)


def test_messages_of_torch_go_to_the_log(
    *,
    network: nn.Module,
    examples: dict[str, Tensor],
    spec: ExportSpec,
    uncached_operators: Callable[..., ONNXRegistry],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(uncached_operators))
    with caplog.at_level(logging.INFO, "weir.export"):
        convert(network, examples, spec)

    # torch is silent only if torchvision is installed, which this project does not need.
    assert any("torch: torchvision" in message for message in caplog.messages)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("layer", [nn.GRU, nn.LSTM])
def test_second_network_of_a_process_is_exported_as_the_first(
    layer: type[nn.GRU] | type[nn.LSTM],
) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = layer(4, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            states: Tensor = self.recurrent(x)[0]
            return states[:, -1]

    spec = ExportSpec(architecture="last", outputs=["last"], axes={"x": {0: "batch", 1: "time"}})
    for _ in range(2):
        convert(Last().eval(), {"x": torch.randn(3, 5, 4)}, spec)
