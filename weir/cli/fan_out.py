"""Fan-out: one call per item, many at a time, each with its own outcome."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from weir.cli.error_hints import suggest_verb
from weir.client.errors import InvalidArgument, ResourceExhausted, UsageError, WeirError

if TYPE_CHECKING:
    from weir.client.client import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """The result of one item's call, or the reason of its failure."""

    item: Item
    result: Result | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class TaskVerb(Generic[Result]):
    """A verb that sends each item in a call of its own, and how it prints the results.

    Attributes:
        item: "picture" or "text", as in the JSON and the messages.
        doing: title of the progress bar.
        done: the participle for the summary of failures.
        heads: of the table; the first one is that of the item, or of a part of the result.
        rows: the table's cells from the item's text and its result.
        to_json: the result's JSON fields.
    """

    name: str
    item: str
    doing: str
    done: str
    heads: Sequence[str]
    rows: Callable[[str, Result], Iterable[Sequence[str]]]
    to_json: Callable[[Result], dict[str, object]]

    def run(
        self,
        call: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        client: "Client",
        model: str,
        concurrency: int,
        as_json: bool,
    ) -> None:
        """Call the server for each item and print the outcomes in order; WeirError if one failed.

        A failure that concerns all items raises at once.
        """
        with suggest_verb(client, model, self.name):
            outcomes = _call_each(call, items, concurrency, f"{self.item}s[0]: ", self.doing)
        if as_json:
            # Only ASCII can write a path that is not UTF-8.
            is_path = isinstance(items[0], Path)
            typer.echo(json.dumps(list(map(self._entry, outcomes)), ensure_ascii=is_path))
        else:
            Console().print(self._table(outcomes, model))
        raise_failures(outcomes, f"{self.item}s could not be {self.done}")

    def _entry(self, outcome: Outcome[Item, Result]) -> dict[str, object]:
        result = outcome.result
        fields = {"error": outcome.failure} if result is None else self.to_json(result)
        return {self.item: str(outcome.item), **fields}

    def _table(self, outcomes: Sequence[Outcome[Item, Result]], model: str) -> Table:
        table = Table(title=model)
        for head in self.heads:
            is_number = head == "probability"
            table.add_column(head, overflow="fold", justify="right" if is_number else "left")
        for outcome in outcomes:
            item = escape(str(outcome.item))
            if outcome.result is None:
                named = [item] if self.heads[0] == self.item else []
                table.add_row(*named, f"[red]{escape(outcome.failure)}[/]")
            else:
                for cells in self.rows(item, outcome.result):
                    table.add_row(*cells)
            table.add_section()
        return table


def _call_each(
    call: Callable[[Item], Result],
    items: Sequence[Item],
    concurrency: int,
    item_prefix: str,
    progress: str,
) -> list[Outcome[Item, Result]]:
    """The outcomes in order; `item_prefix` begins the messages that concern one item only."""

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
