"""Lines of text files, valid and broken."""

import gzip
from pathlib import Path

import pytest

from weir.training.data.lines import read_lines
from weir.training.errors import DataError


def test_lines_end_with_line_feeds_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes("\ufeffa\u2028b\x85\r\n\nc\rd".encode())

    lines = read_lines(path)

    assert [line.text for line in lines] == ["a\u2028b\x85", "", "c\rd"]
    assert lines[2].place == f"{path}, line 3"


def test_a_gzipped_file_reads_like_a_plain_one(tmp_path: Path) -> None:
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress("häuser\n".encode()))
    (tmp_path / "empty").write_bytes(b"")

    assert [line.text for line in read_lines(tmp_path / "x.txt.gz")] == ["häuser"]
    assert read_lines(tmp_path / "empty") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x", b"a\nb\n\xef\xbb\xbfc\xe4\n", r"x, line 3: expected UTF-8, got the byte 0xe4"),
        ("x", b"\xef\xbb\xbfa\n\xff", r"x, line 2: expected UTF-8, got the byte 0xff"),
        ("x.gz", b"a\nb\n", r"x\.gz: expected a gzip file, got"),
        ("x.gz", gzip.compress(b"a\n" * 100)[:-9], r"x\.gz: expected a gzip file, got"),
        ("x", None, r"x: expected a text file, got"),
    ],
    ids=["Latin-1", "after a mark", "no gzip", "cut short", "absent"],
)
def test_a_broken_file_is_named_with_expected_and_found(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(DataError, match=message):
        read_lines(tmp_path / name)
