"""`python -m weir.score`, and what `weir score` calls."""

import gc
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from weir.cli.error_hints import connect, suggest_models
from weir.cli.options import ServerOptions, Timeout, Version, takes_server
from weir.client import defaults
from weir.client.errors import UsageError, WeirError

if TYPE_CHECKING:
    from weir.score.binding import Binding
    from weir.score.rows import Scorer
    from weir.score.scoring import Scored
    from weir.score.sources.base import Source

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_LINE_EVERY_S = 10.0
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")
_IN_FLIGHT = 32


def main(arguments: Sequence[str] | None = None, program: str = "python -m weir.score") -> int:
    """Run the command line; returns the exit code.

    Raises:
        WeirError: of `weir score`, which prints it.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(score)
    try:
        app(args=arguments, prog_name=program)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else EXIT_FAILED
    return 0


@takes_server
def score(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A bundle, a model's directory or an ONNX file; or the name of a model of the "
            "server of --target."
        ),
    ],
    *,
    source: Annotated[
        Path,
        typer.Option(
            "--in",
            metavar="PATH",
            help="A .parquet, .jsonl, .npz or .txt file, or a folder of pictures or Parquet files.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The Parquet file to write.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=COLUMN",
            help="The column of an input of the model, of text or of picture; may be repeated. "
            "By default the column of the same name.",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column to copy to the output; may be repeated."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A column of the scores: label, probability, tags, … or an output of the model; "
            "may be repeated. By default those of the model's task.",
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Score the I-th of N equal parts of the rows.")
    ] = "1/1",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was not completed.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Batches that run at the same time; by default as many as there are usable cores. "
            f"With --target: calls in flight, by default {_IN_FLIGHT}.",
        ),
    ] = None,
    batch_rows: Annotated[
        int | None,
        typer.Option(min=1, help="The most rows of a batch; by default as the bundle says."),
    ] = None,
    provider: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="Where the model runs.")
    ] = "auto",
    beam_width: Annotated[
        int, typer.Option(min=1, help="Width of the beam search of an encoder-decoder.")
    ] = 1,
    custom_operators: Annotated[
        Path | None, typer.Option(help="A library of custom operators.")
    ] = None,
    version: Version = "",
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
) -> None:
    """Score the rows of a file or a folder, and write a Parquet file with a row for each.

    The order of the rows is kept. A row that cannot be scored has nulls and says why in the column
    `error`. A run that was stopped goes on with --resume, and its output is the same.
    """
    number, count = _read_shard(shard)
    if out.suffix.lower() != ".parquet":
        raise UsageError(f"--out: expected a name that ends in .parquet, got {out}")
    source_of_target = context.get_parameter_source("target")
    is_remote = _is_served(
        model, has_target=source_of_target is not None and source_of_target.name == "COMMANDLINE"
    )
    if is_remote and (batch_rows or custom_operators):
        raise UsageError(
            "--batch-rows, --custom-operators: expected a path, got a model of a server"
        )

    from weir.score.binding import bind, parse_columns  # noqa: PLC0415
    from weir.score.sources.form import open_source  # noqa: PLC0415
    from weir.score.sources.pictures import PicturesSource  # noqa: PLC0415

    named = parse_columns(columns or ())
    rows = open_source(source)
    kept = list(keep or ())
    if isinstance(rows, PicturesSource) and "file" not in kept:
        kept.insert(0, "file")
    if strays := [name for name in kept if name not in rows.columns]:
        raise UsageError(f"--keep {strays[0]}: expected one of {', '.join(rows.columns)}")
    folder = source if source.is_dir() else source.parent

    def run(scorer: "Scorer", binding: "Binding") -> None:
        _run(scorer, binding, rows, out, keep=kept, shard=(number, count), resume=resume)

    if is_remote:
        from weir.score.remote_model import connect as connect_model  # noqa: PLC0415

        with connect(server, timeout) as client, suggest_models(client, model):
            remote = connect_model(client, model, version)
            binding = bind(remote.inputs(), rows, named)
            run(
                remote.scorer(
                    binding,
                    outputs=outputs or (),
                    parallel=threads or _IN_FLIGHT,
                    beam_width=beam_width,
                    folder=folder,
                ),
                binding,
            )
        return
    if version:
        raise UsageError("--version: give the version's directory, or --target")

    from weir.score.local_model import load  # noqa: PLC0415
    from weir.server.runtime.cores import usable_cores  # noqa: PLC0415

    loaded = load(
        Path(model),
        provider=provider,
        batch_rows=batch_rows,
        operator_library=str(custom_operators) if custom_operators else None,
    )
    binding = bind(loaded.inputs(), rows, named)
    run(
        loaded.scorer(
            binding,
            outputs=outputs or (),
            parallel=threads or usable_cores(),
            beam_width=beam_width,
            folder=folder,
        ),
        binding,
    )


def _run(
    scorer: "Scorer",
    binding: "Binding",
    source: "Source",
    out: Path,
    *,
    keep: Sequence[str],
    shard: tuple[int, int],
    resume: bool,
) -> None:
    from weir.score import scoring  # noqa: PLC0415

    start, stop = scoring.shard_of(source.rows, *shard)
    # What is loaded lives until the end; the garbage collector need not visit it again and again.
    gc.freeze()
    began_s = time.monotonic()
    try:
        with _signals(), _progress(stop - start) as advance:
            scored = scoring.score(
                scorer,
                source,
                out,
                binding=binding,
                keep=keep,
                shard=shard,
                resume=resume,
                advance=advance,
            )
    except KeyboardInterrupt:
        sys.stderr.write("weir: stopped; --resume goes on\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OSError as error:
        from weir.score.errors import ScoringFailed  # noqa: PLC0415

        where = f"{error.filename}: " if error.filename else ""
        raise ScoringFailed(f"{where}{error.strerror or error}; --resume goes on") from error
    except WeirError as error:
        if not isinstance(error, UsageError):
            sys.stderr.write("weir: stopped; --resume goes on\n")
        raise
    typer.echo(_summary(scored, out, time.monotonic() - began_s))
    if scored.rows and scored.errors == scored.rows:
        raise typer.Exit(EXIT_FAILED)


def _summary(scored: "Scored", out: Path, seconds: float) -> str:
    speed = (scored.rows - scored.resumed) / max(seconds, 1e-9)
    resumed = f", {scored.resumed:,} of them before" if scored.resumed else ""
    errors = f"; {scored.errors:,} have an error" if scored.errors else ""
    return f"{out}: {scored.rows:,} rows{resumed}, in {seconds:.1f} s ({speed:,.0f} rows/s){errors}"


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        """The rows per second of the last half minute."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f} rows/s")


