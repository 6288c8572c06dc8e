"""What is measured during a run: scrapes, use of the processes, and whether readiness is true."""

import itertools
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc

from tests.soak import oracle
from tests.soak.bad_requests import METHOD
from tests.soak.client import ClientConfig
from tests.soak.findings import Finding
from tests.soak.server import ProcessUse, ServerUnderTest, use_of
from weir.protocol import inference_pb2 as pb

Samples = Mapping[str, float]

_INTERVAL_S = 0.25
_SCRAPE_EVERY = 4
_LINE = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^\n]*\})? (NaN|[+-]Inf|[-+0-9.eE]+)")
_RISING = re.compile(r"[a-z_]+_(total|count|bucket)(\{|$)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_CALL = re.compile(r"grpc_server_(started|handled)_total\{.*grpc_method=\"(\w+)\"")


@dataclass(frozen=True, slots=True)
class Sample:
    """The use of the server's process at a time."""

    at_s: float
    life: int
    use: ProcessUse


@dataclass(slots=True)
class Watch:
    """Everything that was measured.

    Attributes:
        last: the samples of each life's last scrape, and when it was made.
        clients_cpu_s: by process, in seconds of the CPU.
    """

    uses: list[Sample] = field(default_factory=list)
    last: dict[int, tuple[float, Samples]] = field(default_factory=dict)
    clients_cpu_s: dict[int, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    scrapes: int = 0
    missed_scrapes: int = 0
    probes: int = 0


class Watcher:
    """Measures the use four times a second and scrapes once, on a thread of its own."""

    def __init__(self, server: ServerUnderTest, probe_s: float) -> None:
        self.watch = Watch()
        self._server = server
        self._probe_s = probe_s
        self._clients: dict[int, ClientConfig] = {}
        self._stop = threading.Event()
        self._random = Random(0)
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(30.0)

    def follow(self, pid: int, config: ClientConfig) -> None:
        """Measure a client's process too."""
        self._clients[pid] = config

    def scrape(self) -> Samples | None:
        """Scrape once, and check what comes; None if nothing came."""
        life = self._server.life.number
        try:
            text = self._server.metrics_text()
        except OSError:
            self.watch.missed_scrapes += 1
            return None
        now = time.monotonic()
        if self._server.life.number != life:
            return None
        self.watch.scrapes += 1
        samples, problems = parse(text)
        before = self.watch.last.get(life)
        if before is not None:
            problems += fallen(before[1], samples)
        problems += unbalanced(samples)
        self.watch.findings += [Finding("I8", now, problem) for problem in problems]
        self.watch.last[life] = now, samples
        return samples

    def _run(self) -> None:
        due_s = time.monotonic()
        channel = grpc.insecure_channel(self._server.target)
        for turn in itertools.count():
            if self._stop.is_set():
                break
            life = self._server.life
            use = use_of(life.pid)
            if use is not None and not life.end:
                self.watch.uses.append(Sample(time.monotonic(), life.number, use))
            for pid in list(self._clients):
                if (client := use_of(pid)) is not None:
                    self.watch.clients_cpu_s[pid] = client.cpu_s
            if turn % _SCRAPE_EVERY == 0:
                self.scrape()
                self._probe(channel)
            due_s = max(due_s + _INTERVAL_S, time.monotonic())
            self._stop.wait(due_s - time.monotonic())
        channel.close()

    def _probe(self, channel: grpc.Channel) -> None:
        """If the server says that it is ready, it answers."""
        began_s = time.monotonic()
        if not self._server.is_serving(self._probe_s):
            return
        question = oracle.fingerprint(self._random, self._random.getrandbits(40))
        self.watch.probes += 1
        try:
            method: Any = channel.unary_unary(METHOD)
            answer = method(question.message("probe"), timeout=self._probe_s)
        except grpc.RpcError as error:
            code = error.code()
            problem = f"the server is ready, and an inference ended with {code.name}"
        else:
            problem = oracle.check_answer(question, pb.ModelInferResponse.FromString(answer))
        if problem:
            self.watch.findings.append(
                Finding("I9", time.monotonic(), problem, began_s=began_s, is_excusable=True)
            )


def parse(text: str) -> tuple[dict[str, float], list[str]]:
    """The samples of a metrics page by name and labels, and its malformed lines."""
    samples, problems = {}, []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if _LINE.fullmatch(line) is None:
            problems.append(f"/metrics: malformed line {line[:100]!r}")
            continue
        name, _, value = line.rpartition(" ")
        if name in samples:
            problems.append(f"/metrics: {name} twice")
        samples[name] = float(value)
    if not samples:
        problems.append("/metrics: nothing")
    return samples, problems


def fallen(before: Samples, samples: Samples) -> list[str]:
    """The counters of a process that fell.

    Those of a version begin again when it is loaded again, as by a rollback: they fall together.
    """
    names = [
        name
        for name, value in before.items()
        if _RISING.match(name) and samples.get(name, value) < value
    ]
    reloaded = {
        (labels["model"], labels["version"])
        for labels in map(labels_of, names)
        if labels.get("le") == "+Inf" and "version" in labels
    }
    return [
        f"{name}: fell from {before[name]:g} to {samples[name]:g}"
        for name in names
        if (labels_of(name).get("model"), labels_of(name).get("version")) not in reloaded
    ]


def unbalanced(samples: Samples) -> list[str]:
    """The methods of which more calls ended than started."""
    calls = calls_of(samples)
    return [
        f"{method}: {started:g} calls started, {handled:g} ended"
        for method, (started, handled) in calls.items()
        if handled > started
    ]


def calls_of(samples: Samples) -> dict[str, tuple[float, float]]:
    """The started and the ended calls of each method."""
    calls: dict[str, list[float]] = {}
    for name, value in samples.items():
        if found := _CALL.match(name):
            calls.setdefault(found[2], [0.0, 0.0])[found[1] == "handled"] += value
    return {method: (started, handled) for method, (started, handled) in calls.items()}


def labelled(samples: Samples, name: str) -> list[tuple[dict[str, str], float]]:
    """The samples of a metric, each with its labels."""
    return [
        (labels_of(key), value) for key, value in samples.items() if key.partition("{")[0] == name
    ]


def labels_of(name: str) -> dict[str, str]:
    """The labels of a sample."""
    return dict(_LABEL.findall(name))


def total(samples: Samples, name: str) -> float:
    """The sum of a metric's samples."""
    return sum(value for _, value in labelled(samples, name))


def at_rest(samples: Samples) -> Sequence[str]:
    """What still waits or runs."""
    gauges = (
        "weir_queue_requests",
        "weir_running_requests",
        "weir_preprocess_queue_requests",
        "weir_parse_queue_requests",
    )
    left = [
        f"{name}{labels}: expected 0 at rest, got {value:g}"
        for name in gauges
        for labels, value in labelled(samples, name)
        if value
    ]
    for method, (started, handled) in calls_of(samples).items():
        if method.startswith("Model") and started != handled:
            left.append(f"{method}: {started - handled:g} calls are open at rest")
    return left
