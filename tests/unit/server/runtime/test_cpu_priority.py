import os
import sys
import threading
from collections.abc import Sequence

import pytest

from weir.server.runtime import cpu_priority
from weir.server.runtime.cpu_priority import LONG_RUN_S, RunPriority

linux = pytest.mark.skipif(sys.platform != "linux", reason="a niceness of threads is Linux's")


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two cores."""
    monkeypatch.setattr(cpu_priority, "usable_cores", lambda: 2)


def run_lowered_at(runs_s: Sequence[float], waits_s: float = 0.0) -> int | None:
    """The number of the run after which a thread's priority is lowered; None without one.

    Args:
        runs_s: CPU time of each run.
        waits_s: for which each run waits for a core.
    """
    now_s = 0.0
    lowered: list[int] = []
    number = 0
    priority = RunPriority(cpu_clock=lambda: now_s, lower=lambda: lowered.append(number))
    for number, run_s in enumerate(runs_s, start=1):  # noqa: B007 - read by `lower`
        now_s += run_s
        priority.ran(run_s + waits_s)
    assert len(lowered) <= 1
    return lowered[0] if lowered else None


def test_long_runs_lower_the_priority_once() -> None:
    assert run_lowered_at([2 * LONG_RUN_S] * 20) == 4


@pytest.mark.parametrize(
    "runs_s",
    [
        pytest.param([LONG_RUN_S / 4] * 10_000, id="short runs"),
        pytest.param([100 * LONG_RUN_S, *[LONG_RUN_S / 4] * 100] * 10, id="some long ones"),
        pytest.param([], id="no run"),
    ],
)
def test_short_runs_keep_the_priority(runs_s: Sequence[float]) -> None:
    assert run_lowered_at(runs_s) is None


def test_runs_that_wait_for_a_core_are_not_long() -> None:
    assert run_lowered_at([LONG_RUN_S / 4] * 1000, waits_s=10 * LONG_RUN_S) is None


def test_long_runs_among_short_ones_lower_the_priority() -> None:
    """A flooded model runs full batches, and now and then a small one."""
    assert run_lowered_at([*[5 * LONG_RUN_S] * 3, LONG_RUN_S / 4] * 10) is not None


@linux
def test_only_the_thread_and_those_that_it_starts_are_lowered() -> None:
    own, found = niceness(), []

    def start_another() -> None:
        found.append(niceness())
        thread = threading.Thread(target=lambda: found.append(niceness()))
        thread.start()
        thread.join()

    cpu_priority.lowered(start_another)

    assert found == [min(19, own + 5)] * 2
    assert niceness() == own


@linux
def test_on_one_core_all_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_priority, "usable_cores", lambda: 1)

    def own_after() -> int:
        cpu_priority.lower()
        return niceness()

    assert cpu_priority.lowered(own_after) == niceness()


@linux
def test_a_process_of_low_priority_stays_within_the_range() -> None:
    found = []

    def lower_often() -> None:
        for _ in range(4):
            cpu_priority.lower()
        found.append(niceness())

    cpu_priority.lowered(lower_often)

    assert found == [19]


def test_a_call_that_fails_raises_as_before() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cpu_priority.lowered(fail)


@linux
def test_a_sandbox_without_priorities_is_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "setpriority", refuse)

    assert cpu_priority.lowered(lambda: 3) == 3
    assert "priority not lowered" in caplog.text


def niceness() -> int:
    """Of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
