"""Deadline order: waiting requests, the most urgent first. Pure: no clock, lock or thread.

Rules:
- Requests fall into classes by their time limit: from a bound up to four times that bound.
- Requests of one class keep the order of their arrival. gRPC rounds deadlines, so those of equal
  limits differ by a percent; ordinary traffic is not reordered by that.
- The first is the one whose arrival plus the bound of its class is earliest. A request with a
  shorter limit so overtakes others, and each comes first before its own deadline passes.
- `by_arrival` is for every `FAIR_CUTS`-th batch. Requests with long limits, or with none of their
  own, so keep a share of the model while more urgent ones go on arriving.
"""

import heapq
import math
from collections.abc import Callable, Collection, Iterator
from itertools import chain, groupby
from typing import Generic, Protocol, TypeVar

FAIR_CUTS = 4

# The bounds are no round numbers, such as clients choose: 0.1, 1, 5, 30 and 60 s.
_BOUND_S = 0.68
_MIN_S = 0.001


class Timed(Protocol):
    """The part of a request that its place depends on.

    Attributes:
        work: its tokens, or its rows if they have no lengths.
    """

    rows: int
    work: int
    queued_s: float
    deadline_s: float


R = TypeVar("R", bound=Timed)


def _number_of(limit_s: float) -> int:
    """The class of a time limit; class 0 starts at `_BOUND_S`, and each is four times the last."""
    return (math.frexp(max(limit_s, _MIN_S) / _BOUND_S)[1] - 1) >> 1


class _Class(Generic[R]):
    """Requests with similar time limits, in the order of their arrival."""

    __slots__ = ("bound_s", "end_s", "number", "requests", "rows", "work")

    def __init__(self, number: int) -> None:
        self.number = number
        self.bound_s = _BOUND_S * 4.0**number
        self.end_s = 4.0 * self.bound_s
        self.requests: dict[R, None] = {}
        self.rows = self.work = 0

    def by_urgency(self) -> Iterator[tuple[float, R]]:
        return ((request.queued_s + self.bound_s, request) for request in self.requests)

    def by_arrival(self) -> Iterator[tuple[float, R]]:
        return ((request.queued_s, request) for request in self.requests)


class DeadlineOrder(Collection[R]):
    """Waiting requests; iterated, the most urgent comes first.

    Attributes:
        rows: of all of them.
        work: of all of them.
    """

    __slots__ = ("_classes", "_last", "rows", "work")

    def __init__(self) -> None:
        # Those that have requests: one, as a rule.
        self._classes: dict[int, _Class[R]] = {}
        # The class that was used last, which is most often the next one too.
        self._last: _Class[R] = _Class(0)
        self.rows = self.work = 0

    def __len__(self) -> int:
        return sum([len(each.requests) for each in self._classes.values()])

    def __bool__(self) -> bool:
        return bool(self._classes)

    def __contains__(self, request: object) -> bool:
        return any(request in each.requests for each in self._classes.values())

    def __iter__(self) -> Iterator[R]:
        return self._merged(_Class.by_urgency)

    def by_arrival(self) -> Iterator[R]:
        """The requests, the oldest first."""
        return self._merged(_Class.by_arrival)

    def unordered(self) -> Iterator[R]:
        """The requests in any order; faster where limits differ."""
        return chain.from_iterable(each.requests for each in self._classes.values())

    def oldest_s(self) -> float:
        """When the oldest was queued, if there is one."""
        return min([next(iter(each.requests)).queued_s for each in self._classes.values()])

    def add(self, request: R) -> None:
        """Add a request that has just arrived."""
        # The first look of `_class_of`, without a call: each request passes here.
        own = self._last
        if not own.bound_s <= request.deadline_s - request.queued_s < own.end_s:
            own = self._class_of(request)
        if not own.requests:
            self._classes[own.number] = own
        own.requests[request] = None
        rows, work = request.rows, request.work
        own.rows += rows
        own.work += work
        self.rows += rows
        self.work += work

    def remove(self, request: R) -> bool:
        """Remove a request; False if it is not here."""
        own = self._class_of(request)
        if request not in own.requests:
            return False
        self._remove((request,), own)
        return True

    def remove_all(self, requests: Collection[R]) -> None:
        """Remove requests that are here."""
        if len(self._classes) == 1:
            (only,) = self._classes.values()
            self._remove(requests, only)
            return
        for own, group in groupby(requests, self._class_of):
            self._remove(tuple(group), own)

    def _remove(self, requests: Collection[R], own: _Class[R]) -> None:
        rows = work = 0
        for request in requests:
            del own.requests[request]
            rows += request.rows
            work += request.work
        if not own.requests:
            del self._classes[own.number]
        own.rows -= rows
        own.work -= work
        self.rows -= rows
        self.work -= work

    def ahead(self, request: Timed) -> tuple[float, float]:
        """The rows that go before a request that arrives now, and their work; an estimate."""
        own = self._class_of(request)
        if self.rows == own.rows:
            return self.rows, self.work
        now = request.queued_s
        rows = work = 0.0
        for each in self._classes.values():
            # Of a class with longer limits, those that arrived so much earlier. Between the oldest
            # and now, arrivals are taken as even.
            earlier_s = each.bound_s - own.bound_s
            share = 1.0
            if earlier_s > 0:
                waited_s = now - next(iter(each.requests)).queued_s
                share = max(0.0, waited_s - earlier_s) / waited_s if waited_s > 0 else 0.0
            rows += share * each.rows
            work += share * each.work
        # Others go before it in the batches that are cut by arrival.
        others = min(self.rows - rows, rows / (FAIR_CUTS - 1))
        if others > 0:
            work += others * (self.work - work) / (self.rows - rows)
            rows += others
        return rows, work

    def _class_of(self, request: Timed) -> _Class[R]:
        limit_s = request.deadline_s - request.queued_s
        own = self._last
        if not own.bound_s <= limit_s < own.end_s:
            number = _number_of(limit_s)
            own = self._last = self._classes.get(number) or _Class(number)
        return own

    def _merged(self, keyed: Callable[[_Class[R]], Iterator[tuple[float, R]]]) -> Iterator[R]:
        if len(self._classes) == 1:
            (only,) = self._classes.values()
            return iter(only.requests)
        merged = heapq.merge(*map(keyed, self._classes.values()), key=_key)
        return (request for _, request in merged)


def _key(keyed: tuple[float, object]) -> float:
    return keyed[0]
