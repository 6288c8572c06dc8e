"""Planted bugs: a server with one bug, which the soak must catch.

    python -m tests.soak.planted NAME MODELS FLAGS...

`plant` changes classes of the server in this process, before it serves. The product has no switch
for it. A bug whose place is gone raises `PlantError`: it must be planted elsewhere, or be removed.
"""

import itertools
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SOMETIMES = 40
"""A bug that is planted in one of so many requests or batches."""

_LEAKED_BYTES = 256 << 10


class PlantError(Exception):
    """The place of a planted bug does not exist any more."""


def replace(owner: Any, attribute: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by what `make` makes of it.

    Raises:
        PlantError: there is no such attribute.
    """
    original = vars(owner).get(attribute)
    if original is None:
        raise PlantError(f"{owner.__module__}.{owner.__name__} has no attribute {attribute!r}")
    setattr(owner, attribute, make(original))


def now_and_then(every: int = SOMETIMES) -> Callable[[], bool]:
    """True in one of `every` calls; from several threads."""
    numbers = itertools.count(1)
    return lambda: next(numbers) % every == 0


def _swap_rows() -> None:
    """Two requests of a batch get each other's rows."""
    from weir.server.scheduling.scheduler import Scheduler

    is_due = now_and_then(10)

    def make(original: Any) -> Any:
        def parts(self: Any, outputs: Any, inputs: Any) -> Any:
            found = original(self, outputs, inputs)
            if len(found) > 1 and is_due():
                found[0], found[1] = found[1], found[0]
            return found

        return parts

    replace(Scheduler, "_parts", make)


def _drop_answer() -> None:
    """A request that has run is not answered."""
    from weir.server.scheduling.request import Request

    is_due = now_and_then()

    def make(original: Any) -> Any:
        def answer(self: Any, outputs: Any) -> None:
            if not is_due():
                original(self, outputs)

        return answer

    replace(Request, "answer", make)


def _answer_twice() -> None:
    """A stream carries an answer twice."""
    from weir.server.services.inference_stream import InferStream

    is_due = now_and_then()

    def make(original: Any) -> Any:
        def send(self: Any, reply: Any, message: bytes) -> Any:
            if is_due():
                self._call.send(message, lambda: None)
            return original(self, reply, message)

        return send

    replace(InferStream, "send", make)


def _stale_session() -> None:
    """After a reload, the version before answers under the new one's name."""
    from weir.server.scheduling.scheduler import Scheduler

    former: dict[str, Any] = {}

    def make(original: Any) -> Any:
        def init(self: Any, name: str, run: Any, **options: Any) -> None:
            # The golden test has the session itself, so it does not see the former one.
            original(self, name, former.get(name, run), **options)
            former[name] = run

        return init

    replace(Scheduler, "__init__", make)


def _flip_bit() -> None:
    """A bit of an output is flipped after a run."""
    from weir.server.scheduling.scheduler import Scheduler

    is_due = now_and_then()

    def make(original: Any) -> Any:
        def outputs(self: Any, batch: Any, joined: Any) -> Any:
            found = original(self, batch, joined)
            if is_due():
                name = next(iter(found))
                changed = found[name].copy()
                changed.view("u1").reshape(-1)[0] ^= 1
                found[name] = changed
            return found

        return outputs

    replace(Scheduler, "_outputs", make)


def _leak_memory() -> None:
    """Each request leaves some memory behind."""
    from weir.server.scheduling.request import Request

    leaked: list[bytes] = []

    def make(original: Any) -> Any:
        def answer(self: Any, outputs: Any) -> None:
            leaked.append(b"x" * _LEAKED_BYTES)
            original(self, outputs)

        return answer

    replace(Request, "answer", make)


def _leak_descriptor() -> None:
    """Each cancelled request leaves an open file behind."""
    from weir.server.scheduling.scheduler import Scheduler

    def make(original: Any) -> Any:
        def cancel(self: Any, request: Any) -> None:
            os.open(os.devnull, os.O_RDONLY)
            original(self, request)

        return cancel

    replace(Scheduler, "cancel", make)


def _skip_counter() -> None:
    """A batch is not counted."""
    from weir.server.telemetry.model_stats import ModelStats

    is_due = now_and_then()

    def make(original: Any) -> Any:
        def batch_ran(self: Any, requests: Any, times: Any, tokens: Any) -> None:
            if not is_due():
                original(self, requests, times, tokens)

        return batch_ran

    replace(ModelStats, "batch_ran", make)


def _run_expired() -> None:
    """A request is run although its deadline passed while it waited."""
    from weir.server.scheduling.scheduler import Scheduler

    def make_submit(original: Any) -> Any:
        def submit(self: Any, request: Any) -> None:
            request.deadline_s += 3600.0
            original(self, request)

        return submit

    def make_cancel(_original: Any) -> Any:
        return lambda _self, _request: None

    replace(Scheduler, "submit", make_submit)
    replace(Scheduler, "cancel", make_cancel)


def _lose_at_stop() -> None:
    """SIGTERM ends the process without a drain."""
    from weir.server.app import App

    def make(_original: Any) -> Any:
        def stop(_self: Any) -> None:
            os._exit(0)

        return stop

    replace(App, "stop", make)


def _wrong_status() -> None:
    """An invalid request is told to come again."""
    from weir.server.errors import InvalidRequest, ModelNotReady
    from weir.server.transport.status import CODE_OF

    if InvalidRequest not in CODE_OF:
        raise PlantError("weir.server.transport.status.CODE_OF has no InvalidRequest")
    CODE_OF[InvalidRequest] = CODE_OF[ModelNotReady]


def _stuck_gauge() -> None:
    """A request that was answered counts as running for ever."""
    from weir.server.scheduling.request_queue import RequestQueue

    is_due = now_and_then()

    def make(original: Any) -> Any:
        def leaving(self: Any, requests: Any) -> Any:
            if is_due():
                self.answering += 1
            return original(self, requests)

        return leaving

    replace(RequestQueue, "leaving", make)


def _ended_twice() -> None:
    """A call that ended is counted twice."""
    from weir.server.transport.call_stats import MethodStats

    def make(original: Any) -> Any:
        def ended(self: Any, code: int, seconds: float) -> None:
            original(self, code, seconds)
            original(self, code, seconds)

        return ended

    replace(MethodStats, "ended", make)


def _hidden_exception() -> None:
    """A batch fails after its requests are answered: only the log has it."""
    from weir.server.scheduling.scheduler import Scheduler

    is_due = now_and_then()

    def make(original: Any) -> Any:
        def process(self: Any, batch: Any, cut_s: float) -> Any:
            last = original(self, batch, cut_s)
            if is_due():
                raise RuntimeError("planted")
            return last

        return process

    replace(Scheduler, "_process", make)


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """A bug, and what catches it.

    Attributes:
        plant: changes the server's classes.
        invariants: one of them must be found broken.
        faults: which the schedule of its run must have.
    """

    plant: Callable[[], None]
    invariants: frozenset[str]
    faults: tuple[str, ...] = ()


def _bug(plant: Callable[[], None], *invariants: str, faults: tuple[str, ...] = ()) -> PlantedBug:
    return PlantedBug(plant, frozenset(invariants), faults)


BUGS: Mapping[str, PlantedBug] = {
    "swap-rows": _bug(_swap_rows, "I2"),
    "drop-answer": _bug(_drop_answer, "I1", "I6"),
    "answer-twice": _bug(_answer_twice, "I1"),
    "stale-session": _bug(_stale_session, "I2", faults=("reload_good",)),
    "flip-bit": _bug(_flip_bit, "I2"),
    "leak-memory": _bug(_leak_memory, "I7"),
    "leak-descriptor": _bug(_leak_descriptor, "I7"),
    "skip-counter": _bug(_skip_counter, "I4"),
    "run-expired": _bug(_run_expired, "I5"),
    "lose-at-stop": _bug(_lose_at_stop, "I1", faults=("sigterm",)),
    "wrong-status": _bug(_wrong_status, "I6"),
    "stuck-gauge": _bug(_stuck_gauge, "I3"),
    "ended-twice": _bug(_ended_twice, "I8"),
    "hidden-exception": _bug(_hidden_exception, "I10"),
}


def plant(name: str) -> None:
    """Plant a bug in this process.

    Raises:
        PlantError: its place does not exist any more.
    """
    BUGS[name].plant()


def main() -> None:
    """Serve with a planted bug."""
    name, arguments = sys.argv[1], sys.argv[2:]
    # gRPC core reads it when it is first imported, which the planting does; see weir.server.
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
    try:
        plant(name)
    except (PlantError, ImportError) as error:
        sys.exit(f"planted bug {name}: {error}")
    from weir.server.__main__ import main as serve

    serve(arguments)


if __name__ == "__main__":
    main()
