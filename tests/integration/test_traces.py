"""Spans of a real server, sent to a collector in this process; the caller is `weir.Client`."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import weir
from tests.helpers import onnx_models
from tests.integration.collector import Collector, attributes, collecting
from tests.integration.generation import publish_endless
from tests.integration.harness import ANSWER_S, Client, Server, command, request, running, tensor

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
INFER = "inference.GRPCInferenceService/ModelInfer"
ROW = {"x": np.zeros((1, 4), np.float32)}
# Spans are sent this often; by default every five seconds.
DELAY = ("OTEL_BSP_SCHEDULE_DELAY", "20")

SETTINGS = """
[models.patient]
max_batch_rows = 2
max_queue_delay_s = 86400
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("traced")
    for name in ("affine", "patient"):
        onnx_models.write_plain(root, name, onnx_models.affine(), version=7)
    publish_endless(root)
    (root.parent / "weir.toml").write_text(SETTINGS)
    return root


@pytest.fixture(scope="module")
def collector(transport: str) -> Iterator[Collector]:
    """One collector per transport: the tests rely on spans that no earlier test sent."""
    del transport
    collector = Collector()
    with collecting(collector):
        yield collector


@pytest.fixture(scope="module")
def server(
    repository: Path, collector: Collector, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server that traces only the requests whose caller traces them."""
    flags = ("--otlp-endpoint", collector.endpoint, "--trace-sample-rate", "0")
    config = ("--config", str(repository.parent / "weir.toml"), "--transport", transport)
    log = tmp_path_factory.mktemp("log") / "log"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(*DELAY)
        environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with running(repository, log, *flags, *config, "--access-log-sample-rate", "1") as server:
            yield server
    assert "Traceback" not in server.log()


def traced(server: Server, trace_id: str, flags: str = "01") -> weir.Client:
    """A client whose calls belong to a trace."""
    return weir.Client(server.target, metadata={"traceparent": f"00-{trace_id}-{PARENT}-{flags}"})


def spans_of(collector: Collector, trace_id: str, count: int) -> dict[str, Span]:
    """Wait for so many spans of a trace; the spans by name."""

    def of_trace(spans: list[Span]) -> list[Span]:
        return [span for span in spans if span.trace_id.hex() == trace_id]

    spans = of_trace(collector.wait_for(lambda spans: len(of_trace(spans)) >= count))
    assert len(spans) == count, [span.name for span in spans]
    return {span.name: span for span in spans}


def test_request_is_a_span_of_its_callers_trace_with_its_phases_inside(
    server: Server, collector: Collector
) -> None:
    before_ns = time.time_ns()
    with traced(server, TRACE) as client:
        client.infer("affine", ROW)

    spans = spans_of(collector, TRACE, 4)
    after_ns = time.time_ns()

    whole, queue, batch, compute = (spans[name] for name in (INFER, "queue", "batch", "compute"))
    assert whole.parent_span_id.hex() == PARENT
    assert whole.kind == Span.SPAN_KIND_SERVER
    assert {queue.parent_span_id, batch.parent_span_id} == {whole.span_id}
    assert compute.parent_span_id == batch.span_id
    times = [
        before_ns, whole.start_time_unix_nano, queue.start_time_unix_nano,
        queue.end_time_unix_nano, batch.start_time_unix_nano, compute.start_time_unix_nano,
        compute.end_time_unix_nano, batch.end_time_unix_nano, whole.end_time_unix_nano, after_ns,
    ]  # fmt: skip
    assert times == sorted(times)
    assert attributes(whole) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "weir.model": "affine",
        "weir.version": "7",
        "weir.rows": 1,
    }
    assert collector.resources[0]["service.name"] == "weir"
    assert collector.resources[0]["deployment.environment.name"] == "test"


def test_requests_of_two_traces_share_a_batch(server: Server, collector: Collector) -> None:
    traces = ("a" * 32, "b" * 32)
    clients = [traced(server, trace_id) for trace_id in traces]

    for future in [client.submit("patient", ROW) for client in clients]:
        future.result(ANSWER_S)

    first, second = (attributes(spans_of(collector, trace_id, 4)["batch"]) for trace_id in traces)
    assert first == second
    assert first["weir.batch_rows"] == 2
    for client in clients:
        client.close()


def test_failed_request_is_one_span_with_its_status(server: Server, collector: Collector) -> None:
    trace_id = "c" * 32
    with traced(server, trace_id) as client, pytest.raises(weir.CallError):
        client.infer("unknown", {"x": ROW["x"]})

    # The client first asks for the model's inputs.
    (span,) = spans_of(collector, trace_id, 1).values()
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]


def test_stream_of_tokens_has_first_token_and_steps(server: Server, collector: Collector) -> None:
    trace_id = "d" * 32
    with traced(server, trace_id) as client:
        result = client.generate("endless", "abc", max_tokens=5).result()

    spans = spans_of(collector, trace_id, 6)

    assert set(spans) == {
        "weir.v1.Tasks/Generate", "preprocess", "queue", "batch", "compute", "decode",
    }  # fmt: skip
    best = result.hypotheses[0]
    assert attributes(spans["decode"]) == {"weir.steps": len(best.tokens) + best.is_complete}
    (event,) = spans["decode"].events
    assert event.name == "first token"
    decode = spans["decode"]
    assert decode.start_time_unix_nano <= event.time_unix_nano <= decode.end_time_unix_nano


def test_each_request_of_a_stream_is_a_span(server: Server, collector: Collector) -> None:
    trace_id = "e" * 32
    with traced(server, trace_id) as client:
        assert len(list(client.stream("affine", [ROW, ROW]))) == 2

    spans_of(collector, trace_id, 8)


def test_unsampled_request_is_logged_with_its_trace_but_not_traced(
    server: Server, collector: Collector
) -> None:
    with traced(server, "f" * 32, flags="00") as client:
        client.infer("affine", ROW)
    with traced(server, "9" * 32) as client:
        client.infer("affine", ROW)

    whole = spans_of(collector, "9" * 32, 4)[INFER]

    assert "f" * 32 not in {span.trace_id.hex() for span in collector.wait_for(bool)}
    server.wait_for_log(f"trace_id={'f' * 32} span_id={PARENT}")
    server.wait_for_log(f"trace_id={'9' * 32} span_id={whole.span_id.hex()}")


def stop_with(endpoint: str, repository: Path, log: Path) -> float:
    """Seconds until a server with an unusable collector has stopped."""
    with running(repository, log, "--otlp-endpoint", endpoint) as server:
        with Client(server.target) as client:
            for _ in range(50):
                client.infer("affine", tensor("x", ROW["x"]))
            assert client.send(request("affine")).exception() is not None
        started_s = time.monotonic()
        server.process.terminate()
        assert server.ended() == 0
        return time.monotonic() - started_s


def test_collector_that_is_down_harms_no_request(repository: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"

    assert stop_with(endpoint, repository, tmp_path / "log") < ANSWER_S / 2


def test_collector_that_never_answers_harms_no_request(repository: Path, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"

        assert stop_with(endpoint, repository, tmp_path / "log") < ANSWER_S / 2


def test_server_with_a_collector_needs_the_extra(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = "raise ModuleNotFoundError('planned', name='opentelemetry')\n"
    (tmp_path / "opentelemetry.py").write_text(error)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    done = subprocess.run(
        command(repository, "--otlp-endpoint", "http://127.0.0.1:4317"),
        capture_output=True, text=True, timeout=ANSWER_S, check=False,
    )  # fmt: skip
    with running(repository, tmp_path / "log") as server, Client(server.target) as client:
        client.infer("affine", tensor("x", ROW["x"]))

    assert done.returncode == 2
    assert "otlp_endpoint: traces need opentelemetry: pip install 'weir[otel]'" in done.stderr
