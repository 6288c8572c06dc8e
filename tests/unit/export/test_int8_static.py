from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from weir.bundle.reader import read
from weir.export import static_quantisation
from weir.export.errors import AccuracyError
from weir.export.graph import convert
from weir.export.int8 import StaticInt8
from weir.export.publishing import Published, publish
from weir.export.runtime import open_session
from weir.export.spec import ExportSpec

SPEC = ExportSpec(architecture="small", outputs=["logits"])


class Small(nn.Module):
    """logits (B, 3) of images (B, 2, 6, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(2, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(72, 3)

    def forward(self, image: Tensor) -> Tensor:
        # What is done before the first convolution is not quantised.
        x = self.pool(self.convolve(image / 2.0 + 0.5).relu())
        logits: Tensor = self.fc(x.flatten(1))
        return logits


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return torch.randn(300, 2, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def answers(network: nn.Module, rows: Tensor) -> np.ndarray:
    """What the network answers, so that it is right every time before it is quantised."""
    with torch.inference_mode():
        return network(rows).argmax(dim=1).numpy()  # type: ignore[no-any-return]


def settings(calibration: Tensor, rows: Tensor, answers: np.ndarray, max_drop: float) -> StaticInt8:
    return StaticInt8(
        calibration={"image": calibration.numpy()},
        calibration_from="training rows",
        test={"image": rows.numpy()},
        test_from="test rows",
        answers=answers,
        output="logits",
        max_drop=max_drop,
    )


@pytest.fixture(scope="module")
def published(
    network: nn.Module,
    rows: Tensor,
    answers: np.ndarray,
    tmp_path_factory: pytest.TempPathFactory,
) -> Published:
    return publish(
        network,
        {"image": rows[:40]},
        SPEC,
        to=tmp_path_factory.mktemp("models"),
        name="small",
        precision=settings(rows[:200], rows, answers, 2.0),
    )


def test_contract_says_what_it_cost(
    published: Published, rows: Tensor, answers: np.ndarray
) -> None:
    bundle = read(published.path)

    (logits,) = open_session(bundle.model).run(["logits"], {"image": rows.numpy()})
    cost = bundle.contract.quantisation
    assert cost is not None and cost == published.quantisation
    assert cost.before == 1.0
    assert cost.after == pytest.approx(float((logits.argmax(axis=1) == answers).mean()))
    assert (cost.calibration, cost.calibration_rows) == ("training rows", 200)
    assert (cost.test, cost.test_rows) == ("test rows", 300)
    assert bundle.contract.precision == "int8"
    assert bundle.contract.providers == ["cpu"]


def test_parity_with_pytorch_is_recorded(published: Published) -> None:
    parity = read(published.path).contract.parity

    assert parity is not None
    assert 1e-4 < parity.max_absolute < 0.1


def test_golden_outputs_are_the_quantised_graphs(published: Published, network: nn.Module) -> None:
    bundle = read(published.path)
    golden = bundle.golden()
    assert golden is not None

    (logits,) = open_session(bundle.model).run(["logits"], dict(golden.inputs))

    np.testing.assert_array_equal(logits, golden.outputs["logits"])
    with torch.inference_mode():
        exact = network(torch.from_numpy(golden.inputs["image"])).numpy()
    assert np.abs(golden.outputs["logits"] - exact).max() > 0.0


def test_tolerance_covers_another_way_to_compute_and_no_more(published: Published) -> None:
    """Unfused, the graph runs in floating point, as far from the fused one as a machine may be."""
    bundle = read(published.path)
    golden = bundle.golden()
    assert golden is not None
    tolerance = bundle.contract.tolerance

    (logits,) = open_session(bundle.model, is_optimised=False).run(["logits"], dict(golden.inputs))

    np.testing.assert_allclose(
        logits, golden.outputs["logits"], rtol=tolerance.relative, atol=tolerance.absolute
    )
    assert tolerance.absolute < 0.02 * np.ptp(golden.outputs["logits"])


def test_weights_are_integers_a_channel_at_a_time_of_seven_bits(published: Published) -> None:
    model = onnx.load_from_string(read(published.path).model)
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}

    kernels = weights["convolve.weight_quantized"]
    assert kernels.dtype == np.int8
    assert np.abs(kernels).max() <= 64
    assert weights["convolve.weight_scale"].shape == (8,)


def test_ends_stay_in_floating_point(published: Published) -> None:
    graph = onnx.load_from_string(read(published.path).model).graph
    made_by = {name: node for node in graph.node for name in node.output}

    assert made_by["logits"].op_type == "Gemm"
    (division,) = (node for node in graph.node if node.op_type == "Div")
    assert division.input[0] == "image"
    # The notes of the quantiser are removed.
    assert not onnx.load_from_string(read(published.path).model).metadata_props


def test_same_data_gives_the_same_file(
    published: Published, network: nn.Module, rows: Tensor, answers: np.ndarray, tmp_path: Path
) -> None:
    again = publish(
        network,
        {"image": rows[:40]},
        SPEC,
        to=tmp_path,
        name="small",
        precision=settings(rows[:200], rows, answers, 2.0),
    )

    assert read(again.path).contract.files == read(published.path).contract.files


def test_dear_quantisation_is_refused_unless_it_is_allowed(
    network: nn.Module, rows: Tensor, answers: np.ndarray, tmp_path: Path
) -> None:
    # Ranges of rows a hundred times too small cut almost everything off.
    tiny = rows[:64] / 100.0

    def quantise(max_drop: float) -> Published:
        return publish(
            network,
            {"image": rows[:40]},
            SPEC,
            to=tmp_path,
            name="small",
            precision=settings(tiny, rows, answers, max_drop),
        )

    with pytest.raises(
        AccuracyError,
        match=r"int8: accuracy falls from 100\.00% to .*% on 300 test rows, by .* points, "
        r"allowed are 1 \(--max-accuracy-drop\); nothing was published",
    ):
        quantise(1.0)
    assert list(tmp_path.iterdir()) == []

    cost = quantise(100.0).quantisation
    assert cost is not None and cost.after < 0.99


class Normalised(nn.Module):
    """logits (B, 3) of pixels (B, 6, 6, C), normalised for each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(channels, 3, 3)
        self.register_buffer("mean", torch.linspace(0.2, 0.6, channels).reshape(-1, 1, 1))
        self.register_buffer("std", torch.linspace(0.5, 0.3, channels).reshape(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        pictures = (pixels.permute(0, 3, 1, 2).float() / 255.0 - self.mean) / self.std
        logits: Tensor = self.convolve(pictures).amax(dim=(2, 3))
        return logits


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_applied_by_column_and_gives_equal_bits(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (64, 6, 6, channels), dtype=torch.uint8)
    exact = convert(Normalised(channels).eval(), {"pixels": pixels}, SPEC)

    def quantised() -> bytes:
        batches = iter([{"pixels": pixels.numpy()}])
        return static_quantisation.quantise(static_quantisation.preprocess(exact), batches)

    model = quantised()
    with monkeypatch.context() as patch:
        patch.setattr(static_quantisation, "_repeat_along_width", lambda *_: None)
        plain = quantised()

    shapes = {each.name: list(each.dims) for each in onnx.load_from_string(model).graph.initializer}
    by_column = [shape for name, shape in shapes.items() if name.endswith("_by_column")]
    # The factor 1/255 is one number for all channels.
    assert by_column == [[channels, 1, 6]] * (3 if channels == 1 else 2)
    assert not {"mean", "std"}.intersection(shapes)
    found, expected = (
        open_session(each).run(["logits"], {"pixels": pixels.numpy()})[0] for each in (model, plain)
    )
    np.testing.assert_array_equal(found, expected)


def test_constants_of_another_form_and_those_that_a_branch_reads_stay() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]>
        g (float[N, 3, 4, 3] x, bool is_shifted) => (float[N, 2, 2, 1] y)
        <float[3] columns = {1, 2, 3}, float[3, 1, 1] channels = {1, 2, 3}> {
            a = Sub(x, columns)
            b = Sub(a, channels)
            shift = If(is_shifted) <
                then_branch = t () => (float[3, 1, 1] p) { p = Identity(channels) },
                else_branch = e () => (float[3, 1, 1] q) { q = Neg(channels) }
            >
            c = Add(b, shift)
            y = Conv(c, w)
        }"""
    )
    weights = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    rows = {"x": np.ones((4, 3, 4, 3), np.float32), "is_shifted": np.array(True)}

    inferred = onnx.shape_inference.infer_shapes(model).SerializeToString()

    quantised = static_quantisation.quantise(inferred, iter([rows]))

    shapes = {
        each.name: list(each.dims) for each in onnx.load_from_string(quantised).graph.initializer
    }
    assert shapes["columns"] == [3]
    assert shapes["b_channels_by_column"] == [3, 1, 3]
    assert shapes["channels"] == [3, 1, 1]
    assert open_session(quantised).run(None, rows)[0].shape == (4, 2, 2, 1)
