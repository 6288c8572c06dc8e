"""Fan-out: one call per item, many at a time, each with its own outcome."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Console
from rich.progress import track

from weir.client.errors import InvalidArgument, ResourceExhausted, UsageError, WeirError

Item = TypeVar("Item")
Result = TypeVar("Result")

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """The result of one item's call, or the reason of its failure."""

    item: Item
    result: Result | None = None
    failure: str = ""


def call_each(
    call: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    concurrency: int,
    item_prefix: str,
    progress: str,
) -> list[Outcome[Item, Result]]:
    """Call the server for each item and return the outcomes in order.

    A failure that concerns all items raises.

    Args:
        call: makes one item's call.
        items: arguments of the calls.
        concurrency: calls in flight.
        item_prefix: prefix of the server's messages that concern one item only.
        progress: title of the progress bar.
    """

    def outcome(item: Item) -> Outcome[Item, Result]:
        try:
            return Outcome(item, with_retries(lambda: call(item)))
        except (UsageError, ResourceExhausted) as error:
            return Outcome(item, failure=str(error).removeprefix(f"{item}: "))
        except InvalidArgument as error:
            if not str(error).startswith(item_prefix):
                raise
            return Outcome(item, failure=str(error).removeprefix(item_prefix))

    console = Console(stderr=True)
    with ThreadPoolExecutor(min(concurrency, len(items))) as threads:
        return list(
            track(
                threads.map(outcome, items),
                progress,
                total=len(items),
                console=console,
                transient=True,
                disable=len(items) == 1 or not console.is_terminal,
            )
        )


def with_retries(call: Callable[[], Result]) -> Result:
    """Repeat a call that the server rejects as overloaded, after the delay that it gives."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return call()
        except ResourceExhausted as error:
            if error.retry_after_s is None:
                raise
            time.sleep(error.retry_after_s)
    return call()


def raise_failures(outcomes: Sequence[Outcome[Item, Result]], summary: str) -> None:
    """Print each failure to standard error; WeirError with their number if there are any."""
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        sys.stderr.write(f"weir: {_shortened(str(outcome.item))}: {outcome.failure}\n")
    if failed:
        raise WeirError(f"{len(failed)} of {len(outcomes)} {summary}")


def _shortened(text: str, limit: int = 200) -> str:
    if not text.strip():
        return repr(text)
    return text if len(text) <= limit else f"{text[:limit]}…"