@contextmanager
def _progress(rows: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else a line every ten seconds; yields the function that advances it."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("score"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    began_s = printed_s = time.monotonic()
    done = first = -1
    with bar:
        shown = bar.add_task("", total=rows)

        def advance(count: int) -> None:
            nonlocal done, first, printed_s
            if first < 0:
                # Rows of an earlier run are no speed of this one.
                done = first = count
                bar.reset(shown, completed=count)
                return
            done += count
            bar.update(shown, completed=done)
            now_s = time.monotonic()
            if not console.is_terminal and now_s - printed_s >= _LINE_EVERY_S:
                printed_s = now_s
                speed = (done - first) / (now_s - began_s)
                left_s = (rows - done) / speed
                sys.stderr.write(
                    f"weir: {done:,} of {rows:,} rows, {speed:,.0f} rows/s, {left_s:.0f} s left\n"
                )

        yield advance


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does; both also in a process that was started without Ctrl-C."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_served(model: str, *, has_target: bool) -> bool:
    """Whether the model is the name of a server's: with --target, or if no such path exists."""
    if has_target:
        return True
    if Path(model).exists():
        return False
    if Path(model).name != model or model.endswith(".onnx"):
        raise UsageError(f"{model}: expected a bundle or an ONNX file, got no such file")
    return True


def _read_shard(text: str) -> tuple[int, int]:
    found = _SHARD.fullmatch(text)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--shard: expected I/N with I from 1 to N, such as 3/8, got {text!r}")
    return number, count


if __name__ == "__main__":
    try:
        sys.exit(main())
    except WeirError as error:
        sys.stderr.write(f"weir: {error}\n")
        sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
