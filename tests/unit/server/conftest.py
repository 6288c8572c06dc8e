"""Shared by the tests of the server: seeded properties, a fixed clock, small bundles."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import settings
from prometheus_client import CollectorRegistry

from tests.helpers import onnx_models, pairs
from weir.bundle import writer
from weir.bundle.contract import Batching, Contract, Preprocessing, Tolerance
from weir.bundle.golden import Golden, encode
from weir.server.config import ModelSettings
from weir.server.repository.load_sandbox import LoadSandbox
from weir.server.repository.loader import Loader
from weir.server.repository.model_source import ModelRepository
from weir.server.repository.registry import Entry
from weir.server.repository.repository import Repository
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.worker_pool import WorkerPool
from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.request_record import RequestRecord
from weir.server.transport.base import Metadata

# Derandomized: every run has the same examples, so a failure is reproducible.
settings.register_profile("weir", derandomize=True, deadline=None, database=None)
settings.load_profile("weir")


# Only ever reached by a test that fails.
HANG_S = 20.0


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty model repository."""
    directory = tmp_path / "models"
    directory.mkdir()
    return directory


class FakeCall:
    """A call without a network: `weir.server.transport.base.Call`, and what a test does to it."""

    def __init__(
        self, metadata: Metadata = (), *, time_left_s: float | None = None, method: str = "/fake"
    ) -> None:
        self.method = method
        self.record: RequestRecord | None = None
        self.caller: Any = None
        self.peer = "fake"
        self.metadata = metadata
        self.cancelled = False
        self.sent: list[bytes] = []
        self.confirmations: list[Callable[[], None]] = []
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.message: bytes | None = None
        self.trailers: Metadata = ()
        self._time_left_s = time_left_s
        self._changed = threading.Condition()
        self._on_close: Callable[[], None] | None = None
        self._receivers: list[Callable[[bytes | None], None]] = []

    def time_left_s(self) -> float | None:
        return self._time_left_s

    def on_close(self, callback: Callable[[], None]) -> None:
        if self.cancelled:
            callback()
        else:
            # One callback, as on both transports: the last.
            self._on_close = callback

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        assert not self._receivers, "one message may be asked for at a time"
        self._receivers.append(callback)

    def send(self, message: bytes, sent: Callable[[], None] | None = None) -> None:
        with self._changed:
            self.sent.append(message)
            if sent is not None:
                self.confirmations.append(sent)
            self._changed.notify_all()

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        *,
        message: bytes | None = None,
        trailers: Metadata = (),
    ) -> bool:
        with self._changed:
            if self.cancelled or self.code is not None:
                return False
            self.code, self.details, self.message, self.trailers = code, details, message, trailers
            self._changed.notify_all()
        return True

    def close(self) -> None:
        """The caller is gone."""
        self.cancelled = True
        if self._on_close is not None:
            self._on_close()

    def deliver(self, message: bytes | None) -> None:
        """The next message of the caller, or None for its last word."""
        self._receivers.pop()(message)

    @property
    def is_asked_for_more(self) -> bool:
        return bool(self._receivers)

    def confirm(self) -> None:
        """The oldest message is out."""
        self.confirmations.pop(0)()

    def wait_until_finished(self) -> grpc.StatusCode:
        with self._changed:
            assert self._changed.wait_for(lambda: self.code is not None, HANG_S)
        assert self.code is not None
        return self.code

    def wait_until_sent(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.sent) >= count, HANG_S)


AFFINE_GOLDEN = Golden(
    inputs={"x": np.array([[0, 1, 2, 3], [-1, 0.5, 4, 10]], np.float32)},
    outputs={"y": np.array([[1, 3, 5, 7], [-1, 2, 9, 21]], np.float32)},
)


