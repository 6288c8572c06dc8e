"""Pictures of the user: a folder, or a tar file, with a folder of images for each class.

    shapes/train/circle/*.png   shapes/train/square/*.png
    shapes/test/circle/*.png    shapes/test/square/*.png     (or `val`)

or, without `train` and `test`, `shapes/circle/*.png`: a fifth of each class is then the test set,
always the same files. Equal files are on the same side. Class names are the folders' names in
sorted order. Each picture is turned upright as its EXIF data say, composed onto white if it is
transparent, converted to grey or RGB, and resized to the input of the network. Hidden files are
skipped; any other file must be a picture.
"""

import io
import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from weir.bundle.image_file import JPEG, PNG, image_format, load_pixels, strip_metadata
from weir.bundle.image_geometry import centre_crop, short_side_size, upright
from weir.training.data.file_tree import Tree, open_tree
from weir.training.data.images import OWN_TEST_SEED, OWN_TEST_SHARE, ImageData, Split, divide
from weir.training.equal_rows import digest
from weir.training.errors import DataError

NAMED_FILES = 5
IGNORED = frozenset({"Thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class _Listing:
    """The file names and labels of one split."""

    classes: tuple[str, ...]
    files: list[PurePosixPath]
    labels: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "_Listing":
        return _Listing(self.classes, [self.files[row] for row in rows], self.labels[rows])


def load_folder(
    root: Path,
    split: Split,
    *,
    height: int,
    width: int,
    channels: int,
    short_side: int | None = None,
) -> ImageData:
    """Load one split of a folder or a tar file: uint8 (n, height, width, channels).

    Raises:
        DataError: no pictures, fewer than two classes, different classes in the splits, or
            unreadable files, which the message names.
    """
    tree = open_tree(root)
    parts = _list_splits(tree)
    chosen = parts[split]
    return ImageData(
        name=str(root.resolve()),
        images=_read_all(tree, chosen.files, (width, height), channels, short_side),
        labels=chosen.labels,
        classes=chosen.classes,
        checksum=tree.digest([file for part in parts.values() for file in part.files]),
    )


def _list_splits(tree: Tree) -> dict[Split, _Listing]:
    """Both splits, from their folders or by a stratified split."""
    top = PurePosixPath()
    if top / "train" not in tree.folders:
        return _divide(tree, top, _list_classes(tree, top))
    listing = _list_classes(tree, top / "train")
    test = next((top / name for name in ("test", "val") if top / name in tree.folders), None)
    if test is None:
        return _divide(tree, top / "train", listing)
    held_out = _list_classes(tree, test)
    if held_out.classes != listing.classes:
        raise DataError(
            f"{tree.root / test}: expected the classes of {tree.root / 'train'}, "
            f"{', '.join(listing.classes)}; got {', '.join(held_out.classes)}"
        )
    return {"train": listing, "test": held_out}


def _divide(tree: Tree, folder: PurePosixPath, listing: _Listing) -> dict[Split, _Listing]:
    keys: list[Hashable] = [b""] * len(listing.files)
    for row, stream in tree.read(listing.files):
        keys[row] = digest(stream.read())
    for label, name in enumerate(listing.classes):
        rows = np.flatnonzero(listing.labels == label).tolist()
        if len(rows) < 3:
            raise DataError(
                f"{tree.root / folder / name}: expected at least 3 pictures, "
                f"one each to train, validate and test; got {len(rows)}"
            )
        if len({keys[row] for row in rows}) < 3:
            # Together they would leave nothing to test on.
            for row in rows:
                keys[row] = row
    division = divide(listing.labels, OWN_TEST_SHARE, OWN_TEST_SEED, keys)
    return {"train": listing.take(division.kept), "test": listing.take(division.held_out)}


def _list_classes(tree: Tree, folder: PurePosixPath) -> _Listing:
    """List the classes and files of one folder, both sorted by name."""
    classes = sorted(name for name in tree.folders if name.parent == folder)
    if len(classes) < 2:
        raise DataError(
            f"{tree.root / folder}: expected a folder for each of at least 2 classes, "
            f"got {len(classes)}"
        )
    files: list[PurePosixPath] = []
    labels: list[int] = []
    for label, directory in enumerate(classes):
        found = sorted(
            name for name in tree.files if name.parent == directory and name.name not in IGNORED
        )
        if not found:
            raise DataError(f"{tree.root / directory}: expected pictures, got none")
        files += found
        labels += [label] * len(found)
    return _Listing(tuple(path.name for path in classes), files, np.array(labels, np.int64))


def _read_all(
    tree: Tree,
    files: list[PurePosixPath],
    size: tuple[int, int],
    channels: int,
    short_side: int | None,
) -> NDArray[np.uint8]:
    """Read all pictures; unreadable files are collected, so that one error names several."""
    images = np.empty((len(files), size[1], size[0], channels), np.uint8)
    broken: list[str] = []
    for row, stream in tree.read(files):
        try:
            images[row] = read_picture(stream, size, channels, short_side)
        # All that Pillow raises on broken files, depending on format and damage.
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning):
            broken.append(str(tree.root / files[row]))
    if broken:
        names = ", ".join(broken[:NAMED_FILES])
        more = f" and {len(broken) - NAMED_FILES} more" if len(broken) > NAMED_FILES else ""
        raise DataError(f"expected pictures, got {len(broken)} unreadable files: {names}{more}")
    return images


def read_picture(
    source: Path | BinaryIO, size: tuple[int, int], channels: int, short_side: int | None = None
) -> NDArray[np.uint8]:
    """Read one picture as the network's input: uint8 (height, width, channels).

    Args:
        short_side: the length in pixels that the short side is resized to before the size is
            cropped from the centre. None stretches the picture to the size.
    """
    if isinstance(source, Path):
        data = source.read_bytes()
    else:
        source.seek(0)
        data = source.read()
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = _convert(_open_upright(data), channels)
    return np.asarray(_fit(picture, size, short_side)).reshape(size[1], size[0], channels)


def _open_upright(data: bytes) -> Image.Image:
    """The pixels of the first picture in a file, upright."""
    kind = image_format(data)
    if kind in (PNG, JPEG):
        bare = strip_metadata(data, kind)
        picture = load_pixels(bare, lambda file: Image.open(io.BytesIO(file), formats=(kind,)))
        return upright(picture, bare.orientation)
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        return upright(opened, _orientation(opened))


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation of a picture that is neither PNG nor JPEG; 1 if it cannot be read."""
    try:
        return int(picture.getexif().get(Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow raises many unrelated classes on damaged EXIF
        return 1


def _convert(picture: Image.Image, channels: int) -> Image.Image:
    """Convert any picture to 8 bits, opaque, grey or RGB."""
    if picture.mode.startswith("I"):
        # Pillow would clip 16 bits to 8 instead of scaling them.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("L" if channels == 1 else "RGB")


def _fit(picture: Image.Image, size: tuple[int, int], short_side: int | None) -> Image.Image:
    """Stretch to (width, height), or resize in proportion and crop the centre."""
    if short_side is None:
        return picture.resize(size, Image.Resampling.BILINEAR)
    resized = picture.resize(short_side_size(picture.size, short_side), Image.Resampling.BILINEAR)
    return resized.crop(centre_crop(resized.size, size))
