"""Load for tests of several servers: callers that call until they are stopped, counted."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

import weir
from tests.helpers.waiting import LIMIT_S, wait_until


@dataclass
class Load:
    """Callers, each in a thread of its own.

    Attributes:
        answers: how many calls were answered, and right.
        failures: how the others ended.
        is_over: whether callers must end.
    """

    answers: int = 0
    failures: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self, callers: Iterable[Callable[[], object]]) -> Iterator[None]:
        """Start the callers, each of which ends when the load is over: at the end of the block."""
        threads = [threading.Thread(target=caller) for caller in callers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join()

    def repeat(self, call: Callable[[], object]) -> None:
        """One caller: call again when a call has ended."""
        while not self.is_over.is_set():
            with self.counting():
                call()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count a call, by its errors and by a failed check of its answer."""
        try:
            yield
        except grpc.RpcError as error:
            self.failures.append(f"{error.code().name}: {error.details()}")
        except (weir.WeirError, AssertionError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        else:
            with self._lock:
                self.answers += 1

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        return self.answers + len(self.failures)

    def wait_for(self, more: int) -> None:
        """Return once so many more calls have ended, and one of them well."""
        answers, wanted = self.answers, self.ended + more
        wait_until(
            lambda: self.answers > answers and self.ended >= wanted,
            f"{wanted} calls have not ended",
            LIMIT_S + more / 100,
        )

    def require_no_failure(self) -> None:
        """Fail the test if a call failed."""
        assert not self.failures, f"{len(self.failures)} of {self.ended}: {self.failures[:5]}"
