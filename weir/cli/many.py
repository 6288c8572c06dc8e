"""Many questions at once, each with its own outcome."""

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
Answer = TypeVar("Answer")

_TRIES = 20


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Answer]):
    """What came of one: an answer, or why there is none."""

    item: Item
    answer: Answer | None = None
    failure: str = ""


def ask_all(
    ask: Callable[[Item], Answer],
    items: Sequence[Item],
    *,
    concurrency: int,
    own: str,
    doing: str,
) -> list[Outcome[Item, Answer]]:
    """Every item's outcome, in order; a failure that is not one item's alone raises.

    Args:
        ask: asks a server about one.
        items: to be asked about.
        concurrency: how many are asked about at once.
        own: how the server begins what it says of the one item of a request.
        doing: what the progress bar says.
    """

    def one(item: Item) -> Outcome[Item, Answer]:
        try:
            return Outcome(item, patiently(lambda: ask(item)))
        except (UsageError, ResourceExhausted) as error:
            return Outcome(item, failure=str(error).removeprefix(f"{item}: "))
        except InvalidArgument as error:
            if not str(error).startswith(own):
                raise
            return Outcome(item, failure=str(error).removeprefix(own))

    console = Console(stderr=True)
    with ThreadPoolExecutor(min(concurrency, len(items))) as threads:
        return list(
            track(
                threads.map(one, items),
                doing,
                total=len(items),
                console=console,
                transient=True,
                disable=len(items) == 1 or not console.is_terminal,
            )
        )


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask again when the server is full and says when to come back."""
    for _ in range(_TRIES - 1):
        try:
            return ask()
        except ResourceExhausted as error:
            if error.retry_after_s is None:
                raise
            time.sleep(error.retry_after_s)
    return ask()


def raise_failures(outcomes: Sequence[Outcome[Item, Answer]], what: str) -> None:
    """Name those that failed on standard error; WeirError if there are any."""
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        sys.stderr.write(f"weir: {_shortened(str(outcome.item))}: {outcome.failure}\n")
    if failed:
        raise WeirError(f"{len(failed)} of {len(outcomes)} {what}")


def _shortened(text: str, limit: int = 200) -> str:
    if not text.strip():
        return repr(text)
    return text if len(text) <= limit else f"{text[:limit]}…"
