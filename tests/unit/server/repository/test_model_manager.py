"""Versions loaded and unloaded in a repository, with real sessions, by call and by polling."""

import errno
import logging
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.helpers import onnx_models, pairs
from tests.unit.server.conftest import Clock, unsandboxed
from weir.bundle import versions
from weir.bundle.golden import Golden
from weir.bundle.repository_files import LinkRoots
from weir.bundle.versions import VersionsFile
from weir.server.config import ModelSettings
from weir.server.errors import (
    InvalidRequest,
    ModelNotLoaded,
    ModelNotReady,
    Overloaded,
    UnknownModel,
)
from weir.server.repository import repository
from weir.server.repository.loader import Loader
from weir.server.repository.model_source import ModelRepository
from weir.server.repository.registry import Entry, Registry
from weir.server.repository.repository import MOST_WAITING, Repository
from weir.server.repository.version_state import State
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.served_model import ServedModel
from weir.server.telemetry.metrics import Metrics

# Only ever reached by a test that fails.
HANG_S = 20.0

WRONG = Golden({"x": np.zeros((1, 4), np.float32)}, {"y": np.zeros((1, 4), np.float32)})
PAIR = ("pair", "pair.encoder", "pair.decoder")


def loader_of(clock: Clock, registry: CollectorRegistry) -> Loader:
    return Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=lambda _: ModelSettings(max_queue_rows=8, instances=1),
        deadlines=Deadlines(clock),
        metrics=Metrics(registry),
    )


class Harness:
    """A repository, the changes it reported, and its calls made synchronous."""

    def __init__(self, root: Path, clock: Clock, poll_interval_s: float | None) -> None:
        self.registry = CollectorRegistry()
        self.events: SimpleQueue[Entry | None] = SimpleQueue()
        loader = loader_of(clock, self.registry)
        self.repository = Repository(
            ModelRepository(root),
            loader,
            unsandboxed(loader),
            changed=self.events.put,
            poll_interval_s=poll_interval_s,
        )
        self.repository.start()
        while self.events.get(timeout=HANG_S) is not None:
            pass

    def answering(self, name: str = "affine", version: str = "") -> str:
        return self.repository.get(name, version).version

    def load(self, name: str = "affine", *, again: bool = False) -> Exception | None:
        ended: SimpleQueue[Exception | None] = SimpleQueue()
        self.repository.load(name, ended.put, again=again)
        return ended.get(timeout=HANG_S)

    def unload(self, name: str = "affine") -> Exception | None:
        ended: SimpleQueue[Exception | None] = SimpleQueue()
        self.repository.unload(name, ended.put)
        return ended.get(timeout=HANG_S)

    def label(self, label: str, number: int | None) -> Exception | str:
        """Its failure, or why it is not written; empty if it is."""
        ended: SimpleQueue[Exception | str] = SimpleQueue()
        self.repository.set_label("affine", label, number, ended.put)
        return ended.get(timeout=HANG_S)

    def loads(self, name: str = "affine") -> dict[str, float | None]:
        """How its loads ended; None for an unknown model."""
        return {
            result: self.registry.get_sample_value(
                "weir_model_loads_total", {"model": name, "result": result}
            )
            for result in ("ready", "failed", "golden_mismatch")
        }

    def states(self, name: str = "affine") -> dict[str, State]:
        return {
            entry.version: entry.state
            for entry in self.repository.registry.entries()
            if entry.name == name and entry.state is not State.UNLOADING
        }

    def wait_until_drained(self) -> None:
        """Until every version that is unloaded is drained, and the loading thread knows it."""
        for thread in threading.enumerate():
            if thread.name.startswith("weir-drain-"):
                thread.join(HANG_S)
        self.load("unknown")

    def wait_for(self, name: str, version: str, state: State = State.READY) -> Entry:
        """Until a name is answered so."""
        while True:
            entry = self.events.get(timeout=HANG_S)
            if entry is not None and (entry.name, entry.version, entry.state) == (
                name,
                version,
                state,
            ):
                return entry


@pytest.fixture
def open_harness(models: Path, clock: Clock) -> Iterator[Callable[..., Harness]]:
    opened: list[Harness] = []

    def open_harness(poll_interval_s: float | None = None) -> Harness:
        opened.append(Harness(models, clock, poll_interval_s))
        return opened[-1]

    yield open_harness
    for harness in opened:
        assert harness.repository.close(HANG_S)


