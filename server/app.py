"""The server as a whole: built, started and stopped in a fixed order.

    bind ports → start threads → serve, NOT_SERVING → load models → SERVING → … → drain → stop

A server that shares its gRPC port binds it after it has loaded its models, and closes it before it
drains: the system gives new connections to every process that listens, whether it is ready or not.

`docs/architecture.md` lists the threads.
"""

import gc
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from importlib.metadata import version as installed_version
from pathlib import Path
from types import FrameType

import grpc
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from weir.bundle.escaping import short_list
from weir.server import gateway_process, threads
from weir.server.access.authorization import Authorizer
from weir.server.access.certificates import Certificates
from weir.server.access.file_watcher import FileWatcher
from weir.server.access.tokens import TokensFile
from weir.server.config import Settings
from weir.server.errors import ConfigError, PortUnavailable, ProviderMissing
from weir.server.gateway_process import GatewayProcess
from weir.server.repository.load_sandbox import LoadSandbox
from weir.server.repository.loader import Loader
from weir.server.repository.model_source import SingleModel, open_source
from weir.server.repository.registry import Entry
from weir.server.repository.repository import Repository
from weir.server.repository.version_state import State
from weir.server.runtime import heap, memory
from weir.server.runtime.cores import usable_cores
from weir.server.runtime.custom_operators import library_path
from weir.server.runtime.session import choose_provider
from weir.server.runtime.session import version as onnxruntime_version
from weir.server.scheduling.admission import Admission
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.memory_watermark import MemoryWatermark, default_share
from weir.server.scheduling.worker_pool import PoolLimits, WorkerPool
from weir.server.services.health import HEALTH_SERVICE, HealthService, reflection_handlers
from weir.server.services.inference import SERVICE as INFERENCE_SERVICE
from weir.server.services.inference import STREAM_INFER, InferenceService
from weir.server.services.model_control import SERVICE as MODELS_SERVICE
from weir.server.services.model_control import ModelControlService
from weir.server.services.tasks import SERVICE as TASKS_SERVICE
from weir.server.services.tasks import TasksService
from weir.server.telemetry import exporter, log, metrics_http
from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.metrics_http import ScrapeServer
from weir.server.telemetry.server_stats import Build, Gpus
from weir.server.threads import Watchdog
from weir.server.transport import completion_queue
from weir.server.transport.base import Check, Handlers, Limits, Transport
from weir.server.transport.completion_queue import CompletionQueueTransport
from weir.server.transport.connections import default_max_connections
from weir.server.transport.grpc_server import GrpcServerTransport
from weir.server.transport.wakeups import Wakeups

logger = logging.getLogger(__name__)

# Requests, and messages of the largest size, that may wait to be parsed.
_PARSE_REQUESTS = 1024
_PARSE_MESSAGES = 4
_SIGNAL_CHECK_S = 0.5
# Of the grace: a slow upload to the gateway leaves gRPC callers the other half.
_GATEWAY_SHARE = 0.5
# LeNet-5: 1.9 times with one call in flight, 4.7 times with 128 over 8 connections.
_FALLBACK_COST = "2 to 5 times the CPU of a small call, at most 512 open calls"


