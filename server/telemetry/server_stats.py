"""Metrics of the whole server: calls, I/O thread, preprocessing, log, build and GPUs."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from weir.server.telemetry.metric_family import Family, Readers
from weir.server.transport.call_stats import CODES, MethodStats

_METHOD = ("grpc_type", "grpc_service", "grpc_method")

STARTED = Family(
    "grpc_server_started_total", "counter", _METHOD, "calls",
    "Calls that arrived, by method. Methods that the server does not have count as `unknown`.",
    "more traffic.",
)  # fmt: skip
HANDLED = Family(
    "grpc_server_handled_total", "counter", (*_METHOD, "grpc_code"), "calls",
    "Calls that ended, by status. The difference to the started calls is the open calls.",
    "more traffic for OK, and more failures of that kind for any other status.",
)  # fmt: skip
HANDLING_SECONDS = Family(
    "grpc_server_handling_seconds", "histogram", _METHOD, "seconds",
    "Duration of a call, from its arrival to its end. A stream lasts as long as it is open.",
    "slower answers, or longer streams.",
)  # fmt: skip
IO_BUSY_SECONDS = Family(
    "weir_io_busy_seconds_total", "counter", (), "seconds",
    "Time in which the I/O thread was not waiting for an event. Its rate is the utilisation of the "
    "thread, at most 1. Absent with the transport `grpc-server`, which has no such thread.",
    "more or larger calls. Near 1 the thread is the bottleneck; add another server.",
)  # fmt: skip
IO_DELAY_SECONDS = Family(
    "weir_io_delay_seconds", "gauge", (), "seconds",
    "Time that an event waits for the I/O thread, measured at the scrape; 0 while no call is open, "
    "at most 0.2. Absent with the transport `grpc-server`.",
    "that every call waits for the I/O thread, because the thread or the machine is too busy.",
)  # fmt: skip
CONNECTIONS_CLOSED = Family(
    "weir_connections_closed_total", "counter", ("reason",), "connections",
    "Connections that the server closed: `metadata` for a header block that no honest client "
    "sends, `peer_limit` for one above `--max-connections-per-peer`.",
    "an attack, or a limit by peer that is too low; the log names the peer.",
)  # fmt: skip
PREPROCESS_QUEUE = Family(
    "weir_preprocess_queue_requests", "gauge", (), "requests",
    "Task calls that wait for preprocessing.", "more load than the cores can preprocess.",
)  # fmt: skip
PARSE_QUEUE = Family(
    "weir_parse_queue_requests", "gauge", (), "requests",
    "Requests with large messages, or with many elements, that wait to be parsed.",
    "more such messages than one core can parse; raw contents cost the least.",
)  # fmt: skip
LOG_DROPPED = Family(
    "weir_log_dropped_total", "counter", (), "lines",
    "Log lines that were dropped, because no request waits for the log.",
    "that the log's reader is too slow, its disk is full, or the access log is too large.",
)  # fmt: skip
MEMORY_LIMIT = Family(
    "weir_memory_limit_bytes", "gauge", (), "bytes",
    "The smallest memory limit of the process: of the container, RLIMIT_AS, or the machine. Absent "
    "with `--memory-watermark 1`.",
)  # fmt: skip
MEMORY_HIGH = Family(
    "weir_memory_high", "gauge", (), "0 or 1",
    "1 while the memory is above `--memory-watermark`, and calls are refused for it.",
    "that the server needs more memory, or fewer or smaller requests at a time.",
)  # fmt: skip
MEMORY_REFUSED = Family(
    "weir_memory_refused_total", "counter", ("reason",), "calls",
    "Requests that were refused for their memory: `watermark` above `--memory-watermark`, mostly "
    "before their model is known, `bytes_in_flight` above `--max-inflight-bytes`.",
    "more or larger requests than the memory holds.",
)  # fmt: skip
CERTIFICATE_EXPIRY = Family(
    "weir_tls_certificate_expiry_timestamp_seconds", "gauge", (), "seconds since 1970",
    "Time at which the server's TLS certificate in use ends. Absent without TLS.",
    "that the certificate was renewed.",
)  # fmt: skip
READY = Family(
    "weir_server_ready", "gauge", (), "0 or 1",
    "1 if the server is ready, as health checks and ServerReady say: its first loading is over, a "
    "model is ready, or there is none and `--require-models` is off, and it is not stopping.",
)  # fmt: skip
BUILD_INFO = Family(
    "weir_build_info", "gauge", ("version", "onnxruntime", "grpcio", "provider", "transport"), "1",
    "1; the labels are the versions, the execution provider and the transport.",
)  # fmt: skip
TRANSPORT_FALLBACK = Family(
    "weir_transport_fallback", "gauge", (), "0 or 1",
    "1 if `--transport auto` took grpc-server, because the grpcio version is not a tested one. "
    "0 if the transport is completion-queue, or grpc-server by its own setting.",
    "that each call costs the server several times the CPU; see the log event `slower transport "
    "chosen`.",
)  # fmt: skip

CALL_FAMILIES = (STARTED, HANDLED, HANDLING_SECONDS)
CALLS: Readers[MethodStats] = {
    # Ended calls are read before started ones, so that they are never more.
    # A method without calls has zeros, so that its rate starts at 0.
    HANDLED: lambda method: {
        code: count
        for code, count in zip(CODES, method.handled, strict=True)
        if count or code == "OK"
    },
    HANDLING_SECONDS: lambda method: method.seconds,
    STARTED: lambda method: method.started,
}
SERVER_FAMILIES = (
    READY,
    MEMORY_LIMIT,
    MEMORY_HIGH,
    MEMORY_REFUSED,
    IO_BUSY_SECONDS,
    IO_DELAY_SECONDS,
    CONNECTIONS_CLOSED,
    PREPROCESS_QUEUE,
    PARSE_QUEUE,
    LOG_DROPPED,
    CERTIFICATE_EXPIRY,
    BUILD_INFO,
    TRANSPORT_FALLBACK,
)


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Memory at a scrape.

    Attributes:
        limit_bytes: None: the watermark is off, or the system has no limit.
        refused: refused requests by reason.
    """

    limit_bytes: int | None
    is_high: bool
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Build:
    """Versions and choices that identify a server process.

    Attributes:
        transport_problem: why `auto` did not take the fast transport; None if it did, or if a
            transport was set.
        metrics_address: host and port of /metrics.
        started_s: seconds since the epoch.
        usable_cores: of the CPU, by this process.
        shares_port: whether other processes may listen on the gRPC port.
    """

    version: str
    onnxruntime: str
    grpcio: str
    provider: str
    transport: str
    transport_problem: str | None
    metrics_address: str
    started_s: float
    usable_cores: int
    shares_port: bool


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at a scrape; a value that NVML does not report is None.

    Attributes:
        uuid: its permanent identity.
        utilization: share of time in which a kernel ran, from 0 to 1.
    """

    index: str
    uuid: str
    used_bytes: int | None
    total_bytes: int | None
    utilization: float | None


class Gpus:
    """The GPUs of this machine, read with NVIDIA's management library (NVML).

    Without the library, a driver or a GPU there are none, which is no error.
    """

    def __init__(self) -> None:
        self._handles: list[tuple[str, str, Any]] = []
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:
            return
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid = pynvml.nvmlDeviceGetUUID(handle)
            except pynvml.NVMLError:  # another user's GPU, or one that failed
                continue
            self._handles.append((str(index), uuid, handle))

    def read(self) -> list[Gpu]:
        """Memory and utilisation of each GPU, now."""
        return [_read(*each) for each in self._handles]


def _read(index: str, uuid: str, handle: Any) -> Gpu:
    used_bytes = total_bytes = utilization = None
    with suppress(pynvml.NVMLError):
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        used_bytes, total_bytes = memory.used, memory.total
    with suppress(pynvml.NVMLError):  # not reported in MIG mode
        utilization = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    return Gpu(index, uuid, used_bytes, total_bytes, utilization)


GPUS: Readers[Gpu] = {
    Family(
        "weir_gpu_memory_used_bytes", "gauge", ("gpu",), "bytes",
        "GPU memory in use by all processes.",
        "more or larger models. Near the total, runs fail.",
    ): lambda gpu: gpu.used_bytes,
    Family(
        "weir_gpu_memory_total_bytes", "gauge", ("gpu",), "bytes", "Size of the GPU's memory."
    ): lambda gpu: gpu.total_bytes,
    Family(
        "weir_gpu_utilization_ratio", "gauge", ("gpu",), "0 to 1",
        "Share of the last sample period in which a kernel ran on the GPU.",
        "more work. Near 1 the GPU may be the bottleneck.",
    ): lambda gpu: gpu.utilization,
}  # fmt: skip
