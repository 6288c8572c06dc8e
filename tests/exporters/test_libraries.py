"""A model of each library, exported as its documentation says, is served with its predictions."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

from tests.exporters.conftest import Serve
from tests.integration.harness import tensor

pytestmark = [
    pytest.mark.exporters,
    # What an exporter warns of is between its library and Python.
    pytest.mark.filterwarnings("default"),
]
lightgbm = pytest.importorskip("lightgbm", reason="installed by make test-exporters")
onnxmltools = pytest.importorskip("onnxmltools", reason="installed by make test-exporters")
types = pytest.importorskip("onnxmltools.convert.common.data_types")
skl2onnx = pytest.importorskip("skl2onnx", reason="installed by make test-exporters")

TOLERANCE = 1e-5
"""Between predictions in FP32 of a library and of ONNX Runtime, which adds in another order."""

FEATURES = 5


def version_directory(root: Path, name: str) -> Path:
    directory = root / name / "1"
    directory.mkdir(parents=True)
    return directory


def rows(count: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.random.default_rng(count).normal(size=(count, FEATURES)).astype(np.float32)


def labels(count: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """A class that a model can learn."""
    return np.asarray((rows(count)[:, 0] > 0) + (rows(count)[:, 1] > 1), np.int64)


def test_torch(tmp_path: Path, serve: Serve) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(FEATURES, 8), torch.nn.GELU(), torch.nn.Linear(8, 3)
    ).eval()
    torch.onnx.export(
        module,
        (torch.zeros(2, FEATURES),),
        version_directory(tmp_path / "models", "net") / "model.onnx",
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )

    with serve(tmp_path / "models") as client:
        answers = client.infer("net", tensor("x", rows(7)))

    with torch.no_grad():
        expected = module(torch.from_numpy(rows(7))).numpy()
    np.testing.assert_allclose(answers["y"], expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_scikit_learn(tmp_path: Path, serve: Serve) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows(200), labels(200))
    exported = skl2onnx.to_onnx(model, rows(2), options={"zipmap": False})
    path = version_directory(tmp_path / "models", "pipeline") / "model.onnx"
    path.write_bytes(exported.SerializeToString())

    with serve(tmp_path / "models") as client:
        answers = client.infer("pipeline", tensor("X", rows(7)))

    assert answers["label"].tolist() == model.predict(rows(7)).tolist()
    np.testing.assert_allclose(
        answers["probabilities"], model.predict_proba(rows(7)), rtol=TOLERANCE, atol=TOLERANCE
    )


def test_lightgbm(tmp_path: Path, serve: Serve) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(rows(200), labels(200))
    exported = onnxmltools.convert_lightgbm(
        model, initial_types=[("x", types.FloatTensorType([None, FEATURES]))], zipmap=False
    )
    path = version_directory(tmp_path / "models", "trees") / "model.onnx"
    path.write_bytes(exported.SerializeToString())

    with serve(tmp_path / "models") as client:
        answers = client.infer("trees", tensor("x", rows(7)))

    assert answers["label"].tolist() == model.predict(rows(7)).tolist()
    np.testing.assert_allclose(
        answers["probabilities"], model.predict_proba(rows(7)), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="installed by make test-exporters"
)
def test_keras(tmp_path: Path, serve: Serve) -> None:
    """tf2onnx calls the batch axis `unk__12`, and writes a GRU as a Loop."""
    models, predictions = tmp_path / "models", tmp_path / "predictions.npz"
    command = [sys.executable, "-m", "tests.exporters.keras_models", str(models), str(predictions)]
    subprocess.run(command, check=True, capture_output=True)

    with np.load(predictions) as keras, serve(models) as client:
        for name in ("pictures", "sentences"):
            answers = client.infer(name, tensor("x", keras[f"{name}_x"]))

            np.testing.assert_allclose(
                answers["y"], keras[f"{name}_y"], rtol=TOLERANCE, atol=TOLERANCE
            )
