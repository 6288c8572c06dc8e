"""`weir bench`: load test of a running server."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from weir.cli.error_hints import connect, requires, suggest_models
from weir.cli.options import Target, Timeout, Version, duration_s
from weir.client import defaults
from weir.client.errors import UsageError, WeirError

if TYPE_CHECKING:
    from weir.bench.plan import Plan
    from weir.bench.tally import Summary

LOAD, REQUEST = "The load", "The request"


def bench(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    target: Target = defaults.TARGET,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", help="Calls in flight.", rich_help_panel=LOAD)
    ] = 32,
    connections: Annotated[
        int, typer.Option(help="Connections that share the calls.", rich_help_panel=LOAD)
    ] = 1,
    duration: Annotated[
        str, typer.Option("--duration", "-d", help="How long to measure.", rich_help_panel=LOAD)
    ] = "10s",
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests", "-n", help="Measure this number of calls instead.", rich_help_panel=LOAD
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Open loop: calls per second, at random times that ignore the server's pace.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    warmup: Annotated[
        str, typer.Option(help="How long to call before measuring.", rich_help_panel=LOAD)
    ] = "1s",
    processes: Annotated[
        int, typer.Option(help="Processes that share the load.", rich_help_panel=LOAD)
    ] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of random data and times.", rich_help_panel=LOAD)
    ] = 0,
    rows: Annotated[
        int, typer.Option(min=1, help="Rows per request.", rich_help_panel=REQUEST)
    ] = 1,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="A .npy file or a JSON array; by default random data.",
            rich_help_panel=REQUEST,
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME:DIMS",
            help="Sizes of variable axes, as name:28,28,1.",
            rich_help_panel=REQUEST,
        ),
    ] = None,
    version: Version = "",
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write the result to this file; - prints it.")
    ] = None,
) -> None:
    """Load a running server and print throughput and latency percentiles.

    Closed loop by default: exactly --concurrency calls in flight. With --rate an open loop:
    latency counts from the time a call was due, so a stall shows in every call that it delayed.
    Exit code 1 if no call succeeded, or calls failed for another reason than overload.
    """
    with requires("client"):
        from weir.bench.generator import run
        from weir.bench.plan import Plan
        from weir.bench.tally import summarise
    request = _request(
        target, model, version, inputs=inputs or [], shapes=shapes or [], rows=rows, seed=seed
    )
    plan = Plan(
        target=target,
        path=request.path,
        body=request.body,
        concurrency=concurrency,
        connections=connections,
        duration_s=duration_s(duration),
        requests=requests,
        rate_per_s=rate,
        warmup_s=duration_s(warmup),
        timeout_s=timeout,
        seed=seed,
    )
    measured = run(plan, processes)
    measured_s = None if requests else plan.duration_s
    summary = summarise(measured, duration_s=measured_s, rows=request.rows)
    _report(plan, summary, request, processes, as_json)
    _require_answers(summary)


@dataclass(frozen=True, slots=True)
class _Request:
    model: str
    path: str
    body: bytes
    rows: int


def _request(
    target: str,
    model: str,
    version: str,
    *,
    inputs: list[str],
    shapes: list[str],
    rows: int,
    seed: int,
) -> _Request:
    """The request that every call sends."""
    from weir.bench import payload
    from weir.cli.inputs import parse_inputs
    from weir.client.rpc import infer, infer_request

    with connect(target) as client, suggest_models(client, model):
        metadata = client.metadata(model, version)
    given = parse_inputs(inputs, metadata)
    sizes = payload.parse_shapes(shapes)
    arrays = payload.complete(given, metadata, rows=rows, shapes=sizes, seed=seed)
    call = infer(infer_request(model, arrays, version=version))
    return _Request(model, call.path, call.body, payload.row_count(arrays, metadata))


def _report(
    plan: "Plan", summary: "Summary", request: _Request, processes: int, out: Path | None
) -> None:
    from weir.bench import report

    record = report.record(
        plan, summary, rows=request.rows, processes=processes, command=["weir", *sys.argv[1:]]
    )
    text = json.dumps(record, indent=2)
    if out is not None and str(out) == "-":
        typer.echo(text)
        return
    kind = f"{plan.concurrency} in flight" if plan.rate_per_s is None else f"{plan.rate_per_s:g}/s"
    console = Console(highlight=False)
    console.print(
        f"{request.model} at {plan.target}: {kind}, {request.rows} row(s) a request, "
        f"connections: {plan.connections}, processes: {processes}",
        soft_wrap=True,
    )
    console.print(report.table(summary))
    if out is not None:
        _write(out, text)


def _require_answers(summary: "Summary") -> None:
    failures = summary.failures if summary.answered else summary.errors
    if failures or not summary.answered:
        calls = summary.answered + sum(summary.errors.values())
        counts = ", ".join(f"{status} {count:,}" for status, count in sorted(failures.items()))
        raise WeirError(f"of {calls:,} calls failed: {counts or 'none, for none ended'}")


def _write(out: Path, text: str) -> None:
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{out}: {error.strerror}") from error
