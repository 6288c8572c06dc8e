"""A run: a server, its clients, the faults of a schedule, and the reconciliation at the end."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import grpc

from tests.soak import ledger, models, oracle, watch
from tests.soak.bad_requests import METHOD
from tests.soak.client import ClientConfig, Source
from tests.soak.faults import FaultMaker, Killed
from tests.soak.findings import Finding
from tests.soak.ledger import Plan
from tests.soak.schedule import Schedule
from tests.soak.server import ServerUnderTest
from tests.soak.watch import Watcher

STEADY = (1, 2)
DISPOSABLE, HOSTILE = 3, 4
"""The numbers of the clients."""

GOOD_S, HEAVY_S = 0.001, 0.01
"""Times of a run of the burner, of a good request and of one of an overload."""
OVERLOAD = 3.0
"""An overload, as a multiple of what the burner can do."""

_HEAD_START_S = 2.5
_DRAIN_S = 40.0
_REST_S = 5.0
_TICK_S = 0.2
_PROGRESS_S = 5.0
_GOOD_MIX = (
    (oracle.FINGERPRINT, False, 0.62),
    (oracle.FINGERPRINT, True, 0.14),
    (oracle.LENGTHS, False, 0.14),
    (oracle.PAIR, False, 0.05),
    (oracle.PAIR, True, 0.03),
    (oracle.BURNER, False, 0.02),
)
_HOSTILE_MIX = (
    (oracle.FINGERPRINT, False, 0.5),
    (oracle.BURNER, False, 0.3),
    (oracle.PAIR, False, 0.1),
    (oracle.LENGTHS, False, 0.1),
)

Progress = Callable[[str], None]


@dataclass(slots=True)
class RunRecord:
    """Everything that a run leaves for the reconciliation.

    Attributes:
        start_s: start of the schedule, on the monotonic clock.
        ended_s: when the last client had ended.
        complaints: what the clients wrote about attempts that went wrong.
    """

    schedule: Schedule
    folder: Path
    server: ServerUnderTest
    faults: FaultMaker
    watch: watch.Watch
    start_s: float
    ended_s: float = 0.0
    is_complete: bool = True
    findings: list[Finding] = field(default_factory=list)
    complaints: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ledgers(self) -> list[Path]:
        """The files of the clients' ledgers."""
        return sorted(self.folder.glob("client-*.ledger"))


class ClientProcess:
    """A client, and for the disposable one its successors."""

    def __init__(self, run: "Run", number: int) -> None:
        self._run = run
        self._number = number
        self._incarnation = 0
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, from_s: float = 0.0) -> None:
        """Start a process that sends from a time on, in seconds from the start of the run."""
        self._incarnation += 1
        stem = self._run.folder / f"client-{self._number}-{self._incarnation}"
        config = self._run.client_config(self._number, self._incarnation, from_s, stem)
        path = stem.with_suffix(".json")
        config.write(path)
        with stem.with_suffix(".err").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.client", str(path)],
                stderr=errors,
                text=True,
                process_group=0,  # Ctrl-C is for the soak alone
            )
        self.processes.append(process)
        self._run.watcher.follow(process.pid, config)

    def signal(self, number: signal.Signals) -> None:
        """Send the newest process a signal."""
        self.processes[-1].send_signal(number)

    def replace(self) -> Killed:
        """Kill the newest process, and start another."""
        killed = self.kill()
        self.start(time.monotonic() - self._run.start_s)
        return killed

    def kill(self) -> Killed:
        """Kill the newest process."""
        process = self.processes[-1]
        process.send_signal(signal.SIGSTOP)
        at_s = time.monotonic()
        process.kill()
        process.wait()
        return Killed(self._number, self._incarnation, at_s)

    def has_ended(self) -> bool:
        """Whether the newest process has ended."""
        return self.processes[-1].poll() is not None


