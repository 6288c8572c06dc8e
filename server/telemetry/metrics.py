"""Every number of the server, given to Prometheus when it asks.

Rules:
- Labels come from closed sets: models that exist, methods that are served, statuses of gRPC, kinds of failures.
- The request path adds to plain lists, once per batch where it can; Prometheus's objects are built
  when somebody scrapes. A scrape never holds a lock the request path waits for, but for copying.
- A model's numbers outlive its reloads.

A metric is declared in the module of its subject, once, for the export and for the page of all (`metrics_page`).
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from weir.server.errors import GoldenMismatch, ModelLoadError
from weir.server.telemetry import generation_stats, model_metrics, server_stats, triton_metrics
from weir.server.telemetry.families import Subject
from weir.server.telemetry.generation_stats import GenerationStats
from weir.server.telemetry.gpu import Gpus
from weir.server.telemetry.model_metrics import ModelGauges
from weir.server.telemetry.model_stats import ModelStats
from weir.server.telemetry.server_stats import Build
from weir.server.transport.base import Transport
from weir.server.transport.status import REASONS

_RESULTS = LOADED, LOAD_FAILED, GOLDEN_MISMATCH = "ready", "failed", "golden_mismatch"

SUBJECTS = (
    Subject(
        "Requests",
        "Of `ModelInfer`, of each request on a `ModelStreamInfer`, and of the task calls. What is refused before a "
        "model is found has neither model nor version: nobody can make new series by asking. Reasons are "
        f"{', '.join(f'`{reason}`' for reason in REASONS)}.",
        model_metrics.REQUEST_FAMILIES,
    ),
    Subject("Batches", "What is computed.", model_metrics.BATCH_FAMILIES),
    Subject(
        "Encoder-decoders", "Of those alone, beside all of the above.", generation_stats.FAMILIES
    ),
    Subject(
        "Models",
        "A version's numbers outlive its reloads and go with the version. Of a pair of graphs, `NAME`, "
        "`NAME.encoder` and `NAME.decoder` have numbers of their own; its loads are those of `NAME`.",
        model_metrics.MODEL_FAMILIES,
    ),
    Subject(
        "Calls",
        "Of every gRPC method, by gRPC's conventions. `grpc_type` is unary, server_stream or bidi_stream. What gRPC "
        "itself refuses, such as a message over the limit, may count otherwise than its caller sees: the server hears no more.",
        server_stats.CALL_FAMILIES,
    ),
    Subject("Server", "One of each.", server_stats.SERVER_FAMILIES),
    Subject(
        "GPUs",
        "Where NVIDIA's management library (`libnvidia-ml.so.1`) finds one; elsewhere they are absent.",
        server_stats.GPU_FAMILIES,
    ),
    Subject(
        "Triton's names",
        "With `--triton-metrics`, for dashboards that were made for Triton. Without a type, since they lack "
        "`_total`; all but the gauges only ever rise. Those of GPUs as above.",
        (*triton_metrics.FAMILIES, *triton_metrics.GPU_FAMILIES),
    ),
)


class Metrics(Collector):
    """All numbers, turned into Prometheus's form at each scrape.

    Args:
        registry: where to be found.
        gpus: of this machine; None: they are not asked.
        triton: whether to tell everything under Triton's names too.
    """

    def __init__(
        self, registry: CollectorRegistry, *, gpus: Gpus | None = None, triton: bool = False
    ) -> None:
        self._gpus = gpus
        self._triton = triton
        self._gauges: Callable[[], Iterable[ModelGauges]] = tuple
        self._decode_queue: Callable[[], int] = int
        self._lost_lines: Callable[[], int] = int
        self._transport: Transport | None = None
        self._build: Build | None = None
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], ModelStats] = {}
        self._generations: dict[tuple[str, str], GenerationStats] = {}
        self._loads: dict[str, dict[str, int]] = {}
        # Requests that ended before they could be laid to a model's account.
        self.unattributed = ModelStats("", "")
        registry.register(self)

    def watch(self, gauges: Callable[[], Iterable[ModelGauges]]) -> None:
        """Ask this at each scrape for what the models hold."""
        self._gauges = gauges

    def watch_preprocessing(self, waiting: Callable[[], int]) -> None:
        """Ask this at each scrape for the requests that wait to be decoded."""
        self._decode_queue = waiting

    def watch_log(self, lost: Callable[[], int]) -> None:
        """Ask this at each scrape for the lines of the log that were lost."""
        self._lost_lines = lost

    def watch_transport(self, transport: Transport, build: Build) -> None:
        """Tell of the calls it carries, and of what the server is made of."""
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
        """What only an encoder-decoder has, beside the numbers of any model; likewise."""
        numbers = self.model(model, version)
        with self._lock:
            return self._generations.setdefault((model, version), GenerationStats(numbers))

    def forget(self, model: str, version: str) -> None:
        """A version is gone for good: its numbers go too, so that they do not grow with every release."""
        with self._lock:
            self._models.pop((model, version), None)
            self._generations.pop((model, version), None)

    def model_known(self, model: str) -> None:
        """A model's loads are counted from here on."""
        with self._lock:
            self._loads.setdefault(model, dict.fromkeys(_RESULTS, 0))

    def load_ended(self, model: str, failure: type[ModelLoadError] | None) -> None:
        """A version of a known model was loaded (None), or could not be."""
        result = LOADED if failure is None else LOAD_FAILED
        if failure is GoldenMismatch:
            result = GOLDEN_MISMATCH
        with self._lock:
            self._loads[model][result] += 1

    def forget_loads(self, model: str) -> None:
        """A model is gone with all its versions."""
        with self._lock:
            self._loads.pop(model, None)

    def collect(self) -> Iterator[Metric]:
        """Everything, for one scrape."""
        for family in self._families():
            yield family
            # The family is text now, which took Python's lock. Whoever waits for it, the I/O thread say, need not
            # wait until it is taken away, after 5 ms.
            time.sleep(0)

    def _families(self) -> Iterator[Metric]:
        with self._lock:
            models = list(self._models.values())
            generations = list(self._generations.values())
            loads = {model: dict(counts) for model, counts in self._loads.items()}
        held = list(self._gauges())
        gpus = self._gpus.read() if self._gpus else []
        yield from model_metrics.counters([self.unattributed, *models])
        yield from model_metrics.histograms(models)
        yield from generation_stats.families(generations)
        yield from model_metrics.loads(models, loads)
        yield from model_metrics.gauges(held)
        yield from self._of_the_server()
        yield from server_stats.gpus(gpus)
        if self._triton:
            yield from triton_metrics.families(models, held, gpus)

    def _of_the_server(self) -> Iterator[Metric]:
        yield server_stats.DECODE_QUEUE.one(self._decode_queue())
        yield server_stats.LOG_DROPPED.one(self._lost_lines())
        if self._build:
            yield server_stats.build(self._build)
        if self._transport:
            yield from server_stats.calls(self._transport.calls)
            if self._transport.io:
                yield from server_stats.io(self._transport.io)
