"""The server as a process: from listening to its last answer, and what it tells about itself."""

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.helpers import onnx_models
from tests.integration.harness import (
    ANSWER_S,
    FOR_EVER,
    GOOD,
    SERVICE,
    TASKS,
    Client,
    Server,
    X,
    arrays,
    burn,
    command,
    failure,
    request,
    running,
    tensor,
)
from weir.bundle.contract import Batching, Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.writer import write
from weir.protocol import inference_pb2 as pb

OK = grpc.StatusCode.OK
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def client(house: Server) -> Iterator[Client]:
    with Client(house.target) as client:
        yield client


# Start


def test_listens_before_models_are_loaded(tmp_path: Path, transport: str) -> None:
    models = tmp_path / "models"
    onnx_models.write_plain(models, "quick", onnx_models.affine())
    write_slow_to_load(models, "slow")
    with (
        running(models, tmp_path / "log", "--transport", transport, ready=False) as server,
        Client(server.target) as client,
    ):
        client.wait_for_health("SERVING", "quick")

        health = {name: client.health(name) for name in ("", "quick", "slow")}
        live = client.ask("ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse)
        ready = client.ask("ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse)
        index = client.ask(
            "RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse
        )
        refused = failure(client.send(request("slow", tensor("iterations", np.array([[1]])))))
        answer = client.infer("quick", GOOD)
        server.process.send_signal(signal.SIGTERM)
        code = server.ended()

    assert health == {"": "NOT_SERVING", "quick": "SERVING", "slow": "NOT_SERVING"}
    assert live.live and not ready.ready
    assert [(model.name, model.state) for model in index.models] == [
        ("quick", "READY"),
        ("slow", "LOADING"),
    ]
    assert refused.code() is UNAVAILABLE and "loading" in (refused.details() or "")
    np.testing.assert_array_equal(answer["y"], 2 * X + 1)
    assert code == 0, "a signal ends the loading too"


def test_log_names_the_version_that_ends_the_process_at_the_start(tmp_path: Path) -> None:
    """A load at the start is not sandboxed, and a signal such as SIGSEGV leaves no time to log."""
    models = tmp_path / "models"
    onnx_models.write_plain(models, "a-quick", onnx_models.affine())
    write_slow_to_load(models, "b-slow")
    with running(models, tmp_path / "log", ready=False) as server:
        server.wait_for_log("model=b-slow")
        server.process.send_signal(signal.SIGSEGV)
        code = server.ended()
        loading = [line for line in server.log().splitlines() if "version loading" in line]

    assert code == -signal.SIGSEGV
    assert "model=b-slow version=1" in loading[-1]


def write_slow_to_load(models: Path, name: str) -> None:
    """A bundle whose recorded inputs take for ever, so that its loading does."""
    iterations = np.array([[FOR_EVER]])
    outputs = {"echo": iterations, "steps": iterations}
    files = {
        "model.onnx": onnx_models.burner(),
        GOLDEN: encode(Golden(inputs={"iterations": iterations}, outputs=outputs)),
    }
    contract = Contract(
        task="other",
        architecture="burner",
        batching=Batching(max_rows=1),
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    write(files, contract, models, name)


def refuses_to_start(models: Path, *flags: str, **environment: str) -> str:
    """What a server says on standard error that ends with exit code 2."""
    result = subprocess.run(
        command(models, *flags),
        capture_output=True,
        text=True,
        timeout=2 * ANSWER_S,
        check=False,
        env=environment or None,
    )
    assert result.returncode == 2, result.stderr
    assert "serving" not in result.stdout
    assert "Traceback" not in result.stderr
    return result.stderr


def test_cuda_without_a_device_is_a_clear_error(few: Path) -> None:
    # Hides the devices of a machine that has some.
    said = refuses_to_start(few, "--provider", "cuda", CUDA_VISIBLE_DEVICES="-1")

    assert "weir: provider cuda: " in said


@pytest.mark.parametrize("row", ["F14"])
def test_grpc_port_in_use_is_a_clear_error(
    few: Path, house: Server, transport: str, row: str
) -> None:
    port = house.target.split(":")[1]

    said = refuses_to_start(few, "--transport", transport, "--port", port)

    assert f"weir: cannot listen on 127.0.0.1:{port}" in said
    with Client(house.target) as client:
        np.testing.assert_array_equal(client.infer("affine", GOOD)["y"], 2 * X + 1)


@pytest.mark.parametrize("row", ["F14"])
def test_metrics_port_in_use_is_a_clear_error(few: Path, transport: str, row: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        said = refuses_to_start(few, "--transport", transport, "--metrics-port", port)

    assert f"weir: cannot listen on 127.0.0.1:{port} for metrics" in said


@pytest.mark.parametrize("row", ["F14"])
def test_one_port_for_both_is_a_clear_error(few: Path, row: str) -> None:
    said = refuses_to_start(few, "--port", "18001", "--metrics-port", "18001")

    assert "18001: choose two ports" in said


# Health, reflection, the index


def test_health_of_the_server_and_of_each_model(client: Client) -> None:
    assert client.health() == "SERVING"
    assert client.health("affine") == "SERVING"
    assert client.health("broken") == "NOT_SERVING"
    with pytest.raises(grpc.RpcError) as caught:
        client.health("unknown")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("service", "status"),
    [("", "SERVING"), ("affine", "SERVING"), ("broken", "NOT_SERVING"), ("?", "SERVICE_UNKNOWN")],
    ids=["server", "model", "broken", "unknown"],
)
def test_health_watch_begins_with_the_present(client: Client, service: str, status: str) -> None:
    call = client.watch(service)

    assert next(call) == status
    call.cancel()


def test_reflection_describes_the_inference_service(client: Client) -> None:
    database = ProtoReflectionDescriptorDatabase(client.channel)

    services = database.get_services()
    service = DescriptorPool(database).FindServiceByName(SERVICE)

    assert {SERVICE, "grpc.health.v1.Health"} <= set(services)
    ours = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert {method.name for method in service.methods} == {method.name for method in ours.methods}
    inputs = service.methods_by_name["ModelInfer"].input_type.fields_by_name["inputs"]
    assert inputs.message_type is not None
    assert inputs.message_type.fields_by_name["shape"].number == 3


def test_reflection_describes_the_task_calls(client: Client) -> None:
    database = ProtoReflectionDescriptorDatabase(client.channel)

    services = database.get_services()
    method = DescriptorPool(database).FindServiceByName(TASKS).methods_by_name["Classify"]

    assert TASKS in services
    assert method.input_type.full_name == "weir.v1.ClassifyRequest"
    assert "pictures" in method.input_type.fields_by_name


def test_broken_bundle_leaves_the_others_serving(client: Client) -> None:
    index = client.ask("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)
    only_ready = client.ask(
        "RepositoryIndex", pb.RepositoryIndexRequest(ready=True), pb.RepositoryIndexResponse
    )

    models = {model.name: model for model in index.models}
    assert models["broken"].state == "UNAVAILABLE"
    assert "SHA-256" in models["broken"].reason
    assert "/" not in models["broken"].reason, "the reason shows no path of the machine"
    assert {model.state for name, model in models.items() if name != "broken"} == {"READY"}
    assert {model.name for model in only_ready.models} == set(models) - {"broken"}
    assert failure(client.send(request("broken", GOOD))).code() is UNAVAILABLE
    np.testing.assert_array_equal(client.infer("labelled", GOOD)["y"], 2 * X + 1)


# Load


def test_flood_of_a_full_queue_is_refused_at_once(client: Client, house: Server) -> None:
    waiting = [client.send(request("patient_full", GOOD)) for _ in range(8)]
    house.wait_for_metric(8, "weir_queue_rows", model="patient_full")

    flood = [client.send(request("patient_full", GOOD)) for _ in range(50)]
    refusals = [failure(call) for call in flood]
    other = client.infer("affine", GOOD)

    assert {refusal.code() for refusal in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    for refusal in refusals:
        trailers = dict(refusal.trailing_metadata() or ())
        assert int(trailers["grpc-retry-pushback-ms"]) > 0
    assert not any(call.done() for call in waiting), "refused while the queue was full"
    np.testing.assert_array_equal(other["y"], 2 * X + 1)
    for call in waiting:
        call.cancel()
    house.wait_for_metric(0, "weir_queue_rows", model="patient_full")


def test_cancelled_caller_of_a_shared_batch_harms_nobody(client: Client, house: Server) -> None:
    before = house.counts("patient_fingerprint")
    rows = np.random.default_rng(1).integers(-(2**40), 2**40, (5, 1, 6))

    def send(number: int) -> Any:
        return client.send(request("patient_fingerprint", tensor("row", rows[number])))

    calls = {number: send(number) for number in (0, 1, 2)}
    house.wait_for_metric(3, "weir_queue_requests", model="patient_fingerprint")
    calls.pop(1).cancel()
    house.wait_for_metric(2, "weir_queue_requests", model="patient_fingerprint")
    calls |= {number: send(number) for number in (3, 4)}

    for number, call in calls.items():
        answer = arrays(call.result())
        np.testing.assert_array_equal(answer["echo"], rows[number])
        np.testing.assert_array_equal(answer["hash"], onnx_models.hash_of(rows[number]))
        assert answer["version"].tolist() == [7]
    house.wait_for_counts("patient_fingerprint", before, OK=4, CANCELLED=1, rows=4, batches=1)


def test_poisoned_request_of_a_shared_batch_fails_alone(client: Client, house: Server) -> None:
    tokens = [np.array([[1, 2, 3]]), np.array([[4, 99, 5]]), np.array([[6, 7, 0]])]

    calls = [client.send(request("patient_gather", tensor("tokens", item))) for item in tokens]

    assert failure(calls[1]).code() is grpc.StatusCode.INVALID_ARGUMENT
    for number in (0, 2):
        np.testing.assert_array_equal(arrays(calls[number].result())["y"], tokens[number] * 10.0)


# Metrics


def test_metrics_agree_with_what_was_sent(client: Client, house: Server) -> None:
    before, histogram = house.counts("fingerprint"), histogram_count(house)

    for number in range(5):
        client.infer("fingerprint", tensor("row", np.full((2, 3), number)))
    for _ in range(3):
        failure(client.send(request("fingerprint", GOOD)))
    house.wait_for_counts("fingerprint", before, OK=5, INVALID_ARGUMENT=3, rows=10, batches=5)

    assert histogram_count(house) == histogram + 5
    assert house.metric("weir_model_ready", model="fingerprint") == 1
    assert house.metric("weir_model_ready", model="broken") == 0
    assert house.metric("weir_model_provider", model="fingerprint", provider="cpu") == 1
    assert house.metric("weir_model_load_seconds", model="fingerprint") > 0
    assert house.metric("process_resident_memory_bytes") > 0


def histogram_count(house: Server) -> float:
    return house.metric("weir_request_seconds_count", model="fingerprint")


def test_metrics_are_at_one_path_only(house: Server) -> None:
    found = {}
    for path in ("/metrics", "/", "/healthz"):
        with closing(HTTPConnection(house.metrics, timeout=ANSWER_S)) as connection:
            connection.request("GET", path)
            found[path] = connection.getresponse().status

    assert found == {"/metrics": 200, "/": 200, "/healthz": 404}


def test_unknown_names_add_no_series(client: Client, house: Server) -> None:
    refused = house.metric("weir_requests_total", status="NOT_FOUND")
    failure(client.send(request("the first unknown name", GOOD)))
    # A response is sent before it is counted.
    house.wait_for_metric(refused + 1, "weir_requests_total", status="NOT_FOUND")
    before = set(house.scrape())

    calls = [client.send(request(f"unknown {number}", GOOD)) for number in range(1000)]
    codes = {failure(call).code() for call in calls}

    assert codes == {grpc.StatusCode.NOT_FOUND}
    house.wait_for_metric(refused + 1001, "weir_requests_total", status="NOT_FOUND")
    assert set(house.scrape()) == before


# Stop


@dataclass
class Load:
    """Clients that send one request after the other until one is not answered."""

    target: str
    answered: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    endings: list[grpc.StatusCode] = field(default_factory=list)
    under_way: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: int) -> None:
        self.threads = [threading.Thread(target=self._send, args=(n,)) for n in range(clients)]
        for thread in self.threads:
            thread.start()
        for _ in range(50 * clients):
            assert self.under_way.acquire(timeout=ANSWER_S)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(ANSWER_S)
        assert not any(thread.is_alive() for thread in self.threads)

    def _send(self, number: int) -> None:
        with Client(self.target, use_local_subchannel_pool=1) as client:
            while True:
                values = X + number
                call = client.send(request("affine", tensor("x", values)))
                if call.code() is not OK:
                    self.endings.append(call.code())
                    return
                right = np.array_equal(arrays(call.result())["y"], 2 * values + 1)
                (self.answered if right else self.wrong).append(number)
                self.under_way.release()


@pytest.mark.parametrize("row", ["F01"])
def test_sigterm_under_load_loses_no_accepted_request(
    few: Path, tmp_path: Path, flags: tuple[str, ...], iterations_per_s: int, row: str
) -> None:
    with (
        running(few, tmp_path / "log", *flags, "--grace-s", "120") as server,
        Client(server.target) as client,
    ):
        load = Load(server.target)
        load.start(clients=4)
        # One request runs and one waits for batch-mates while the signal comes; the run keeps the
        # server there for long enough to be asked what it counted.
        run = client.send(burn(3 * iterations_per_s), timeout=4 * ANSWER_S)
        queued = client.send(request("patient", GOOD), timeout=4 * ANSWER_S)
        server.wait_for_metric(1, "weir_running_requests", model="burner")
        server.wait_for_metric(1, "weir_queue_requests", model="patient")
        health = client.watch()
        assert next(health) == "SERVING"

        server.process.send_signal(signal.SIGTERM)
        told, run_was_open = next(health), not run.done()
        load.join()
        late = failure(client.send(request("affine", GOOD)))
        server.wait_for_metric(
            len(load.answered), "weir_requests_total", model="affine", status="OK"
        )
        run.exception(4 * ANSWER_S)
        code = server.ended()

    assert told == "NOT_SERVING" and run_was_open
    assert load.endings == [UNAVAILABLE] * 4 and not load.wrong
    assert late.code() is UNAVAILABLE
    np.testing.assert_array_equal(arrays(run.result())["steps"], [[3 * iterations_per_s]])
    np.testing.assert_array_equal(arrays(queued.result())["y"], 2 * X + 1)
    assert code == 0
    assert "stopped drained=True" in server.log()


@pytest.mark.parametrize("row", ["F02"])
def test_request_longer_than_the_grace_is_given_up(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    with (
        running(few, tmp_path / "log", *flags, "--grace-s", "0.5") as server,
        Client(server.target) as client,
    ):
        run = client.send(burn(FOR_EVER), timeout=2 * ANSWER_S)
        server.wait_for_metric(1, "weir_running_requests", model="burner")

        server.process.send_signal(signal.SIGTERM)
        code = server.ended()

        assert failure(run).code() is UNAVAILABLE
    assert code == 0
    assert "stopped drained=False" in server.log()


@pytest.mark.parametrize("row", ["F02"])
def test_second_signal_exits_at_once(
    few: Path, tmp_path: Path, flags: tuple[str, ...], row: str
) -> None:
    with (
        running(few, tmp_path / "log", *flags, "--grace-s", "3600") as server,
        Client(server.target) as client,
    ):
        run = client.send(burn(FOR_EVER), timeout=2 * ANSWER_S)
        server.wait_for_metric(1, "weir_running_requests", model="burner")
        health = client.watch()
        assert next(health) == "SERVING"

        server.process.send_signal(signal.SIGTERM)
        assert next(health) == "NOT_SERVING"
        server.process.send_signal(signal.SIGTERM)
        code = server.ended()

        assert failure(run).code() is UNAVAILABLE
    assert code == 128 + signal.SIGTERM


def test_idle_server_stops_at_once(few: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    with (
        running(few, tmp_path / "log", *flags, "--grace-s", "3600") as server,
        Client(server.target) as client,
    ):
        # Neither somebody's watch nor a stream that waits for its client's next request delays it.
        health = client.watch()
        assert next(health) == "SERVING"
        gate = threading.Event()
        stream = client.stream(one_then_wait(request("affine", GOOD).SerializeToString(), gate))
        assert not next(stream).error_message

        server.process.send_signal(signal.SIGINT)

        assert server.ended() == 0
        assert next(health) == "NOT_SERVING"
        assert health.code() is UNAVAILABLE and stream.code() is UNAVAILABLE
        gate.set()
    assert "stopped drained=True" in server.log()


def one_then_wait(message: bytes, gate: threading.Event) -> Iterator[bytes]:
    yield message
    gate.wait(ANSWER_S)
