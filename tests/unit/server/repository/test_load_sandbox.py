"""What a version can do to the process that loads it. The children are real processes."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from tests.helpers import onnx_models
from weir.bundle.golden import Golden
from weir.server.config import ModelSettings
from weir.server.errors import GoldenMismatch, ModelLoadError
from weir.server.repository.load_sandbox import LoadSandbox
from weir.server.repository.loader import Loader
from weir.server.repository.parallelism import Measured, Parallelism, network_of
from weir.server.scheduling.deadlines import Deadlines
from weir.server.telemetry.metrics import Metrics

# Only ever reached by a test that fails.
HANG_S = 20.0
LONG_S = 600.0

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

ENDLESS = Golden(
    inputs={"iterations": np.array([[2**62]])},
    outputs={"echo": np.array([[2**62]]), "steps": np.array([[2**62]])},
)


@pytest.fixture
def make_sandbox(clock: Callable[[], float]) -> Iterator[Callable[..., LoadSandbox]]:
    """A sandbox for a loader of this process; what it loaded is closed at the end."""
    loaded: list[Any] = []

    class Kept(LoadSandbox):
        def load(self, *arguments: Any) -> list[Any]:
            models = super().load(*arguments)
            loaded.extend(models)
            return models

    def make_sandbox(
        timeout_s: float = LONG_S,
        memory_bytes: int | None = None,
        max_message_bytes: Any = 1 << 20,
        cores: int = 1,
        measured: dict[str, Measured] | None = None,
        **settings: Any,
    ) -> LoadSandbox:
        own = ModelSettings(**{"max_queue_rows": 64, "instances": 1, **settings})
        loader = Loader(
            provider="cpu",
            max_message_bytes=max_message_bytes,
            settings=lambda _: own,
            deadlines=Deadlines(clock),
            metrics=Metrics(CollectorRegistry()),
            cores=cores,
            measured={} if measured is None else measured,
        )
        return Kept(loader, timeout_s=timeout_s, memory_bytes=memory_bytes)

    yield make_sandbox
    for model in loaded:
        model.scheduler.close()
        assert model.scheduler.join(HANG_S)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> "SimpleQueue[subprocess.Popen[bytes]]":
    """Every child, as it starts."""
    children: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            children.put(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return children


@pytest.fixture
def endless(publish: Callable[..., Path]) -> Path:
    """A version whose first run never ends."""
    return publish("endless", graph=onnx_models.burner(), golden=ENDLESS)


@pytest.fixture
def load_aside() -> Iterator[Callable[..., "Future[Any]"]]:
    """Load a version in a thread of its own."""
    with ThreadPoolExecutor() as pool:

        def load_aside(sandbox: LoadSandbox, directory: Path) -> "Future[Any]":
            return pool.submit(load, sandbox, directory)

        yield load_aside


def load(sandbox: LoadSandbox, directory: Path) -> list[Any]:
    return sandbox.load(directory.parent.name, directory.name, directory)


def test_version_that_passes_is_loaded_here(
    publish: Callable[..., Path], make_sandbox: Callable[..., LoadSandbox]
) -> None:
    (model,) = load(make_sandbox(), publish())

    assert (model.name, model.version, model.golden) == ("affine", "1", 0.0)


def test_pair_that_passes_is_loaded_here(
    publish_pair: Callable[..., Path], make_sandbox: Callable[..., LoadSandbox]
) -> None:
    models = load(make_sandbox(), publish_pair())

    assert [model.name for model in models] == ["pair.encoder", "pair.decoder", "pair"]


def test_only_the_child_measures(
    publish: Callable[..., Path],
    make_sandbox: Callable[..., LoadSandbox],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: dict[str, Measured] = {}

    def fail(*_: object, **__: object) -> Parallelism:
        raise AssertionError("measured here")

    monkeypatch.setattr("weir.server.repository.parallelism.measure", fail)
    auto = {"threads": "auto", "instances": "auto", "cores": 2}
    (model,) = load(make_sandbox(measured=measured, **auto), publish())

    assert (model.threads, model.instances) == (1, 1)
    assert measured["affine"].network == network_of(onnx_models.affine())
    assert measured["affine"].parallelism.reason.endswith(" us")


def test_choice_for_the_version_before_reaches_the_child(
    publish: Callable[..., Path], make_sandbox: Callable[..., LoadSandbox]
) -> None:
    before = Measured(network_of(onnx_models.affine(slope=9.0)), Parallelism(2, 3, "before"))
    auto = {"threads": "auto", "instances": "auto", "cores": 2}

    (model,) = load(make_sandbox(measured={"affine": before}, **auto), publish())

    assert (model.threads, model.instances) == (2, 3)


def test_reason_of_the_child_is_the_one_that_loading_here_would_give(
    publish: Callable[..., Path],
    make_sandbox: Callable[..., LoadSandbox],
    started: "SimpleQueue[subprocess.Popen[bytes]]",
) -> None:
    directory = publish()
    (directory / "model.onnx").write_bytes(onnx_models.affine(slope=3.0))

    with pytest.raises(ModelLoadError) as failed:
        load(make_sandbox(), directory)

    assert str(failed.value).startswith("model.onnx: expected SHA-256 ")
    assert started.get_nowait().returncode == 0, "the child answered"


@pytest.mark.parametrize(
    ("own", "kind"),
    [
        pytest.param({"slope": 3.0}, GoldenMismatch, id="other outputs"),
        pytest.param({"slope": 2.0, "spoilt": True}, ModelLoadError, id="another reason"),
    ],
)
def test_kind_of_a_failure_survives_the_child(
    own: dict[str, Any],
    kind: type[ModelLoadError],
    publish: Callable[..., Path],
    make_sandbox: Callable[..., LoadSandbox],
    started: "SimpleQueue[subprocess.Popen[bytes]]",
) -> None:
    is_spoilt = own.pop("spoilt", False)
    directory = publish(graph=onnx_models.affine(**own))
    if is_spoilt:
        (directory / "model.onnx").write_bytes(b"")

    with pytest.raises(ModelLoadError) as failed:
        load(make_sandbox(), directory)

    assert type(failed.value) is kind
    assert started.get_nowait().returncode == 0, "the child answered"


def test_settings_of_the_model_count_in_the_sandbox(
    publish: Callable[..., Path], make_sandbox: Callable[..., LoadSandbox]
) -> None:
    rows = np.array([[1], [2]])
    directory = publish(
        graph=onnx_models.at_most(rows=2), golden=Golden(inputs={"x": rows}, outputs={"y": rows})
    )

    with pytest.raises(ModelLoadError, match="cannot compute with these"):
        load(make_sandbox(), directory)
    (model,) = load(make_sandbox(max_batch_rows=2), directory)

    assert model.signature.max_rows == 2


def test_version_that_never_ends_loading_fails_at_the_time_limit(
    endless: Path,
    make_sandbox: Callable[..., LoadSandbox],
    started: "SimpleQueue[subprocess.Popen[bytes]]",
) -> None:
    with pytest.raises(ModelLoadError, match=r"to end within 1\.5 s \(load_timeout_s\)$"):
        load(make_sandbox(timeout_s=1.5), endless)

    assert started.get_nowait().returncode == -signal.SIGKILL, "ended, and waited for"


@linux
@pytest.mark.parametrize("is_bundle", [True, False], ids=["bundle", "plain"])
def test_version_that_needs_more_memory_than_its_limit_fails(
    publish: Callable[..., Path],
    models: Path,
    make_sandbox: Callable[..., LoadSandbox],
    *,
    is_bundle: bool,
) -> None:
    graph = onnx_models.needing(2**31)
    directory = (
        publish(graph=graph) if is_bundle else onnx_models.write_plain(models, "plain", graph)
    )

    with pytest.raises(
        ModelLoadError,
        match=r"needs more memory than there is \(load_memory_bytes is 1073741824\)$",
    ):
        load(make_sandbox(memory_bytes=2**30), directory)


@linux
@pytest.mark.parametrize("memory_mib", [5, 25], ids=["to read", "to load"])
def test_version_whose_files_need_more_memory_than_its_limit_fails(
    memory_mib: int, models: Path, make_sandbox: Callable[..., LoadSandbox]
) -> None:
    graph = onnx_models.wide(20 * 2**20)
    directory = onnx_models.write_plain(models, "plain", graph)

    with pytest.raises(ModelLoadError, match="needs more memory than there is"):
        load(make_sandbox(memory_bytes=memory_mib * 2**20), directory)


@linux
def test_version_within_its_memory_limit_is_loaded(
    publish: Callable[..., Path], make_sandbox: Callable[..., LoadSandbox]
) -> None:
    assert load(make_sandbox(memory_bytes=2**30), publish())


@linux
@pytest.mark.parametrize(
    ("memory_bytes", "count"), [(2**40, 1), (None, 0)], ids=["limited", "unlimited"]
)
def test_only_a_child_with_a_memory_limit_has_one_arena_and_returns_large_blocks(
    endless: Path,
    make_sandbox: Callable[..., LoadSandbox],
    started: "SimpleQueue[subprocess.Popen[bytes]]",
    load_aside: Callable[..., "Future[Any]"],
    monkeypatch: pytest.MonkeyPatch,
    *,
    memory_bytes: int | None,
    count: int,
) -> None:
    for name in ("MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    loading = load_aside(make_sandbox(memory_bytes=memory_bytes), endless)

    child = started.get(timeout=HANG_S)
    environment = Path(f"/proc/{child.pid}/environ")
    end_s = time.monotonic() + HANG_S
    # The system starts a program before it shows the program's variables.
    while not (variables := environment.read_bytes().split(b"\0"))[0]:
        assert time.monotonic() < end_s, "the child has no variables"
    child.kill()

    assert variables.count(b"MALLOC_ARENA_MAX=1") == count
    assert variables.count(b"MALLOC_MMAP_THRESHOLD_=131072") == count
    with pytest.raises(ModelLoadError, match="SIGKILL"):
        loading.result(HANG_S)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGSEGV, "was killed by SIGSEGV$"),
        (signal.SIGKILL, "was killed by SIGKILL, perhaps for lack of memory$"),
        pytest.param(
            getattr(signal, "SIGRTMIN", 0) + 1,
            r"was killed by SIGRTMIN\+1$",
            marks=pytest.mark.skipif(
                not hasattr(signal, "SIGRTMIN"), reason="the system has no real-time signals"
            ),
        ),
    ],
    ids=["crash", "killed", "real-time"],
)
def test_child_that_dies_fails_the_version(
    endless: Path,
    make_sandbox: Callable[..., LoadSandbox],
    started: "SimpleQueue[subprocess.Popen[bytes]]",
    load_aside: Callable[..., "Future[Any]"],
    *,
    number: int,
    message: str,
) -> None:
    loading = load_aside(make_sandbox(), endless)

    started.get(timeout=HANG_S).send_signal(number)

    with pytest.raises(ModelLoadError, match=message):
        loading.result(HANG_S)


def test_child_imports_what_this_process_does_wherever_that_stands(
    publish: Callable[..., Path],
    make_sandbox: Callable[..., LoadSandbox],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "weir").mkdir()
    (tmp_path / "weir" / "__init__.py").write_text("raise SystemExit('of the working directory')")
    monkeypatch.chdir(tmp_path)

    assert load(make_sandbox(), publish())


def test_bug_in_the_child_is_raised_as_one(
    publish: Callable[..., Path], make_sandbox: Callable[..., LoadSandbox]
) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)load sandbox of affine:.*TypeError"):
        load(make_sandbox(max_message_bytes="many"), publish())


def test_version_fails_where_no_process_can_be_started(
    publish: Callable[..., Path],
    make_sandbox: Callable[..., LoadSandbox],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with pytest.raises(
        ModelLoadError, match=r"load sandbox: no process can be started: No such file"
    ):
        load(make_sandbox(), publish())


def test_stop_ends_what_is_loaded_and_nothing_else_begins(
    endless: Path,
    publish: Callable[..., Path],
    make_sandbox: Callable[..., LoadSandbox],
    started: "SimpleQueue[subprocess.Popen[bytes]]",
    load_aside: Callable[..., "Future[Any]"],
) -> None:
    sandbox = make_sandbox()
    loading = load_aside(sandbox, endless)
    child = started.get(timeout=HANG_S)

    sandbox.stop()

    with pytest.raises(ModelLoadError, match="the server is stopping"):
        loading.result(HANG_S)
    assert child.returncode == -signal.SIGKILL
    with pytest.raises(ModelLoadError, match="the server is stopping"):
        load(sandbox, publish())


@linux
def test_child_gives_way_to_what_serves(
    endless: Path,
    make_sandbox: Callable[..., LoadSandbox],
    started: "SimpleQueue[subprocess.Popen[bytes]]",
    load_aside: Callable[..., "Future[Any]"],
) -> None:
    sandbox = make_sandbox()
    loading = load_aside(sandbox, endless)
    child = started.get(timeout=HANG_S)
    ranks = Path(f"/proc/{child.pid}/oom_score_adj")
    end_s = time.monotonic() + HANG_S

    while ranks.read_text() != "1000\n" and time.monotonic() < end_s:
        assert not loading.done()
    niceness, rank = os.getpriority(os.PRIO_PROCESS, child.pid), ranks.read_text()
    sandbox.stop()

    assert niceness > os.getpriority(os.PRIO_PROCESS, 0)
    assert rank == "1000\n"


@linux
def test_child_inherits_no_sockets(
    endless: Path,
    make_sandbox: Callable[..., LoadSandbox],
    started: "SimpleQueue[subprocess.Popen[bytes]]",
    load_aside: Callable[..., "Future[Any]"],
) -> None:
    sandbox = make_sandbox()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.set_inheritable(True)
        load_aside(sandbox, endless)
        child = started.get(timeout=HANG_S)
        held = []
        for each in Path(f"/proc/{child.pid}/fd").iterdir():
            # The child opens and closes files meanwhile.
            with suppress(FileNotFoundError):
                held.append(str(each.readlink()))

    sandbox.stop()

    assert held and not [each for each in held if each.startswith("socket:")]


PARENT = """
import subprocess, sys, threading
from pathlib import Path
from prometheus_client import CollectorRegistry
from weir.server.config import ModelSettings
from weir.server.scheduling.deadlines import Deadlines
from weir.server.telemetry.metrics import Metrics
from weir.server.repository.loader import Loader
from weir.server.repository.load_sandbox import LoadSandbox

class Recorded(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self.pid, flush=True)

subprocess.Popen = Recorded
loader = Loader(
    provider="cpu", max_message_bytes=1 << 20, settings=lambda _: ModelSettings(),
    deadlines=Deadlines(lambda: 0.0), metrics=Metrics(CollectorRegistry()),
)
LoadSandbox(loader, timeout_s=600, memory_bytes=None).load("endless", "1", Path(sys.argv[1]))
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_child_ends_with_the_process_that_started_it(number: signal.Signals, endless: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(endless)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.send_signal(number)
            parent.wait(HANG_S)

            ended, _, _ = select.select([child], [], [], HANG_S)
            if not ended:
                signal.pidfd_send_signal(child, signal.SIGKILL)
        finally:
            os.close(child)

    assert ended, "the child goes on"
