"""All metrics of the server, exported to Prometheus at each scrape.

Rules:
- Labels come from closed sets: known models, served methods, gRPC statuses, kinds of failures.
- The request path adds to plain numbers, once per batch where possible. Prometheus objects are
  built at the scrape, which holds a lock of the request path only while it copies numbers.
- The statistics of a version survive its reloads.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from weir.server.errors import GoldenMismatch, ModelLoadError
from weir.server.telemetry import model_stats, server_stats, triton_metrics
from weir.server.telemetry.metric_family import Labels, MetricGroup, Readers, collect
from weir.server.telemetry.model_stats import GenerationStats, ModelGauges, ModelStats
from weir.server.telemetry.server_stats import Build, Gpu, Gpus, MemoryState
from weir.server.transport import connections
from weir.server.transport.base import Transport
from weir.server.transport.status import REASONS

_RESULTS = LOADED, LOAD_FAILED, GOLDEN_MISMATCH = "ready", "failed", "golden_mismatch"

GROUPS = (
    MetricGroup(
        "Requests",
        "`ModelInfer`, each request on a `ModelStreamInfer`, and the task calls. A request that "
        "fails before its model is found has an empty model and version, so that clients cannot "
        f"create series. Reasons are {', '.join(f'`{reason}`' for reason in REASONS)}.",
        (*model_stats.REQUESTS, *model_stats.ANSWERS),
    ),
    MetricGroup("Batches", "The work of the models.", tuple(model_stats.BATCHES)),
    MetricGroup(
        "Encoder-decoders",
        "Only encoder-decoders have these, in addition to the metrics above.",
        tuple(model_stats.GENERATION),
    ),
    MetricGroup(
        "Models",
        "The metrics of a version survive its reloads and are removed with the version. "
        "An encoder-decoder `NAME` has metrics for `NAME`, `NAME.encoder` and `NAME.decoder`; "
        "its loads count under `NAME`.",
        (*model_stats.GAUGES, model_stats.LOADS, *model_stats.LAST_LOAD),
    ),
    MetricGroup(
        "Calls",
        "Every gRPC method, under the usual names of gRPC servers. `grpc_type` is unary, "
        "server_stream or bidi_stream. A call that gRPC itself rejects, such as a message over the "
        "size limit, may have another status here than at the client.",
        server_stats.CALL_FAMILIES,
    ),
    MetricGroup("Server", "One series per server.", server_stats.SERVER_FAMILIES),
    MetricGroup(
        "GPUs",
        "Read with NVIDIA's management library (NVML); absent without a GPU or its driver.",
        tuple(server_stats.GPUS),
    ),
    MetricGroup(
        "Triton's names",
        "With `--triton-metrics`, for dashboards made for Triton. All but the gauges are counters; "
        "they have no type, because their names lack `_total`.",
        triton_metrics.FAMILIES,
    ),
)


class Metrics(Collector):
    """Collects all statistics at each scrape."""

    def __init__(
        self, registry: CollectorRegistry, *, gpus: Gpus | None = None, triton: bool = False
    ) -> None:
        self._gpus = gpus
        self._triton = triton
        self._gauges: Callable[[], Iterable[ModelGauges]] = tuple
        self._preprocess_queue: Callable[[], int] = int
        self._parse_queue: Callable[[], int] = int
        self._dropped_lines: Callable[[], int] = int
        self._is_ready: Callable[[], bool] = bool
        self._memory: Callable[[], MemoryState | None] = lambda: None
        self._certificate_ends_s: Callable[[], float | None] = lambda: None
        self._transport: Transport | None = None
        self._build: Build | None = None
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], ModelStats] = {}
        self._generations: dict[tuple[str, str], GenerationStats] = {}
        self._loads: dict[str, dict[str, int]] = {}
        # Requests that failed before their model was found.
        self.unattributed = ModelStats("", "")
        registry.register(self)

    def watch(self, gauges: Callable[[], Iterable[ModelGauges]]) -> None:
        """Call this at each scrape for the state of the models."""
        self._gauges = gauges

    def watch_preprocessing(self, waiting: Callable[[], int]) -> None:
        """Call this at each scrape for the number of requests that wait for preprocessing."""
        self._preprocess_queue = waiting

    def watch_parsing(self, waiting: Callable[[], int]) -> None:
        """Call this at each scrape for the number of requests that wait to be parsed."""
        self._parse_queue = waiting

    def watch_log(self, dropped: Callable[[], int]) -> None:
        """Call this at each scrape for the number of dropped log lines."""
        self._dropped_lines = dropped

    def watch_memory(self, memory: Callable[[], MemoryState]) -> None:
        """Call this at each scrape for the memory limit and what was refused for it."""
        self._memory = memory

    def watch_certificate(self, ends_s: Callable[[], float]) -> None:
        """Call this at each scrape for the Unix time at which the certificate ends."""
        self._certificate_ends_s = ends_s

    def watch_ready(self, is_ready: Callable[[], bool]) -> None:
        """Call this at each scrape for the readiness of the server."""
        self._is_ready = is_ready

    def watch_transport(self, transport: Transport, build: Build) -> None:
        """Export the statistics of a transport, and what identifies the server."""
        self._transport, self._build = transport, build

    def model(self, model: str, version: str) -> ModelStats:
        """The statistics of a version; created when the repository finds it, kept by reloads."""
        with self._lock:
            if (model, version) not in self._models:
                self._models[model, version] = ModelStats(model, version)
            return self._models[model, version]

    def find(self, model: str, version: str) -> ModelStats:
        """The statistics of a version; `unattributed` if it has been removed meanwhile."""
        with self._lock:
            return self._models.get((model, version), self.unattributed)

    def generation(self, model: str, version: str) -> GenerationStats:
        """The statistics that only an encoder-decoder has; created and kept like `model`'s."""
        stats = self.model(model, version)
        with self._lock:
            return self._generations.setdefault((model, version), GenerationStats(stats))

    def forget(self, model: str, version: str) -> None:
        """Remove the statistics of a removed version, so that series do not accumulate."""
        with self._lock:
            self._models.pop((model, version), None)
            self._generations.pop((model, version), None)

    def model_known(self, model: str) -> None:
        """Start to count the loads of a model."""
        with self._lock:
            self._loads.setdefault(model, dict.fromkeys(_RESULTS, 0))

    def load_ended(self, model: str, failure: type[ModelLoadError] | None) -> None:
        """Count a load of a known model; `failure` is None if it succeeded."""
        result = LOADED if failure is None else LOAD_FAILED
        if failure is GoldenMismatch:
            result = GOLDEN_MISMATCH
        with self._lock:
            self._loads[model][result] += 1

    def forget_loads(self, model: str) -> None:
        """Remove the load counts of a removed model."""
        with self._lock:
            self._loads.pop(model, None)

    def collect(self) -> Iterator[Metric]:
        """All families, for one scrape."""
        for family in self._families():
            yield family
            # Formatting a family holds Python's lock. A thread that waits for the lock, such as the
            # I/O thread, gets it here instead of after the switch interval of 5 ms.
            time.sleep(0)

    def _families(self) -> Iterator[Metric]:
        with self._lock:
            models = [(stats.labels, stats) for stats in self._models.values()]
            generations = [(stats.model.labels, stats) for stats in self._generations.values()]
            loads = [((model,), dict(counts)) for model, counts in self._loads.items()]
        gauges = [((gauge.model, gauge.version), gauge) for gauge in self._gauges()]
        gpus = self._gpus.read() if self._gpus else []
        unattributed = self.unattributed
        yield from collect(
            model_stats.REQUESTS, [(unattributed.labels, unattributed), *models], _lock_of
        )
        yield from collect({**model_stats.ANSWERS, **model_stats.BATCHES}, models, _lock_of)
        yield from collect(model_stats.GENERATION, generations, lambda stats: stats.model.lock)
        yield from collect(model_stats.LAST_LOAD, models, _lock_of)
        yield model_stats.LOADS.metric(loads)
        yield from collect(model_stats.GAUGES, gauges)
        yield from self._server_families()
        yield from _gpu_families(server_stats.GPUS, [((gpu.index,), gpu) for gpu in gpus])
        if self._triton:
            yield from collect(triton_metrics.COUNTERS, models, _lock_of)
            yield from collect(triton_metrics.GAUGES, gauges)
            yield from collect(triton_metrics.LAST_LOAD, models, _lock_of)
            yield from _gpu_families(triton_metrics.GPUS, [((gpu.uuid,), gpu) for gpu in gpus])

    def _server_families(self) -> Iterator[Metric]:
        yield server_stats.PREPROCESS_QUEUE.metric([((), self._preprocess_queue())])
        yield server_stats.PARSE_QUEUE.metric([((), self._parse_queue())])
        yield server_stats.LOG_DROPPED.metric([((), self._dropped_lines())])
        yield server_stats.READY.metric([((), self._is_ready())])
        if (ends_s := self._certificate_ends_s()) is not None:
            yield server_stats.CERTIFICATE_EXPIRY.metric([((), ends_s)])
        if memory := self._memory():
            if memory.limit_bytes is not None:
                yield server_stats.MEMORY_LIMIT.metric([((), memory.limit_bytes)])
            yield server_stats.MEMORY_HIGH.metric([((), memory.is_high)])
            refused = [((reason,), count) for reason, count in memory.refused.items()]
            yield server_stats.MEMORY_REFUSED.metric(refused)
        if build := self._build:
            names = (
                build.version, build.onnxruntime, build.grpcio, build.provider, build.transport
            )  # fmt: skip
            yield server_stats.BUILD_INFO.metric([(names, 1)])
            is_fallback = build.transport_problem is not None
            yield server_stats.TRANSPORT_FALLBACK.metric([((), is_fallback)])
        if self._transport:
            methods = self._transport.calls.all()
            yield from collect(
                server_stats.CALLS,
                [((each.kind, each.service, each.method), each) for each in methods],
            )
            closed = self._transport.connections.closed
            yield server_stats.CONNECTIONS_CLOSED.metric(
                [((reason,), closed[reason]) for reason in connections.REASONS]
            )
            if io := self._transport.io:
                yield server_stats.IO_DELAY_SECONDS.metric([((), io.delay_s())])
                yield server_stats.IO_BUSY_SECONDS.metric([((), io.busy_s)])


def _lock_of(stats: ModelStats) -> threading.Lock:
    return stats.lock


def _gpu_families(readers: Readers[Gpu], gpus: list[tuple[Labels, Gpu]]) -> Iterator[Metric]:
    """The metrics of the GPUs; no families without GPUs."""
    return (family for family in collect(readers, gpus) if family.samples)
