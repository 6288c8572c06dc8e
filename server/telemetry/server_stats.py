"""The metrics of the server as a whole: calls, the I/O thread, the log, GPUs, the build."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric

from weir.server.telemetry.families import Family
from weir.server.telemetry.gpu import Gpu
from weir.server.transport.base import IoStats
from weir.server.transport.call_stats import CODES, CallStats

_METHOD = ("grpc_type", "grpc_service", "grpc_method")

STARTED = Family(
    "grpc_server_started_total", "counter", _METHOD, "calls",
    "Calls that arrived, of every method; a method that nobody serves is `unknown`.", "more traffic.",
)  # fmt: skip
HANDLED = Family(
    "grpc_server_handled_total", "counter", (*_METHOD, "grpc_code"), "calls",
    "Calls that ended, by their status. Less than started: the difference is open.",
    "of OK, more traffic; of any other status, see its name.",
)  # fmt: skip
HANDLING_SECONDS = Family(
    "grpc_server_handling_seconds", "histogram", _METHOD, "seconds",
    "From a call's arrival to its end; of a stream, as long as it was open.",
    "slower answers, or streams that stay open longer.",
)  # fmt: skip
IO_BUSY_SECONDS = Family(
    "weir_io_busy_seconds_total", "counter", (), "seconds",
    "Time in which the I/O thread did not wait for an event; its rate is the share of a core, at most 1. "
    "Absent with the transport `grpc-server`, which has no such thread.",
    "more calls, or larger ones; near 1 the thread is the limit, and another server is needed.",
)  # fmt: skip
IO_DELAY_SECONDS = Family(
    "weir_io_delay_seconds", "gauge", (), "seconds",
    "How long an event waited for the I/O thread at this scrape; 0 while no call is open, at most 0.2. "
    "Absent with the transport `grpc-server`.",
    "calls wait before anything is done for them: the thread, or the machine, is too busy.",
)  # fmt: skip
DECODE_QUEUE = Family(
    "weir_preprocess_queue_requests", "gauge", (), "requests",
    "Task calls that wait to be made into rows.", "more than the cores can read.",
)  # fmt: skip
LOG_DROPPED = Family(
    "weir_log_dropped_total", "counter", (), "lines",
    "Lines of the log that were not written, so that no request waits for it.",
    "nobody reads it, its disk is full, or more requests are logged than can be.",
)  # fmt: skip
BUILD_INFO = Family(
    "weir_build_info", "gauge", ("version", "onnxruntime", "provider", "transport"), "1",
    "1, with what this server is made of.",
)  # fmt: skip
GPU_MEMORY_USED = Family(
    "weir_gpu_memory_used_bytes", "gauge", ("gpu",), "bytes",
    "Memory in use on a GPU, by all processes.", "more or larger models; near the total, runs fail.",
)  # fmt: skip
GPU_MEMORY_TOTAL = Family(
    "weir_gpu_memory_total_bytes", "gauge", ("gpu",), "bytes", "Memory of a GPU."
)  # fmt: skip
GPU_UTILIZATION = Family(
    "weir_gpu_utilization_ratio", "gauge", ("gpu",), "0 to 1",
    "Share of time in which a GPU computed anything, of the last sample period.",
    "more work; near 1 it may be the limit.",
)  # fmt: skip

CALL_FAMILIES = (STARTED, HANDLED, HANDLING_SECONDS)
SERVER_FAMILIES = (IO_BUSY_SECONDS, IO_DELAY_SECONDS, DECODE_QUEUE, LOG_DROPPED, BUILD_INFO)
GPU_FAMILIES = (GPU_MEMORY_USED, GPU_MEMORY_TOTAL, GPU_UTILIZATION)


@dataclass(frozen=True, slots=True)
class Build:
    """What a server is made of."""

    version: str
    onnxruntime: str
    provider: str
    transport: str


def calls(stats: CallStats) -> Iterator[Metric]:
    """Every method's, those that were never called too: a rate needs a zero to rise from."""
    started, handled, seconds = STARTED.values(), HANDLED.values(), HANDLING_SECONDS.histogram()
    for method in stats.all():
        labels = (method.kind, method.service, method.method)
        # What ended before what began, so that no call has ended that has not begun.
        codes, histogram = method.handled.copy(), method.seconds.copy()
        started.add_metric(labels, method.started)
        seconds.add_metric(labels, histogram.buckets(), histogram.total)
        for code, count in zip(CODES, codes, strict=True):
            if count or code == "OK":
                handled.add_metric((*labels, code), count)
    yield from (started, handled, seconds)


def io(watch: IoStats) -> Iterator[Metric]:
    """How busy the I/O thread is."""
    yield IO_DELAY_SECONDS.one(watch.delay_s())
    yield IO_BUSY_SECONDS.one(watch.busy_s)


def build(info: Build) -> Metric:
    """What this server is made of."""
    family = BUILD_INFO.values()
    family.add_metric((info.version, info.onnxruntime, info.provider, info.transport), 1)
    return family


def gpus(found: Iterable[Gpu]) -> Iterator[Metric]:
    """Nothing where there are none."""
    used, total, utilization = (family.values() for family in GPU_FAMILIES)
    for gpu in found:
        for family, value in (
            (used, gpu.used_bytes),
            (total, gpu.total_bytes),
            (utilization, gpu.utilization),
        ):
            if value is not None:
                family.add_metric((gpu.index,), value)
    yield from (family for family in (used, total, utilization) if family.samples)
