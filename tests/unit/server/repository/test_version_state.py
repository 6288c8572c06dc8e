"""The state machine of versions, on plain values: files are numbers, a model is a name."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from weir.server.repository import version_state
from weir.server.repository.version_state import (
    Desired,
    ModelStatus,
    State,
    mark_failed,
    mark_loading,
    mark_ready,
    mark_unloaded,
    settle,
    to_load,
)

NOW = 100.0
NOTHING: ModelStatus[str] = ModelStatus()


def serving(*numbers: int, labels: dict[str, int] | None = None) -> ModelStatus[str]:
    """A model some of whose versions serve, from files 0."""
    model = NOTHING
    for number in numbers:
        model, _ = mark_ready(model, number, 0, f"v{number}", NOW)
    return settle(model, Desired(dict.fromkeys(numbers, 0), labels or {}), NOW)[0]


def ready(model: ModelStatus[str]) -> set[int]:
    return {number for number in model.versions if model.is_ready(number)}


def test_stable_version_is_loaded_first_then_the_highest() -> None:
    desired = Desired({1: 0, 2: 0, 3: 0}, {"stable": 2, "canary": 3})

    assert to_load(NOTHING, desired) == [2, 3, 1]


def test_version_is_not_loaded_again_until_its_files_change() -> None:
    model = mark_failed(serving(1), 2, 7, "broken", NOW)

    assert to_load(model, Desired({1: 0, 2: 7})) == []
    assert to_load(model, Desired({1: 5, 2: 8})) == [2, 1]
    assert to_load(model, Desired({1: 0, 2: 7}), retry=True) == [2]
    assert to_load(model, Desired({1: 0, 2: 7}), again=True) == [1]


def test_version_that_is_only_marked_as_loading_is_loaded() -> None:
    """At the start every version is LOADING before the first is loaded."""
    model = mark_loading(NOTHING, 1, 0, NOW)

    assert to_load(model, Desired({1: 0})) == [1]


def test_newer_version_becomes_default_and_the_older_is_unloaded() -> None:
    model, replaced = mark_ready(serving(1), 2, 0, "v2", NOW)

    model, leaving = settle(model, Desired({2: 0}), NOW + 1)

    assert replaced is None
    assert (model.default, ready(model), leaving) == (2, {2}, {1: "v1"})
    assert model.versions[1].state is State.UNLOADING
    assert model.versions[1].since_s == NOW + 1
    assert set(mark_unloaded(model, 1, NOW, keep=False).versions) == {2}


def test_older_version_stays_default_when_the_newer_fails() -> None:
    model = mark_failed(mark_loading(serving(1), 2, 0, NOW), 2, 0, "golden", NOW)

    model, leaving = settle(model, Desired({2: 0}), NOW)

    assert (model.default, leaving) == (1, {})
    assert (model.versions[2].state, model.versions[2].reason) == (State.UNAVAILABLE, "golden")


def test_newer_files_of_a_version_replace_it_once_they_are_verified() -> None:
    model = mark_loading(serving(1), 1, 5, NOW)
    assert model.is_ready(1)

    model, replaced = mark_ready(model, 1, 5, "v1 again", NOW + 1)

    assert replaced == "v1"
    assert (model.versions[1].model, model.versions[1].since_s) == ("v1 again", NOW + 1)


def test_broken_newer_files_of_a_version_leave_it_serving_with_the_reason() -> None:
    model = mark_failed(mark_loading(serving(1), 1, 5, NOW), 1, 5, "truncated", NOW + 1)

    version = settle(model, Desired({1: 5}), NOW + 1)[0].versions[1]

    assert (version.state, version.model, version.since_s) == (State.READY, "v1", NOW)
    assert version.reason == "truncated"


def test_newer_files_that_are_mended_leave_no_reason_behind() -> None:
    model = mark_failed(serving(1), 1, 5, "truncated", NOW)

    model, _ = mark_ready(model, 1, 6, "v1 again", NOW)

    assert model.versions[1].reason == ""


def test_default_stays_when_the_newest_fails_though_a_label_keeps_another() -> None:
    """A canary must not become the default."""
    model, _ = mark_ready(serving(2), 1, 0, "v1", NOW)
    model = mark_failed(model, 3, 0, "broken", NOW)

    model, leaving = settle(model, Desired({1: 0, 3: 0}, {"canary": 1}), NOW)

    assert (model.default, leaving) == (2, {})


def test_labels_stay_at_unloaded_versions() -> None:
    model = serving(1, 2, labels={"canary": 1})

    model, leaving = settle(model, Desired(labels=model.labels), NOW)

    assert (model.labels, model.default) == ({"canary": 1}, None)
    assert leaving == {1: "v1", 2: "v2"}


def test_label_moves_when_its_version_serves_and_not_before() -> None:
    model = serving(1, labels={"canary": 1})
    desired = Desired({1: 0, 2: 0}, {"canary": 2})

    before, _ = settle(mark_loading(model, 2, 0, NOW), desired, NOW)
    after, _ = settle(mark_ready(before, 2, 0, "v2", NOW)[0], desired, NOW)

    assert (before.labels, after.labels) == ({"canary": 1}, {"canary": 2})


def test_pending_label_keeps_its_old_version_serving() -> None:
    model = mark_failed(serving(1, labels={"canary": 1}), 2, 0, "broken", NOW)

    model, leaving = settle(model, Desired({2: 0}, {"canary": 2}), NOW)

    assert (model.labels, leaving, ready(model)) == ({"canary": 1}, {}, {1})


def test_pending_label_keeps_its_old_version_beside_others_that_serve() -> None:
    model = mark_failed(serving(1, 2, labels={"canary": 1}), 3, 0, "broken", NOW)

    model, leaving = settle(model, Desired({2: 0, 3: 0}, {"canary": 3}), NOW)

    assert (model.labels, leaving, ready(model)) == ({"canary": 1}, {}, {1, 2})


def test_label_does_not_wait_at_a_version_that_does_not_serve() -> None:
    model, _ = settle(
        mark_failed(serving(2), 1, 0, "broken", NOW), Desired({2: 0}, {"canary": 1}), NOW
    )

    model, _ = settle(mark_failed(model, 3, 0, "broken", NOW), Desired({2: 0}, {"canary": 3}), NOW)

    assert (model.labels, set(model.versions)) == ({"canary": 3}, {2, 3})


def test_unloading_version_is_known_until_it_is_unloaded() -> None:
    desired = Desired({2: 0})
    model, _ = settle(mark_ready(serving(1), 2, 0, "v2", NOW)[0], desired, NOW)

    model, leaving = settle(model, desired, NOW)

    assert leaving == {}
    assert model.versions[1].state is State.UNLOADING


def test_stable_is_the_default_rather_than_the_highest() -> None:
    model, _ = settle(serving(1, 2), Desired({1: 0, 2: 0}, {"stable": 1}), NOW)

    assert model.default == 1


def test_at_the_start_no_version_replaces_a_stable_that_fails() -> None:
    """An operator chose it: the highest may be the version to avoid."""
    desired = Desired({1: 0, 2: 0}, {"stable": 1})
    model, _ = mark_ready(NOTHING, 2, 0, "v2", NOW)

    model, _ = settle(mark_failed(model, 1, 0, "broken", NOW), desired, NOW)

    assert model.default is None
    assert ready(model) == {2}


def test_default_stays_when_a_new_stable_fails() -> None:
    model = mark_failed(serving(2), 1, 0, "broken", NOW)

    model, leaving = settle(model, Desired({1: 0, 2: 0}, {"stable": 1}), NOW)

    assert (model.default, leaving) == (2, {})


def test_empty_desired_state_unloads_every_version() -> None:
    model, leaving = settle(mark_failed(serving(1, 2), 3, 0, "broken", NOW), Desired(), NOW)

    assert (model.default, model.labels) == (None, {})
    assert leaving == {1: "v1", 2: "v2"}
    assert set(model.versions) == {1, 2}
    unloaded = mark_unloaded(model, 1, NOW, keep=True)
    assert (unloaded.versions[1].state, unloaded.versions[1].reason) == (
        State.UNAVAILABLE,
        "unloaded",
    )


def test_version_that_is_loaded_again_while_unloading_stays() -> None:
    model, _ = settle(serving(1), Desired(), NOW)

    assert to_load(model, Desired({1: 0})) == [1]
    model, replaced = mark_ready(mark_loading(model, 1, 0, NOW), 1, 0, "v1 again", NOW)

    assert replaced is None
    assert mark_unloaded(model, 1, NOW, keep=False) == model


@dataclass
class Disk:
    """What is desired; a version's files are a number that grows."""

    files: dict[int, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)

    def desired(self) -> Desired:
        return Desired(dict(self.files), dict(self.labels))


