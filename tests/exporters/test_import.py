"""Files that exporters write by default, ZipMap included, imported and served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer  # type: ignore[import-untyped]
from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped]
from sklearn.linear_model import (  # type: ignore[import-untyped]
    LinearRegression,
    LogisticRegression,
)
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import OneHotEncoder, StandardScaler  # type: ignore[import-untyped]

from tests.exporters.conftest import Serve
from tests.integration.harness import tensor
from weir.bundle.reader import Bundle, read
from weir.export.onnx_import.publishing import import_onnx

pytestmark = [pytest.mark.exporters, pytest.mark.filterwarnings("default")]
lightgbm = pytest.importorskip("lightgbm", reason="installed by make test-exporters")
onnxmltools = pytest.importorskip("onnxmltools", reason="installed by make test-exporters")
ml_types = pytest.importorskip("onnxmltools.convert.common.data_types")
skl2onnx = pytest.importorskip("skl2onnx", reason="installed by make test-exporters")
skl_types = pytest.importorskip("skl2onnx.common.data_types")

FEATURES = 5
TOLERANCE = 1e-5


def rows(count: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    return np.random.default_rng(count).normal(size=(count, FEATURES)).astype(np.float32)


def species(count: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.str_]]":
    x = rows(count)
    return np.where(x[:, 0] > 0.5, "cat", np.where(x[:, 1] > 0, "dog", "owl"))


def imported(folder: Path, exported: Any, name: str) -> Bundle:
    file = folder / f"{name}.onnx"
    file.write_bytes(exported.SerializeToString())
    return read(import_onnx(file, to=folder / "models").path)


@pytest.mark.parametrize("kind", [LogisticRegression, RandomForestClassifier])
def test_classifier_of_scikit_learn_is_imported(tmp_path: Path, serve: Serve, kind: Any) -> None:
    model = make_pipeline(StandardScaler(), kind(random_state=0)).fit(rows(200), species(200))
    bundle = imported(tmp_path, skl2onnx.to_onnx(model, rows(2)), "pets")

    with serve(tmp_path / "models") as client:
        answers = client.infer("pets", tensor("X", rows(7)))

    assert bundle.contract.batch_axis == "batch"
    assert bundle.labels("probabilities") == ["cat", "dog", "owl"]
    assert [text.decode() for text in answers["output_label"]] == model.predict(rows(7)).tolist()
    np.testing.assert_allclose(
        answers["probabilities"], model.predict_proba(rows(7)), rtol=1e-4, atol=TOLERANCE
    )


def test_classifier_of_lightgbm_is_imported(tmp_path: Path, serve: Serve) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=20, verbose=-1).fit(
        rows(200), (rows(200)[:, 0] > 0).astype(np.int64)
    )
    exported = onnxmltools.convert_lightgbm(
        model, initial_types=[("x", ml_types.FloatTensorType([None, FEATURES]))]
    )
    bundle = imported(tmp_path, exported, "trees")

    with serve(tmp_path / "models") as client:
        answers = client.infer("trees", tensor("x", rows(7)))

    assert bundle.labels("probabilities") == ["0", "1"]
    assert answers["label"].tolist() == model.predict(rows(7)).tolist()
    np.testing.assert_allclose(
        answers["probabilities"], model.predict_proba(rows(7)), rtol=1e-4, atol=TOLERANCE
    )


def test_regressor_of_scikit_learn_is_imported(tmp_path: Path, serve: Serve) -> None:
    model = LinearRegression().fit(rows(200), rows(200).sum(axis=1))
    imported(tmp_path, skl2onnx.to_onnx(model, rows(2)), "sums")

    with serve(tmp_path / "models") as client:
        answers = client.infer("sums", tensor("X", rows(7)))

    np.testing.assert_allclose(
        answers["variable"].ravel(), model.predict(rows(7)), rtol=1e-4, atol=1e-4
    )


def test_columns_of_texts_and_numbers_are_imported(tmp_path: Path, serve: Serve) -> None:
    colours = np.array([["red"], ["blue"], ["green"]], object)[np.arange(90) % 3]
    sizes = np.arange(90, dtype=np.float32)[:, None] % 7
    answers = np.where((colours[:, 0] == "red") & (sizes[:, 0] > 3), "yes", "no")
    model = make_pipeline(
        ColumnTransformer(
            [("colour", OneHotEncoder(handle_unknown="ignore"), [0])], remainder="passthrough"
        ),
        RandomForestClassifier(n_estimators=5, random_state=0),
    ).fit(np.hstack([colours, sizes]), answers)
    exported = skl2onnx.to_onnx(
        model,
        initial_types=[
            ("colour", skl_types.StringTensorType([None, 1])),
            ("size", skl_types.FloatTensorType([None, 1])),
        ],
    )
    bundle = imported(tmp_path, exported, "shapes")

    with serve(tmp_path / "models") as client:
        texts = np.vectorize(str.encode, otypes=[object])(colours)
        got = client.infer("shapes", tensor("colour", texts[:30]), tensor("size", sizes[:30]))

    assert bundle.contract.batch_axis == "batch"
    assert [text.decode() for text in got["output_label"]] == answers[:30].tolist()
