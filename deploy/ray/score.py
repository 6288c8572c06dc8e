"""Offline scoring on a Ray cluster: `weir score` for Parquet files, by Ray Data.

    python deploy/ray/score.py MODEL --in FOLDER --out FOLDER --keep id

Rules:
- Every node has Weir (extra `score`), `ray[data]` and aiohttp.
- MODEL, --in and --out have the same path on every node.
- An actor is a process with one session, which scores one batch at a time on one thread of a CPU.
- Files are read and written by tasks that need a CPU too. If the CPUs that are left after a node
  died do not hold the actors and a task, the run waits for another node.
- Each row is written once, whatever nodes die besides the head and the one that runs this script.
  Ray repeats the tasks of a dead node. The name of a file depends on its task alone, so a repeated
  task replaces the file that it wrote before.
- The order of the rows is kept: that of the files by name.
- The rows are in OUT.parts until the last one is there. A run that failed starts anew, with another
  --out or without the folder.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import ray
import typer
from ray.data import ActorPoolStrategy, DataContext, SaveMode

from weir.client.errors import UsageError, WeirError
from weir.score.binding import Binding, bind, parse_columns
from weir.score.errors import ScoringFailed
from weir.score.local_model import LocalModel, load
from weir.score.rows import ERROR, Scorer, score_table
from weir.score.sources.form import open_source
from weir.score.sources.parquet import ParquetSource

EXIT_FAILED = 1
EXIT_USAGE = 2


class Actor:
    """A loaded model, which scores one table after the other."""

    def __init__(
        self,
        *,
        model: Path,
        binding: Binding,
        outputs: Sequence[str],
        batch_rows: int | None,
        keep: Sequence[str],
        folder: Path,
    ) -> None:
        self._scorer = _scorer(_load(model, batch_rows), binding, outputs, folder)
        self._keep = keep

    def __call__(self, table: pa.Table) -> pa.Table:
        """The kept columns and the scores of a table."""
        return score_table(self._scorer, table, self._keep)


def score(
    model: Annotated[Path, typer.Argument(help="A bundle, a model's directory or an ONNX file.")],
    *,
    source: Annotated[
        Path, typer.Option("--in", metavar="PATH", help="A .parquet file, or a folder of them.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write.")],
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT=COLUMN", help="The column of an input; may be repeated."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column to copy to the output; may be repeated."),
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A column of the scores.")
    ] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help="The most rows of a batch.")] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Actors, one CPU each; by default as Ray scales them."),
    ] = None,
) -> None:
    """Score the rows of Parquet files on a Ray cluster, as `weir score` does."""
    model, source, out = model.resolve(), source.resolve(), out.resolve()
    parts = out.with_name(out.name + ".parts")
    kept = list(keep or ())
    rows = open_source(source)
    if not isinstance(rows, ParquetSource) or not rows.rows:
        raise UsageError(f"--in: {source}: expected rows in Parquet files")
    if found := [folder for folder in (out, parts) if folder.exists()]:
        raise UsageError(f"--out: {found[0]}: expected no such folder, got one; remove it first")
    if strays := [name for name in kept if name not in rows.columns]:
        raise UsageError(f"--keep {strays[0]}: expected one of {', '.join(rows.columns)}")
    folder = source if source.is_dir() else source.parent
    loaded = _load(model, batch_rows)
    binding = bind(loaded.inputs(), rows, parse_columns(columns or ()))
    scorer = _scorer(loaded, binding, outputs or (), folder)

    ray.init()
    DataContext.get_current().execution_options.preserve_order = True
    (
        ray.data.read_parquet([str(file) for file in rows.files], partitioning=None)
        .select_columns(list(dict.fromkeys([*binding.types, *kept])))
        .repartition(target_num_rows_per_block=scorer.part_rows)
        .map_batches(
            Actor,
            fn_constructor_kwargs={
                "model": model,
                "binding": binding,
                "outputs": outputs or (),
                "batch_rows": batch_rows,
                "keep": kept,
                "folder": folder,
            },
            batch_size=scorer.part_rows,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ActorPoolStrategy(size=actors) if actors else ActorPoolStrategy(min_size=1),
        )
        .write_parquet(str(parts), mode=SaveMode.ERROR)
    )
    written = ds.dataset(parts, format="parquet")
    if (count := written.count_rows()) != rows.rows:
        raise ScoringFailed(f"{parts}: expected {rows.rows:,} rows, got {count:,}")
    errors = written.count_rows(filter=pc.field(ERROR).is_valid())
    parts.rename(out)
    typer.echo(f"{out}: {count:,} rows" + (f"; {errors:,} have an error" if errors else ""))
    if errors == count:
        raise typer.Exit(EXIT_FAILED)


def _load(model: Path, batch_rows: int | None) -> LocalModel:
    return load(model, provider="cpu", batch_rows=batch_rows)


def _scorer(loaded: LocalModel, binding: Binding, outputs: Sequence[str], folder: Path) -> Scorer:
    return loaded.scorer(binding, outputs=outputs, parallel=1, beam_width=1, folder=folder)


if __name__ == "__main__":
    try:
        typer.run(score)
    except WeirError as error:
        sys.stderr.write(f"weir: {error}\n")
        sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED)
