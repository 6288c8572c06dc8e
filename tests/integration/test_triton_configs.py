"""Configurations that people bring: `reshape`, scalars, defaults, tensors without a shape, ZipMap.

ONNX Runtime, run on the same graph, says what the answers are.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import weir
from tests.helpers import onnx_models
from tests.integration.harness import Server, running

Array = NDArray[Any]

# The shapes of Triton's first example: https://github.com/onnx/models, densenet121.
DENSENET = """
name: "densenet"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 8, 8 ]
    reshape { shape: [ 1, 3, 8, 8 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 5 ]
    reshape { shape: [ 1, 5, 1, 1 ] }
    label_filename: "labels.txt"
  }
]
"""
RECOMMENDER = """
max_batch_size: 64
input [
  { name: "user" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } },
  { name: "item" data_type: TYPE_INT64 dims: [ 1 ] reshape: { shape: [ ] } }
]
output { name: "score" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
"""
PATCHES = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2, -1, 3 ] reshape { shape: [ 2, 1, -1, 3 ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 2, -1, 3 ] reshape { shape: [ 2, 1, -1, 3 ] } }
"""
SCALAR = """
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
"""
SCALED = """
max_batch_size: 0
input [
  { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] },
  { name: "scale" data_type: TYPE_FP32 dims: [ 3 ] optional: true }
]
"""
SHIFTED = """
input [
  { name: "x" data_type: TYPE_FP32 dims: [ -1, 3 ] },
  { name: "by" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } optional: true }
]
"""
SHAPED = """
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 2, -1 ] }
"""
UNKNOWN = """
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] optional: true }
"""
GRAPHS: dict[str, tuple[bytes, str | None]] = {
    "densenet": (onnx_models.densenet(), DENSENET),
    "recommender": (onnx_models.recommender(), RECOMMENDER),
    "patches": (onnx_models.echo(axes=("n", 2, 1, "width", 3)), PATCHES),
    "scalar": (onnx_models.echo(axes=()), SCALAR),
    "scaled": (onnx_models.scaled(), SCALED),
    "scaled_rows": (onnx_models.scaled(), None),
    "scaled_ir3": (onnx_models.scaled(ir_version=3), None),
    "scaled_ir3_described": (onnx_models.scaled(ir_version=3), SCALED),
    "shifted": (onnx_models.shifted(), SHIFTED),
    "default": (onnx_models.default_alone(), None),
    "any": (onnx_models.without_shapes(), None),
    "shaped": (onnx_models.without_shapes(), SHAPED),
    "matmul": (onnx_models.product(), None),
    "deep": (onnx_models.echo(axes=("batch", *(1,) * 8, 2)), None),
    "classifier": (onnx_models.classifier(), None),
    "answer": (onnx_models.output_without_shape(), None),
    "answer_of_4": (onnx_models.output_without_shape(), "max_batch_size: 4"),
    "maps": (onnx_models.classifier(outputs=("probabilities",)), None),
    "optional": (onnx_models.without_tensors("optional"), None),
    "required": (onnx_models.echo(axes=(3,)), UNKNOWN),
}
UNAVAILABLE = {"maps", "optional", "required"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    for name, (graph, config) in GRAPHS.items():
        onnx_models.write_plain(root, name, graph)
        if config is not None:
            (root / name / "config.pbtxt").write_text(config)
    (root / "densenet" / "labels.txt").write_text("LION\nTIGER\nOWL\nCAT\nDOG\n")
    with running(root, tmp_path_factory.mktemp("log") / "log") as server:
        yield server
        assert server.process.poll() is None, f"the server died:\n{server.log()}"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.target) as client:
        yield client


def as_input(name: str, array: Array) -> Any:
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def infer(client: Any, model: str, inputs: dict[str, Array]) -> dict[str, Array]:
    """Every output of a model."""
    answer = client.infer(model, [as_input(name, array) for name, array in inputs.items()])
    names = [output.name for output in answer.get_response().outputs]
    return {name: answer.as_numpy(name) for name in names}


def expected(model: str, inputs: dict[str, Array]) -> list[Any]:
    """The answer of ONNX Runtime itself."""
    session = onnxruntime.InferenceSession(GRAPHS[model][0], providers=["CPUExecutionProvider"])
    outputs: list[Any] = session.run(None, inputs)
    return outputs


def error_of(client: Any, model: str, inputs: dict[str, Array]) -> str:
    with pytest.raises(InferenceServerException) as failure:
        infer(client, model, inputs)
    assert failure.value.status() == "StatusCode.INVALID_ARGUMENT"
    return str(failure.value.message())


def test_all_but_the_impossible_are_ready(client: Any) -> None:
    index = client.get_model_repository_index().models

    assert {one.name for one in index if one.state != "READY"} == UNAVAILABLE
    reasons = {one.name: one.reason for one in index}
    assert "seq(map(int64,tensor(float)))" in reasons["maps"] and "zipmap=False" in reasons["maps"]
    assert "optional(tensor(float))" in reasons["optional"]
    assert "input 'x': optional: expected an initializer of that name" in reasons["required"]


def test_picture_of_tritons_first_example_is_answered(client: Any) -> None:
    picture = np.random.default_rng(0).random((3, 8, 8), np.float32)

    answer = infer(client, "densenet", {"data_0": picture})
    classes = client.infer(
        "densenet",
        [as_input("data_0", picture)],
        outputs=[triton.InferRequestedOutput("fc6_1", class_count=1)],
    ).as_numpy("fc6_1")

    (logits,) = expected("densenet", {"data_0": picture[None]})
    np.testing.assert_allclose(answer["fc6_1"], logits.reshape(5), rtol=1e-6)
    best = int(logits.argmax())
    assert classes.shape == (1,)
    assert classes[0].decode().endswith(f":{best}:{['LION', 'TIGER', 'OWL', 'CAT', 'DOG'][best]}")
    assert "axes (3, 8, 8), got 4" in error_of(client, "densenet", {"data_0": picture[None]})


def test_clients_see_dims_and_the_reshape(client: Any) -> None:
    metadata = client.get_model_metadata("densenet", as_json=True)
    config = client.get_model_config("densenet", as_json=True)["config"]
    rows = client.get_model_config("recommender", as_json=True)["config"]

    assert metadata["inputs"][0]["shape"] == ["3", "8", "8"]
    assert metadata["outputs"][0]["shape"] == ["5"]
    assert config["input"][0]["dims"] == ["3", "8", "8"]
    assert config["input"][0]["reshape"] == {"shape": ["1", "3", "8", "8"]}
    assert config["output"][0]["reshape"] == {"shape": ["1", "5", "1", "1"]}
    assert (rows["max_batch_size"], rows["input"][0]["dims"]) == (64, ["1"])
    assert rows["input"][0]["reshape"] == {}


def test_rows_of_a_reshaped_model_share_batches(client: Any, server: Server) -> None:
    users = np.arange(24, dtype=np.int64).reshape(-1, 1) % 7
    items = users[::-1].copy()

    with ThreadPoolExecutor(24) as pool:
        answers = list(
            pool.map(
                lambda row: infer(client, "recommender", {"user": users[row], "item": items[row]}),
                [slice(row, row + 1) for row in range(24)],
            )
        )
    together = infer(client, "recommender", {"user": users, "item": items})["score"]

    (scores,) = expected("recommender", {"user": users[:, 0], "item": items[:, 0]})
    assert together.shape == (24, 1)
    np.testing.assert_array_equal(together[:, 0], scores)
    np.testing.assert_array_equal(np.concatenate([one["score"] for one in answers]), together)
    assert "batch axis proved model=recommender" in server.log()


def test_free_sizes_pass_through_a_reshape(client: Any) -> None:
    for width in (1, 5):
        x = np.random.default_rng(width).random((3, 2, width, 3), np.float32)

        np.testing.assert_array_equal(infer(client, "patches", {"x": x})["y"], x)
        (inside,) = expected("patches", {"x": x.reshape(3, 2, 1, width, 3)})
        np.testing.assert_array_equal(inside.reshape(x.shape), x)


def test_scalar_is_sent_as_one_element(client: Any) -> None:
    assert infer(client, "scalar", {"x": np.array([7], np.float32)})["y"].tolist() == [7]


@pytest.mark.parametrize("model", ["scaled", "scaled_rows", "scaled_ir3_described"])
def test_input_with_a_default_is_left_out_or_sent(client: Any, model: str) -> None:
    x, scale = np.ones((2, 3), np.float32), np.array([1, 5, 7], np.float32)

    sent: list[dict[str, Array]] = [{"x": x}, {"x": x, "scale": scale}, {"scale": scale, "x": x}]
    for inputs in sent:
        np.testing.assert_array_equal(
            infer(client, model, inputs)["y"], expected("scaled", inputs)[0]
        )
    assert "'scale': axis 0: expected 3, got 2" in error_of(
        client, model, {"x": x, "scale": scale[:2]}
    )


def test_scalar_with_a_default_is_sent_as_one_element(client: Any) -> None:
    x = np.ones((2, 3), np.float32)

    assert infer(client, "shifted", {"x": x})["y"].tolist() == [[2, 2, 2]] * 2
    sent = {"by": np.array([5], np.float32), "x": x}
    assert infer(client, "shifted", sent)["y"].tolist() == [[6, 6, 6]] * 2


def test_request_may_hold_no_tensor_if_every_input_has_a_default(client: Any) -> None:
    own = np.arange(3, dtype=np.float32)

    assert infer(client, "default", {})["y"].tolist() == [2, 2, 2]
    assert infer(client, "default", {"x": own})["y"].tolist() == [0, 1, 2]


def test_only_a_configured_default_is_described(client: Any) -> None:
    described = {
        model: (
            [one.name for one in client.get_model_metadata(model).inputs],
            {one.name: one.optional for one in client.get_model_config(model).config.input},
        )
        for model in ("scaled", "scaled_rows", "scaled_ir3", "scaled_ir3_described")
    }

    assert described["scaled"] == (["x", "scale"], {"x": False, "scale": True})
    assert described["scaled_ir3_described"] == described["scaled"]
    assert described["scaled_rows"] == described["scaled_ir3"] == (["x"], {"x": False})


def test_requests_with_other_inputs_share_no_batch(client: Any) -> None:
    def ask(number: int) -> tuple[Array, Array]:
        inputs: dict[str, Array] = {"x": np.full((1 + number % 2, 3), number, np.float32)}
        if number % 3:
            inputs["scale"] = np.full(3, number, np.float32)
        wanted = inputs["x"] * (number if number % 3 else 2)
        return infer(client, "scaled_rows", inputs)["y"], wanted

    with ThreadPoolExecutor(32) as pool:
        for answer, wanted in pool.map(ask, range(96)):
            np.testing.assert_array_equal(answer, wanted)


def test_constant_of_an_old_file_is_no_input(client: Any) -> None:
    x = np.ones((2, 3), np.float32)

    assert infer(client, "scaled_ir3", {"x": x})["y"].tolist() == [[2, 2, 2]] * 2
    assert "unknown inputs: 'scale'" in error_of(
        client, "scaled_ir3", {"x": x, "scale": np.ones(3, np.float32)}
    )


@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (1,) * 12], ids=str)
def test_tensor_without_a_shape_takes_any(client: Any, shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(0).random(shape), np.float32)

    answer = infer(client, "any", {"x": x})["y"]

    np.testing.assert_array_equal(answer.reshape(shape), expected("any", {"x": x})[0])


