"""Classifiers as scikit-learn's exporters write them by default: ZipMap makes maps of the scores.

The labels are served, and a warning names the maps. With either of the two hints, all is served.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

from tests.integration.harness import Server, running

pytestmark = [
    pytest.mark.exporters,
    # What an exporter warns of is between its library and Python.
    pytest.mark.filterwarnings("default"),
]
lightgbm = pytest.importorskip("lightgbm", reason="installed by make test-exporters")
onnxmltools = pytest.importorskip("onnxmltools", reason="installed by make test-exporters")
types = pytest.importorskip("onnxmltools.convert.common.data_types")
skl2onnx = pytest.importorskip("skl2onnx", reason="installed by make test-exporters")

Array = NDArray[Any]

FEATURES = 5
X: NDArray[np.float32] = np.random.default_rng(0).normal(size=(200, FEATURES)).astype(np.float32)
CLASSES: NDArray[np.int64] = np.asarray((X[:, 0] > 0) + (X[:, 1] > 1), np.int64)
WORDS = np.array(["no", "perhaps", "yes"])[CLASSES]


# As people write it for a classifier: Triton's tensors have at least one axis beside the batch's.
CONFIG = """
backend: "onnxruntime"
max_batch_size: 32
input [ { name: "X" data_type: TYPE_FP32 dims: [ 5 ] } ]
output [
  { name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } },
  { name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ] }
]
"""


def trained() -> dict[str, Any]:
    """A classifier of each library, by the name that it is served under."""
    return {
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, CLASSES),
        "forest": RandomForestClassifier(8, random_state=0).fit(X, WORDS),
        "trees": lightgbm.LGBMClassifier(n_estimators=8, verbose=-1).fit(X, CLASSES),
    }


def exported(classifiers: dict[str, Any]) -> dict[str, Any]:
    """The classifiers' files, and that of one with other outputs."""
    pipeline, forest, trees = classifiers.values()
    x = types.FloatTensorType([None, FEATURES])
    return {
        "pipeline": skl2onnx.to_onnx(pipeline, X[:1]),
        "forest": skl2onnx.to_onnx(forest, X[:1]),
        "trees": onnxmltools.convert_lightgbm(trees, initial_types=[("X", x)]),
        "columns": skl2onnx.to_onnx(pipeline, X[:1], options={"zipmap": "columns"}),
        "configured": skl2onnx.to_onnx(pipeline, X[:1], options={"zipmap": False}),
        "maps": without_labels(skl2onnx.to_onnx(pipeline, X[:1])),
    }


def without_labels(model: Any) -> Any:
    """The model with its maps alone."""
    kept = [output for output in model.graph.output if not output.type.HasField("tensor_type")]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    return model


@pytest.fixture(scope="module")
def classifiers() -> dict[str, Any]:
    return trained()


@pytest.fixture(scope="module")
def models(classifiers: dict[str, Any]) -> dict[str, Any]:
    return exported(classifiers)


@pytest.fixture(scope="module")
def server(models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    for name, model in models.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(model.SerializeToString())
    (root / "configured" / "config.pbtxt").write_text(CONFIG)
    with running(root, tmp_path_factory.mktemp("log") / "log") as server:
        yield server
        assert server.process.poll() is None, f"the server died:\n{server.log()}"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.target) as client:
        yield client


def infer(client: Any, model: str, rows: Array) -> dict[str, Array]:
    sent = triton.InferInput("X", rows.shape, "FP32")
    sent.set_data_from_numpy(rows)
    answer = client.infer(model, [sent])
    return {one.name: answer.as_numpy(one.name) for one in answer.get_response().outputs}


def expected(model: Any, rows: Array) -> dict[str, Any]:
    """The tensors that ONNX Runtime itself answers with."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [one.name for one in session.get_outputs() if one.type.startswith("tensor(")]
    return dict(zip(names, session.run(names, {"X": rows}), strict=True))


@pytest.mark.parametrize("name", ["pipeline", "forest", "trees", "columns"])
def test_tensors_are_those_of_onnx_runtime(client: Any, models: dict[str, Any], name: str) -> None:
    answers, wanted = infer(client, name, X[:7]), expected(models[name], X[:7])

    assert answers.keys() == wanted.keys()
    for output, values in wanted.items():
        if values.dtype == object:
            assert [text.decode() for text in answers[output]] == values.tolist()
        else:
            np.testing.assert_allclose(answers[output], values, rtol=1e-6)


def test_label_of_each_row_has_an_axis_of_its_own(client: Any, models: dict[str, Any]) -> None:
    answers, wanted = infer(client, "configured", X[:7]), expected(models["configured"], X[:7])

    assert answers["label"].tolist() == [[label] for label in wanted["label"]]
    np.testing.assert_allclose(answers["probabilities"], wanted["probabilities"], rtol=1e-6)


def test_labels_are_the_predictions(client: Any, classifiers: dict[str, Any]) -> None:
    for name, classifier in classifiers.items():
        (labels,) = (value for key, value in infer(client, name, X).items() if "label" in key)

        found = [one.decode() if isinstance(one, bytes) else one for one in labels.tolist()]
        assert found == classifier.predict(X).tolist()


def test_maps_are_named_with_their_hints(server: Server) -> None:
    for name in ("pipeline", "forest", "trees"):
        server.wait_for_log(f"outputs that are no tensors are not served model={name} ")
        (line,) = [
            line for line in server.log().splitlines() if "no tensors" in line and name in line
        ]
        assert "WARNING" in line and "zipmap=False" in line and "weir import" in line
        assert "probabilit" in line and "seq(map(" in line
    assert "are not served model=columns" not in server.log()


def test_rows_share_batches_all_the_same(server: Server) -> None:
    # The label of `trees` is declared to have one row, which it has not.
    for name in ("pipeline", "forest", "trees", "columns"):
        server.wait_for_log(f"batch axis proved model={name}")


def test_maps_alone_are_refused_with_their_hints(client: Any) -> None:
    index = {one.name: one for one in client.get_model_repository_index().models}

    assert index["maps"].state == "UNAVAILABLE"
    assert "seq(map(int64,tensor(float)))" in index["maps"].reason
    assert "zipmap=False" in index["maps"].reason and "weir import" in index["maps"].reason
