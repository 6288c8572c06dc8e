"""The reconciliation of hand-written ledgers."""

import json
import subprocess
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from tests.soak import schedule
from tests.soak.faults import Change, DisposableClient, FaultMaker, Killed, Window
from tests.soak.ledger import Ledger, Plan, Verdict, code_of, wire_id
from tests.soak.oracle import BURNER, FINGERPRINT
from tests.soak.reconcile import Result, reconcile
from tests.soak.run import RunRecord
from tests.soak.server import Life, ServerUnderTest
from tests.soak.watch import Watch

OK, CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE = 0, 1, 4, 14
FIRST = code_of(1, 1, 0, 0)


class Scene:
    """A run that never was: one server, and a client whose records a test writes."""

    def __init__(self, folder: Path) -> None:
        server = ServerUnderTest(folder / "models", folder / "settings", folder)
        self.log = folder / "server-1.log"
        process = cast("subprocess.Popen[str]", None)
        server.lives.append(Life(1, self.log, 0.0, process, ready_s=1.0, ended_s=100.0))
        client = cast("DisposableClient", None)
        self.faults = FaultMaker(server, folder, client, Random(0))
        plan = schedule.plan(1, 60.0)
        self.record = RunRecord(plan, folder, server, self.faults, Watch(), 0.0, ended_s=100.0)
        self.ledger = Ledger(folder / "client-1-1.ledger")
        self.lines: list[dict[str, Any]] = []

    def sent(
        self,
        code: int = FIRST,
        *,
        at_s: float = 10.0,
        plan: Plan = Plan.GOOD,
        model: int = FINGERPRINT,
        deadline_s: float = 5.0,
    ) -> None:
        self.ledger.sent(
            code,
            model=model,
            plan=plan,
            case=0,
            intended_s=at_s,
            at_s=at_s,
            deadline_s=deadline_s,
        )

    def ended(
        self,
        code: int = FIRST,
        *,
        at_s: float = 10.01,
        status: int = OK,
        verdict: Verdict = Verdict.UNCHECKED,
        version: int = 1,
    ) -> None:
        self.ledger.ended(code, at_s=at_s, status=status, verdict=verdict, version=version)

    def logged(
        self, code: int = FIRST, status: str = "OK", version: int = 1, **fields: Any
    ) -> None:
        line = {"message": "request", "method": "ModelInfer", "id": wire_id(code)}
        self.lines.append(line | {"status": status, "version": str(version), **fields})

    def answered(self, code: int = FIRST, **sent: Any) -> None:
        self.sent(code, **sent)
        self.ended(code, at_s=sent.get("at_s", 10.0) + 0.01, verdict=Verdict.RIGHT)
        self.logged(code)

    def result(self) -> Result:
        self.log.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return reconcile(self.record)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_answered_request_is_counted_and_no_finding(scene: Scene) -> None:
    scene.answered()

    result = scene.result()

    assert result.findings == []
    assert result.checked == 1


def test_attempt_without_an_end_is_lost(scene: Scene) -> None:
    scene.sent()

    assert scene.result().broken() == {"I1"}


def test_attempt_that_a_killed_client_left_open_is_not_lost(scene: Scene) -> None:
    scene.sent(at_s=10.0)
    scene.sent(code_of(1, 1, 1, 0), at_s=1.0)
    scene.faults.kills.append(Killed(1, 1, 10.5))

    result = scene.result()

    assert result.unfinished == 1
    assert [finding.what for finding in result.findings] == [
        f"{wire_id(code_of(1, 1, 1, 0))} (good, fingerprint): lost"
    ]


def test_second_answer_is_a_finding(scene: Scene) -> None:
    scene.answered()
    scene.ended(verdict=Verdict.DUPLICATE)

    assert scene.result().broken() == {"I1"}


def test_end_long_after_the_deadline_is_a_finding(scene: Scene) -> None:
    scene.sent(at_s=10.0, deadline_s=1.0)
    scene.ended(at_s=13.5, verdict=Verdict.RIGHT)
    scene.logged()

    assert scene.result().broken() == {"I1"}


def test_wrong_answer_is_a_finding(scene: Scene) -> None:
    scene.sent()
    scene.ended(verdict=Verdict.WRONG)
    scene.logged()

    assert scene.result().broken() == {"I2"}


