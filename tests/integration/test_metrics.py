"""`/metrics` of a real server, under load and misuse. Rows G01 to G03 of the catalogue."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.helpers import onnx_models
from tests.integration.harness import (
    ANSWER_S,
    GOOD,
    SERVICE,
    Client,
    Server,
    X,
    failure,
    request,
    running,
    tensor,
)
from tools.metrics_page import PAGE
from weir.protocol import inference_pb2 as pb
from weir.server.telemetry import server_stats, triton_metrics
from weir.server.telemetry.metrics_http import MAX_SCRAPES

GPU = {family.name for family in (*server_stats.GPUS, *triton_metrics.GPUS)}
"""Absent on a machine without a GPU; `test_server_stats_gpus.py` tests them with a fake library."""
TRITON = {family.name for family in triton_metrics.FAMILIES} - GPU
TLS = {server_stats.CERTIFICATE_EXPIRY.name}
IO = {"weir_io_busy_seconds_total", "weir_io_delay_seconds"}


def exported(server: Server) -> dict[str, str]:
    """Every exported family and its type, with those without samples."""
    lines = [line.split() for line in server.metrics_text().splitlines()]
    return {line[2]: line[3] for line in lines if line[:2] == ["#", "TYPE"]}


def declared() -> dict[str, str]:
    return {family.name: family.kind for group in PAGE for family in group.families}


def test_page_lists_the_exported_families_only(house: Server, transport: str) -> None:
    page = {name: kind for name, kind in declared().items() if name not in GPU | TRITON | TLS}
    if transport == "grpc-server":
        page = {name: kind for name, kind in page.items() if name not in IO}

    found = {name: kind for name, kind in exported(house).items() if name not in GPU}

    assert found == page


def test_labels_are_the_declared_ones(house: Server) -> None:
    labels = {family.name: set(family.labels) for group in PAGE for family in group.families}
    suffixes = ("_bucket", "_sum", "_count")

    for name, carried in house.scrape():
        family = next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)
        family = family if family in labels else name
        assert {label for label, _ in carried} - {"le"} == labels[family], name


def test_tritons_names_are_exported_if_configured(tmp_path: Path) -> None:
    root = tmp_path / "models"
    onnx_models.write_plain(root, "affine", onnx_models.affine())

    with (
        running(root, tmp_path / "log", "--triton-metrics") as server,
        Client(server.target) as client,
    ):
        client.infer("affine", GOOD)
        failure(client.send(request("affine")))
        affine = {"model": "affine", "version": "1"}
        # A response is sent before it is counted.
        server.wait_for_metric(1, "nv_inference_request_success", **affine)
        server.wait_for_metric(1, "nv_inference_request_failure", model="affine", reason="OTHER")
        found = exported(server)
        duration_us = server.metric("nv_inference_request_duration_us", model="affine")

    assert {name: found[name] for name in TRITON} == {name: declared()[name] for name in TRITON}
    assert duration_us > 0


def test_build_and_loads_are_exported(house: Server, transport: str) -> None:
    assert house.metric("weir_build_info", transport=transport, provider="cpu") == 1
    for result, count in (("ready", 1), ("failed", 0), ("golden_mismatch", 0)):
        assert house.metric("weir_model_loads_total", model="affine", result=result) == count
    assert house.metric("weir_model_loads_total", model="broken", result="failed") == 1
    assert house.metric("weir_queue_limit_rows", model="patient_full") == 8


def test_bytes_and_reasons_match_the_requests(client: Client, house: Server) -> None:
    names = ("weir_request_bytes_total", "weir_response_bytes_total", "weir_request_failures_total")

    def totals() -> list[float]:
        return [house.metric(name, model="affine") for name in names]

    good, bad = request("affine", GOOD).SerializeToString(), request("affine").SerializeToString()
    before, counts = totals(), house.counts("affine")

    answer = client.unary("ModelInfer")(good, timeout=ANSWER_S)
    failure(client.send(bad))
    house.wait_for_counts("affine", counts, OK=1, INVALID_ARGUMENT=1, rows=1, batches=1)

    grown = [now - then for now, then in zip(totals(), before, strict=True)]
    assert grown == [len(good) + len(bad), len(answer), 1]
    assert (
        house.metric("weir_request_failures_total", model="affine", reason="invalid_request") >= 1
    )


def test_calls_are_counted_by_method_and_code(client: Client, house: Server) -> None:
    labels = {"grpc_service": SERVICE, "grpc_method": "ModelMetadata", "grpc_type": "unary"}
    started = house.metric("grpc_server_started_total", **labels)
    refused = house.metric("grpc_server_handled_total", **labels, grpc_code="NotFound")

    for name in ("affine", "unknown"):
        message = pb.ModelMetadataRequest(name=name).SerializeToString()
        client.unary("ModelMetadata").future(message, timeout=ANSWER_S).code()

    house.wait_for_metric(refused + 1, "grpc_server_handled_total", **labels, grpc_code="NotFound")
    assert house.metric("grpc_server_started_total", **labels) == started + 2
    house.wait_for_metric(started + 2, "grpc_server_handling_seconds_count", **labels)


def test_unknown_names_add_no_series(client: Client, house: Server) -> None:
    """Row G02: unknown models, versions, labels, methods, services, and metadata."""

    def ask(number: int) -> set[grpc.StatusCode]:
        name, extra = f"G02-{number}", ((f"g02-{number}", f"G02-{number}"),)
        calls = [
            client.send(request(name, GOOD), metadata=extra),
            client.send(request("affine", GOOD, model_version=str(1000 + number))),
            client.send(request("affine", GOOD, model_version=name)),
            client.send(request("affine", tensor(name, X))),
            client.unary(name).future(b"", timeout=ANSWER_S),
            client.unary("ModelInfer", service=name).future(b"", timeout=ANSWER_S),
            client.classify(name, b""),
        ]
        return {call.code() for call in calls}

    ended = house.metric("weir_requests_total")
    ask(0)
    # A response is sent before it is counted; the calls of unknown methods are no requests.
    house.wait_for_metric(ended + 5, "weir_requests_total")
    before = set(house.scrape())

    codes = set.union(*(ask(number) for number in range(1, 200)))

    assert codes == {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
    }
    assert set(house.scrape()) == before
    assert "G02" not in house.metrics_text()


COUNTED = ("_total", "_count", "_bucket", "_sum")


def counters(server: Server) -> dict[str, float]:
    """Every counter; split by hand, because 20 full parsers would leave no core to the server."""
    lines = [line.rsplit(" ", 1) for line in server.metrics_text().splitlines()]
    return {
        sample: float(value)
        for sample, value in lines
        if not sample.startswith("#") and sample.split("{")[0].endswith(COUNTED)
    }


def test_counters_rise_and_add_up_under_20_scrapers(client: Client, house: Server) -> None:
    """Row G01: 20 scrapers under load. No latency is asserted: tests do not depend on time."""
    methods = {"grpc_service": SERVICE, "grpc_method": "ModelInfer"}
    counts = house.counts("affine")
    started = house.metric("grpc_server_started_total", **methods)
    is_over = threading.Event()

    def scrape(_: int) -> int:
        """The number of counters that fell from one page to the next."""
        last, falls = counters(house), 0
        while not is_over.is_set():
            now = counters(house)
            falls += sum(now[sample] < value for sample, value in last.items())
            last = now
        return falls

    with ThreadPoolExecutor(20) as pool:
        scrapers = [pool.submit(scrape, number) for number in range(20)]
        calls = [client.send(request("affine", GOOD)) for _ in range(300)]
        calls += [client.send(request("affine")) for _ in range(100)]
        codes = [call.code() for call in calls]
        is_over.set()
        falls = [each.result() for each in scrapers]

    assert falls == [0] * 20
    assert codes == [grpc.StatusCode.OK] * 300 + [grpc.StatusCode.INVALID_ARGUMENT] * 100
    end_s = time.monotonic() + ANSWER_S
    while True:
        grown = house.counts("affine")
        ended = sum(grown[key] - counts.get(key, 0) for key in ("OK", "INVALID_ARGUMENT"))
        handled = house.metric("grpc_server_handled_total", **methods)
        if (ended, handled) == (400, started + 400):
            break
        assert time.monotonic() < end_s, f"of 400 requests {ended} ended, {handled - started} calls"
        time.sleep(0.005)
    assert house.metric("grpc_server_started_total", **methods) == started + 400
    house.settle()
    answered = house.metric("weir_requests_total", model="affine", status="OK")
    assert answered == house.metric("weir_request_seconds_count", model="affine") >= 300


@pytest.mark.parametrize(
    "asks", [b"", b"GET /metrics HTTP/1.0\r\n\r\n"], ids=["says nothing", "never reads"]
)
def test_scrapers_that_never_read_disturb_no_request(
    asks: bytes, client: Client, house: Server
) -> None:
    """Row G03."""
    host, port = house.metrics.split(":")
    client.infer("affine", GOOD)
    before = threads_of(house)

    with ExitStack() as stack:
        for _ in range(2 * MAX_SCRAPES):
            connection = stack.enter_context(socket.create_connection((host, int(port)), ANSWER_S))
            connection.sendall(asks)
        answers = [client.infer("affine", GOOD)["y"] for _ in range(100)]
        threads = threads_of(house)

    for answer in answers:
        np.testing.assert_array_equal(answer, 2 * X + 1)
    assert threads - before < 2 * MAX_SCRAPES
    # The next scrape needs a free connection.
    end_s = time.monotonic() + ANSWER_S
    while threads_of(house) - before >= MAX_SCRAPES:
        assert time.monotonic() < end_s, "the server keeps the closed connections open"
        time.sleep(0.005)


def threads_of(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))
