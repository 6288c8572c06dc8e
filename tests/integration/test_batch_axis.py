"""Each of 16 concurrent callers of a real server gets its own rows, whatever the axes' names."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers import onnx_models
from tests.integration.harness import Client, Server, running, tensor
from weir.protocol import inference_pb2 as pb

CALLERS, CALLS = 16, 60
WIDTH = 512
CONFIG = "max_batch_size: 8"
THRESHOLD = 1e6

Array = NDArray[Any]

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
    "affine": (onnx_models.affine(WIDTH), False, True),
}
BY_NAME = [pytest.param(name, id=name) for name in GRAPHS]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("models")
    for name, (graph, has_config, _) in GRAPHS.items():
        onnx_models.write_plain(root, name, graph)
        if has_config:
            (root / name / "config.pbtxt").write_text(CONFIG)
    # A delay fills batches even on a machine that is faster than its callers.
    flags = ("--max-queue-delay-s", "0.001")
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
    match name.removeprefix("configured_").removeprefix("unnamed_"):
        case "detector":
            return x[x > 0][:, None]
        case "doubled":
            return np.tile(x, (2, 1)) if x.max() > THRESHOLD else x
        case "softmax":
            return np.ones_like(x)
        case "scattered":
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


@pytest.mark.parametrize("name", ["detector", "configured_detector", "unnamed_detector"])
@pytest.mark.parametrize("boxes", [0, 1, 3])
def test_any_number_of_boxes_is_an_answer(client: Client, name: str, boxes: int) -> None:
    x = picture(3, 5, boxes)

    answer = client.infer(name, tensor("x", x))

    np.testing.assert_array_equal(answer["boxes"], expected_of(name, x))
    assert answer["boxes"].shape == (boxes, 1)


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


def test_log_says_why(server: Server) -> None:
    log = server.log()

    assert "batch axis proved model=affine" in log
    assert (
        "model is not batched model=detector reason=shapes depend on values, by operators 'NonZero'"
        in log
    )
    assert (
        "model is not batched model=configured_detector reason=the shape depends on values, "
        "of outputs 'boxes'" in log
    )


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