@pytest.mark.parametrize(
    ("status", "window", "broken"),
    [
        (UNAVAILABLE, None, {"I6"}),
        (UNAVAILABLE, Window("kill", 9.0, 11.0, frozenset({UNAVAILABLE})), set()),
        (UNAVAILABLE, Window("kill", 9.0, 9.5, frozenset({UNAVAILABLE})), {"I6"}),
        (CANCELLED, Window("kill", 9.0, 11.0, frozenset({UNAVAILABLE})), {"I6"}),
        (
            UNAVAILABLE,
            Window("kill", 9.0, 11.0, frozenset({UNAVAILABLE}), frozenset({BURNER})),
            {"I6"},
        ),
    ],
    ids=["no fault", "fault", "fault before", "another status", "another model"],
)
def test_failure_needs_a_fault_that_explains_it(
    scene: Scene, status: int, window: Window | None, broken: set[str]
) -> None:
    if window is not None:
        scene.faults.windows.append(window)
    scene.sent()
    scene.ended(status=status)
    again = code_of(1, 1, 0, 1)
    scene.answered(again, at_s=10.1)

    result = scene.result()

    assert result.broken() == broken
    assert result.retries == 1


def test_failure_in_spite_of_retries_is_a_finding(scene: Scene) -> None:
    scene.faults.windows.append(Window("kill", 9.0, 11.0, frozenset({UNAVAILABLE})))
    scene.sent()
    scene.ended(status=UNAVAILABLE)

    result = scene.result()

    assert result.broken() == {"I6"}
    assert result.visible == {"UNAVAILABLE": 1}


@pytest.mark.parametrize(
    ("at_s", "version", "broken"),
    [
        (10.0, 1, set()),
        (10.0, 2, {"I2"}),
        (20.005, 1, set()),
        (20.005, 2, set()),
        (30.0, 1, {"I2"}),
        (30.0, 2, set()),
    ],
    ids=["old before", "new before", "old during", "new during", "old after", "new after"],
)
def test_answer_is_of_a_version_that_was_current(
    scene: Scene, at_s: float, version: int, broken: set[str]
) -> None:
    scene.faults.changes.append(Change(20.0, 21.0, 2))
    scene.sent(at_s=at_s)
    scene.ended(at_s=at_s + 0.01, verdict=Verdict.RIGHT, version=version)
    scene.logged(version=version)

    assert scene.result().broken() == broken


def test_answer_that_no_server_logged_is_a_finding(scene: Scene) -> None:
    scene.sent()
    scene.ended(verdict=Verdict.RIGHT)

    assert scene.result().broken() == {"I4"}


def test_request_that_the_server_logged_twice_is_a_finding(scene: Scene) -> None:
    scene.answered()
    scene.logged()

    assert scene.result().broken() == {"I5"}


def test_run_after_the_deadline_is_a_finding(scene: Scene) -> None:
    scene.sent(plan=Plan.TIGHT, deadline_s=0.1)
    scene.ended(at_s=10.1, status=DEADLINE_EXCEEDED)
    scene.logged(status="CANCELLED", queue_s=0.2, compute_s=0.01)

    assert scene.result().broken() == {"I5"}


def test_expired_request_that_was_not_run_is_no_finding(scene: Scene) -> None:
    scene.sent(plan=Plan.TIGHT, deadline_s=0.1)
    scene.ended(at_s=10.1, status=DEADLINE_EXCEEDED)
    scene.logged(status="DEADLINE_EXCEEDED", queue_s=0.2)

    assert scene.result().findings == []


def test_traceback_in_the_log_is_a_finding(scene: Scene) -> None:
    scene.lines.append({"message": "batch lost", "level": "error", "traceback": "Traceback ..."})

    assert scene.result().broken() == {"I10"}


def test_stop_refuses_nothing_that_was_sent_before(scene: Scene) -> None:
    allowed = frozenset({UNAVAILABLE})
    scene.faults.windows.append(Window("sigterm", 12.0, 14.0, allowed, is_outage=True))
    scene.sent(at_s=10.0)
    scene.ended(at_s=12.1, status=UNAVAILABLE)
    scene.answered(code_of(1, 1, 0, 1), at_s=13.0)

    assert scene.result().broken() == {"I1"}
