import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from tests.helpers import onnx_models
from tests.unit.server.conftest import Clock, unsandboxed
from weir.bundle.golden import Golden
from weir.bundle.repository_files import LinkRoots
from weir.server.config import ModelSettings
from weir.server.errors import InvalidRequest, ModelNotReady, UnknownModel
from weir.server.repository.loader import Loader
from weir.server.repository.model_source import ModelRepository
from weir.server.repository.registry import Entry
from weir.server.repository.repository import Repository
from weir.server.repository.version_state import State
from weir.server.scheduling.deadlines import Deadlines
from weir.server.telemetry.metrics import Metrics

Open = Callable[..., Repository]

# Only ever reached by a test that fails.
HANG_S = 20.0


class Listener:
    """Records every change; the test waits for the last."""

    def __init__(self) -> None:
        self.changes: list[Entry] = []
        self.is_loaded = threading.Event()

    def __call__(self, entry: Entry | None) -> None:
        if entry is None:
            self.is_loaded.set()
        else:
            self.changes.append(entry)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def open_repository(models: Path, listener: Listener, clock: Clock) -> Iterator[Open]:
    """Open a repository and wait until its models are loaded."""
    opened: list[Repository] = []

    def open_repository(root: Path = models, *, waits: bool = True) -> Repository:
        loader = Loader(
            provider="cpu",
            max_message_bytes=1 << 20,
            settings=lambda _: ModelSettings(max_queue_rows=8, instances=1),
            deadlines=Deadlines(clock),
            metrics=Metrics(CollectorRegistry()),
        )
        repository = Repository(
            ModelRepository(root), loader, unsandboxed(loader), changed=listener
        )
        opened.append(repository)
        repository.start()
        assert not waits or listener.is_loaded.wait(HANG_S)
        return repository

    yield open_repository
    for repository in opened:
        assert repository.close(HANG_S)


PAIR = ("pair", "pair.encoder", "pair.decoder")
WRONG = Golden({"x": np.zeros((1, 4), np.float32)}, {"y": np.zeros((1, 4), np.float32)})


def states(repository: Repository) -> dict[str, tuple[str, State]]:
    return {entry.name: (entry.version, entry.state) for entry in repository.registry.entries()}


def test_highest_version_is_served(publish: Callable[..., Path], open_repository: Open) -> None:
    """By number, not by letters."""
    for version in (9, 10, 2):
        publish("affine", version=version)

    repository = open_repository()

    assert states(repository) == {"affine": ("10", State.READY)}
    assert repository.get("affine", "").version == "10"
    assert repository.get("affine", "10").version == "10"


def test_bundles_and_plain_models_are_served_side_by_side(
    publish: Callable[..., Path], models: Path, open_repository: Open
) -> None:
    publish("bundle")
    onnx_models.write_plain(models, "plain", onnx_models.fingerprint(1))

    repository = open_repository()

    assert states(repository) == {"bundle": ("1", State.READY), "plain": ("1", State.READY)}


def test_broken_model_is_unavailable_and_the_others_serve(
    publish: Callable[..., Path],
    open_repository: Open,
    listener: Listener,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("broken", golden=WRONG)
    publish("good")

    with caplog.at_level(logging.INFO):
        repository = open_repository()

    assert states(repository) == {"broken": ("1", State.UNAVAILABLE), "good": ("1", State.READY)}
    assert repository.is_ready
    with pytest.raises(ModelNotReady, match="'broken' version 1 is unavailable"):
        repository.get("broken", "")
    assert "golden output 'y' differs" in repository.registry.entry("broken", "").reason
    assert "version load failed model=broken version=1 reason=golden output" in caplog.text


def hide_behind_a_link(path: Path) -> None:
    target = path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(target)


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "no graph": lambda directory: (directory / "model.onnx").unlink(),
    "unlisted file": lambda directory: (directory / "extra").write_text("x"),
    "changed graph": lambda directory: (directory / "model.onnx").write_bytes(b"x"),
    "no contract": lambda directory: (directory / "model.json").write_text("{}"),
    "contract is a link": lambda directory: hide_behind_a_link(directory / "model.json"),
    "version is a link": hide_behind_a_link,
}


