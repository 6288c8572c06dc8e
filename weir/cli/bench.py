"""`weir bench`: load test of a running server."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from weir.cli.error_hints import connect, requires, suggest_models
from weir.cli.options import ServerOptions, Timeout, Version, duration_s, takes_server
from weir.client import defaults
from weir.client.errors import UsageError, WeirError

if TYPE_CHECKING:
    from weir.bench.tally import Summary

_load_option = partial(typer.Option, rich_help_panel="The load")
_request_option = partial(typer.Option, rich_help_panel="The request")


@takes_server
def bench(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    server: ServerOptions,
    concurrency: Annotated[int, _load_option("--concurrency", "-c", help="Calls in flight.")] = 32,
    connections: Annotated[int, _load_option(help="Connections that share the calls.")] = 1,
    duration: Annotated[str, _load_option("--duration", "-d", help="How long to measure.")] = "10s",
    requests: Annotated[
        int | None, _load_option("--requests", "-n", help="Measure this number of calls instead.")
    ] = None,
    rate: Annotated[
        float | None,
        _load_option(
            help="Open loop: calls per second, at random times that ignore the server's pace."
        ),
    ] = None,
    warmup: Annotated[str, _load_option(help="How long to call before measuring.")] = "1s",
    processes: Annotated[int, _load_option(help="Processes that share the load.")] = 1,
    seed: Annotated[int, _load_option(help="Seed of random data and times.")] = 0,
    rows: Annotated[int, _request_option(min=1, help="Rows per request.")] = 1,
    inputs: Annotated[
        list[str] | None,
        _request_option(
            "--input",
            "-i",
            metavar="NAME=VALUE",
            help="A .npy file or a JSON array; by default random data.",
        ),
    ] = None,
    shapes: Annotated[
        list[str] | None,
        _request_option(
            "--shape", metavar="NAME:DIMS", help="Sizes of variable axes, as name:28,28,1."
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
        from weir.bench import payload, report
        from weir.bench.generator import run
        from weir.bench.plan import Plan
        from weir.bench.tally import summarise
        from weir.cli.inputs import parse_inputs
        from weir.client import rpc
    with connect(server) as client, suggest_models(client, model):
        metadata = client.metadata(model, version)
    given = parse_inputs(inputs or [], metadata)
    sizes = payload.parse_shapes(shapes or [])
    arrays = payload.complete(given, metadata, rows=rows, shapes=sizes, seed=seed)
    call = rpc.infer(rpc.infer_request(model, arrays, version=version))
    plan = Plan(
        target=server.target,
        path=call.path,
        body=call.body,
        concurrency=concurrency,
        connections=connections,
        duration_s=duration_s(duration),
        requests=requests,
        rate_per_s=rate,
        warmup_s=duration_s(warmup),
        timeout_s=timeout,
        seed=seed,
        tls=server.client_tls(),
        token_file=server.token_file,
        headers=server.headers(),
    )
    measured_s = None if requests else plan.duration_s
    rows = payload.row_count(arrays, metadata)
    summary = summarise(run(plan, processes), duration_s=measured_s, rows=rows)
    command = ["weir", *sys.argv[1:]]
    record = report.record(plan, summary, rows=rows, processes=processes, command=command)
    text = json.dumps(record, indent=2, default=str)  # paths
    if as_json is not None and str(as_json) == "-":
        typer.echo(text)
    else:
        kind = f"{concurrency} in flight" if rate is None else f"{rate:g}/s"
        console = Console(highlight=False)
        console.print(
            f"{model} at {server.target}: {kind}, {rows} row(s) a request, "
            f"connections: {connections}, processes: {processes}",
            soft_wrap=True,
        )
        console.print(report.table(summary))
        console.print(report.messages(summary), end="", soft_wrap=True)
        if as_json is not None:
            _write(as_json, text)
    _require_answers(summary)


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
