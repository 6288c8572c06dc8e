"""Your own pictures: a folder with a folder of images for each class.

    shapes/train/circle/*.png   shapes/train/square/*.png
    shapes/test/circle/*.png    shapes/test/square/*.png     (or `val`)

or, without `train` and `test`, `shapes/circle/*.png`: then a fifth of each class is held out as the test
set, always the same files. Class names are the folders' names in sorted order. Each picture is turned
upright, converted to grey or RGB, and stretched to the network's size. Hidden files are passed over;
any other file must be a picture.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from training.data.images import ImageData, Split, combine_checksums, divide
from training.data.sources import checksum
from training.errors import DataError

TEST_SHARE = 0.2
TEST_SEED = 1998
NAMED_FILES = 5
IGNORED = frozenset({"Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class _Listing:
    """The pictures of one folder of classes, unread."""

    classes: tuple[str, ...]
    paths: list[Path]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "_Listing":
        return _Listing(self.classes, [self.paths[row] for row in rows], self.labels[rows])


def load_folder(folder: Path, split: Split, *, height: int, width: int, channels: int) -> ImageData:
    """One split of a folder, as uint8 (n, height, width, channels).

    Raises:
        DataError: no pictures, fewer than two classes, classes that differ, or unreadable files (named).
    """
    parts = _list_splits(folder)
    chosen = parts[split]
    return ImageData(
        name=str(folder.resolve()),
        images=_read_all(chosen.paths, (width, height), channels),
        labels=chosen.labels,
        classes=chosen.classes,
        checksum=combine_checksums(
            (path.relative_to(folder).as_posix(), checksum(path))
            for part in parts.values()
            for path in part.paths
        ),
    )


def _list_splits(folder: Path) -> dict[Split, _Listing]:
    """Both splits, as the folder gives them or by ratio."""
    train = folder / "train"
    test = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if not train.is_dir():
        return _divide(folder, _list_classes(folder))
    listing = _list_classes(train)
    if test is None:
        return _divide(train, listing)
    held_out = _list_classes(test)
    if held_out.classes != listing.classes:
        raise DataError(
            f"{test}: expected the classes of {train}, {', '.join(listing.classes)}; found {', '.join(held_out.classes)}"
        )
    return {"train": listing, "test": held_out}


def _divide(folder: Path, listing: _Listing) -> dict[Split, _Listing]:
    for label, name in enumerate(listing.classes):
        count = int((listing.labels == label).sum())
        if count < 3:
            raise DataError(
                f"{folder / name}: expected at least 3 pictures, one each to train, validate and test; found {count}"
            )
    division = divide(listing.labels, TEST_SHARE, TEST_SEED)
    return {"train": listing.take(division.kept), "test": listing.take(division.held_out)}


def _list_classes(folder: Path) -> _Listing:
    """The classes and files of one folder, both sorted by name."""
    classes = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if len(classes) < 2:
        raise DataError(
            f"{folder}: expected a folder for each of at least 2 classes, found {len(classes)}"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, directory in enumerate(classes):
        found = sorted(path for path in directory.iterdir() if _is_meant(path))
        if not found:
            raise DataError(f"{directory}: expected pictures, found none")
        paths += found
        labels += [label] * len(found)
    return _Listing(tuple(path.name for path in classes), paths, np.array(labels, np.int64))


def _is_meant(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name not in IGNORED


def _read_all(paths: list[Path], size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """All pictures; what cannot be read is collected, so that one run names every bad file."""
    images = np.empty((len(paths), size[1], size[0], channels), np.uint8)
    broken: list[Path] = []
    for row, path in enumerate(paths):
        try:
            images[row] = read_picture(path, size, channels)
        # What Pillow raises on broken files, by format and by kind of damage.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning):
            broken.append(path)
    if broken:
        names = ", ".join(str(path) for path in broken[:NAMED_FILES])
        more = f" and {len(broken) - NAMED_FILES} more" if len(broken) > NAMED_FILES else ""
        raise DataError(f"expected pictures, found {len(broken)} unreadable files: {names}{more}")
    return images


def read_picture(path: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """One picture, stretched to (width, height): uint8 (height, width, channels)."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I;16"):
                # Pillow would clip 16 bits to 8 instead of scaling them.
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            picture = upright.convert("L" if channels == 1 else "RGB")
    resized = picture.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(size[1], size[0], channels)
