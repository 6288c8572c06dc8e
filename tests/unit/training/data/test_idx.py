"""idx files, valid and broken."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from weir.training.data import load
from weir.training.data.download import DataFolders, RemoteFile
from weir.training.data.idx import IdxSource, load_idx, read_idx
from weir.training.errors import DataError


def write_idx(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    content = gzip.compress(header + array.tobytes())
    path.write_bytes(content)
    return content


def test_reads_what_was_written(tmp_path: Path) -> None:
    pictures = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / "pictures.gz", pictures)

    read = read_idx(tmp_path / "pictures.gz", dimensions=3)

    np.testing.assert_array_equal(read, pictures)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "expected a gzip file, got"),
        (gzip.compress(b"\0\0\x08\x01" + bytes(40))[:-9], "expected a gzip file, got"),
        (gzip.compress(b""), "got nothing"),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab"),
            "expected an idx header 00000803 and 3 sizes, got 000008010000000",
        ),
        (gzip.compress(b"\0\0\x0d\x03" + bytes(12)), "got 00000d03"),
        (
            gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + b"1234567"),
            r"expected 8 bytes for shape \(2, 2, 2\), got 7",
        ),
        (
            gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", *[2**32 - 1] * 3)),
            "expected 79228162458924105385300197375 bytes",
        ),
    ],
    ids=["no gzip", "cut short", "empty", "labels for pictures", "floats", "too few", "enormous"],
)
def test_a_broken_file_is_named_with_expected_and_found(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "broken.gz"
    path.write_bytes(content)

    with pytest.raises(DataError, match=message) as raised:
        read_idx(path, dimensions=3)

    assert str(path) in str(raised.value)


def tiny_source(folder: Path) -> IdxSource:
    """Five training and two test pictures of 3 x 2, in the layout of MNIST."""
    (folder / "tiny").mkdir()
    files = []
    for rows, split in ((5, "train"), (2, "test")):
        pictures = np.full((rows, 3, 2), rows, np.uint8)
        labels = np.arange(rows, dtype=np.uint8) % 2
        for name, array in ((f"{split}-images", pictures), (f"{split}-labels", labels)):
            content = write_idx(folder / "tiny" / name, array)
            digest = hashlib.sha256(content).hexdigest()
            files.append(RemoteFile(f"https://nowhere.invalid/{name}", len(content), digest))
    return IdxSource("tiny", ("a", "b"), *files)


def test_both_splits_have_the_documented_form(tmp_path: Path) -> None:
    source = tiny_source(tmp_path)
    folders = DataFolders(tmp_path, tmp_path / "cache")

    train, test = load_idx(source, "train", folders), load_idx(source, "test", folders)

    assert train.images.shape == (5, 3, 2, 1) and train.images.dtype == np.uint8
    assert train.labels.tolist() == [0, 1, 0, 1, 0] and train.labels.dtype == np.int64
    assert test.images.shape == (2, 3, 2, 1) and (test.images == 2).all()
    assert train.classes == ("a", "b")
    assert train.checksum == test.checksum


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.usefixtures("weir_data")
def test_the_real_sets_have_their_published_sizes(name: str) -> None:
    train, test = load(name, "train"), load(name, "test")

    assert train.images.shape == (60_000, 28, 28, 1) and test.images.shape == (10_000, 28, 28, 1)
    assert np.bincount(test.labels).sum() == 10_000 and len(train.classes) == 10
