import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.unit.export.onnx_import import graphs
from weir.bundle.reader import read
from weir.export.errors import ExportError
from weir.export.onnx_import.publishing import import_onnx
from weir.export.onnx_import.spec import ImportSpec, Pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)

# Scores that tell the channels apart, whatever the layout.
TEXTS = {
    "nchw": """g (float[N, 3, 4, 6] data) => (float[N, 3] scores) {
      scores = ReduceMean <axes = [2, 3], keepdims = 0> (data) }""",
    "nhwc": """g (float[N, 4, 6, 3] data) => (float[N, 3] scores) {
      scores = ReduceMean <axes = [1, 2], keepdims = 0> (data) }""",
    "half": """g (float16[N, 3, 4, 6] data) => (float16[N, 3] scores) {
      scores = ReduceMean <axes = [2, 3], keepdims = 0> (data) }""",
    "uint8": """g (uint8[N, 4, 6, 3] data) => (float[N, 3] scores) {
      floats = Cast <to = 1> (data)
      scores = ReduceMean <axes = [1, 2], keepdims = 0> (floats) }""",
    "free": """g (float[N, 3, H, W] data) => (float[N, 3] scores) {
      scores = ReduceMean <axes = [2, 3], keepdims = 0> (data) }""",
    "one": """g (float[1, 3, 4, 6] data) => (float[1, 3] scores) {
      scores = ReduceMean <axes = [2, 3], keepdims = 0> (data) }""",
}


def scores(tmp_path: Path, text: str, **pictures: Any) -> np.ndarray:
    """The scores of the bundle's graph for the pixels."""
    spec = ImportSpec(pictures=Pictures(input="data", **pictures))
    file = graphs.write(tmp_path, text)
    bundle = read(import_onnx(file, spec, to=tmp_path / "models").path)
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    (found,) = session.run(["scores"], {"image": PIXELS})
    return np.asarray(found, np.float64)


@pytest.mark.parametrize("kind", ["nchw", "nhwc", "half", "free", "one"])
def test_pixels_are_scaled_for_any_input(tmp_path: Path, kind: str) -> None:
    sizes = {"height": 4, "width": 6} if kind == "free" else {}

    found = scores(tmp_path, TEXTS[kind], mean=[0.5, 0.4, 0.3], std=[0.5, 0.25, 1.0], **sizes)

    expected = ((PIXELS / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 1.0]).mean(axis=(1, 2))
    np.testing.assert_allclose(found, expected, atol=2e-3 if kind == "half" else 1e-5)


def test_input_of_pixels_stays_as_it_is(tmp_path: Path) -> None:
    found = scores(tmp_path, TEXTS["uint8"])

    np.testing.assert_allclose(found, PIXELS.mean(axis=(1, 2)), rtol=1e-5)


def test_channels_may_be_reversed_and_unscaled(tmp_path: Path) -> None:
    found = scores(tmp_path, TEXTS["nchw"], is_bgr=True, scale=1.0, mean=[100.0, 0.0, 0.0])

    expected = (PIXELS - [100.0, 0, 0]).mean(axis=(1, 2))[:, ::-1]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_layout_that_is_not_clear_is_asked_for(tmp_path: Path) -> None:
    text = TEXTS["nchw"].replace("[N, 3, 4, 6]", "[N, 3, 4, 3]")

    with pytest.raises(ExportError, match="1 or 3 channels at axis 1 or at axis 3, or a layout"):
        scores(tmp_path, text)


def test_free_size_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="image size: expected HEIGHTxWIDTH"):
        scores(tmp_path, TEXTS["free"])


def test_size_of_the_graph_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="image size: expected height 4, got 9"):
        scores(tmp_path, TEXTS["nchw"], height=9, width=6)


def test_rows_that_do_not_run_together_make_no_classifier(tmp_path: Path) -> None:
    text = """g (float[1, 3, 4, 6] data) => (float[1, 3] scores) <int64[2] shape = {1, 3}> {
      mean = ReduceMean <axes = [2, 3], keepdims = 0> (data)
      scores = Reshape(mean, shape) }"""

    with pytest.raises(ExportError, match="rows do not run together"):
        scores(tmp_path, text)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ({"height": 0, "width": 0}, "height: expected 1 to 5000 pixels, got 0"),
        ({"height": 32, "width": 10**6}, "width: expected 1 to 5000 pixels, got 1000000"),
        ({"short_side": 10**6}, "short side: expected 1 to 5000 pixels, got 1000000"),
        ({"scale": 0.0}, "scale: expected a number other than 0, got 0"),
        ({"mean": [math.nan]}, "mean: expected finite numbers"),
        ({"mean": [0.5, 1.2, 0.5]}, "expected values of scaled pixels, 0 to 1, got 1.2"),
        ({"mean": [256.0], "scale": 0.5}, "expected values of scaled pixels, 0 to 127.5, got 256"),
        ({"mean": [300.0], "scale": 1.0}, "expected values of scaled pixels, 0 to 255, got 300$"),
    ],
)
def test_numbers_that_no_picture_can_have_are_refused(
    pictures: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        Pictures(input="data", **pictures)


@pytest.mark.parametrize(
    ("mean", "scale"),
    [(1.0, 0.0039), (1.0, 1 / 127.5), (-1.0, 1 / 255), (255.0, 1.0), (1.0, -1.0)],
    ids=["rounded", "to-one-from-minus-one", "negative", "pixels", "inverted"],
)
def test_mean_that_pixels_can_have_is_taken(mean: float, scale: float) -> None:
    assert Pictures(input="data", mean=[mean], scale=scale).mean == [mean]


def test_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ExportError, match="std: expected numbers other than 0"):
        Pictures(input="data", std=[1.0, 0.0, 1.0])
