"""Part files: the scores of a run that is not complete, and the one file that they become.

    scores.parquet.parts/
      run.json            what the scores depend on
      000000000000.arrow  the scores of a part, by the number of its first row
      whole.tmp           the parts so far, as Parquet; begun anew by each run
    scores.parquet      whole.tmp, when all parts are in it; then the folder is removed

Rules:
- A part and the whole are written under another name, flushed to the disk, and renamed: a file that
  has its name is complete, however the run ended.
- The whole depends on the parts alone, and a part on its own rows alone. A resumed run therefore
  writes the same bytes as one that was not interrupted.
- The whole is encoded as its parts come, while other rows are scored.
"""

import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from weir.client.errors import UsageError
from weir.score.columns import is_list
from weir.score.errors import ScoringFailed

_METADATA = b"weir.run"
_FOLDER_SUFFIX = ".parts"
_RUN_FILE = "run.json"
_PART_SUFFIX = ".arrow"
_WHOLE = "whole.tmp"
# A row group of the whole: many rows, as long as they are not large.
_GROUP_ROWS = 1 << 16
_GROUP_BYTES = 32 << 20


class PartFiles:
    """The part files of one run; one process at a time may write them.

    Args:
        out: the file to write in the end.
        run: what the scores depend on; the whole has it as metadata.
        schema: of the whole, its last column that of errors.
        starts: the first row of each part.
    """

    def __init__(
        self, out: Path, run: Mapping[str, object], schema: pa.Schema, starts: Sequence[int]
    ) -> None:
        self.out = out
        self.folder = out.with_name(out.name + _FOLDER_SUFFIX)
        self._run = json.loads(json.dumps(run))
        self._schema = schema
        self._waiting = deque(starts)
        self._held: list[pa.Table] = []
        self._whole: pq.ParquetWriter

    @contextmanager
    def open(self, *, resume: bool) -> Iterator[bool]:
        """Hold the folder of the parts; yields whether the whole is there already.

        Raises:
            UsageError: there are scores already, they are of another run, or another process
                writes them.
        """
        if self.out.exists():
            if not resume:
                raise UsageError(
                    f"--out: {self.out}: expected no such file, got one; remove it first"
                )
            self._check(self.out, self._run_of_whole())
            shutil.rmtree(self.folder, ignore_errors=True)
            yield True
            return
        if self.folder.exists() and not resume:
            raise UsageError(
                f"--out: {self.folder} holds a run that is not complete: give --resume to go on, "
                "or remove the folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder):
            file = self.folder / _RUN_FILE
            if not file.exists():
                _write(file, json.dumps(self._run, indent=2).encode() + b"\n")
            self._check(self.folder, _read_json(file))
            schema = self._schema.with_metadata({_METADATA: json.dumps(self._run)})
            self._whole = pq.ParquetWriter(
                self.folder / _WHOLE,
                schema,
                compression="zstd",
                use_dictionary=[path for field in schema for path in _dictionary_columns(field)],
            )
            try:
                yield False
            finally:
                # What `finish` has not closed is thrown away; the run's own exception counts.
                with suppress(OSError, pa.ArrowException):
                    self._whole.close()

    def _run_of_whole(self) -> object:
        try:
            metadata = pq.read_schema(self.out).metadata or {}
        except (pa.ArrowException, OSError):
            return None
        return json.loads(metadata.get(_METADATA, b"null"))

    def _check(self, where: Path, found: object) -> None:
        """UsageError unless scores are of this run."""
        if found == self._run:
            return
        if not isinstance(found, dict):
            raise UsageError(f"--resume: {where}: expected scores of this run, got others")
        names = [name for name in {**self._run, **found} if self._run.get(name) != found.get(name)]
        name = names[0]
        raise UsageError(
            f"--resume: {where} is of a run with another {name}: "
            f"expected {found.get(name)!r}, got {self._run.get(name)!r}"
        )

    def has(self, start: int) -> bool:
        """Whether the part that begins at a row is there."""
        return self._path(start).exists()

    def write(self, start: int, table: pa.Table) -> None:
        """Write the scores of a part."""
        # The pages of the whole end with the chunks, and those of kept columns are the reader's.
        table = table.combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        _write(self._path(start), sink.getvalue())
        self._extend()

    def finish(self) -> None:
        """Make the whole of the parts, which are all there, and remove them."""
        self._extend()
        self._flush_group()
        self._whole.close()
        whole = self.folder / _WHOLE
        _flush(whole)
        whole.replace(self.out)
        shutil.rmtree(self.folder)

    def errors(self) -> int:
        """The number of rows of the whole that have an error."""
        metadata = pq.read_metadata(self.out)
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        return sum(
            group.num_rows - group.column(group.num_columns - 1).statistics.null_count
            for group in groups
        )

    def _extend(self) -> None:
        """Add the parts that are there to the whole, up to the first one that is not."""
        while self._waiting and self.has(self._waiting[0]):
            self._held.append(self._read(self._waiting.popleft()))
            rows = sum(map(len, self._held))
            if rows >= _GROUP_ROWS or sum(table.nbytes for table in self._held) >= _GROUP_BYTES:
                self._flush_group()

    def _flush_group(self) -> None:
        """Write a row group."""
        if self._held:
            group = pa.concat_tables(self._held)
            self._whole.write_table(group, row_group_size=len(group))
            self._held = []

    def _read(self, start: int) -> pa.Table:
        path = self._path(start)
        try:
            with pa.memory_map(str(path)) as file:
                table = pa.ipc.open_file(file).read_all()
        except (pa.ArrowException, OSError) as error:
            raise ScoringFailed(f"{path}: expected a part of the scores: {error}") from error
        if table.schema != self._schema:
            raise ScoringFailed(
                f"{path}: expected the columns {self._schema.names}, got {table.schema.names}"
            )
        return table

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:012}{_PART_SUFFIX}"


def _dictionary_columns(field: pa.Field, parent: str = "") -> Iterator[str]:
    """The columns of a field that get a dictionary, as Parquet names them: all but floats.

    65,536 labels with random probabilities took 0.15 us a row and 386 kB with a dictionary of
    probabilities, 0.08 us and 263 kB without one (pyarrow 26, zstd).
    """
    path = parent + field.name
    if is_list(field.type):
        element = pa.field("element", field.type.value_type)
        yield from _dictionary_columns(element, f"{path}.list.")
    elif kinds.is_struct(field.type):
        for inner in field.type:
            yield from _dictionary_columns(inner, f"{path}.")
    elif not kinds.is_floating(field.type):
        yield path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; UsageError if another one does. Without effect on Windows."""
    if sys.platform == "win32":
        yield
        return
    import fcntl  # noqa: PLC0415 - of Unix alone

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(f"--out: another process writes {folder}") from None
    finally:
        os.close(descriptor)


def _read_json(file: Path) -> object:
    try:
        found: object = json.loads(file.read_bytes())
    except ValueError as error:
        raise UsageError(f"{file}: expected JSON; remove the folder to start again") from error
    return found


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