def test_nothing_is_made_up_for_a_tensor_without_a_shape(server: Server) -> None:
    assert "warm-up failed" not in server.log()
    assert "model is not batched model=any reason=input 'x'" in server.log()


def test_tensor_without_a_shape_has_the_configured_dims(client: Any) -> None:
    x = np.random.default_rng(0).random((3, 2, 5), np.float32)

    np.testing.assert_array_equal(infer(client, "shaped", {"x": x})["y"], x)
    assert "axis 1: expected 2, got 3" in error_of(
        client, "shaped", {"x": np.ones((1, 3, 5), np.float32)}
    )
    assert "at most 4 rows" in error_of(client, "shaped", {"x": np.ones((5, 2, 5), np.float32)})


def test_axes_of_names_that_mean_nothing_may_differ(client: Any) -> None:
    inputs = {"a": np.ones((2, 3), np.float32), "b": np.ones((3, 5), np.float32)}

    np.testing.assert_array_equal(
        infer(client, "matmul", inputs)["y"], expected("matmul", inputs)[0]
    )


def test_more_than_eight_axes_are_served(client: Any) -> None:
    x = np.random.default_rng(0).random((3, *(1,) * 8, 2), np.float32)

    np.testing.assert_array_equal(infer(client, "deep", {"x": x})["y"], x)


