"""Part files: the scores of a run that is not complete, and the one file that they become.

    scores.parquet.parts/
      run.json          what the scores depend on
      00000000.arrow    the scores of a part, by the number of its first row
    scores.parquet      written when all parts are there; then the folder is removed

Rules:
- A part and the whole are written under another name, flushed to the disk, and renamed: a file that
  has its name is complete, however the run ended.
- The whole depends on the parts alone, and a part on its own rows alone. A resumed run therefore
  writes the same bytes as one that was not interrupted.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from weir.client.errors import UsageError
from weir.score.errors import ScoringFailed

_FOLDER_SUFFIX = ".parts"
_RUN_FILE = "run.json"
_PART_SUFFIX = ".arrow"
# A row group of the whole: many rows, as long as they are not large.
_GROUP_ROWS = 1 << 17
_GROUP_BYTES = 32 << 20


class PartFiles:
    """The part files of one run.

    Args:
        out: the file to write in the end.
        run: what the scores depend on.
    """

    def __init__(self, out: Path, run: Mapping[str, object]) -> None:
        self.out = out
        self.folder = out.with_name(out.name + _FOLDER_SUFFIX)
        self._run = json.loads(json.dumps(run))

    def open(self, *, resume: bool) -> None:
        """Make the folder, or check that it is of the same run.

        Raises:
            UsageError: there are scores already, or they are of another run.
        """
        if self.out.exists():
            raise UsageError(f"--out: {self.out}: expected no such file, got one; remove it first")
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            _write(self.folder / _RUN_FILE, json.dumps(self._run, indent=2).encode() + b"\n")
            return
        if not resume:
            raise UsageError(
                f"--out: {self.folder} holds a run that is not complete: give --resume to go on, "
                "or remove the folder"
            )
        self._check_run()

    def _check_run(self) -> None:
        file = self.folder / _RUN_FILE
        try:
            found = json.loads(file.read_bytes())
        except FileNotFoundError:
            # The folder was made, and the run ended before it wrote anything.
            _write(file, json.dumps(self._run, indent=2).encode() + b"\n")
            return
        except ValueError as error:
            raise UsageError(f"{file}: expected JSON; remove the folder to start again") from error
        if found == self._run:
            return
        names = [name for name in {**self._run, **found} if self._run.get(name) != found.get(name)]
        name = names[0]
        raise UsageError(
            f"--resume: {self.folder} is of a run with another {name}: "
            f"expected {found.get(name)!r}, got {self._run.get(name)!r}"
        )

    def has(self, start: int) -> bool:
        """Whether the part that begins at a row is there."""
        return self._path(start).exists()

    def write(self, start: int, table: pa.Table) -> None:
        """Write the scores of a part."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        _write(self._path(start), sink.getvalue())

    def finish(self, starts: Sequence[int], schema: pa.Schema) -> int:
        """Write the whole of the parts in this order; returns the number of rows with errors."""
        whole = self.out.with_name(self.out.name + ".tmp")
        errors = 0
        with pq.ParquetWriter(whole, schema, compression="zstd") as writer:
            for table in self._groups(starts, schema):
                errors += len(table) - table.column(schema.names[-1]).null_count
                writer.write_table(table, row_group_size=len(table))
        _flush(whole)
        whole.replace(self.out)
        shutil.rmtree(self.folder)
        return errors

    def _groups(self, starts: Sequence[int], schema: pa.Schema) -> Iterator[pa.Table]:
        """The parts, joined to row groups."""
        held: list[pa.Table] = []
        for start in starts:
            held.append(self._read(start, schema))
            if (
                sum(map(len, held)) >= _GROUP_ROWS
                or sum(table.nbytes for table in held) >= _GROUP_BYTES
            ):
                yield pa.concat_tables(held).combine_chunks()
                held = []
        if held:
            yield pa.concat_tables(held).combine_chunks()

    def _read(self, start: int, schema: pa.Schema) -> pa.Table:
        path = self._path(start)
        try:
            with pa.memory_map(str(path)) as file:
                table = pa.ipc.open_file(file).read_all()
        except (pa.ArrowException, OSError) as error:
            raise ScoringFailed(f"{path}: expected a part of the scores: {error}") from error
        if table.schema != schema:
            raise ScoringFailed(
                f"{path}: expected the columns {schema.names}, got {table.schema.names}"
            )
        return table

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:012}{_PART_SUFFIX}"


def _write(path: Path, data: bytes | pa.Buffer) -> None:
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
