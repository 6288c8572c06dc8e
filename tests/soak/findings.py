"""A finding: something that breaks an invariant of a run."""

from dataclasses import dataclass

INVARIANTS = {
    "I1": "each attempt ends once, at the latest soon after its deadline",
    "I2": "an answer is right, and of the version that it names",
    "I3": "at rest nothing waits and nothing runs",
    "I4": "the counters, the access log and the clients agree",
    "I5": "no request is run after its deadline, and none twice",
    "I6": "each failure is one that the schedule allows",
    "I7": "memory, descriptors and threads return to where they were",
    "I8": "/metrics is well-formed, and no counter falls",
    "I9": "a server that says it is ready answers",
    "I10": "the log has no traceback",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken invariant.

    Attributes:
        at_s: on the monotonic clock.
        began_s: when it began, if it took a while.
        is_excusable: whether a fault that was made at that time explains it.
    """

    invariant: str
    at_s: float
    what: str
    began_s: float | None = None
    is_excusable: bool = False