Publish = Callable[..., Path]
Open = Callable[..., Harness]


def say(models: Path, text: str, name: str = "affine") -> None:
    (models / name).mkdir(exist_ok=True)
    (models / name / "versions.toml").write_text(text)


# Policies and labels


@pytest.fixture
def release(publish: Publish, models: Path) -> Callable[[str], None]:
    """Three versions, and what is said of them."""

    def release(text: str) -> None:
        for _ in range(3):
            publish()
        say(models, text)

    return release


@pytest.mark.parametrize(
    ("text", "served", "answering"),
    [
        ("", {"3"}, "3"),
        ('policy = "all"', {"1", "2", "3"}, "3"),
        ("policy = { latest = 2 }", {"2", "3"}, "3"),
        ("policy = { specific = [1, 2] }", {"1", "2"}, "2"),
        ("[labels]\nstable = 1", {"1", "3"}, "1"),
        ("policy = { specific = [2] }\n[labels]\ncanary = 3", {"2", "3"}, "3"),
    ],
    ids=["none", "all", "latest", "specific", "stable", "canary"],
)
def test_policy_and_labels_choose_served_and_default_versions(
    text: str, served: set[str], answering: str, release: Callable[[str], None], open_harness: Open
) -> None:
    release(text)

    harness = open_harness()

    assert set(harness.states()) == served
    assert set(harness.states().values()) == {State.READY}
    assert harness.answering() == answering


def test_label_is_a_name_for_a_version(publish: Publish, models: Path, open_harness: Open) -> None:
    publish()
    publish()
    say(models, "[labels]\nstable = 1\ncanary = 2")

    harness = open_harness()

    assert harness.answering(version="canary") == "2"
    assert harness.answering(version="stable") == harness.answering() == "1"
    labels = {entry.version: entry.labels for entry in harness.repository.registry.entries()}
    assert labels == {"1": ("stable",), "2": ("canary",)}
    with pytest.raises(UnknownModel, match="has no label beta; it has 2, 1, canary, stable"):
        harness.answering(version="beta")