@pytest.mark.parametrize("roundabout", [False, True], ids=["plain root", "root with dots"])
@pytest.mark.parametrize("break_it", BREAKAGES.values(), ids=BREAKAGES.keys())
def test_reason_has_no_path_of_this_machine(
    break_it: Callable[[Path], object],
    roundabout: bool,  # noqa: FBT001
    publish: Callable[..., Path],
    models: Path,
    open_repository: Open,
) -> None:
    break_it(publish("broken"))
    root = models / ".." / models.name if roundabout else models

    entry = open_repository(root).registry.entry("broken", "")

    assert entry.state is State.UNAVAILABLE
    assert len(entry.reason) > 10
    assert entry.reason != "internal error, see the server's log"
    assert str(models) not in entry.reason
    assert str(models.parent) not in entry.reason


def test_reason_has_no_path_for_a_relative_root(
    publish: Callable[..., Path],
    models: Path,
    open_repository: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (publish("broken") / "extra").write_text("x")
    monkeypatch.chdir(models.parent)

    entry = open_repository(Path(models.name)).registry.entry("broken", "")

    assert entry.reason == "broken/1: files present but not listed: 'extra'"


def test_newer_broken_version_is_not_hidden_by_an_older_one(
    publish: Callable[..., Path], open_repository: Open
) -> None:
    publish("affine")
    publish("affine", golden=WRONG)

    repository = open_repository()

    assert states(repository) == {"affine": ("2", State.UNAVAILABLE)}
    assert not repository.is_ready


def test_bug_while_loading_is_unavailable_without_its_text(
    publish: Callable[..., Path], models: Path, listener: Listener, clock: Clock
) -> None:
    publish("affine")

    def settings(_name: str) -> ModelSettings:
        raise RuntimeError("/secret/path")

    loader = Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=settings,
        deadlines=Deadlines(clock),
        metrics=Metrics(CollectorRegistry()),
    )
    repository = Repository(ModelRepository(models), loader, unsandboxed(loader), changed=listener)

    repository.start()
    assert listener.is_loaded.wait(HANG_S)

    entry = repository.registry.entry("affine", "")
    assert (entry.state, entry.reason) == (
        State.UNAVAILABLE,
        "internal error, see the server's log",
    )


def test_every_change_is_told(
    publish: Callable[..., Path], open_repository: Open, listener: Listener
) -> None:
    publish("a", golden=WRONG)
    publish("b")

    open_repository()

    assert [(entry.name, entry.state) for entry in listener.changes] == [
        ("a", State.LOADING),
        ("b", State.LOADING),
        ("a", State.UNAVAILABLE),
        ("b", State.READY),
    ]


def test_repository_is_not_ready_before_everything_is_loaded(
    publish: Callable[..., Path], models: Path, clock: Clock
) -> None:
    publish("affine")
    seen: list[tuple[bool, str]] = []
    done = threading.Event()

    def changed(entry: Entry | None) -> None:
        if entry is None:
            done.set()
        else:
            with pytest.raises(UnknownModel):
                repository.get("affine", "2")
            seen.append((repository.is_ready, entry.state.value))
            if entry.state is State.LOADING:
                with pytest.raises(ModelNotReady, match="version 1 is loading"):
                    repository.get("affine", "")

    loader = Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=lambda _: ModelSettings(max_queue_rows=8, instances=1),
        deadlines=Deadlines(clock),
        metrics=Metrics(CollectorRegistry()),
    )
    repository = Repository(ModelRepository(models), loader, unsandboxed(loader), changed=changed)

    repository.start()
    assert done.wait(HANG_S)

    assert seen == [(False, "LOADING"), (False, "READY")]
    assert repository.is_ready
    assert repository.close(HANG_S)


def test_empty_repository_is_ready(open_repository: Open) -> None:
    repository = open_repository()

    assert repository.is_ready
    assert repository.registry.entries() == []