NUMBERS = st.integers(1, 4)


class Lifecycle(RuleBasedStateMachine):
    """Any order of releases, broken ones, labels and removals; nothing that serves is lost."""

    instances = Bundle("instances")

    def __init__(self) -> None:
        super().__init__()
        self.model = NOTHING
        self.disk = Disk()
        self.made = 0
        self.alive: set[str] = set()

    @rule(number=NUMBERS)
    def release(self, number: int) -> None:
        self.disk.files[number] = self.disk.files.get(number, 0) + 1

    @rule(number=NUMBERS)
    def remove(self, number: int) -> None:
        self.disk.files.pop(number, None)
        self.disk.labels = {k: v for k, v in self.disk.labels.items() if v != number}

    @rule(label=st.sampled_from(["stable", "canary"]), number=st.none() | NUMBERS)
    def label(self, label: str, number: int | None) -> None:
        self.disk.labels.pop(label, None)
        if number in self.disk.files:
            self.disk.labels[label] = number

    @rule(target=instances, outcomes=st.lists(st.booleans(), max_size=6), again=st.booleans())
    def bring(self, outcomes: list[bool], again: bool) -> object:  # noqa: FBT001
        """Load what is to be loaded; some of it fails."""
        desired, gone = self.disk.desired(), []
        for number in to_load(self.model, desired, retry=again, again=again):
            before, answering = ready(self.model), self.model.default
            files = desired.versions[number]
            self.model = mark_loading(self.model, number, files, NOW)
            assert ready(self.model) == before
            if outcomes and outcomes.pop():
                self.made += 1
                name = f"{number} #{self.made}"
                self.alive.add(name)
                self.model, replaced = mark_ready(self.model, number, files, name, NOW)
                if replaced is not None:
                    gone.append((number, replaced))
                assert ready(self.model) == before | {number}
            else:
                served = {n: v.model for n, v in self.model.versions.items()}
                self.model = mark_failed(self.model, number, files, "broken", NOW)
                assert ready(self.model) == before
                assert all(self.model.versions[n].model == m for n, m in served.items())
            gone += self.settle(desired)
            if answering is not None and desired.versions:
                assert self.model.default is not None
        gone += self.settle(desired)
        assert not to_load(self.model, desired)
        return multiple(*gone)

    def settle(self, desired: Desired) -> list[tuple[int, str]]:
        before = self.model
        self.model, leaving = settle(self.model, desired, NOW)
        for number, name in leaving.items():
            assert before.versions[number].model == name
            assert number not in desired.versions
        if desired.versions and ready(before):
            assert ready(self.model), "what serves goes on until something takes its place"
        candidates = [n for n in desired.versions if self.model.is_ready(n)]
        if "stable" not in desired.labels and candidates:
            if max(desired.versions) in candidates:
                assert self.model.default == max(candidates)
            else:
                assert self.model.default == before.default or before.default is None
        for label, number in desired.labels.items():
            if self.model.is_ready(number):
                assert self.model.labels[label] == number
        return list(leaving.items())

    @rule(instance=consumes(instances), unloaded=st.booleans())
    def unload(self, instance: tuple[int, str], unloaded: bool) -> None:  # noqa: FBT001
        number, name = instance
        before = ready(self.model)
        self.model = mark_unloaded(self.model, number, NOW, keep=unloaded)
        assert ready(self.model) == before
        self.alive.remove(name)

    @invariant()
    def answers_only_what_is_ready(self) -> None:
        assert self.model.default is None or self.model.is_ready(self.model.default)

    @invariant()
    def serves_exactly_where_it_is_ready(self) -> None:
        for version in self.model.versions.values():
            assert (version.model is not None) == (version.state is State.READY)

    @invariant()
    def is_held_or_was_handed_out(self) -> None:
        held = {version.model for version in self.model.versions.values() if version.model}
        assert held <= self.alive, "an unloaded model does not serve"


Lifecycle.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLifecycle = Lifecycle.TestCase


def test_module_knows_no_clock_and_no_thread() -> None:
    assert not {"threading", "time", "queue"} & set(vars(version_state))