class Run:
    """Runs a schedule.

    Args:
        folder: for models, ledgers and logs.
        planted: the name of a planted bug, or nothing.
        clients: the numbers of the clients that take part.
        progress: takes a line every few seconds.
    """

    def __init__(
        self,
        schedule: Schedule,
        folder: Path,
        *,
        planted: str = "",
        clients: Sequence[int] = (*STEADY, DISPOSABLE, HOSTILE),
        progress: Progress = lambda _: None,
    ) -> None:
        self.schedule, self.folder = schedule, folder
        self._progress = progress
        root = folder / "models"
        models.write_repository(root)
        settings = folder / "weir.toml"
        settings.write_text(models.SETTINGS)
        self.server = ServerUnderTest(root, settings, folder, planted)
        self.watcher = Watcher(self.server, schedule.late_s)
        self.start_s = 0.0
        self._iterations = (1, 10)
        self._clients = {number: ClientProcess(self, number) for number in clients}
        disposable = self._clients.get(DISPOSABLE) or ClientProcess(self, DISPOSABLE)
        self._faults = FaultMaker(self.server, root, disposable, Random(schedule.seed))
        self._stop = threading.Event()

    def run(self) -> RunRecord:
        """Make the run; at Ctrl-C it ends early, and the record says so."""
        record = RunRecord(
            self.schedule, self.folder, self.server, self._faults, self.watcher.watch, 0.0
        )
        maker = threading.Thread(target=self._make_faults, name="faults", daemon=True)
        try:
            self.server.start()
            self._iterations = self._measure()
            self._faults.heavy = self._iterations[1]
            self.start_s = record.start_s = time.monotonic() + _HEAD_START_S
            for client in self._clients.values():
                client.start()
            self.watcher.start()
            maker.start()
            try:
                self._follow(record)
            except KeyboardInterrupt:
                record.is_complete = False
                self._progress("interrupted: the clients are ended, what was done is reported")
            self._stop.set()
            maker.join(60.0)
            self._end_clients(record)
            self._rest(record)
        finally:
            for client in self._clients.values():
                for process in client.processes:
                    process.kill()
                    process.wait()
            self.server.kill()
        uses = [asdict(each) for each in record.watch.uses]
        (self.folder / "uses.json").write_text(json.dumps(uses))
        for path in self.folder.glob("client-*.complaints"):
            record.complaints += map(json.loads, path.read_text().splitlines())
        for path in self.folder.glob("client-*.err"):
            if errors := path.read_text().strip():
                record.findings.append(
                    Finding("I6", record.ended_s, f"a client failed: {errors[-500:]}")
                )
        return record

    def client_config(
        self, client: int, incarnation: int, from_s: float, stem: Path
    ) -> ClientConfig:
        """What a client is told."""
        schedule, traffic = self.schedule, self.schedule.traffic
        always = ((0.0, schedule.end_of_traffic_s),)
        if client == HOSTILE:
            capacity = 1 / HEAVY_S
            sources = [
                Source(Plan.CANCEL, traffic.cancels, always, _HOSTILE_MIX),
                Source(Plan.TIGHT, traffic.tight, always, _HOSTILE_MIX),
                Source(Plan.EXPIRED, traffic.expired, always, _HOSTILE_MIX),
                Source(Plan.BAD, traffic.bad, always),
                Source(Plan.QUEUED, traffic.queued, always),
                Source(Plan.BURST, OVERLOAD * capacity, schedule.bursts_s),
            ]
        else:
            steady = sum(number in STEADY for number in self._clients)
            rate = traffic.disposable if client == DISPOSABLE else traffic.good / steady
            sources = [Source(Plan.GOOD, rate, always, _GOOD_MIX)]
        return ClientConfig(
            client=client,
            incarnation=incarnation,
            target=self.server.target,
            ledger=str(stem.with_suffix(".ledger")),
            complaints=str(stem.with_suffix(".complaints")),
            seed=schedule.seed,
            start_s=self.start_s,
            from_s=from_s,
            deadline_s=traffic.deadline_s,
            iterations=self._iterations,
            sources=sources,
        )

    def _measure(self) -> tuple[int, int]:
        """Iterations of the burner that take as long as a good request and a heavy one."""
        count, took_s = 500, 0.0
        with grpc.insecure_channel(self.server.target) as channel:
            call: Any = channel.unary_unary(METHOD)
            while took_s < 0.05:
                count *= 2
                message = oracle.burner(count).message("measure")
                took_s = min(_timed(call, message) for _ in range(3))
        per_s = count / took_s
        return max(1, int(per_s * GOOD_S)), max(1, int(per_s * HEAVY_S))

    def _make_faults(self) -> None:
        for fault in self.schedule.faults:
            if self._stop.wait(max(0.0, self.start_s + fault.at_s - time.monotonic())):
                return
            self._faults.make(fault.name)

    def _follow(self, record: RunRecord) -> None:
        """Wait for the end of the traffic, and show where the run is."""
        end_s = self.start_s + self.schedule.end_of_traffic_s
        shown_s = time.monotonic()
        while (now := time.monotonic()) < end_s or not self._have_ended():
            if now > end_s + _DRAIN_S:
                break
            if self.server.has_died():
                self._revive(record)
            if now >= shown_s + _PROGRESS_S:
                shown_s = now
                self._show(now)
            time.sleep(_TICK_S)

    def _revive(self, record: RunRecord) -> None:
        """Start the server again after it ended by itself, which is a finding."""
        life = self.server.life
        record.findings.append(
            Finding("I6", life.ended_s, f"the server ended by itself, exit code {life.exit_code}")
        )
        with self._faults.control, self._faults.window("death", 14, 1, is_outage=True):
            self.server.start()

    def _show(self, now: float) -> None:
        at_s = now - self.start_s
        phase = next(
            (each.name for each in self.schedule.phases if each.start_s <= at_s < each.end_s), "end"
        )
        uses = self.watcher.watch.uses
        memory = f"{uses[-1].use.rss_bytes >> 20} MiB" if uses else "-"
        ended = ledger.count(self.folder.glob("client-*.ledger")) // 2
        total_s = self.schedule.duration_s
        made = sum(self._faults.made.values())
        self._progress(
            f"{max(at_s, 0):5.0f} s of {total_s:.0f}  {phase:9}  {ended:9,} requests  "
            f"{made:4} faults  server {self.server.life.number}, {memory}"
        )

    def _have_ended(self) -> bool:
        return all(client.has_ended() for client in self._clients.values())

    def _end_clients(self, record: RunRecord) -> None:
        for client in self._clients.values():
            if not client.has_ended():
                killed = client.kill()
                self._faults.kills.append(killed)
                if record.is_complete:
                    what = f"client {killed.client} did not end in time"
                    record.findings.append(Finding("I1", killed.at_s, what))
        record.ended_s = time.monotonic()

    def _rest(self, record: RunRecord) -> None:
        """Nothing is sent any more: everything is at rest, and a last SIGTERM ends the server."""
        end_s = time.monotonic() + _REST_S
        self.watcher.stop()
        left: Sequence[str] = ["/metrics was not answered"]
        while left and time.monotonic() < end_s:
            time.sleep(0.3)
            samples = self.watcher.scrape()
            if samples is not None:
                left = watch.at_rest(samples)
        record.findings += [Finding("I3", time.monotonic(), what) for what in left]
        life = self.server.end(signal.SIGTERM)
        if life.exit_code != 0:
            what = f"SIGTERM at rest: expected exit code 0, got {life.exit_code}"
            record.findings.append(Finding("I6", life.ended_s, what))


def _timed(call: Any, message: bytes) -> float:
    began_s = time.perf_counter()
    call(message, timeout=30.0)
    return time.perf_counter() - began_s
