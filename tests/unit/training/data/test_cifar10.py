"""CIFAR-10 in its three forms, on ten pictures per class for training and two for test."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from weir.training.data import cifar10, load
from weir.training.data.cifar10 import CLASSES, load_cifar10
from weir.training.data.download import DataFolders, RemoteFile, checksum
from weir.training.data.images import Split
from weir.training.errors import DataError, DownloadError

ROWS: dict[Split, int] = {"train": 100, "test": 20}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same set with fewer rows."""
    monkeypatch.setattr(cifar10, "ROWS", ROWS)


@pytest.fixture
def folders(tmp_path: Path) -> DataFolders:
    (tmp_path / "named" / "cifar10").mkdir(parents=True)
    return DataFolders(tmp_path / "named", tmp_path / "cache")


def folder(folders: DataFolders) -> Path:
    assert folders.folder is not None
    return folders.folder / "cifar10"


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def records(rows: int, first: int = 0) -> NDArray[np.uint8]:
    """Binary records (rows, 3073): a row's red is its number, its green a ramp across."""
    found = np.zeros((rows, 3073), np.uint8)
    found[:, 0] = np.arange(first, first + rows) % 10
    found[:, 1:1025] = np.arange(first, first + rows)[:, None]
    found[:, 1025:2049] = np.tile(np.arange(32), 32)
    return found


def batches() -> dict[str, bytes]:
    found = {f"data_batch_{n + 1}.bin": records(20, 20 * n).tobytes() for n in range(5)}
    return {**found, "test_batch.bin": records(20).tobytes()}


def jpegs() -> dict[str, bytes]:
    found = {}
    for split, rows in ROWS.items():
        for row in range(rows):
            name = CLASSES[row % 10]
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (25 * (row % 10), 0, 0)).save(stream, "JPEG")
            found[f"pictures/{split}/{name}/{row:04}.jpg"] = stream.getvalue()
    return found


