"""Sources: any rows of any form, read from any row on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.client.errors import UsageError
from weir.score.errors import ScoringFailed
from weir.score.rows import Part
from weir.score.sources.base import in_parts
from weir.score.sources.form import open_source

ROWS = 2500


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"n": range(ROWS)}), folder / "n.parquet", row_group_size=301)
    return folder / "n.parquet"


def as_files(folder: Path) -> Path:
    (folder / "n").mkdir()
    for number, (start, stop) in enumerate([(0, 1), (1, 1), (1, 2000), (2000, ROWS)]):
        pq.write_table(
            pa.table({"n": pa.array(range(start, stop), pa.int64())}),
            folder / "n" / f"{number}.parquet",
        )
    return folder / "n"


def as_json(folder: Path) -> Path:
    (folder / "n.jsonl").write_text("\n".join(json.dumps({"n": n}) for n in range(ROWS)))
    return folder / "n.jsonl"


def as_arrays(folder: Path) -> Path:
    np.savez(folder / "n.npz", n=np.arange(ROWS), other=np.zeros((ROWS, 2)))
    return folder / "n.npz"


def as_packed_arrays(folder: Path) -> Path:
    np.savez_compressed(folder / "n.npz", n=np.arange(ROWS))
    return folder / "n.npz"


def as_big_endian_arrays(folder: Path) -> Path:
    np.savez(folder / "n.npz", n=np.arange(ROWS).astype(">i8"))
    return folder / "n.npz"


@pytest.mark.parametrize(
    "make", [as_parquet, as_files, as_json, as_arrays, as_packed_arrays, as_big_endian_arrays]
)
@pytest.mark.parametrize("bounds", [(0, ROWS), (0, 1), (299, 305), (1999, 2001), (2499, ROWS)])
def test_rows_from_any_row_on(
    make: Callable[[Path], Path], bounds: tuple[int, int], tmp_path: Path
) -> None:
    source = open_source(make(tmp_path))

    parts = list(source.read({"n": pa.int64()}, *bounds))

    assert source.rows == ROWS and "n" in source.columns
    assert parts[0].start == bounds[0]
    assert [n for part in parts for n in part.table["n"].to_pylist()] == list(range(*bounds))


def test_lines_are_rows_whatever_ends_them(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfa\r\n\n\xffb\nc d")
    source = open_source(tmp_path / "t.txt")

    (part,) = source.read({"text": None}, 0, source.rows)

    assert part.table["text"].to_pylist() == ["a", "", None, "c d"]
    assert part.errors == {2: "expected UTF-8, got other bytes"}


def test_values_of_another_type_are_errors_of_their_rows(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"n": 1}\n{"n": "x"}\n{}\n{"n": 300}\nnull\n')
    source = open_source(tmp_path / "n.jsonl")

    (part,) = source.read({"n": pa.uint8()}, 0, 5)

    assert part.table["n"].to_pylist() == [1, None, None, None, None]
    assert part.errors == {
        1: 'n: expected uint8, got "x"',
        3: "n: expected uint8, got 300",
        4: "expected a JSON object, got NoneType",
    }


def test_tensors_are_nested_or_flat(tmp_path: Path) -> None:
    lines = ["[[1, 2], [3, 4]]", "[1, 2, 3, 4]", "[[1, 2], [3]]", "[[1, 2]]"]
    (tmp_path / "n.jsonl").write_text("".join(f'{{"n": {line}}}\n' for line in lines))

    (part,) = open_source(tmp_path / "n.jsonl").read({"n": pa.list_(pa.float32(), 4)}, 0, 4)

    assert part.table["n"].to_pylist() == [[1, 2, 3, 4], [1, 2, 3, 4], None, None]
    assert list(part.errors) == [2, 3]


def test_texts_and_tokens_of_json_have_their_types(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"a": "x", "b": ["x"], "c": 1}\n{"a": null, "b": []}\n')

    columns = open_source(tmp_path / "n.jsonl").columns

    assert columns == {"a": pa.string(), "b": pa.list_(pa.string()), "c": None}


def test_large_rows_are_read_few_at_a_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "n.npz", n=np.zeros((9, 1 << 18)))
    source = open_source(tmp_path / "n.npz")

    parts = [part.table.num_rows for part in source.read({"n": None}, 0, 9)]

    assert source.row_bytes == 2 << 20 and parts == [4, 4, 1]


@pytest.mark.parametrize("position", [0.3, 0.6, 0.97])
def test_damaged_arrays_are_named(position: float, tmp_path: Path) -> None:
    path = as_packed_arrays(tmp_path)
    data = bytearray(path.read_bytes())
    at = int(len(data) * position)
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)

    with pytest.raises(ScoringFailed, match=r"n\.npz"):
        list(open_source(path).read({"n": None}, 0, ROWS))


def test_key_without_a_type_is_kept_as_json(tmp_path: Path) -> None:
    (tmp_path / "n.jsonl").write_text('{"n": {"a": [1]}}\n{"m": 2}\n')

    (part,) = open_source(tmp_path / "n.jsonl").read({"n": None}, 0, 2)

    assert part.table["n"].to_pylist() == ['{"a": [1]}', None]


@pytest.mark.parametrize(
    ("name", "content", "failure", "message"),
    [
        ("x.parquet", b"PAR1", ScoringFailed, "expected a Parquet file"),
        ("x.npz", b"PK", ScoringFailed, "expected a .npz file"),
        ("x.csv", b"", UsageError, "expected a .parquet, .jsonl"),
        ("y", b"", UsageError, "no such file"),
        (".", b"", UsageError, "got neither in the folder"),
    ],
)
def test_other_forms_are_refused(
    name: str, content: bytes, failure: type[Exception], message: str, tmp_path: Path
) -> None:
    if "." in name and name != ".":
        (tmp_path / name).write_bytes(content)

    with pytest.raises(failure, match=message):
        open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(2), "b": np.zeros(3)}, "2 of 'a', 3 of 'b'"),
        ({"a": np.array(1)}, "got one value"),
        ({"a": np.zeros((2, 2), order="F")}, "C order"),
        ({"a": np.zeros(2, complex)}, "expected numbers"),
    ],
)
def test_arrays_without_rows_are_refused(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)

    with pytest.raises(UsageError, match=message):
        open_source(tmp_path / "x.npz")


def test_tables_with_other_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"b": [1]}), tmp_path / "1.parquet")

    with pytest.raises(UsageError, match=r"1.parquet: expected the columns of"):
        open_source(tmp_path)


def test_file_that_changed_is_another_input(tmp_path: Path) -> None:
    path = as_json(tmp_path)
    before = open_source(path).identity()

    path.write_text(path.read_text().replace('{"n": 0}', '{"n": 5}'))

    assert open_source(path).identity() != before


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 7), max_size=9),
    st.integers(1, 9),
    st.sets(st.integers(0, 40)),
)
def test_parts_have_the_wanted_size_and_their_own_errors(
    sizes: list[int], wanted: int, bad: set[int]
) -> None:
    parts, start = [], 100
    for size in sizes:
        errors = {at - start + 100: str(at) for at in bad if start - 100 <= at < start - 100 + size}
        parts.append(Part(start, pa.table({"n": pa.array(range(start, start + size))}), errors))
        start += size
    total = sum(sizes)

    found = list(in_parts(iter(parts), wanted))

    assert [part.table.num_rows for part in found[:-1]] == [wanted] * (len(found) - 1)
    assert [n for part in found for n in part.table["n"].to_pylist()] == list(range(100, start))
    assert [part.start for part in found] == list(range(100, start, wanted))
    assert {part.start + at - 100: text for part in found for at, text in part.errors.items()} == {
        at: str(at) for at in bad if at < total
    }
