"""The positive controls: a short run for each planted bug, which must find it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.soak import schedule
from tests.soak.findings import Finding
from tests.soak.planted import BUGS
from tests.soak.reconcile import reconcile
from tests.soak.run import HOSTILE, STEADY, Run
from tests.soak.schedule import Fault, Traffic

TRAFFIC = Traffic(
    good=150.0, cancels=40.0, tight=10.0, bad=10.0, queued=1.0, disposable=0.0, deadline_s=3.0
)
TRAFFIC_S = 5.0
FAULT_AT_S, AFTER_FAULT_S = 1.0, 4.0


@dataclass(frozen=True, slots=True)
class Control:
    """The run of a planted bug.

    Attributes:
        finding: the first that shows the bug; None if it was not caught.
        after: answers checked before that finding, right or wrong.
        other: what the run said instead.
    """

    bug: str
    finding: Finding | None
    after: int
    other: str = ""

    @property
    def is_caught(self) -> bool:
        """Whether the bug was found."""
        return self.finding is not None


def run_controls(
    bugs: Sequence[str],
    seed: int,
    folder: Path,
    *,
    at_once: int = 3,
    done: Callable[[Control], None] = lambda _: None,
) -> list[Control]:
    """Run the planted bugs, a few at a time.

    One that is missed is run again alone: beside others it has less of the machine, and the
    burner's time, which is measured at the start, becomes another.
    """

    def run(bug: str, name: str = "") -> Control:
        control = run_control(bug, seed, folder / (name or bug))
        done(control)
        return control

    pool = ThreadPoolExecutor(at_once)
    try:
        found = list(pool.map(run, bugs))
    finally:
        # After Ctrl-C, those that run are finished, and no other begins.
        pool.shutdown(cancel_futures=True)
    return [
        control if control.is_caught else run(control.bug, f"{control.bug}-again")
        for control in found
    ]


def run_control(bug: str, seed: int, folder: Path) -> Control:
    """Run a planted bug."""
    folder.mkdir(parents=True)
    faults = [Fault(name, FAULT_AT_S) for name in BUGS[bug].faults]
    traffic_s = TRAFFIC_S + AFTER_FAULT_S * len(faults)
    plan = schedule.short(seed, traffic_s + schedule.COOL_DOWN_S, faults, TRAFFIC)
    clients = (STEADY[0], HOSTILE)
    try:
        record = Run(plan, folder, planted=bug, clients=clients).run()
    except RuntimeError as error:  # the server did not start: its place is gone
        return Control(bug, None, 0, str(error))
    result = reconcile(record)
    found = [each for each in result.findings if each.invariant in BUGS[bug].invariants]
    if not found:
        others = "; ".join(f"{each.invariant} {each.what}" for each in result.findings[:3])
        return Control(bug, None, 0, others or "nothing was found")
    first = min(found, key=lambda each: each.at_s)
    share = (first.at_s - record.start_s) / traffic_s
    return Control(bug, first, int(result.checked * min(max(share, 0.0), 1.0)))