def test_tensors_of_a_classifier_are_served_without_its_maps(client: Any, server: Server) -> None:
    x = np.array([[0, 3], [5, 1], [2, 9]], np.float32)

    answer = infer(client, "classifier", {"x": x})

    assert list(answer) == ["label"]
    np.testing.assert_array_equal(answer["label"], expected("classifier", {"x": x})[0])
    assert [one.name for one in client.get_model_metadata("classifier").outputs] == ["label"]
    with weir.Client(server.target) as own:
        listed = next(one for one in own.models() if one.name == "classifier").versions[0]
        assert listed.unserved_outputs == ("probabilities: seq(map(int64,tensor(float)))",)
        with pytest.raises(weir.InvalidArgument, match="'probabilities': expected a tensor, its"):
            own.infer("classifier", {"x": x}, outputs=["probabilities"])
    server.wait_for_log("outputs that are no tensors are not served model=classifier")
    (line,) = [line for line in server.log().splitlines() if "model=classifier outputs" in line]
    assert "WARNING" in line and "'probabilities' (seq(map(int64,tensor(float))))" in line
    assert "zipmap=False" in line and "weir import" in line
    assert "batch axis proved model=classifier" in server.log()


@pytest.mark.parametrize("model", ["answer", "answer_of_4"])
def test_output_without_a_shape_is_split_like_the_others(
    client: Any, server: Server, model: str
) -> None:
    x = np.random.default_rng(0).random((40, 1, 3), np.float32)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda row: infer(client, model, {"x": row})["y"], x))

    np.testing.assert_array_equal(np.stack(answers), x)
    assert f"batch axis proved model={model}\n" in server.log()
