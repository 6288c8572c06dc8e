"""Parquet files as a source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from weir.client.errors import UsageError
from weir.score.errors import ScoringFailed
from weir.score.rows import Part
from weir.score.sources.base import Columns, digest_of, first_line, rows_at_a_time

_BUFFER_BYTES = 1 << 20


@dataclass
class ParquetSource:
    """The rows of Parquet files, one file after the other."""

    files: Sequence[Path]
    rows: int = field(init=False)
    row_bytes: int = field(init=False)
    columns: Columns = field(init=False)

    def __post_init__(self) -> None:
        """Read the files' metadata."""
        self._counts = []
        schema, size = None, 0
        for file in self.files:
            with _open_parquet(file) as opened:
                metadata = opened.metadata
                self._counts.append(metadata.num_rows)
                groups = map(metadata.row_group, range(metadata.num_row_groups))
                size += sum(group.total_byte_size for group in groups)
                found = _decoded(opened.schema_arrow.remove_metadata())
            schema = schema or found
            if found != schema:
                raise UsageError(f"--in: {file}: expected the columns of {self.files[0]}")
        self.rows = sum(self._counts)
        self.row_bytes = size // max(1, self.rows)
        self.columns = dict(zip(schema.names, schema.types, strict=True)) if schema else {}

    def identity(self) -> str:
        """A digest of names, sizes and samples."""
        return digest_of(self.files)

    def read(self, columns: Columns, start: int, stop: int) -> Iterator[Part]:
        """The rows of the files, a few thousand at a time."""
        first = 0
        for file, count in zip(self.files, self._counts, strict=True):
            if first < stop and start < first + count:
                own = max(start - first, 0), min(stop - first, count)
                for at, table in _read(file, list(columns), *own, rows_at_a_time(self.row_bytes)):
                    yield Part(first + at, table)
            first += count


def _decoded(schema: pa.Schema) -> pa.Schema:
    """The schema with the values of dictionaries, which pandas writes for categories."""
    return pa.schema(
        field.with_type(field.type.value_type) if kinds.is_dictionary(field.type) else field
        for field in schema
    )


def _open_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(
            file, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
    except pa.ArrowInvalid as error:
        raise ScoringFailed(f"{file}: expected a Parquet file: {first_line(error)}") from error


def _read(
    file: Path, columns: list[str], start: int, stop: int, step: int
) -> Iterator[tuple[int, pa.Table]]:
    """Tables of the rows from `start` to `stop`, each with the number of its first row."""
    with _open_parquet(file) as opened:
        groups, first = [], 0
        at = None
        for group in range(opened.num_row_groups):
            count = opened.metadata.row_group(group).num_rows
            if first < stop and start < first + count:
                groups.append(group)
                at = first if at is None else at
            first += count
        position = at or 0
        try:
            for batch in opened.iter_batches(step, row_groups=groups, columns=columns):
                begin, end = max(start - position, 0), min(stop - position, batch.num_rows)
                if begin < end:
                    table = pa.Table.from_batches([batch.slice(begin, end - begin)])
                    table = table.select(columns)
                    yield position + begin, table.cast(_decoded(table.schema))
                position += batch.num_rows
                if position >= stop:
                    return
        except (pa.ArrowException, OSError) as error:
            raise ScoringFailed(f"{file}: damaged: {first_line(error)}") from error