def serve(settings: Settings, environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the process at once.

    Does not return: a thread that is still in a run must not hold up the exit.

    Args:
        environment: of the start, without what the server sets for itself.
    """
    threads.supervise_libraries()
    sources = [limit.source for limit in memory.limits()]
    heap.keep_freed_memory(is_address_space_limited="RLIMIT_AS" in sources)
    app = App(settings, environment)
    # Not an Event: a signal may interrupt `wait` while it holds the lock that `set` needs.
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
    app.start(lambda: is_stopping)
    # Objects that exist now live as long as the process; the collector need not visit them.
    gc.freeze()
    # Not without a timeout: a signal that arrives just before the wait does not end it, and Python
    # runs its handler only when this thread wakes.
    while True:
        with suppress(queue.Empty):
            signals.get(timeout=_SIGNAL_CHECK_S)
            break
    logger.info("server stopping grace_s=%g", settings.grace_s)
    app.stop()
    logging.shutdown()
    os._exit(0)


class App:
    """Every part of a server, wired.

    Args:
        environment: that the HTTP gateway is started with.

    Raises:
        StartError: the settings cannot be served on this machine.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        if settings.http_port is not None:
            gateway_process.check(settings)
        self._source = open_source(settings.models_dir, settings.name)
        if isinstance(self._source, SingleModel):
            logger.info("one model served model=%s path=%s", self._source.name, self._source.path)
        if any(table.is_variable for table in settings.models):
            settings.check_names(self._source.scan(settings.links)[0])
        self._settings = settings
        self._environment = environment
        self._provider = choose_provider(settings.provider)
        for table in settings.models:
            if table.settings.provider == "cuda":
                _check_cuda(table.source_of("provider"))
        self._operator_library = library_path(settings.custom_operators)
        logger.info(
            "provider chosen setting=%s provider=%s onnxruntime=%s",
            settings.provider, self._provider, onnxruntime_version(),
        )  # fmt: skip
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._metrics = Metrics(self._registry, gpus=Gpus(), triton=settings.triton_metrics)
        self._deadlines = Deadlines(time.monotonic)
        self._watchdog = Watchdog(settings.watchdog_timeout_s, self._show_health)
        self._health = HealthService()
        self._wakeups = Wakeups()
        self._is_ready = False
        self._loaded = threading.Event()
        self._transport: Transport | None = None
        self._socket_path: Path | None = None
        self._gateway: GatewayProcess | None = None
        limits = memory.limits()
        self._budget = ByteBudget(
            "the server",
            settings.max_inflight_bytes or (limits[0].limit_bytes // 4 if limits else None),
        )
        self._repository = self._build_repository()
        self._watermark = MemoryWatermark(
            limits,
            settings.memory_watermark
            or default_share(limits[0].limit_bytes if limits else 1, settings.max_message_bytes),
            methods=(f"/{INFERENCE_SERVICE}/ModelInfer", STREAM_INFER, f"/{TASKS_SERVICE}/"),
            budget=self._budget,
            is_busy=self._has_open_calls,
            shed=self._refuse_waiting,
        )
        # One thread, as parsing holds the GIL. A pool apart from preprocessing: tensors that take
        # milliseconds do not wait behind pictures that take seconds.
        self._parse_pool = WorkerPool(
            1,
            name="weir-parse",
            deadlines=self._deadlines,
            limits=PoolLimits(_PARSE_REQUESTS, _PARSE_MESSAGES * settings.max_message_bytes),
            budget=self._budget,
        )
        self._admission = Admission(
            self._repository.get,
            self._metrics,
            self._parse_pool,
            default_deadline_s=settings.default_deadline_s,
            max_deadline_s=settings.max_deadline_s,
            check_memory=self._watermark.check_message,
        )
        self._preprocess_pool = WorkerPool(
            settings.preprocessing_threads or usable_cores(),
            deadlines=self._deadlines,
            budget=self._budget,
        )
        self._exporter = exporter.open_exporter(settings)
        self._watcher = FileWatcher()
        self._certificates = _certificates(settings, self._watcher)
        tokens = TokensFile(settings.tokens_file, self._watcher) if settings.tokens_file else None
        self._handlers = self._build_handlers()
        self._authorizer = (
            Authorizer(tokens, self._handlers.keys(), opens_health=settings.open_health)
            if tokens
            else None
        )
        self._checks: list[Check] = [
            *([self._authorizer.check] if self._authorizer else []),
            self._watermark.check,
        ]
        self._metrics.watch(self._repository.gauges)
        self._metrics.watch_preprocessing(self._preprocess_pool.waiting)
        self._metrics.watch_parsing(self._parse_pool.waiting)
        self._metrics.watch_log(self._dropped_lines)
        self._metrics.watch_memory(self._watermark.state)
        if (certificates := self._certificates) is not None:
            self._metrics.watch_certificate(lambda: certificates.ends_s)
        self._metrics.watch_ready(lambda: self._is_able and not self._admission.is_draining)

    def start(self, is_interrupted: Callable[[], bool] = lambda: False) -> None:
        """Bind the ports, start every part, and announce the ports on standard output.

        If a part fails to start, the parts that have started are closed. A server that shares its
        port waits for its models, and one with an HTTP port for the gateway; once `is_interrupted`
        is true, it stops waiting and returns.
        """
        settings = self._settings
        problem = completion_queue.problem() if settings.transport != "grpc-server" else None
        with ExitStack() as started:
            self._open_socket(started)
            if not settings.share_port:
                transport = self._open_transport(problem)
                self._transport = transport
                started.callback(transport.stop, 0.0)
            self._http = _open_metrics_http(
                settings, self._registry, self._certificates, self._authorizer
            )
            self._watchdog.watch(self._http)
            started.callback(self._close_http)
            started.callback(self._watcher.stop)
            self._watcher.start()
            started.callback(self._deadlines.stop)
            self._deadlines.start()
            self._watchdog.watch(self._deadlines)
            for pool in (self._parse_pool, self._preprocess_pool):
                started.callback(pool.close)
                pool.start()
            if settings.share_port:
                self._repository.start()
                started.callback(self._repository.close, 0.0)
                if not _wait(self._loaded.wait, is_interrupted):
                    started.pop_all()
                    return
                transport = self._open_transport(problem)
                self._transport = transport
                started.callback(transport.stop, 0.0)
            self._build = Build(
                version=installed_version("weir"),
                onnxruntime=onnxruntime_version(),
                grpcio=grpc.__version__,
                provider=self._provider,
                transport=transport.name,
                transport_problem=problem,
                metrics_address=_address(settings.host, self._http.server_port),
                started_s=time.time(),
                usable_cores=usable_cores(),
                shares_port=settings.share_port,
            )
            self._metrics.watch_transport(transport, self._build)
            self._deadlines.watch(transport)
            self._deadlines.expect(transport.expire(time.monotonic()))
            started.callback(self._watermark.stop)
            self._watermark.start()
            transport.start()
            if transport.io is not None:
                self._watchdog.watch(transport.io)
            started.callback(self._watchdog.stop)
            self._watchdog.start()
            if not settings.share_port:
                self._repository.start()
            self._start_gateway(started, transport.port)
            is_listening = self._gateway is None or _wait(self._gateway.listening, is_interrupted)
            started.pop_all()
        if is_listening:
            _announce(
                f"weir: serving grpc={_address(settings.host, transport.port)} "
                f"metrics={self._build.metrics_address}"
                f"{f' http={self._gateway.address}' if self._gateway else ''}\n"
            )

    def stop(self) -> None:
        """Set NOT_SERVING, finish open requests within the grace, then stop every part."""
        end_s = time.monotonic() + self._settings.grace_s

        def left_s() -> float:
            return max(0.0, end_s - time.monotonic())

        self._watchdog.stop()
        self._health.stop()
        if self._gateway is not None:
            # Before the drain, so that its open requests and those that cross the signal get an
            # answer of the models.
            self._gateway.stop(left_s() * _GATEWAY_SHARE)
        if self._transport is not None and self._settings.share_port:
            self._transport.close_port()
        self._admission.drain()
        # The pools stop before the models: a preprocessed request still has to run.
        pools = (self._parse_pool, self._preprocess_pool)
        for pool in pools:
            pool.close()
        are_drained = [pool.join(left_s()) for pool in pools]
        are_drained.append(self._repository.close(left_s()))
        if self._transport is not None:
            are_drained.append(self._transport.stop(left_s()))
        if self._gateway is not None:
            are_drained.append(self._gateway.stop(left_s()))
            self._gateway.close()
        gateway_process.remove_socket(self._socket_path)
        self._watermark.stop()
        self._deadlines.stop()
        if self._exporter is not None:
            self._exporter.stop()
        self._close_http()
        self._watcher.stop()
        logger.info("server stopped drained=%s", all(are_drained))

    def _build_repository(self) -> Repository:
        settings = self._settings
        loader = Loader(
            provider=self._provider,
            cores=usable_cores(),
            max_message_bytes=settings.max_message_bytes,
            links=settings.links,
            settings=settings.for_model,
            source_of=settings.source_of,
            deadlines=self._deadlines,
            metrics=self._metrics,
            operator_library=self._operator_library,
            wakeups=self._wakeups,
            budget=self._budget,
        )
        sandbox = LoadSandbox(
            loader, timeout_s=settings.load_timeout_s, memory_bytes=settings.load_memory_bytes
        )
        return Repository(
            self._source,
            loader,
            sandbox,
            changed=self._update_health,
            poll_interval_s=settings.poll_interval_s if settings.model_control == "poll" else None,
            require_models=settings.require_models,
        )

    def _build_handlers(self) -> Handlers:
        """The handlers of every service, by full method name."""
        settings, repository = self._settings, self._repository
        interceptor = self._exporter.interceptor(settings) if self._exporter else None
        inference = InferenceService(
            repository, self._admission, interceptor.intercept_reply if interceptor else None
        )
        is_explicit = settings.model_control == "explicit"
        handlers: Handlers = {
            **inference.handlers(),
            **ModelControlService(
                repository, lambda: self._build, is_explicit=is_explicit
            ).handlers(),
            **TasksService(self._admission, self._preprocess_pool).handlers(),
        }
        if interceptor is not None:
            handlers = interceptor.intercept(handlers, except_stream=STREAM_INFER)
        services = (INFERENCE_SERVICE, TASKS_SERVICE, MODELS_SERVICE, HEALTH_SERVICE)
        return {
            **handlers,
            **self._health.handlers(),
            **(reflection_handlers(services) if settings.serves_reflection else {}),
        }

    def _open_socket(self, started: ExitStack) -> None:
        """Make the directory of the gateway's socket, if there is a gateway."""
        if self._settings.http_port is not None:
            gateway_process.check_port(self._settings)
            self._socket_path = gateway_process.private_socket()
            started.callback(gateway_process.remove_socket, self._socket_path)

    def _start_gateway(self, started: ExitStack, grpc_port: int) -> None:
        """Start the gateway, if there is one."""
        settings, path = self._settings, self._socket_path
        if settings.http_port is None:
            return
        host = gateway_process.reachable(settings.host)
        launch = gateway_process.launcher(
            settings,
            self._environment,
            _address(host, grpc_port) if path is None else f"unix:{path}",
            gateway_process.Ports(grpc=grpc_port, metrics=self._http.server_port),
            path,
        )
        self._gateway = GatewayProcess(launch, settings.http_port)
        started.callback(self._gateway.close)
        self._gateway.start()

    def _open_transport(self, problem: str | None) -> Transport:
        """Bind the chosen transport; `auto` is completion-queue unless it has a problem."""
        settings = self._settings
        address = _address(settings.host, settings.port)
        limits = Limits(
            message_bytes=settings.max_message_bytes,
            concurrent_streams=settings.max_concurrent_streams,
            open_calls=settings.max_open_calls,
            default_deadline_s=settings.default_deadline_s,
            max_deadline_s=settings.max_deadline_s,
            connections=settings.max_connections or default_max_connections(),
            connections_by_peer=settings.max_connections_per_peer,
            idle_s=settings.max_connection_idle_s,
            age_s=settings.max_connection_age_s,
            age_grace_s=settings.max_connection_age_grace_s,
            keepalive_s=settings.keepalive_time_s,
            keepalive_timeout_s=settings.keepalive_timeout_s,
            ping_interval_s=settings.min_ping_interval_s,
            shares_port=settings.share_port,
        )
        credentials = self._certificates.credentials() if self._certificates else None
        if settings.transport == "grpc-server":
            logger.info("transport chosen transport=grpc-server reason=setting")
        elif problem is None:
            logger.info("transport chosen transport=completion-queue")
            return CompletionQueueTransport(
                address,
                self._handlers,
                limits,
                self._wakeups,
                self._checks,
                credentials=credentials,
                socket_path=self._socket_path,
            )
        elif settings.transport == "completion-queue":
            raise ConfigError(f"transport completion-queue: {problem}")
        else:
            logger.warning(
                "slower transport chosen transport=grpc-server reason=%s cost=%s fix=%s",
                problem, _FALLBACK_COST, f"pip install '{completion_queue.TESTED}'",
            )  # fmt: skip
        return GrpcServerTransport(
            address,
            self._handlers,
            limits,
            self._checks,
            credentials=credentials,
            socket_path=self._socket_path,
        )

    def _close_http(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _has_open_calls(self) -> bool:
        return self._transport is not None and self._transport.open_calls > 0

    def _refuse_waiting(self, error: Exception, methods: tuple[str, ...]) -> int:
        return 0 if self._transport is None else self._transport.refuse_waiting(error, methods)

    def _dropped_lines(self) -> int:
        return log.dropped() + (0 if self._exporter is None else self._exporter.dropped)

    def _update_health(self, entry: Entry | None) -> None:
        """Set the health of a model that changed; None: the first loading has ended."""
        if entry is None:
            self._loaded.set()
            known = {known.name for known in self._repository.registry.entries()}
            for table in self._settings.for_unknown_models(known):
                logger.warning(
                    "settings for an unknown model model=%s source=%s models=%s",
                    table.name, table.source_of(), short_list(sorted(known)),
                )  # fmt: skip
        else:
            self._health.set(entry.name, is_serving=entry.state is State.READY)
        self._watermark.models_changed()
        is_ready = self._repository.is_ready
        self._show_health()
        if is_ready and not self._is_ready:
            logger.info("server ready")
        elif not is_ready and (self._is_ready or entry is None):
            logger.warning("server not ready reason=no model is ready")
        self._is_ready = is_ready

    @property
    def _is_able(self) -> bool:
        """Whether the models are ready, and no thread seems to be stuck."""
        return self._repository.is_ready and self._watchdog.is_healthy

    def _show_health(self) -> None:
        """Set the health of the server."""
        self._health.set("", is_serving=self._is_able)


def _wait(wait: Callable[[float], bool], is_interrupted: Callable[[], bool]) -> bool:
    """Wait until a wait with a timeout succeeds; False if it is interrupted before."""
    while not wait(_SIGNAL_CHECK_S):
        if is_interrupted():
            return False
    return True


def _check_cuda(source: str) -> None:
    """Raise ProviderMissing with the source of the setting if CUDA does not work."""
    try:
        choose_provider("cuda")
    except ProviderMissing as error:
        raise ProviderMissing(f"{source}: {error}") from error


def _certificates(settings: Settings, watcher: FileWatcher) -> Certificates | None:
    """The certificates of both ports; None: both are plaintext."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    log.unblock_stderr()
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca, watcher)


def _open_metrics_http(
    settings: Settings,
    registry: CollectorRegistry,
    certificates: Certificates | None,
    authorizer: Authorizer | None,
) -> ScrapeServer:
    """Serve /metrics."""
    try:
        return metrics_http.listen(
            settings.metrics_port,
            settings.host,
            registry,
            tls=None if certificates is None else lambda: certificates.context,
            check=None if authorizer is None else authorizer.check_scrape,
        )
    except OSError as error:
        raise PortUnavailable(
            f"cannot listen on {_address(settings.host, settings.metrics_port)} for metrics: "
            f"{error.strerror or error}"
        ) from None


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _announce(line: str) -> None:
    """Write a line to standard output, if there is one that is read."""
    with suppress(OSError):
        if sys.stdout is not None:
            sys.stdout.write(line)
            sys.stdout.flush()
