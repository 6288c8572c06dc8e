"""Each of 16 concurrent callers of a real server gets its own rows, whatever the axes' names.

Answers of no rows, and of other numbers of rows than the inputs', reach every kind of client.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray

import weir
from tests.helpers import onnx_models
from tests.integration.harness import Client, Server, arrays, request, running, tensor
from tests.integration.triton_client import as_input
from weir.protocol import inference_pb2 as pb

CALLERS, CALLS = 16, 40
WIDTH = 512
CONFIG = "max_batch_size: 8"
THRESHOLD = 1e6

Array = NDArray[Any]

AFFINE, SOFTMAX = onnx_models.affine(WIDTH), onnx_models.softmax_of_batch(WIDTH)
SETTINGS = """
[models.set_positive_part]
batch_axis = true

[models.forbidden_affine]
batch_axis = false
"""

# By name: the graph, whether a `config.pbtxt` stands beside it, and whether it may be batched.
GRAPHS = {
    "detector": (onnx_models.detector(WIDTH), False, False),
    "configured_detector": (onnx_models.detector(WIDTH), True, False),
    "unnamed_detector": (onnx_models.detector(WIDTH, axis=None), True, False),
    # One row per row for each value that the load tries, and not for others.
    "configured_doubled": (onnx_models.doubled_above(THRESHOLD, WIDTH), True, False),
    "softmax": (onnx_models.softmax_of_batch(WIDTH), False, False),
    "configured_softmax": (onnx_models.softmax_of_batch(WIDTH), True, False),
    "scattered": (onnx_models.scattered(WIDTH), False, False),
    "configured_scattered": (onnx_models.scattered(WIDTH), True, True),
    "affine": (AFFINE, False, True),
    "dynamic_affine": (onnx_models.with_first_axes(AFFINE, "s77", "s77"), False, True),
    "tf2onnx_affine": (onnx_models.with_first_axes(AFFINE, "unk__6", "unk__7"), False, True),
    "unknown_affine": (onnx_models.with_first_axes(AFFINE, "?", "None"), False, True),
    "unnamed_affine": (onnx_models.with_first_axes(AFFINE, None, None), False, True),
    "traced_affine": (onnx_models.with_first_axes(AFFINE, "batch", "Addy_dim_0"), False, True),
    "other_affine": (onnx_models.with_first_axes(AFFINE, "src_len", "batch"), False, False),
    "forbidden_affine": (AFFINE, False, False),
    "dynamic_softmax": (onnx_models.with_first_axes(SOFTMAX, "s77", "s77"), False, False),
    "unnamed_softmax": (onnx_models.with_first_axes(SOFTMAX, None, None), False, False),
    "positive_part": (onnx_models.positive_part(WIDTH), False, False),
    "set_positive_part": (onnx_models.positive_part(WIDTH), False, True),
}
DETECTORS = {
    "detector": "boxes",
    "configured_detector": "boxes",
    "unnamed_detector": "boxes",
    "counted_detector": "boxes count",
    "configured_counted_detector": "boxes count",
}
BY_NAME = [pytest.param(name, id=name) for name in GRAPHS]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    for name, (graph, has_config, _) in GRAPHS.items():
        onnx_models.write_plain(root, name, graph)
        if has_config:
            (root / name / "config.pbtxt").write_text(CONFIG)
    counted = onnx_models.counted(onnx_models.detector(WIDTH))
    onnx_models.write_plain(root, "counted_detector", counted)
    onnx_models.write_plain(root, "configured_counted_detector", counted)
    (root / "configured_counted_detector" / "config.pbtxt").write_text(CONFIG)
    unnamed = onnx_models.with_first_axes(onnx_models.arithmetic(), *[None] * 4)
    onnx_models.write_plain(root, "unnamed_arithmetic", unnamed)
    settings = tmp_path_factory.mktemp("settings") / "weir.toml"
    settings.write_text(SETTINGS)
    # A delay fills batches even on a machine that is faster than its callers.
    flags = ("--max-queue-delay-s", "0.001", "--config", str(settings))
    with running(root, tmp_path_factory.mktemp("log") / "log", *flags) as server:
        yield server
        assert server.process.poll() is None, f"the server died:\n{server.log()}"
        assert "Traceback" not in server.log()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


def picture(caller: int, call: int, boxes: int) -> NDArray[np.float32]:
    """A row with so many numbers above 0, which no other row has."""
    row = np.full((1, WIDTH), -1, np.float32)
    for box in range(boxes):
        row[0, 7 * box + caller] = 1 + (CALLERS * call + caller) * 4 + box
    return row


def expected_of(name: str, x: Array) -> Array:
    """The outputs of a row that runs alone."""
    if name.endswith("detector"):
        return x[x > 0][:, None]
    if name.endswith("doubled"):
        return np.tile(x, (2, 1)) if x.max() > THRESHOLD else x
    if name.endswith("softmax"):
        return np.ones_like(x)
    if name.endswith(("scattered", "positive_part")):
        return np.maximum(x, 0)
    return 2 * x + 1


@pytest.mark.parametrize("name", BY_NAME)
def test_every_caller_gets_its_own_rows(server: Server, name: str) -> None:
    def ask(caller: int) -> list[str]:
        wrong = []
        generator = np.random.default_rng(caller)
        with Client(server.target) as client:
            for call in range(CALLS):
                # One box a row on average, so totals of batches often fit.
                x = picture(caller, call, int(generator.choice([0, 1, 1, 1, 2])))
                if name == "configured_doubled" and generator.random() < 0.2:
                    x[0, 0] = 2 * THRESHOLD
                expected = expected_of(name, x)
                (actual,) = client.infer(name, tensor("x", x)).values()
                if actual.shape != expected.shape or not np.allclose(actual, expected):
                    wrong.append(f"caller {caller}, call {call}: {actual.shape}")
        return wrong

    before = server.counts(name)
    with ThreadPoolExecutor(CALLERS) as pool:
        wrong = [text for texts in pool.map(ask, range(CALLERS)) for text in texts]
    server.settle()
    counts = {key: value - before.get(key, 0) for key, value in server.counts(name).items()}

    assert wrong == []
    assert counts["OK"] == CALLERS * CALLS
    _, _, is_batched = GRAPHS[name]
    assert (counts["batches"] < counts["OK"]) is is_batched


def of_unary_call(server: Server, name: str, x: Array) -> dict[str, Array]:
    with Client(server.target) as client:
        return client.infer(name, tensor("x", x))


def of_stream(server: Server, name: str, x: Array) -> dict[str, Array]:
    with Client(server.target) as client:
        message = request(name, tensor("x", x)).SerializeToString()
        (answer,) = client.stream(iter([message]))
    assert not answer.error_message
    return arrays(answer.infer_response)


def of_tritonclient(server: Server, name: str, x: Array) -> dict[str, Array]:
    with triton.InferenceServerClient(server.target) as client:
        answer = client.infer(name, [as_input("x", x)])
    return {each.name: answer.as_numpy(each.name) for each in answer.get_response().outputs}


def of_weir(server: Server, name: str, x: Array) -> dict[str, Array]:
    with weir.Client(server.target) as client:
        return dict(client.infer(name, {"x": x}))


@pytest.mark.parametrize("ask", [of_unary_call, of_stream, of_tritonclient, of_weir])
@pytest.mark.parametrize("name", DETECTORS)
def test_any_number_of_boxes_is_an_answer(
    server: Server, name: str, ask: Callable[[Server, str, Array], dict[str, Array]]
) -> None:
    for boxes in (0, 1, 3):
        for rows in (1, 2):
            x = np.concatenate([picture(3, 5, boxes), picture(4, 5, 0)])[:rows]

            answer = ask(server, name, x)

            assert list(answer) == DETECTORS[name].split()
            np.testing.assert_array_equal(answer["boxes"], expected_of(name, x))
            assert answer["boxes"].shape == (boxes, 1)
            assert answer.get("count", boxes) == boxes


def test_request_of_many_rows_runs_alone_if_the_graph_does_not_name_the_axis(
    server: Server, client: Client
) -> None:
    x = np.random.default_rng(0).normal(size=(5632, WIDTH)).astype(np.float32)
    before = server.counts("dynamic_affine")

    answer = client.infer("dynamic_affine", tensor("x", x))
    server.wait_for_counts("dynamic_affine", before, OK=1, batches=1, rows=1)

    np.testing.assert_allclose(answer["y"], 2 * x + 1, rtol=1e-6)


@pytest.mark.parametrize(("a", "b"), [(3, 1), (1, 3), (0, 0), (2, 2)])
def test_inputs_of_unnamed_axes_need_not_have_equal_rows(client: Client, a: int, b: int) -> None:
    generator = np.random.default_rng(0)
    left = generator.normal(size=(a, 3)).astype(np.float32)
    right = generator.normal(size=(b, 3)).astype(np.float32)

    answer = client.infer("unnamed_arithmetic", tensor("a", left), tensor("b", right))

    np.testing.assert_array_equal(answer["sum"], left + right)


@pytest.mark.parametrize(
    ("name", "max_batch_size", "dims"),
    [("detector", 0, [-1, WIDTH]), ("configured_detector", 8, [WIDTH])],
)
def test_model_that_is_not_batched_is_described_as_its_file_says(
    client: Client, name: str, max_batch_size: int, dims: list[int]
) -> None:
    config = client.ask(
        "ModelConfig", pb.ModelConfigRequest(name=name), pb.ModelConfigResponse
    ).config

    assert config.max_batch_size == max_batch_size
    assert list(config.input[0].dims) == dims
    assert not config.HasField("dynamic_batching")


def test_output_without_the_batch_axis_is_described_whole(client: Client) -> None:
    config = client.ask(
        "ModelConfig",
        pb.ModelConfigRequest(name="configured_counted_detector"),
        pb.ModelConfigResponse,
    ).config

    assert config.max_batch_size == 8
    assert [list(each.dims) for each in (*config.input, *config.output)] == [[WIDTH], [1], [1]]
    metadata = client.ask(
        "ModelMetadata",
        pb.ModelMetadataRequest(name="configured_counted_detector"),
        pb.ModelMetadataResponse,
    )
    assert [list(each.shape) for each in metadata.outputs] == [[-1, 1], [1]]


REASONS = {
    "affine": ("proof", "the batch axis was proved at load"),
    "unnamed_affine": ("proof", "the batch axis was proved at load"),
    "set_positive_part": ("setting", "the setting batch_axis is true"),
    "forbidden_affine": ("setting", "the setting batch_axis is false"),
    "other_affine": ("no_axis", "the first axes have different names: 'batch', 'src_len'"),
    "configured_counted_detector": ("form", "the shape depends on values, of outputs 'boxes'"),
    "detector": ("form", "shapes depend on values, by operators 'NonZero'"),
    "positive_part": ("form", "shapes depend on values, by operators 'If'"),
    "configured_detector": ("form", "the shape depends on values, of outputs 'boxes'"),
    "unnamed_softmax": ("run", "a row of output 'y' depends on the other rows of its batch"),
}


def test_what_was_decided_and_why_stands_where_one_looks(server: Server) -> None:
    with weir.Client(server.target) as client:
        versions = {model.name: model.versions[0] for model in client.models()}
    log, metrics = server.log(), server.scrape()

    for name, (basis, reason) in REASONS.items():
        is_batched = GRAPHS[name][2] if name in GRAPHS else False
        assert (versions[name].is_batched, versions[name].batching_reason) == (is_batched, reason)
        if basis == "proof":
            assert f"batch axis proved model={name}\n" in log
        else:
            what = "batched" if is_batched else "not batched"
            assert f"model is {what} model={name} reason={reason}\n" in log
        labels = frozenset({("model", name), ("version", "1"), ("reason", basis)})
        assert metrics["weir_model_batched", labels] == is_batched


def test_batch_that_loses_rows_is_the_last(tmp_path: Path) -> None:
    """Its form is clean, and so are batches of the size that is tried, and of up to four rows."""
    onnx_models.write_plain(tmp_path / "models", "first", onnx_models.first_long_rows(4))
    flags = ("--max-queue-delay-s", "0.01")
    with (
        running(tmp_path / "models", tmp_path / "log", *flags) as server,
        Client(server.target) as client,
        ThreadPoolExecutor(CALLERS) as pool,
    ):
        rows = [np.full((1, 9), number, np.float32) for number in range(20 * CALLERS)]
        answers = list(pool.map(lambda x: client.infer("first", tensor("x", x))["y"], rows))
        server.settle()
        before = server.counts("first")
        list(pool.map(lambda x: client.infer("first", tensor("x", x)), rows))
        server.settle()
        after = server.counts("first")
        log = server.log()

    np.testing.assert_array_equal(np.concatenate(answers), np.concatenate(rows))
    assert after["batches"] - before["batches"] == len(rows)
    assert log.count("model is not batched from now on model=first reason=output 'y'") == 1