@pytest.mark.parametrize(
    "name",
    [
        "unknown",
        "../etc",
        "a/../affine",
        "/etc/passwd",
        " ..",
        "affine\0",
        "affine/1",
        "x" * 10_000,
        "\uff0e\uff0e",
    ],
    ids=ascii,
)
def test_unknown_model_is_looked_up_and_not_found(
    name: str, publish: Callable[..., Path], open_repository: Open
) -> None:
    publish("affine")

    with pytest.raises(UnknownModel) as unknown:
        open_repository().get(name, "")

    assert len(str(unknown.value)) < 600
    assert str(unknown.value).isprintable()


def test_no_model_is_unknown_before_the_repository_is_read(
    publish: Callable[..., Path],
    open_repository: Open,
    listener: Listener,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients try again on UNAVAILABLE, and not on NOT_FOUND."""
    publish("affine")
    may_read = threading.Event()
    scan = ModelRepository.scan

    def slow_scan(source: ModelRepository, links: LinkRoots) -> Any:
        assert may_read.wait(HANG_S)
        return scan(source, links)

    monkeypatch.setattr(ModelRepository, "scan", slow_scan)
    repository = open_repository(waits=False)

    with pytest.raises(ModelNotReady, match="the server starts, and has not read its repository"):
        repository.get("affine", "")
    may_read.set()
    assert listener.is_loaded.wait(HANG_S)
    assert repository.get("affine", "").name == "affine"
    with pytest.raises(UnknownModel):
        repository.get("unknown", "")


def test_no_name_is_refused(open_repository: Open) -> None:
    with pytest.raises(InvalidRequest, match="model name: expected one, got none"):
        open_repository().get("", "")


@pytest.mark.parametrize("version", ["2", "0", "999999999999999999"])
def test_unknown_version_is_not_found(
    version: str, publish: Callable[..., Path], open_repository: Open
) -> None:
    publish("affine")

    with pytest.raises(UnknownModel, match=f"has no version {version}; it has 1"):
        open_repository().get("affine", version)


@pytest.mark.parametrize(
    "version", ["-1", " 1", "1 ", "01", "1.0", "9one", str(2**64), "1\n", "\u0661", "x" * 10_000],
    ids=ascii,
)  # fmt: skip
def test_version_that_is_no_number_is_refused(
    version: str, publish: Callable[..., Path], open_repository: Open
) -> None:
    publish("affine")

    with pytest.raises(
        InvalidRequest, match=r"^model version: expected a number or a label"
    ) as refused:
        open_repository().get("affine", version)

    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()


def test_what_is_no_model_is_ignored(
    publish: Callable[..., Path],
    models: Path,
    open_repository: Open,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("affine")
    (models / ".hidden" / "1").mkdir(parents=True)
    (models / "bad name" / "1").mkdir(parents=True)
    (models / "no_version" / "abc").mkdir(parents=True)
    (models / "README.md").write_text("models")
    for name in ("01", "-1", "1 "):
        (models / "affine" / name).mkdir()

    repository = open_repository()

    assert states(repository) == {"affine": ("1", State.READY)}
    assert "model has no version directory model=no_version" in caplog.text
    for name in ("01", "-1", "1 "):
        assert f"not a version directory model=affine name={name!r}" in caplog.text


def test_half_written_version_is_not_seen(models: Path, open_repository: Open) -> None:
    (models / "affine" / ".publishing-x").mkdir(parents=True)

    assert open_repository().registry.entries() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_model_that_cannot_be_read_is_unavailable(
    publish: Callable[..., Path], open_repository: Open
) -> None:
    directory = publish("affine")
    (directory / "model.onnx").chmod(0)

    assert states(open_repository()) == {"affine": ("1", State.UNAVAILABLE)}


def test_gauges_tell_of_every_known_model(
    publish: Callable[..., Path], open_repository: Open
) -> None:
    publish("broken", golden=WRONG)
    publish("good")

    gauges = {gauge.model: gauge for gauge in open_repository().gauges()}

    assert {name: gauge.is_ready for name, gauge in gauges.items()} == {
        "broken": False,
        "good": True,
    }
    assert gauges["good"].waiting_rows == gauges["good"].running_requests == 0


def test_pair_is_three_entries_by_name(
    publish: Callable[..., Path],
    publish_pair: Callable[..., Path],
    open_repository: Open,
    listener: Listener,
) -> None:
    publish_pair("pair")
    publish("pair-more")

    repository = open_repository()

    assert [entry.name for entry in repository.registry.entries()] == [
        "pair",
        "pair-more",
        "pair.decoder",
        "pair.encoder",
    ]
    assert all(entry.state is State.READY for entry in repository.registry.entries())
    assert repository.get("pair.decoder", "1").name == "pair.decoder"
    assert {gauge.model for gauge in repository.gauges()} == set(states(repository))
    ready = [entry.name for entry in listener.changes if entry.state is State.READY]
    assert ready == ["pair.encoder", "pair.decoder", "pair", "pair-more"]


def test_models_of_a_pair_become_ready_together(
    publish_pair: Callable[..., Path], models: Path, clock: Clock
) -> None:
    publish_pair("pair")
    seen: list[dict[str, tuple[str, State]]] = []
    done = threading.Event()

    def changed(entry: Entry | None) -> None:
        if entry is None:
            done.set()
        else:
            seen.append(states(repository))

    loader = Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=lambda _: ModelSettings(max_queue_rows=8, instances=1),
        deadlines=Deadlines(clock),
        metrics=Metrics(CollectorRegistry()),
    )
    repository = Repository(ModelRepository(models), loader, unsandboxed(loader), changed=changed)

    repository.start()
    assert done.wait(HANG_S)

    loading, ready = (dict.fromkeys(PAIR, ("1", state)) for state in (State.LOADING, State.READY))
    assert seen == [loading] * 3 + [ready] * 3
    assert repository.close(HANG_S)


@pytest.mark.parametrize("changed_file", ["decoder.onnx", "golden.encoder.npz", "golden.npz"])
def test_pair_with_one_broken_graph_is_unavailable_as_a_whole(
    changed_file: str, publish_pair: Callable[..., Path], open_repository: Open
) -> None:
    (publish_pair("pair") / changed_file).write_bytes(b"x")

    repository = open_repository()

    assert states(repository) == dict.fromkeys(PAIR, ("1", State.UNAVAILABLE))
    for entry in repository.registry.entries():
        assert entry.reason.startswith(f"{changed_file}: expected SHA-256")


def test_pair_that_lacks_a_graph_is_still_three_entries(
    publish_pair: Callable[..., Path], open_repository: Open
) -> None:
    (publish_pair("pair") / "encoder.onnx").unlink()

    repository = open_repository()

    assert {entry.name: entry.reason for entry in repository.registry.entries()} == dict.fromkeys(
        PAIR, "pair/1: files listed but missing: encoder.onnx"
    )


def test_directory_with_the_name_of_a_graph_of_a_pair_is_passed_over(
    publish: Callable[..., Path],
    publish_pair: Callable[..., Path],
    open_repository: Open,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish("pair.encoder")
    publish_pair("pair.decoder")
    publish_pair("pair")

    repository = open_repository()

    assert states(repository) == dict.fromkeys(PAIR, ("1", State.READY))
    assert "tokens" in repository.get("pair.encoder", "").signature.inputs
    for name in ("pair.encoder", "pair.decoder"):
        assert (
            f"model directory ignored model={name} reason='{name}' is the name of a graph of the "
            "pair 'pair'"
        ) in caplog.text


def test_such_a_name_is_free_where_there_is_no_pair(
    publish: Callable[..., Path], open_repository: Open
) -> None:
    publish("single")
    publish("single.encoder")

    assert set(states(open_repository())) == {"single", "single.encoder"}


def test_closing_twice_is_harmless(publish: Callable[..., Path], open_repository: Open) -> None:
    publish("affine")
    repository = open_repository()

    assert repository.close(HANG_S)
    assert repository.close(HANG_S)
