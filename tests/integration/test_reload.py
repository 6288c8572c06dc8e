"""Hot reload under load: no request is lost, and each response is of the version that it names.

An integer model returns its version in every row, so that a response's version can be compared
with its content.
"""

import functools
import io
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image

from tests.helpers import onnx_models
from tests.integration.conftest import write_picture_bundle
from tests.integration.generation import generate, publish_endless
from tests.integration.harness import (
    ANSWER_S,
    Client,
    arrays,
    failure,
    request,
    running,
    tensor,
)
from tests.integration.triton_client import error_of
from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.writer import write
from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2 as models_pb

MODELS = "weir.v1.Models"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
FAILED = grpc.StatusCode.FAILED_PRECONDITION


def write_fingerprint(root: Path, version: int, name: str = "fingerprint") -> Path:
    rows = np.array([[1, 2, 3], [4, 5, 6]])
    golden = Golden(
        {"row": rows},
        {"echo": rows, "hash": onnx_models.hash_of(rows), "version": np.full(2, version)},
    )
    return write_exact(root, name, onnx_models.fingerprint(version), golden, version)


def write_exact(root: Path, name: str, graph: bytes, golden: Golden, version: int) -> Path:
    contract = Contract(
        task="other", architecture="test", tolerance=Tolerance(absolute=0.0, relative=0.0)
    )
    return write({"model.onnx": graph, GOLDEN: encode(golden)}, contract, root, name, version)


def write_endless(root: Path, version: int, name: str = "fingerprint") -> Path:
    """A bundle whose load never ends."""
    golden = Golden(
        {"iterations": np.array([[2**62]])},
        {"echo": np.array([[2**62]]), "steps": np.array([[2**62]])},
    )
    return write_exact(root, name, onnx_models.burner(), golden, version)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def load(client: Client, name: str = "fingerprint", *, again: bool = False) -> grpc.StatusCode:
    message = pb.RepositoryModelLoadRequest(model_name=name)
    if again:
        message.parameters["reload"].bool_param = True
    return status(client, "RepositoryModelLoad", message)


def unload(client: Client, name: str = "fingerprint") -> grpc.StatusCode:
    message = pb.RepositoryModelUnloadRequest(model_name=name)
    return status(client, "RepositoryModelUnload", message)


def status(client: Client, method: str, message: Any, **service: str) -> grpc.StatusCode:
    payload = message.SerializeToString()
    call = client.unary(method, **service).future(payload, timeout=2 * ANSWER_S)
    code = call.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def listed(client: Client) -> dict[str, models_pb.Model]:
    payload = client.unary("ListModels", MODELS)(b"", timeout=ANSWER_S)
    return {model.name: model for model in models_pb.ListModelsResponse.FromString(payload).models}


def states(client: Client, name: str = "fingerprint") -> dict[str, str]:
    return {version.version: version.state for version in listed(client)[name].versions}


def wait_for_state(client: Client, version: str, state: str) -> None:
    """Poll the server; each call takes the time of its response."""
    for _ in range(100_000):
        if states(client).get(version) == state:
            return
    raise AssertionError(f"version {version} never was {state}: {states(client)}")


def ask(client: Client, rows: Any, version: str = "") -> Any:
    message = request("fingerprint", tensor("row", rows), model_version=version)
    return client.send(message, timeout=2 * ANSWER_S)


@dataclass
class Clients:
    """Clients that send requests without a pause until they stop, and check each response."""

    target: str
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def wait_for_answer(self, version: int) -> None:
        """Return once a version has answered one of the clients."""
        end_s = time.monotonic() + ANSWER_S
        while not self.answers[str(version)]:
            assert time.monotonic() < end_s, f"version {version} answers none"
            time.sleep(0.005)

    def run(self, number: int) -> None:
        random = np.random.default_rng(number)
        with Client(self.target, use_local_subchannel_pool=1) as client:
            while not self.stop.is_set():
                rows = random.integers(-(2**40), 2**40, (1 + number % 3, 5))
                call = ask(client, rows)
                if call.code() is not grpc.StatusCode.OK:
                    self.failures.append(f"{call.code()}: {call.details()}")
                    continue
                answer, outputs = call.result(), arrays(call.result())
                right = (
                    np.array_equal(outputs["echo"], rows)
                    and np.array_equal(outputs["hash"], onnx_models.hash_of(rows))
                    and set(outputs["version"].tolist()) == {int(answer.model_version)}
                )
                if not right:
                    self.failures.append(f"wrong answer of version {answer.model_version}")
                self.answers[answer.model_version] += 1


