"""CIFAR-10: 50,000 pictures for training and 10,000 for test, 32 x 32 in colour, ten classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. The folder `cifar10`
of each data folder (see `weir.training.data.download`) is searched for, in this order:

    cifar-10-images.tar.gz                      JPEG files, train/CLASS/*.jpg and test/CLASS/*.jpg
    cifar-10-binary.tar.gz                      the official archive of the binary batches
    data_batch_1.bin ... 5, test_batch.bin      the batches themselves, each gzipped or not

JPEG pixels differ from the original ones, so results with them are those of "CIFAR-10, JPEG copy".
Decoded pictures are kept in the cache, under the checksum of their source files.
"""

import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weir.training.data.download import DataFolders, RemoteFile, checksum, locate
from weir.training.data.file_tree import Member, read_members
from weir.training.data.images import ImageData, Images, Labels, Split, combine_checksums
from weir.training.errors import DataError

logger = logging.getLogger(__name__)

NAME = "cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
ROWS: dict[Split, int] = {"train": 50_000, "test": 10_000}
BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
RECORD_BYTES = 1 + 3 * SIDE * SIDE
PICTURES = "cifar-10-images.tar.gz"
BINARY = RemoteFile(
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """One split: uint8 (n, 32, 32, 3) and labels (n,)."""

    images: Images
    labels: Labels


def load_cifar10(split: Split, folders: DataFolders) -> ImageData:
    """Find, decode (once) and read one split; `DataError` or `DownloadError` if that fails."""
    files = _find(folders)
    digest = combine_checksums((path.name, checksum(path)) for path in files)
    kept = folders.cache / NAME / "decoded" / digest
    if not kept.is_dir():
        _store(kept, {each: _decode(files, each) for each in ROWS})
    try:
        images, labels = (np.load(kept / f"{split}-{part}.npy") for part in ("images", "labels"))
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{kept}: broken, remove it to decode it again: {error}") from error
    return ImageData(NAME, images, labels, CLASSES, digest)


def _find(folders: DataFolders) -> list[Path]:
    """The files of the first form that is present; otherwise the official archive, downloaded."""
    for parent in filter(None, (folders.folder, folders.cache)):
        folder = parent / NAME
        if (folder / PICTURES).is_file():
            return [folder / PICTURES]
        if (folder / BINARY.name).is_file():
            break
        batches = [_plain_or_gzipped(folder / name) for names in BATCHES.values() for name in names]
        if all(path.is_file() for path in batches):
            return batches
    return [locate(NAME, BINARY, folders)]


def _plain_or_gzipped(path: Path) -> Path:
    return path if path.is_file() else path.with_name(f"{path.name}.gz")


def _store(kept: Path, splits: dict[Split, Decoded]) -> None:
    """Write the decoded splits to a temporary folder and rename it: all files appear, or none."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=kept.parent, ignore_cleanup_errors=True) as folder:
        part = Path(folder) / "part"
        part.mkdir()
        for split, decoded in splits.items():
            np.save(part / f"{split}-images.npy", decoded.images)
            np.save(part / f"{split}-labels.npy", decoded.labels)
        if not kept.is_dir():
            part.rename(kept)


def _decode(files: list[Path], split: Split) -> Decoded:
    logger.info("decoding data set data=%s split=%s", NAME, split)
    if files[0].name == PICTURES:
        decoded = _decode_pictures(files[0], split)
    else:
        decoded = _decode_batches(files, split)
    counts = np.bincount(decoded.labels, minlength=len(CLASSES))
    if (counts != ROWS[split] // len(CLASSES)).any():
        raise DataError(
            f"{files[0]}: expected {ROWS[split] // len(CLASSES)} pictures of each class "
            f"to {split}, "
            f"got {', '.join(map(str, counts))}"
        )
    return decoded


def _decode_pictures(path: Path, split: Split) -> Decoded:
    """Decode a tar of JPEG files, in the order of their names; the tar's order is arbitrary."""
    pictures: dict[str, NDArray[np.uint8]] = {}
    for member in read_members(path):
        parts = PurePosixPath(member.name).parts
        if len(parts) >= 3 and parts[-3] == split and parts[-2] in CLASSES:
            pictures["/".join(parts[-2:])] = _read_jpeg(path, member)
    names = sorted(pictures)
    labels = [CLASSES.index(name.partition("/")[0]) for name in names]
    images = np.stack([pictures[name] for name in names]) if names else np.empty((0, SIDE, SIDE, 3))
    return Decoded(images.astype(np.uint8), np.array(labels, np.int64))


def _read_jpeg(path: Path, member: Member) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(member.content), formats=("JPEG", "PNG")) as opened:
            pixels = np.asarray(opened.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: {member.name}: expected a JPEG picture, got {error}") from error
    if pixels.shape != (SIDE, SIDE, 3):
        raise DataError(
            f"{path}: {member.name}: expected {SIDE} x {SIDE} pixels, "
            f"got {pixels.shape[0]} x {pixels.shape[1]}"
        )
    return pixels


def _decode_batches(files: list[Path], split: Split) -> Decoded:
    """Decode binary batches, in the official order."""
    found = dict(_read_batches(files, split))
    missing = [name for name in BATCHES[split] if name not in found]
    if missing:
        raise DataError(f"{files[0]}: expected {', '.join(BATCHES[split])}; missing {missing[0]}")
    records = np.concatenate([found[name] for name in BATCHES[split]])  # (n, 3073)
    planes = records[:, 1:].reshape(-1, 3, SIDE, SIDE)  # (n, 3, 32, 32)
    labels = records[:, 0].astype(np.int64)
    if len(labels) and labels.max() >= len(CLASSES):
        raise DataError(f"{files[0]}: expected labels of 0 to 9, got {labels.max()}")
    return Decoded(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def _read_batches(files: list[Path], split: Split) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield each batch of the split: name and records (n, 3073)."""
    if files[0].name == BINARY.name:
        for member in read_members(files[0]):
            name = PurePosixPath(member.name).name
            if name in BATCHES[split]:
                yield name, _records(files[0], member.content)
        return
    for path in files:
        name = path.name.removesuffix(".gz")
        if name in BATCHES[split]:
            try:
                content = path.read_bytes()
                yield (
                    name,
                    _records(path, gzip.decompress(content) if path.suffix == ".gz" else content),
                )
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{path}: expected a batch of pictures, got {error}") from error


def _records(path: Path, content: bytes) -> NDArray[np.uint8]:
    if len(content) % RECORD_BYTES:
        raise DataError(
            f"{path}: expected records of {RECORD_BYTES} bytes, got {len(content)} bytes"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
