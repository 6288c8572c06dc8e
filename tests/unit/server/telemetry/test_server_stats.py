"""The metrics of the whole server."""

from dataclasses import dataclass, field

import grpc
import pytest
from prometheus_client import CollectorRegistry

from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.server_stats import Build
from weir.server.transport.base import IoStats
from weir.server.transport.call_stats import CODES, CallStats
from weir.server.transport.connections import Connections

ECHO = {"grpc_type": "unary", "grpc_service": "t.Test", "grpc_method": "Echo"}
UNKNOWN = {"grpc_type": "unary", "grpc_service": "unknown", "grpc_method": "unknown"}


class IdleIo:
    """An I/O thread without events."""

    busy_s = 0.0
    thread_name = "idle"

    def delay_s(self) -> float:
        return 0.0

    def turns(self) -> float | None:
        return None


@dataclass
class FakeTransport:
    calls: CallStats
    io: IoStats | None
    connections: Connections = field(default_factory=lambda: Connections(16_384))
    name: str = "fake"
    port: int = 0
    open_calls: int = 0

    def refuse_waiting(self, error: Exception, methods: tuple[str, ...]) -> int:
        """Nothing to refuse."""
        return 0

    def start(self) -> None:
        """Nothing to start."""

    def expire(self, now: float) -> float:
        return now

    def close_port(self) -> None:
        """No port to close."""

    def stop(self, grace_s: float) -> bool:
        """Nothing to stop."""
        return True


def watched(
    calls: CallStats, io: IoStats | None = None, transport_problem: str | None = None
) -> CollectorRegistry:
    registry = CollectorRegistry()
    build = Build(
        version="1.2",
        onnxruntime="1.32",
        grpcio="1.85.1",
        provider="cpu",
        transport="fake",
        transport_problem=transport_problem,
        metrics_address="127.0.0.1:8002",
        started_s=0.0,
        usable_cores=2,
        shares_port=False,
    )
    Metrics(registry).watch_transport(FakeTransport(calls, io), build)
    return registry


def test_codes_have_the_spelling_of_other_grpc_servers() -> None:
    assert CODES[:6] == (
        "OK",
        "Cancelled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
    )
    assert (len(CODES), CODES[-1]) == (17, "Unauthenticated")


def test_methods_without_calls_have_zeros() -> None:
    registry = watched(CallStats({"/t.Test/Echo": "unary", "/t.Test/Watch": "server_stream"}))

    watch = {"grpc_type": "server_stream", "grpc_service": "t.Test", "grpc_method": "Watch"}
    for labels in (ECHO, watch, UNKNOWN):
        assert registry.get_sample_value("grpc_server_started_total", labels) == 0
        assert registry.get_sample_value("grpc_server_handling_seconds_count", labels) == 0
        handled = {**labels, "grpc_code": "OK"}
        assert registry.get_sample_value("grpc_server_handled_total", handled) == 0


def test_calls_are_counted_by_method_and_code() -> None:
    calls = CallStats({"/t.Test/Echo": "unary"})
    for method, code in (
        ("/t.Test/Echo", grpc.StatusCode.OK),
        ("/t.Test/Echo", grpc.StatusCode.INVALID_ARGUMENT),
        ("/t.Test/No", grpc.StatusCode.UNIMPLEMENTED),
    ):
        calls.of(method).started += 1
        calls.of(method).ended(code.value[0], 0.5)
    calls.of("/t.Test/Echo").started += 1
    registry = watched(calls)

    def handled(labels: dict[str, str], code: str) -> float | None:
        return registry.get_sample_value("grpc_server_handled_total", {**labels, "grpc_code": code})

    assert registry.get_sample_value("grpc_server_started_total", ECHO) == 3
    assert registry.get_sample_value("grpc_server_started_total", UNKNOWN) == 1
    assert (handled(ECHO, "OK"), handled(ECHO, "InvalidArgument")) == (1, 1)
    assert (handled(UNKNOWN, "Unimplemented"), handled(ECHO, "NotFound")) == (1, None)
    assert registry.get_sample_value("grpc_server_handling_seconds_sum", ECHO) == 1.0


def test_unknown_methods_share_one_set_of_labels() -> None:
    calls = CallStats({"/t.Test/Echo": "unary"})

    found = {id(calls.of(f"/t.Test/{number}")) for number in range(1000)}

    assert found == {id(calls.unknown)}
    assert len(list(calls.all())) == 2


def test_transport_without_an_io_thread_has_no_io_metrics() -> None:
    without, with_one = watched(CallStats({})), watched(CallStats({}), IdleIo())

    for name in ("weir_io_busy_seconds_total", "weir_io_delay_seconds"):
        assert without.get_sample_value(name) is None
        assert with_one.get_sample_value(name) == 0


def test_build_is_exported() -> None:
    labels = {
        "version": "1.2",
        "onnxruntime": "1.32",
        "grpcio": "1.85.1",
        "provider": "cpu",
        "transport": "fake",
    }

    assert watched(CallStats({})).get_sample_value("weir_build_info", labels) == 1


@pytest.mark.parametrize(("problem", "value"), [(None, 0), ("grpcio is too new", 1)])
def test_transport_that_auto_had_to_take_is_exported(problem: str | None, value: int) -> None:
    registry = watched(CallStats({}), transport_problem=problem)

    assert registry.get_sample_value("weir_transport_fallback") == value
