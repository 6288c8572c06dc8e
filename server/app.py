"""The server as a whole: started in order, stopped in reverse.

    metrics → transport (listening, NOT_SERVING) → loader → SERVING → … → drain → stop

Threads, all of them: the main thread waits for a signal; `weir-io` (or grpcio's pool) carries calls;
`weir-run-…` runs models; `weir-preprocess_…` reads pictures and texts; `weir-deadlines` ends what is late;
`weir-loader` loads, and each version that leaves has a `weir-retire-…`; `weir-unpack` unpacks large messages; `weir-log` writes the log, and
`weir-exporter` makes lines and spans of requests if that is asked for; `weir-metrics` and its `weir-scrape` answer scrapes.
"""

import gc
import logging
import os
import queue
import signal
import sys
import time
from contextlib import suppress
from importlib.metadata import version as installed_version
from types import FrameType

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)

from weir.server import log
from weir.server.config import Settings
from weir.server.errors import ConfigError, PortUnavailable
from weir.server.repository.changes import Changes
from weir.server.repository.load_sandbox import Trial
from weir.server.repository.loader import Loader
from weir.server.repository.registry import Entry
from weir.server.repository.repository import Repository
from weir.server.repository.version_state import State
from weir.server.runtime.session import choose_provider
from weir.server.runtime.session import version as onnxruntime_version
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.deadlines import Deadlines, IdleTimeout
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.services.health import HEALTH_SERVICE, HealthService, reflection_handlers
from weir.server.services.inference import SERVICE as INFERENCE_SERVICE
from weir.server.services.inference import STREAM_INFER, InferenceService
from weir.server.services.model_control import SERVICE as MODELS_SERVICE
from weir.server.services.model_control import ModelControlService
from weir.server.services.tasks import SERVICE as TASKS_SERVICE
from weir.server.services.tasks import TasksService
from weir.server.telemetry import exporter, metrics_http
from weir.server.telemetry.gpu import Gpus
from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.server_stats import Build
from weir.server.transport import completion_queue
from weir.server.transport.base import Handlers, Limits, Transport
from weir.server.transport.completion_queue import CompletionQueueTransport
from weir.server.transport.grpc_server import GrpcServerTransport

logger = logging.getLogger(__name__)

# Messages of the largest size that may wait to be unpacked.
_LARGE_MESSAGES = 4