def test_desired_version_that_is_not_on_disk_is_unavailable(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    say(models, "[labels]\ncanary = 7")

    harness = open_harness()

    assert harness.states() == {"1": State.READY, "7": State.UNAVAILABLE}
    assert harness.answering() == "1"
    with pytest.raises(ModelNotReady, match="version 7 is unavailable"):
        harness.answering(version="canary")
    reason = harness.repository.registry.entry("affine", "7").reason
    assert "affine/7" in reason and "No such file" in reason and str(models) not in reason


def test_broken_versions_file_is_the_reason_and_loads_nothing(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    say(models, "policy = 7")

    harness = open_harness()

    assert harness.states() == {"1": State.UNAVAILABLE}
    assert (
        "versions.toml: policy: expected" in harness.repository.registry.entry("affine", "").reason
    )


def test_mended_versions_file_is_taken(publish: Publish, models: Path, open_harness: Open) -> None:
    publish()
    say(models, "policy = 7")
    harness = open_harness()

    say(models, 'policy = "all"')

    assert harness.load() is None
    assert harness.states() == {"1": State.READY}


def test_broken_versions_file_changes_nothing_that_serves(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    harness = open_harness()
    publish()
    say(models, "[labels]\n1 = 1")

    failure = harness.load()

    assert isinstance(failure, ModelNotLoaded) and "versions.toml: labels" in str(failure)
    assert harness.answering() == "1"
    assert "versions.toml: labels" in harness.repository.registry.entry("affine", "").reason


# By call


def test_load_takes_the_newer_version_and_lets_the_older_go(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    harness = open_harness()
    old = harness.repository.get("affine", "")
    publish(graph=onnx_models.affine(slope=2.0))

    assert harness.load() is None

    assert harness.answering() == "2"
    harness.wait_until_drained()
    assert old.scheduler.join(0.0)
    with pytest.raises(UnknownModel, match="has no version 1; it has 2"):
        harness.repository.get("affine", "1")


def test_registry_is_published_once_for_each_change_of_state(
    publish: Publish, open_harness: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    harness = open_harness()
    publish()
    published: list[dict[str, str]] = []

    def recorded(models: Any) -> Registry:
        registry = Registry(models)
        published.append({entry.version: entry.state.name for entry in registry.entries()})
        return registry

    monkeypatch.setattr(repository, "Registry", recorded)

    assert harness.load() is None
    harness.wait_until_drained()

    assert published == [
        {"1": "READY", "2": "LOADING"},
        {"1": "UNLOADING", "2": "READY"},
        {"2": "READY"},
    ]


def test_versions_file_is_read_once_at_the_start(
    publish: Publish, models: Path, open_harness: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    say(models, 'policy = "all"')
    paths: list[Path] = []
    read = versions.read

    def recorded(path: Path, links: LinkRoots) -> VersionsFile:
        paths.append(path)
        return read(path, links)

    monkeypatch.setattr(versions, "read", recorded)

    open_harness()

    assert paths == [models / "affine"]


def test_load_that_fails_says_why_and_changes_nothing_that_serves(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    harness = open_harness()
    publish(golden=WRONG)

    failure = harness.load()

    assert isinstance(failure, ModelNotLoaded)
    assert "'affine': version 2: golden output 'y' differs" in str(failure)
    assert harness.answering() == "1"
    assert harness.states() == {"1": State.READY, "2": State.UNAVAILABLE}


def test_load_of_a_served_version_does_nothing_without_reload(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    harness = open_harness()
    before = harness.repository.get("affine", "")

    assert harness.load() is None
    unchanged = harness.repository.get("affine", "")
    assert harness.load(again=True) is None
    after = harness.repository.get("affine", "")

    assert unchanged is before and after is not before
    assert before.scheduler.join(HANG_S)


def test_changed_files_of_a_version_replace_it(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    onnx_models.write_plain(models, "plain", onnx_models.affine(slope=2.0))
    harness = open_harness()
    before = harness.repository.get("plain", "")
    graph = models / "plain" / "1" / "model.onnx"
    graph.write_bytes(onnx_models.affine(slope=3.0))
    # Written within the clock's resolution, it would look the same.
    os.utime(graph, (1.0, 1.0))

    assert harness.load("plain") is None

    assert harness.repository.get("plain", "") is not before
    assert harness.states("plain") == {"1": State.READY}


def test_session_of_a_version_that_left_is_freed(publish: Publish, open_harness: Open) -> None:
    publish()
    harness = open_harness()
    model = harness.repository.get("affine", "")
    assert isinstance(model, ServedModel)
    gone = weakref.finalize(model.signature, lambda: None)
    publish()

    assert harness.load() is None
    harness.wait_until_drained()
    del model

    assert not gone.alive


def test_numbers_of_a_version_that_left_are_forgotten(publish: Publish, open_harness: Open) -> None:
    publish()
    harness = open_harness()
    publish()

    harness.load()
    harness.wait_until_drained()

    text = generate_latest(harness.registry).decode()
    assert 'version="2"' in text
    assert 'version="1"' not in text


def test_numbers_of_an_unloaded_version_go_with_it(publish: Publish, open_harness: Open) -> None:
    publish()
    harness = open_harness()
    harness.unload()
    harness.wait_until_drained()
    kept = generate_latest(harness.registry).decode()
    publish()

    harness.load()

    assert 'weir_rows_total{model="affine",version="1"}' in kept
    assert 'version="1"' not in generate_latest(harness.registry).decode()


def test_loads_are_counted_by_how_they_ended(publish: Publish, open_harness: Open) -> None:
    publish()
    harness = open_harness()
    publish(golden=WRONG)
    harness.load()
    (publish() / "model.onnx").write_bytes(b"")
    harness.load()

    assert harness.loads() == {"ready": 1, "failed": 1, "golden_mismatch": 1}
    assert harness.loads("another") == {"ready": None, "failed": None, "golden_mismatch": None}


def test_model_that_never_loaded_is_known_to_have_failed(
    publish: Publish, open_harness: Open
) -> None:
    publish(golden=WRONG)

    harness = open_harness()

    assert harness.loads() == {"ready": 0, "failed": 0, "golden_mismatch": 1}


def test_broken_graph_of_a_pair_is_a_load_of_the_pair(
    publish_pair: Callable[..., Path], open_harness: Open
) -> None:
    recorded = pairs.DECODER_GOLDEN
    changed = {**recorded.outputs, "next_state": recorded.outputs["next_state"] + 1}
    publish_pair(decoder_golden=Golden(recorded.inputs, changed))

    harness = open_harness()

    assert harness.loads("pair") == {"ready": 0, "failed": 0, "golden_mismatch": 1}
    assert harness.loads("pair.decoder")["ready"] is None


def test_unloaded_model_is_known_and_does_not_answer(publish: Publish, open_harness: Open) -> None:
    publish()
    harness = open_harness()

    assert harness.unload() is None
    harness.wait_until_drained()

    with pytest.raises(ModelNotReady, match="'affine' version 1 is unavailable"):
        harness.answering()
    assert harness.repository.registry.entry("affine", "").reason == "unloaded"
    assert harness.load() is None
    assert harness.answering() == "1"


def test_unloading_what_is_unloaded_already_changes_nothing(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    harness = open_harness()

    assert [harness.unload(), harness.unload(), harness.unload()] == [None] * 3

    harness.wait_until_drained()
    assert harness.repository.registry.entry("affine", "").reason == "unloaded"


def test_model_that_failed_is_still_known_once_it_is_unloaded(
    publish: Publish, open_harness: Open
) -> None:
    publish(golden=WRONG)
    harness = open_harness()

    assert harness.unload() is None

    with pytest.raises(ModelNotReady, match="'affine' version 1 is unavailable"):
        harness.answering()


def test_model_that_was_not_there_at_the_start_is_loaded_by_name(
    publish: Publish, open_harness: Open
) -> None:
    harness = open_harness()
    with pytest.raises(UnknownModel):
        harness.answering()
    publish()

    assert harness.load() is None

    assert harness.answering() == "1"


def test_load_of_what_is_no_model_is_not_found(publish: Publish, open_harness: Open) -> None:
    publish()

    failure = open_harness().load("unknown")

    assert isinstance(failure, UnknownModel)


@pytest.mark.parametrize("name", ["../affine", "a/../affine", "/etc", "affine\0", "..", "a" * 129])
def test_load_of_what_is_no_name_is_refused_at_once(
    name: str, publish: Publish, open_harness: Open
) -> None:
    publish()
    harness = open_harness()

    with pytest.raises(UnknownModel):
        harness.load(name)


def test_load_of_a_model_whose_directory_is_gone_leaves_it_serving(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    harness = open_harness()
    shutil.rmtree(models / "affine")

    failure = harness.load()

    assert isinstance(failure, ModelNotLoaded) and "no longer in the repository" in str(failure)
    assert harness.answering() == "1"


def test_part_of_a_pair_is_not_loaded_alone(publish_pair: Publish, open_harness: Open) -> None:
    publish_pair()
    harness = open_harness()

    assert isinstance(harness.load("pair.encoder"), InvalidRequest)
    with pytest.raises(InvalidRequest, match="is a graph of a pair: name the pair"):
        harness.unload("pair.decoder")
    assert harness.unload("pair") is None
    for name in PAIR:
        with pytest.raises(ModelNotReady):
            harness.answering(name)


def test_new_version_of_a_pair_takes_over_with_all_its_names(
    publish_pair: Publish, open_harness: Open
) -> None:
    publish_pair()
    harness = open_harness()
    publish_pair()

    assert harness.load("pair") is None

    assert [harness.answering(name) for name in PAIR] == ["2", "2", "2"]


def test_label_by_call_moves_and_loads_what_it_needs(publish: Publish, open_harness: Open) -> None:
    for _ in range(3):
        publish()
    harness = open_harness()

    assert harness.label("stable", 2) == ""
    moved = harness.answering()
    assert harness.label("stable", None) == ""

    assert (moved, harness.answering()) == ("2", "3")
    with pytest.raises(UnknownModel):
        harness.answering(version="stable")


def test_label_by_call_is_written_and_the_file_decides_from_then_on(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    publish()
    say(models, "[labels]\nstable = 1  # since Monday\n")
    harness = open_harness()

    assert harness.label("stable", 2) == ""
    assert harness.load() is None

    assert harness.answering() == "2"
    assert (models / "affine" / "versions.toml").read_text() == (
        "[labels]\nstable = 2  # since Monday\n"
    )
    say(models, "[labels]\nstable = 1")
    assert harness.load() is None
    assert harness.answering() == "1"


def test_version_that_was_rolled_back_stays_so_in_the_next_server(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    publish()
    first = open_harness()
    assert first.label("stable", 1) == ""

    assert open_harness().answering() == "1"


def refuse_to_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkstemp", fail)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES], ids=os.strerror)
def test_label_that_cannot_be_written_holds_and_is_written_with_the_next(
    number: int,
    *,
    publish: Publish,
    models: Path,
    open_harness: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        publish()
    say(models, "[labels]\nold = 1\ncanary = 2")
    harness = open_harness()
    with monkeypatch.context() as patch:
        refuse_to_write(patch, number)

        reason = harness.label("stable", 2)
        removed = harness.label("old", None)

    assert reason == removed == f"versions.toml cannot be written: {os.strerror(number)}"
    assert "labels hold until the server stops model=affine labels=stable reason=" in caplog.text
    assert str(models) not in caplog.text
    assert versions.read(models / "affine").labels == {"old": 1, "canary": 2}
    assert harness.load() is None
    assert harness.answering() == "2"
    with pytest.raises(UnknownModel, match="no label old"):
        harness.answering(version="old")
    assert isinstance(harness.label("old", None), UnknownModel)

    assert harness.label("canary", 3) == ""

    assert versions.read(models / "affine").labels == {"canary": 3, "stable": 2}


def test_own_write_loads_nothing_again_in_a_server_that_polls(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    publish()
    say(models, 'policy = "all"')
    polling = open_harness(0.01)
    before = {number: polling.repository.get("affine", number) for number in ("1", "2")}

    assert open_harness().label("stable", 1) == ""
    polling.wait_for("affine", "1")

    assert {number: polling.repository.get("affine", number) for number in ("1", "2")} == before


@pytest.mark.parametrize("number", [2, 9], ids=["broken", "not there"])
def test_label_stays_where_it_was_when_its_version_fails(
    number: int, publish: Publish, open_harness: Open
) -> None:
    publish()
    harness = open_harness()
    harness.label("stable", 1)
    publish(golden=WRONG)

    failure = harness.label("stable", number)

    assert isinstance(failure, ModelNotLoaded)
    assert f"label 'stable' stays: model 'affine' version {number}: " in str(failure)
    new = str(harness.label("canary", number))
    assert f"label 'canary' is not set: model 'affine' version {number}: " in new
    assert harness.answering() == harness.answering(version="stable") == "1"
    assert harness.load() is not None, "version 2 is still broken"
    assert harness.answering() == "1"


def test_label_stays_while_the_versions_file_is_broken(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    """A call that reports success without setting the label would be worse than a refusal."""
    publish()
    publish()
    say(models, 'policy = "all"\n[labels]\ncanary = 2')
    harness = open_harness()
    say(models, "policy = 7")

    failure = harness.label("canary", 1)

    assert isinstance(failure, ModelNotLoaded) and "versions.toml: policy" in str(failure)
    assert harness.answering(version="canary") == "2"
    say(models, 'policy = "all"\n[labels]\ncanary = 2')
    assert harness.load() is None
    assert harness.answering(version="canary") == "2"


def test_removed_label_is_removed_from_the_file(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    publish()
    say(models, 'policy = "all"\n[labels]\nstable = 1\n')
    harness = open_harness()

    assert harness.label("stable", None) == ""

    assert harness.answering() == "2"
    assert (models / "affine" / "versions.toml").read_text() == 'policy = "all"\n'
    unknown = harness.label("canray", None)
    assert isinstance(unknown, UnknownModel)
    assert str(unknown) == "model 'affine' has no label 'canray'; it has none"


def test_label_of_an_unloaded_model_is_refused_and_stays(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    harness = open_harness()
    assert harness.label("stable", 1) == ""
    assert harness.unload() is None

    for number in (1, 7, None):
        refused = harness.label("stable", number)
        assert isinstance(refused, ModelNotReady) and "load it first" in str(refused)

    with pytest.raises(ModelNotReady, match=r"version 1 is (unloading|unavailable)"):
        harness.answering(version="stable")
    assert harness.load() is None
    assert harness.answering(version="stable") == "1"


def test_broken_new_version_beside_a_label_keeps_the_default(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    publish()
    harness = open_harness()
    assert harness.label("canary", 1) == ""
    publish(golden=WRONG)

    assert isinstance(harness.load(), ModelNotLoaded)

    assert harness.answering() == "2"


def test_bundle_of_which_only_the_graph_has_arrived_is_refused(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    harness = open_harness()
    onnx_models.write_plain(models, "affine", onnx_models.affine(), 2)

    failure = harness.load()

    assert isinstance(failure, ModelNotLoaded)
    assert "2: expected model.json, as version 1 of the model has one" in str(failure)
    assert harness.answering() == "1"


def test_moves_are_in_the_log(
    publish: Publish, open_harness: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish()
    publish()
    harness = open_harness()

    harness.label("stable", 1)

    assert "label moved model=affine label=stable version=1 before=none" in caplog.text
    assert "default version changed model=affine version=1 before=2" in caplog.text


def test_label_moves_without_trying_again_what_failed(
    publish: Publish, models: Path, open_harness: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """A rollback does not wait: the version that it replaces may take minutes to fail."""
    publish()
    publish()
    publish(golden=WRONG)
    say(models, 'policy = "all"')
    harness = open_harness()

    assert harness.label("stable", 1) == ""

    assert harness.answering() == "1"
    assert caplog.text.count("version load failed model=affine version=3") == 1


def test_second_change_of_a_model_is_refused_while_one_is_under_way(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    publish("other")
    harness = open_harness()
    ended: SimpleQueue[Exception | None] = SimpleQueue()
    gate, entered = threading.Event(), threading.Event()

    def slow(error: Exception | None) -> None:
        entered.set()
        gate.wait(HANG_S)
        ended.put(error)

    # The thread is held in the answer to the first, so that the second waits in line.
    harness.repository.load("other", slow, again=True)
    assert entered.wait(HANG_S)
    harness.repository.load("affine", ended.put, again=True)
    with pytest.raises(ModelNotReady, match="is being changed already"):
        harness.repository.unload("affine", ended.put)
    gate.set()

    assert [ended.get(timeout=HANG_S), ended.get(timeout=HANG_S)] == [None, None]
    assert harness.unload() is None


def test_more_changes_than_may_wait_are_refused(publish: Publish, open_harness: Open) -> None:
    publish()
    harness = open_harness()
    ended: SimpleQueue[Exception | None] = SimpleQueue()
    gate, entered = threading.Event(), threading.Event()

    def slow(_: Exception | None) -> None:
        entered.set()
        gate.wait(HANG_S)

    # The thread is held in the answer to the first, which then waits no longer itself.
    harness.repository.load("affine", slow, again=False)
    assert entered.wait(HANG_S)
    for number in range(MOST_WAITING):
        harness.repository.load(f"unknown{number}", ended.put, again=False)
    with pytest.raises(Overloaded, match=f"{MOST_WAITING} changes of models wait"):
        harness.repository.load("affine", ended.put, again=False)
    gate.set()

    assert all(ended.get(timeout=HANG_S) for _ in range(MOST_WAITING))
    assert harness.load() is None


def test_closing_answers_what_waits_to_be_loaded(
    publish: Publish, models: Path, clock: Clock
) -> None:
    publish()
    harness = Harness(models, clock, None)
    ended: SimpleQueue[Exception | None] = SimpleQueue()
    gate, entered = threading.Event(), threading.Event()

    def slow(error: Exception | None) -> None:
        entered.set()
        gate.wait(HANG_S)

    harness.repository.load("unknown", slow, again=False)
    assert entered.wait(HANG_S)
    harness.repository.load("affine", ended.put, again=True)

    assert harness.repository.close(HANG_S)
    gate.set()

    assert "is stopping" in str(ended.get(timeout=HANG_S))


class Stopping(Repository):
    """Is stopped just when a change was let in: its thread takes no more."""

    def run_soon(self, job: Callable[[], None]) -> None:
        self.close(HANG_S)
        super().run_soon(job)


def test_change_that_meets_the_end_is_answered_once(
    models: Path, publish: Publish, clock: Clock
) -> None:
    publish()
    loader = loader_of(clock, CollectorRegistry())
    repository = Stopping(
        ModelRepository(models), loader, unsandboxed(loader), changed=lambda _: None
    )
    ended: SimpleQueue[Exception | None] = SimpleQueue()

    repository.load("affine", ended.put, again=False)

    assert "is stopping" in str(ended.get(timeout=HANG_S))
    assert ended.empty()


def test_model_that_meets_a_bug_takes_no_other_with_it(
    models: Path, publish: Publish, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    publish("bad")
    publish("good")
    loader = loader_of(clock, CollectorRegistry())
    is_loaded = threading.Event()

    def changed(entry: Entry | None) -> None:
        if entry is None:
            is_loaded.set()
        elif entry.name == "bad":
            raise RuntimeError("a bug")

    repository = Repository(ModelRepository(models), loader, unsandboxed(loader), changed)

    repository.start()

    assert is_loaded.wait(HANG_S)
    assert repository.get("good", "").version == "1"
    assert "model change crashed model=bad" in caplog.text
    assert repository.close(HANG_S)


# By polling


class Looks:
    """The scans of a repository: counted, held, and with a directory that they cannot read."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unreadable: Path | None = None
        self.are_held = False
        self._begun: SimpleQueue[None] = SimpleQueue()
        self._allowed: SimpleQueue[None] = SimpleQueue()
        listdir, scandir = os.listdir, os.scandir

        def counted(path: Any = ".") -> list[str]:
            if Path(path) == root:
                self._begun.put(None)
                if self.are_held:
                    self._allowed.get(timeout=HANG_S)
            return listdir(path)

        def guarded(path: Any = ".") -> Any:
            if self.unreadable is not None and Path(path) == self.unreadable:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return scandir(path)

        monkeypatch.setattr(os, "listdir", counted)
        monkeypatch.setattr(os, "scandir", guarded)

    def wait(self, count: int) -> None:
        """Until so many more have begun, and all but the last have ended."""
        while not self._begun.empty():
            self._begun.get()
        for _ in range(count):
            self._begun.get(timeout=HANG_S)

    def hold(self) -> None:
        """Let every look wait before it sees anything."""
        self.are_held = True
        self.wait(1)

    def step(self) -> None:
        """One look, from its beginning to its end."""
        self._allowed.put(None)
        self._begun.get(timeout=HANG_S)

    def release(self) -> None:
        """Hold none any longer."""
        self.are_held = False
        self._allowed.put(None)


@pytest.fixture
def looks(models: Path, monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(models, monkeypatch)


def test_poll_takes_a_new_version_and_a_new_model(publish: Publish, open_harness: Open) -> None:
    publish()
    harness = open_harness(0.02)

    publish()
    publish("another")

    harness.wait_for("affine", "2")
    harness.wait_for("another", "1")
    assert harness.answering() == "2"


def test_poll_leaves_a_half_copied_bundle_alone(
    publish: Publish, models: Path, open_harness: Open, tmp_path: Path
) -> None:
    """Copied file by file, the contract last, or first."""
    publish()
    publish()
    (models / "affine" / "2").rename(tmp_path / "ready")
    harness = open_harness(0.02)

    (models / "affine" / "2").mkdir()
    shutil.copy(tmp_path / "ready" / "model.onnx", models / "affine" / "2")
    publish("polled")
    harness.wait_for("polled", "1")
    assert harness.states() == {"1": State.READY}, "seen, and not taken"
    for path in (tmp_path / "ready").iterdir():
        shutil.copy(path, models / "affine" / "2")

    harness.wait_for("affine", "2")


def test_poll_takes_a_plain_model_only_beside_a_configuration(
    publish: Publish, models: Path, open_harness: Open
) -> None:
    publish()
    harness = open_harness(0.02)

    onnx_models.write_plain(models, "plain", onnx_models.affine())
    publish("polled")
    harness.wait_for("polled", "1")
    with pytest.raises(UnknownModel):
        harness.answering("plain")
    (models / "plain" / "config.pbtxt").write_text("")

    harness.wait_for("plain", "1")


def test_poll_keeps_the_older_version_when_the_newer_fails(
    publish: Publish, open_harness: Open
) -> None:
    publish()
    harness = open_harness(0.02)

    publish(golden=WRONG)
    publish("polled")
    harness.wait_for("polled", "1")

    assert harness.answering() == "1"
    assert harness.states() == {"1": State.READY, "2": State.UNAVAILABLE}


def test_poll_unloads_a_removed_model(
    publish: Publish, models: Path, open_harness: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publish()
    publish("other")
    harness = open_harness(0.02)

    shutil.rmtree(models / "affine")

    harness.wait_for("affine", "1", State.UNAVAILABLE)
    harness.wait_until_drained()
    assert harness.loads()["ready"] is None and harness.loads("other")["ready"] == 1
    with pytest.raises((UnknownModel, ModelNotReady)):
        harness.answering()
    assert harness.answering("other") == "1"
    for name in ("first", "second"):
        publish(name)
        harness.wait_for(name, "1")
    assert caplog.text.count("model directory removed model=affine") == 1


def test_removed_model_is_logged_once_and_forgotten(
    publish: Publish,
    models: Path,
    open_harness: Open,
    looks: Looks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    publish()
    publish("other")
    harness = open_harness(0.01)

    shutil.rmtree(models / "affine")
    harness.wait_for("affine", "1", State.UNAVAILABLE)
    looks.wait(6)

    assert caplog.text.count("model directory removed model=affine") == 1
    assert list(harness.repository.registry.models) == ["other"]


def test_poll_takes_back_what_was_moved_away(
    publish: Publish, models: Path, open_harness: Open, tmp_path: Path
) -> None:
    """The same files: only their return shows that they are desired."""
    publish()
    publish("other")
    harness = open_harness(0.02)
    shutil.move(models / "affine", tmp_path / "away")
    harness.wait_for("affine", "1", State.UNAVAILABLE)

    shutil.move(tmp_path / "away", models / "affine")

    harness.wait_for("affine", "1")


def test_poll_of_a_model_that_cannot_be_read_changes_nothing(
    publish: Publish, models: Path, open_harness: Open, looks: Looks
) -> None:
    publish()
    publish("other")
    harness = open_harness(0.01)
    before = harness.repository.get("affine", "")

    looks.unreadable = models / "affine"
    looks.wait(6)
    assert harness.repository.get("affine", "") is before
    looks.unreadable = None
    publish()

    harness.wait_for("affine", "2")


@pytest.mark.parametrize("what", ["affine", "affine/1"], ids=["model", "version"])
def test_poll_between_two_moves_changes_nothing(
    what: str, publish: Publish, models: Path, open_harness: Open, looks: Looks
) -> None:
    """Replacing a directory by two renames leaves a moment in which there is none."""
    publish()
    publish()
    publish("other")
    say(models, 'policy = "all"')
    harness = open_harness(0.01)
    before = harness.repository.get("affine", "1")
    looks.hold()

    shutil.move(models / what, models.parent / "away")
    looks.step()
    shutil.move(models.parent / "away", models / what)
    looks.step()
    looks.release()

    assert harness.repository.get("affine", "1") is before


def test_broken_versions_file_is_logged_once(
    publish: Publish,
    models: Path,
    open_harness: Open,
    looks: Looks,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish()
    harness = open_harness(0.01)

    say(models, "policy = 7")
    looks.wait(8)

    assert caplog.text.count("versions.toml: policy: expected") == 1
    assert harness.answering() == "1"


def test_poll_of_an_emptied_repository_changes_nothing(
    publish: Publish, models: Path, open_harness: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """A volume that came off looks like this."""
    publish()
    harness = open_harness(0.02)
    shutil.move(models / "affine", models.parent / "affine")
    for _ in range(1000):
        if "repository is empty" in caplog.text:
            break
        threading.Event().wait(HANG_S / 1000)

    answering = harness.answering()
    shutil.move(models.parent / "affine", models / "affine")
    publish()

    assert answering == "1"
    harness.wait_for("affine", "2")
    assert caplog.text.count("repository is empty") == 1


def test_poll_follows_the_versions_file(publish: Publish, models: Path, open_harness: Open) -> None:
    publish()
    publish()
    harness = open_harness(0.02)

    say(models, "[labels]\nstable = 1")

    harness.wait_for("affine", "1")
    assert harness.answering(version="2") == "2"


def test_failed_files_are_tried_once(
    publish: Publish, open_harness: Open, caplog: pytest.LogCaptureFixture
) -> None:
    publish()
    harness = open_harness(0.02)
    publish(golden=WRONG)
    for name in ("first", "second", "third"):
        publish(name)
        harness.wait_for(name, "1")

    assert caplog.text.count("version load failed model=affine version=2") == 1


def test_policy_of_a_triton_configuration_counts_where_there_is_no_other(
    models: Path, open_harness: Open
) -> None:
    for version in (1, 2, 3):
        onnx_models.write_plain(models, "plain", onnx_models.affine(), version)
    config = models / "plain" / "config.pbtxt"
    config.write_text("version_policy { specific { versions: [1, 2] } }")
    harness = open_harness()
    own = set(harness.states("plain"))

    say(models, 'policy = "all"', "plain")

    assert own == {"1", "2"}
    assert harness.load("plain") is None
    assert set(harness.states("plain")) == {"1", "2", "3"}