@pytest.mark.parametrize("form", ["archive", "batches", "gzipped"])
def test_binary_batches_are_read_in_their_order(
    folders: DataFolders, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "archive":
        path = folder(folders) / "cifar-10-binary.tar.gz"
        write_tar(path, {f"cifar-10-batches-bin/{n}": c for n, c in batches().items()})
        file = RemoteFile("https://nowhere.invalid/" + path.name, 0, checksum(path))
        monkeypatch.setattr(cifar10, "BINARY", file)
    for name, content in batches().items() if form != "archive" else ():
        if form == "gzipped":
            (folder(folders) / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder(folders) / name).write_bytes(content)

    train, test = load_cifar10("train", folders), load_cifar10("test", folders)

    assert train.images.shape == (100, 32, 32, 3) and test.images.shape == (20, 32, 32, 3)
    assert train.labels.tolist() == [row % 10 for row in range(100)]
    assert train.images[:, 5, 9, 0].tolist() == list(range(100))
    assert train.images[7, 3, :, 1].tolist() == list(range(32))
    assert train.classes == CLASSES and train.checksum == test.checksum


def test_jpegs_are_read_class_by_class_and_decoded_once(folders: DataFolders) -> None:
    path = folder(folders) / "cifar-10-images.tar.gz"
    write_tar(path, dict(sorted(jpegs().items(), reverse=True)))

    train = load_cifar10("train", folders)
    kept = list((folders.cache / "cifar10" / "decoded" / train.checksum).iterdir())
    written = [file.stat().st_mtime_ns for file in kept]
    again = load_cifar10("train", folders)

    assert train.labels.tolist() == sorted(row % 10 for row in range(100))
    assert np.abs(train.images[:, 4, 4, 0].astype(int) - 25 * train.labels).max() <= 2
    np.testing.assert_array_equal(again.images, train.images)
    assert sorted(file.name for file in kept) == [
        "test-images.npy",
        "test-labels.npy",
        "train-images.npy",
        "train-labels.npy",
    ]
    assert [file.stat().st_mtime_ns for file in kept] == written
    assert [p.name for p in (folders.cache / "cifar10" / "decoded").iterdir()] == [train.checksum]


def test_a_broken_cache_is_named(folders: DataFolders) -> None:
    write_tar(folder(folders) / "cifar-10-images.tar.gz", jpegs())
    kept = folders.cache / "cifar10" / "decoded" / load_cifar10("test", folders).checksum
    (kept / "test-images.npy").write_bytes(b"no array")

    with pytest.raises(DataError, match=f"{kept}: broken, remove it"):
        load_cifar10("test", folders)


def test_another_source_file_is_decoded_again(folders: DataFolders) -> None:
    path = folder(folders) / "cifar-10-images.tar.gz"
    write_tar(path, jpegs())
    before = load_cifar10("test", folders)
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), (0, 0, 255)).save(stream, "JPEG")

    write_tar(path, {**jpegs(), "pictures/test/airplane/0000.jpg": stream.getvalue()})
    after = load_cifar10("test", folders)

    assert before.checksum != after.checksum
    assert before.images[0, 0, 0, 2] < 5 and after.images[0, 0, 0, 2] > 250


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pictures/train/cat/0003.jpg", b"", r"train/cat/0003.jpg: expected a JPEG picture"),
        (
            "pictures/train/cat/0003.jpg",
            None,
            r"expected 10 pictures of each class to train, got ",
        ),
        ("pictures/train/cat/9999.jpg", "64", r"9999.jpg: expected 32 x 32 pixels, got 64 x 64"),
    ],
    ids=["broken", "missing", "another size"],
)
def test_a_tar_that_is_not_the_set_is_refused(
    folders: DataFolders, name: str, content: bytes | str | None, message: str
) -> None:
    files = jpegs()
    if content is None:
        del files[name]
    elif content == "64":
        stream = io.BytesIO()
        Image.new("RGB", (64, 64)).save(stream, "JPEG")
        files[name] = stream.getvalue()
    else:
        files[name] = b"no picture"
    write_tar(folder(folders) / "cifar-10-images.tar.gz", files)

    with pytest.raises(DataError, match=message):
        load_cifar10("train", folders)

    assert not (folders.cache / "cifar10" / "decoded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (batches()["test_batch.bin"][:-1], "test_batch.bin: expected records of 3073 bytes, got"),
        (records(20)[:-1].tobytes(), "expected 2 pictures of each class to test, got"),
        (b"\x0b" + batches()["test_batch.bin"][1:], "expected labels of 0 to 9, got 11"),
    ],
    ids=["cut short", "a row missing", "a wrong label"],
)
def test_batches_that_are_not_the_set_are_refused(
    folders: DataFolders, content: bytes, message: str
) -> None:
    for name, whole in batches().items():
        (folder(folders) / name).write_bytes(content if name == "test_batch.bin" else whole)

    with pytest.raises(DataError, match=message):
        load_cifar10("test", folders)


def test_a_broken_archive_is_named(folders: DataFolders) -> None:
    (folder(folders) / "cifar-10-images.tar.gz").write_bytes(b"no tar")

    with pytest.raises(DataError, match=r"cifar-10-images.tar.gz: expected a tar file, got"):
        load_cifar10("train", folders)


def test_an_incomplete_set_of_batches_is_fetched_instead(
    folders: DataFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder(folders) / "data_batch_1.bin").write_bytes(batches()["data_batch_1.bin"])
    monkeypatch.setattr(cifar10, "BINARY", RemoteFile("http://127.0.0.1:1/cifar.tar.gz", 1, ""))

    with pytest.raises(DownloadError, match="could not be fetched"):
        load_cifar10("train", folders)


@pytest.mark.usefixtures("weir_data")
def test_the_real_set_has_its_published_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    train, test = (load("cifar10", s, height=32, width=32, channels=3) for s in ("train", "test"))

    assert train.images.shape == (50_000, 32, 32, 3) and test.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [5_000] * 10
    assert np.bincount(test.labels).tolist() == [1_000] * 10