class App:
    """Every part of a server, wired.

    Args:
        settings: complete and checked.

    Raises:
        StartError: the configuration cannot be served on this machine.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.models_dir.is_dir():
            raise ConfigError(f"models_dir: expected a directory, got {settings.models_dir}")
        if not os.access(settings.models_dir, os.R_OK | os.X_OK):
            raise ConfigError(f"models_dir: may not be read: {settings.models_dir}")
        self._settings = settings
        provider = choose_provider(settings.provider)
        logger.info(
            "provider chosen wanted=%s provider=%s onnxruntime=%s",
            settings.provider, provider, onnxruntime_version(),
        )  # fmt: skip
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._deadlines = Deadlines(time.monotonic)
        self._metrics = Metrics(self._registry, gpus=Gpus(), triton=settings.triton_metrics)
        loader = Loader(
            provider=provider,
            threads=settings.threads,
            max_message_bytes=settings.max_message_bytes,
            settings=settings.for_model,
            deadlines=self._deadlines,
            metrics=self._metrics,
        )
        self._health = HealthService()
        self._repository = Repository(
            settings.models_dir,
            loader,
            Trial(
                loader,
                timeout_s=settings.load_timeout_s,
                memory_bytes=settings.load_memory_bytes,
            ),
            changed=self._tell_health,
            poll_interval_s=settings.poll_interval_s if settings.model_control == "poll" else None,
        )
        self._metrics.watch(self._repository.gauges)
        self._admission = Admission(
            self._repository.get,
            self._metrics,
            default_deadline_s=settings.default_deadline_s,
            max_waiting_bytes=_LARGE_MESSAGES * settings.max_message_bytes,
        )
        self._decoding = WorkerPool(
            settings.preprocessing_threads or _cores(), deadlines=self._deadlines
        )
        self._metrics.watch_preprocessing(self._decoding.waiting)
        idle_timeout = IdleTimeout(settings.default_deadline_s, deadlines=self._deadlines)
        self._exporter = exporter.open_exporter(settings)
        self._metrics.watch_log(self._lost_lines)
        interceptor = self._exporter.interceptor(settings) if self._exporter else None
        handlers = {
            **InferenceService(
                self._repository,
                self._admission,
                interceptor.intercept_reply if interceptor else None,
            ).handlers(),
            **ModelControlService(
                self._repository,
                Changes(self._repository) if settings.model_control == "explicit" else None,
            ).handlers(),
            **TasksService(self._admission, self._decoding, idle_timeout).handlers(),
        }
        if interceptor is not None:
            handlers = dict(interceptor.intercept(handlers, except_stream=STREAM_INFER))
        self._transport = _open_transport(settings, self._with_standard(handlers))
        self._metrics.watch_transport(
            self._transport,
            Build(
                version=installed_version("weir"),
                onnxruntime=onnxruntime_version(),
                provider=provider,
                transport=self._transport.name,
            ),
        )

    def start(self) -> None:
        """Listen, then begin to load; prints where to one line of standard output."""
        settings = self._settings
        try:
            self._http = metrics_http.listen(settings.metrics_port, settings.host, self._registry)
        except OSError as error:
            raise PortUnavailable(
                f"cannot listen on {settings.host}:{settings.metrics_port} for metrics: "
                f"{error.strerror or error}"
            ) from None
        self._deadlines.start()
        self._admission.start()
        self._decoding.start()
        self._transport.start()
        self._repository.start()
        _announce(
            f"weir: serving grpc={settings.host}:{self._transport.port} "
            f"metrics={settings.host}:{self._http.server_port}\n"
        )

    def stop(self) -> None:
        """Say NOT_SERVING, finish what is open within the grace, then let go of everything."""
        end_s = time.monotonic() + self._settings.grace_s
        self._health.stop()
        self._admission.drain()
        # First: what is being decoded still has to go through its model.
        self._decoding.close()
        decoded = self._decoding.join(max(0.0, end_s - time.monotonic()))
        drained = self._repository.close(max(0.0, end_s - time.monotonic())) and decoded
        self._transport.stop(max(0.0, end_s - time.monotonic()))
        self._deadlines.stop()
        if self._exporter is not None:
            self._exporter.stop()
        self._http.shutdown()
        self._http.server_close()
        logger.info("stopped drained=%s", drained)

    def _with_standard(self, handlers: Handlers) -> Handlers:
        handlers = {**handlers, **self._health.handlers()}
        if self._settings.reflection:
            handlers |= reflection_handlers(
                (INFERENCE_SERVICE, TASKS_SERVICE, MODELS_SERVICE, HEALTH_SERVICE)
            )
        return handlers

    def _lost_lines(self) -> int:
        return log.dropped() + (0 if self._exporter is None else self._exporter.dropped)

    def _tell_health(self, entry: Entry | None) -> None:
        """A model changed, or (None) the first loading is over."""
        if entry is None:
            known = {known.name for known in self._repository.entries()}
            for name in sorted(self._settings.models.keys() - known):
                logger.warning("settings for a model that is not there model=%s", name)
        else:
            self._health.set(entry.name, is_serving=entry.state is State.READY)
        self._health.set("", is_serving=self._repository.is_ready)


def _announce(line: str) -> None:
    """Say something on standard output, if there is one and somebody reads it."""
    with suppress(OSError):
        if sys.stdout is not None:
            sys.stdout.write(line)
            sys.stdout.flush()


def _open_transport(settings: Settings, handlers: Handlers) -> Transport:
    """The fastest transport that works, or the one of the settings; bound, not started.

    Raises:
        ConfigError: the transport of the settings does not work with the installed grpcio.
        PortUnavailable: the address cannot be bound.
    """
    address = f"{settings.host}:{settings.port}"
    limits = Limits(
        message_bytes=settings.max_message_bytes,
        concurrent_streams=settings.max_concurrent_streams,
    )
    problem = "set" if settings.transport == "grpc-server" else completion_queue.problem()
    if problem is None:
        logger.info("transport chosen transport=completion-queue")
        return CompletionQueueTransport(address, handlers, limits)
    if settings.transport == "completion-queue":
        raise ConfigError(f"transport completion-queue: {problem}")
    logger.info("transport chosen transport=grpc-server reason=%s", problem)
    return GrpcServerTransport(address, handlers, limits)


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the process at once.

    Does not return: threads that are still in a run must not hold up the exit.
    """
    app = App(settings)
    # Not an Event: the signal may interrupt its `wait` while that holds the lock `set` needs.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    is_stopping = False

    def on_signal(number: int, _frame: FrameType | None) -> None:
        nonlocal is_stopping
        if is_stopping:
            os._exit(128 + number)
        is_stopping = True
        signals.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    app.start()
    # What lives now lives for good: the collector need not look at it again.
    gc.freeze()
    signals.get()
    logger.info("stopping grace_s=%g", settings.grace_s)
    app.stop()
    logging.shutdown()
    os._exit(0)