@contextmanager
def asking(target: str, clients: int = 3) -> Iterator[Clients]:
    load = Clients(target)
    threads = [threading.Thread(target=load.run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(4 * ANSWER_S)
    assert not any(thread.is_alive() for thread in threads)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_fingerprint(tmp_path / "models", 1)
    return tmp_path / "models"


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    def start(*flags: str, **options: Any) -> Any:
        return running(root, tmp_path / "log", *flags, **options)

    yield start
    if (tmp_path / "log").exists():
        assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("row", ["E09, E10"])
def test_reloads_under_load_lose_nothing(
    root: Path, start: Callable[..., Any], transport: str, row: str
) -> None:
    with (
        start("--transport", transport, "--model-control", "explicit") as server,
        Client(server.target) as client,
        asking(server.target) as clients,
    ):
        answering = 1
        clients.wait_for_answer(answering)
        for version in range(2, 10):
            directory = write_fingerprint(root, version)
            if version in (3, 6):
                flip(directory / "model.onnx")
            elif version == 5:
                (directory / "model.json").unlink()
            else:
                answering = version
            expected = grpc.StatusCode.OK if answering == version else FAILED
            assert load(client) is expected
            answer = ask(client, np.array([[1, 2, 3]])).result()
            assert answer.model_version == str(answering)
            clients.wait_for_answer(answering)

    assert clients.failures == []
    assert clients.answers.keys() >= {"1", "2", "4", "7", "8", "9"}
    assert sum(clients.answers.values()) > 50


@pytest.mark.parametrize("row", ["E03"])
def test_polled_bundle_that_is_copied_file_by_file_is_served_once_it_is_whole(
    root: Path, start: Callable[..., Any], tmp_path: Path, row: str
) -> None:
    ready = write_fingerprint(tmp_path / "elsewhere", 2)
    with (
        start("--model-control", "poll", "--poll-interval-s", "0.05") as server,
        Client(server.target) as client,
        asking(server.target) as clients,
    ):
        target = root / "fingerprint" / "2"
        target.mkdir()
        for file in sorted(ready.iterdir(), key=lambda path: path.suffix, reverse=True):
            data = file.read_bytes()
            with (target / file.name).open("wb") as copy:
                for start_byte in range(0, len(data), 512):
                    copy.write(data[start_byte : start_byte + 512])
                    copy.flush()
                    if start_byte % 4096 == 0:
                        assert ask(client, np.array([[1]])).result().model_version in ("1", "2")

        wait_for_state(client, "2", "READY")
        assert ask(client, np.array([[1]])).result().model_version == "2"

    assert clients.failures == []


@pytest.mark.parametrize("row", ["E12"])
def test_model_whose_directory_is_deleted_serves_on(
    root: Path, start: Callable[..., Any], row: str
) -> None:
    with start("--model-control", "explicit") as server, Client(server.target) as client:
        shutil.rmtree(root / "fingerprint")

        assert ask(client, np.array([[1]])).result().model_version == "1"
        assert load(client) is FAILED
        assert ask(client, np.array([[1]])).result().model_version == "1"


@pytest.mark.parametrize("row", ["E11"])
def test_of_many_changes_at_once_one_wins_and_the_rest_are_refused(
    root: Path, start: Callable[..., Any], transport: str, row: str
) -> None:
    write_fingerprint(root, 1, "neighbour")
    codes: list[grpc.StatusCode] = []

    with (
        start("--transport", transport, "--model-control", "explicit") as server,
        Client(server.target) as client,
    ):

        def change(number: int) -> None:
            for turn in range(4):
                own = unload(client) if (number + turn) % 2 else load(client, again=True)
                codes.append(own)

        threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        message = request("neighbour", tensor("row", np.array([[1, 2]])))
        while any(thread.is_alive() for thread in threads):
            assert client.send(message).code() is grpc.StatusCode.OK
        for thread in threads:
            thread.join()

        assert len(codes) == 32
        assert set(codes) == {grpc.StatusCode.OK, UNAVAILABLE}
        assert load(client) is grpc.StatusCode.OK
        assert ask(client, np.array([[1]])).result().model_version == "1"


@pytest.mark.parametrize("row", ["F03"])
def test_sigterm_while_a_version_is_in_the_sandbox_ends_cleanly(
    root: Path, start: Callable[..., Any], transport: str, row: str
) -> None:
    with (
        start("--transport", transport, "--model-control", "explicit") as server,
        Client(server.target) as client,
    ):
        write_endless(root, 2)
        message = pb.RepositoryModelLoadRequest(model_name="fingerprint").SerializeToString()
        call = client.unary("RepositoryModelLoad").future(message, timeout=2 * ANSWER_S)
        wait_for_state(client, "2", "LOADING")
        assert ask(client, np.array([[1]])).result().model_version == "1"

        server.process.send_signal(signal.SIGTERM)

        assert server.ended() == 0
        assert failure(call).code() is UNAVAILABLE
        assert "stopped drained=True" in server.log()


@pytest.mark.parametrize("row", ["F03"])
def test_sigterm_during_the_first_loading_ends_cleanly(
    root: Path, start: Callable[..., Any], row: str
) -> None:
    write_endless(root, 1, "aaa_endless")
    with start(ready=False) as server, Client(server.target) as client:
        assert client.health() == "NOT_SERVING"

        server.process.send_signal(signal.SIGTERM)

        assert server.ended() == 0


@pytest.mark.parametrize("row", ["E16"])
def test_version_that_never_loads_times_out_and_blocks_no_request(
    root: Path, start: Callable[..., Any], row: str
) -> None:
    with (
        start("--model-control", "explicit", "--load-timeout-s", "3") as server,
        Client(server.target) as client,
    ):
        write_endless(root, 2)
        message = pb.RepositoryModelLoadRequest(model_name="fingerprint").SerializeToString()
        call = client.unary("RepositoryModelLoad").future(message, timeout=2 * ANSWER_S)
        wait_for_state(client, "2", "LOADING")

        assert ask(client, np.array([[1]])).result().model_version == "1"
        assert "expected the load to end within 3 s" in failure(call).details()
        assert states(client) == {"2": "UNAVAILABLE", "1": "READY"}


def classify(client: Client) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (640, 480), "red").save(picture, "PNG")
    client.classify("colours", picture.getvalue()).result()


def translate(client: Client) -> None:
    assert list(generate(client, "ab"))[-1].HasField("result")


def test_task_calls_go_to_the_successor(tmp_path: Path, transport: str) -> None:
    """Inputs that are preprocessed while their model is replaced are preprocessed again."""
    root = tmp_path / "models"
    labels = b"red\ngreen\nblue\n"
    write_picture_bundle(root, "colours", onnx_models.colours(), "probabilities", labels)
    publish_endless(root)
    failures: list[str] = []
    done = threading.Event()

    def keep_asking(question: Callable[[Client], None], target: str) -> None:
        with Client(target, use_local_subchannel_pool=1) as client:
            while not done.is_set():
                try:
                    question(client)
                except grpc.RpcError as error:
                    failures.append(str(error))

    flags = ("--transport", transport, "--model-control", "explicit")
    with running(root, tmp_path / "log", *flags) as server, Client(server.target) as client:
        threads = [
            threading.Thread(target=keep_asking, args=(question, server.target))
            for question in (classify, translate, classify, translate)
        ]
        for thread in threads:
            thread.start()
        codes = [load(client, name, again=True) for name in 3 * ("colours", "endless")]
        done.set()
        for thread in threads:
            thread.join(ANSWER_S)

    assert set(codes) == {grpc.StatusCode.OK}
    assert failures == []


def test_tritonclient_loads_and_unloads(root: Path, start: Callable[..., Any]) -> None:
    with (
        start("--model-control", "explicit") as server,
        triton.InferenceServerClient(server.target) as client,
    ):
        client.unload_model("fingerprint", unload_dependents=True)
        assert not client.is_model_ready("fingerprint")
        client.load_model("fingerprint")
        assert client.is_model_ready("fingerprint")

        files = {"file:1/model.onnx": b"x"}
        for options in ({"config": "{}"}, {"config": "{}", "files": files}):
            code, details = error_of(functools.partial(client.load_model, "fingerprint", **options))
            assert code == "StatusCode.UNIMPLEMENTED" and "from the repository alone" in details
        for call in (client.load_model, client.unload_model):
            error = error_of(functools.partial(call, "unknown"))
            assert error == ["StatusCode.NOT_FOUND", "unknown model 'unknown'"]


def test_without_control_the_calls_are_unimplemented(root: Path, start: Callable[..., Any]) -> None:
    with (
        start() as server,
        Client(server.target) as client,
        triton.InferenceServerClient(server.target) as neighbour,
    ):
        label = models_pb.SetLabelRequest(model_name="fingerprint", label="stable", version=1)

        for call in (neighbour.load_model, neighbour.unload_model):
            code, _ = error_of(functools.partial(call, "fingerprint"))
            assert code == "StatusCode.UNIMPLEMENTED"
        assert neighbour.is_model_ready("fingerprint")
        assert status(client, "SetLabel", label, service=MODELS) is grpc.StatusCode.UNIMPLEMENTED
        assert listed(client)["fingerprint"].answering == "1"