@pytest.fixture
def publish(models: Path) -> Callable[..., Path]:
    """Write a bundle of y = 2x + 1, with what the test wants different."""

    def publish(
        name: str = "affine",
        *,
        graph: bytes | None = None,
        golden: Golden | None = AFFINE_GOLDEN,
        labels: str | None = None,
        batching: Batching | None = None,
        batch_axis: str | None = "batch",
        preprocessing: Preprocessing | None = None,
        version: int | None = None,
        **own: Any,
    ) -> Path:
        files = {"model.onnx": onnx_models.affine() if graph is None else graph}
        if golden is not None:
            files["golden.npz"] = encode(golden)
        if labels is not None:
            files["labels.txt"] = labels.encode()
        ranked = preprocessing.output if preprocessing else "y"
        contract = Contract(
            task="other",
            architecture="affine",
            batch_axis=batch_axis,
            labels={} if labels is None else {ranked: "labels.txt"},
            preprocessing=preprocessing,
            batching=batching or Batching(),
            tolerance=Tolerance(absolute=1e-5, relative=1e-5),
            **own,
        )
        return writer.write(files, contract, models, name, version)

    return publish


@pytest.fixture
def publish_pair(models: Path) -> Callable[..., Path]:
    """Write a bundle of two graphs, with what the test wants different."""

    def publish_pair(
        name: str = "pair",
        *,
        decoder_golden: Golden | None = pairs.DECODER_GOLDEN,
        contract: Contract = pairs.CONTRACT,
        **files: bytes,
    ) -> Path:
        graphs = {
            "encoder.onnx": pairs.encoder(),
            "decoder.onnx": pairs.decoder(),
            "golden.npz": encode(pairs.WHOLE_GOLDEN),
            "golden.encoder.npz": encode(pairs.ENCODER_GOLDEN),
        }
        if decoder_golden is not None:
            graphs["golden.decoder.npz"] = encode(decoder_golden)
        return writer.write({**graphs, **files}, contract, models, name)

    return publish_pair


COLOURS = Preprocessing(
    input="image", height=8, width=8, channels=3, resize="stretch", output="probabilities"
)
"""What `onnx_models.colours` takes and gives."""


class Unsandboxed(LoadSandbox):
    """Loads without a child process, which has tests of its own."""

    def __init__(self, loader: Loader) -> None:
        super().__init__(loader, timeout_s=1.0, memory_bytes=None)
        self.load = loader.load  # type: ignore[method-assign]


def unsandboxed(loader: Loader) -> LoadSandbox:
    """In place of a load sandbox."""
    return Unsandboxed(loader)


@dataclass(frozen=True)
class Backend:
    """A loaded repository and its numbers."""

    repository: Repository
    metrics: Metrics
    registry: CollectorRegistry


def parse_pool(clock: Clock) -> WorkerPool:
    """The worker that parses large messages."""
    pool = WorkerPool(1, name="weir-parse", deadlines=Deadlines(clock), clock=clock)
    pool.start()
    return pool


@pytest.fixture
def open_backend(models: Path, clock: Clock) -> Iterator[Callable[..., Backend]]:
    """Load every model that was put into `models`, with one set of settings for all."""
    opened: list[Repository] = []

    def open_backend(**own: object) -> Backend:
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        given_settings = ModelSettings.model_validate({"max_queue_rows": 8, "instances": 1, **own})
        loader = Loader(
            provider="cpu",
            max_message_bytes=1 << 20,
            settings=lambda _: given_settings,
            deadlines=Deadlines(clock),
            metrics=metrics,
            clock=clock,
        )
        is_loaded = threading.Event()

        def changed(entry: Entry | None) -> None:
            if entry is None:
                is_loaded.set()

        repository = Repository(
            ModelRepository(models), loader, unsandboxed(loader), changed=changed
        )
        opened.append(repository)
        repository.start()
        assert is_loaded.wait(HANG_S)
        return Backend(repository, metrics, registry)

    yield open_backend
    for repository in opened:
        assert repository.close(HANG_S)
