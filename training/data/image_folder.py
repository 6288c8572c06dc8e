"""Pictures of the user: a folder, or a tar file, with a folder of images for each class.

    shapes/train/circle/*.png   shapes/train/square/*.png
    shapes/test/circle/*.png    shapes/test/square/*.png     (or `val`)

or, without `train` and `test`, `shapes/circle/*.png`: a fifth of each class is then the test set,
always the same files. Equal files are on the same side. Class names are the folders' names in
sorted order; pictures in a folder below belong to the class. Each picture is turned upright as its
EXIF data say, composed onto white if it is transparent, converted to grey or RGB, and resized to
the input of the network. Of an animation the first picture is read.

Hidden files are ignored. Files that are no pictures by their names, and pictures that cannot be
read, are skipped and listed; `require_few_skipped` refuses a set with too many of them.
"""

import io
import logging
import mimetypes
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from weir.bundle.escaping import short_list
from weir.bundle.image_file import (
    JPEG,
    PNG,
    TooManyParts,
    image_format,
    load_pixels,
    strip_metadata,
)
from weir.bundle.image_geometry import centre_crop, short_side_size, upright
from weir.training.data.file_tree import TEST_FOLDERS, TRAIN_FOLDERS, Tree, open_tree
from weir.training.data.images import (
    OWN_TEST_SEED,
    OWN_TEST_SHARE,
    ImageData,
    SkippedFile,
    Split,
    divide,
)
from weir.training.equal_rows import digest
from weir.training.errors import DataError

logger = logging.getLogger(__name__)

MOST_SKIPPED = 0.05
"""The largest share of pictures that cannot be read."""

# The built-in table alone: that of the system differs between machines.
_MIME_TYPES = mimetypes.MimeTypes()
_NO_PICTURES = frozenset({".aae", ".db", ".ini", ".log", ".npy", ".thm", ".xmp", ".yaml", ".yml"})


@dataclass(frozen=True, slots=True)
class _Listing:
    """The file names and labels of one split, and the names of files that are no pictures.

    checksum: of the pictures in the folder that the split is taken from.
    """

    classes: tuple[str, ...]
    files: list[PurePosixPath]
    labels: NDArray[np.int64]
    others: list[PurePosixPath]
    checksum: str

    def take(self, rows: NDArray[np.int64]) -> "_Listing":
        files = [self.files[row] for row in rows]
        return replace(self, files=files, labels=self.labels[rows])


def load_folder(
    root: Path,
    split: Split | Literal["all"],
    *,
    height: int,
    width: int,
    channels: int,
    short_side: int | None = None,
) -> ImageData:
    """Load one split of a folder or a tar file: uint8 (n, height, width, channels).

    `all` is for a test with pictures that were not trained on: the folder `test` if there is one,
    otherwise every picture.

    Raises:
        DataError: no pictures, fewer than two classes, different classes in the splits, or a class
            of which too few pictures can be read.
    """
    tree = open_tree(root)
    parts = _list_splits(tree)
    chosen = _list_all(tree, parts) if split == "all" else parts[split]
    read = ((row, str(chosen.files[row]), stream.read()) for row, stream in tree.read(chosen.files))
    images, unreadable = read_pictures(
        read, len(chosen.files), (width, height), channels, short_side
    )
    kept = np.array([row for row in range(len(chosen.files)) if row not in unreadable], np.int64)
    _require_every_class(tree, chosen, kept, unreadable, 2 if split == "train" else 1)
    return ImageData(
        name=str(root.resolve()),
        images=images[kept] if unreadable else images,
        labels=chosen.labels[kept],
        classes=chosen.classes,
        checksum=tree.digest(
            [file for part in parts.values() for file in part.files], PurePosixPath()
        ),
        split_checksum=chosen.checksum,
        skipped=(
            *unreadable.values(),
            *(SkippedFile(str(name), "no picture", is_picture=False) for name in chosen.others),
        ),
    )


def require_few_skipped(name: str, skipped: Sequence[SkippedFile], read: int) -> None:
    """Say which files were skipped; refuse a set of which too many pictures cannot be read.

    Args:
        read: the number of pictures that were read.

    Raises:
        DataError: more than one picture, and more than a share of `MOST_SKIPPED`, was skipped.
    """
    unreadable = [each for each in skipped if each.is_picture]
    pictures = read + len(unreadable)
    if len(unreadable) > max(1, MOST_SKIPPED * pictures):
        raise DataError(
            f"{name}: expected at most {MOST_SKIPPED:.0%} of the pictures unreadable, "
            f"got {len(unreadable)} of {pictures}: {_describe(unreadable)}"
        )
    if unreadable:
        logger.warning(
            "%s: skipped %d of %d pictures: %s",
            name, len(unreadable), pictures, _describe(unreadable),
        )  # fmt: skip
    if others := [each for each in skipped if not each.is_picture]:
        files = "file" if len(others) == 1 else "files"
        logger.warning("%s: skipped %d other %s: %s", name, len(others), files, _describe(others))


def _describe(skipped: Sequence[SkippedFile]) -> str:
    """Name some files of each reason, the most frequent one first."""
    groups: dict[str, list[str]] = {}
    for each in skipped:
        groups.setdefault(each.reason, []).append(each.name)
    return "; ".join(
        f"{short_list(names)} ({reason})"
        for reason, names in sorted(groups.items(), key=lambda group: -len(group[1]))
    )


def has_test_folder(root: Path) -> bool:
    """Whether the pictures of the test have a folder of their own, beside `train`."""
    return _find_test_folder(open_tree(root)) is not None


def _find_test_folder(tree: Tree) -> PurePosixPath | None:
    """The folder of the test pictures; None if a share is held out."""
    is_divided = _find_folder(tree, TRAIN_FOLDERS) is None
    return None if is_divided else _find_folder(tree, TEST_FOLDERS)


def _list_all(tree: Tree, parts: Mapping[Split, _Listing]) -> _Listing:
    if _find_test_folder(tree) is not None:
        return parts["test"]
    return _list_classes(tree, _find_folder(tree, TRAIN_FOLDERS) or PurePosixPath())


def _list_splits(tree: Tree) -> dict[Split, _Listing]:
    """Both splits, from their folders or by a stratified split."""
    top = PurePosixPath()
    train = _find_folder(tree, TRAIN_FOLDERS)
    if train is None:
        return _divide(tree, top, _list_classes(tree, top))
    listing = _list_classes(tree, train)
    test = _find_folder(tree, TEST_FOLDERS)
    if test is None:
        return _divide(tree, train, listing)
    held_out = _list_classes(tree, test)
    if held_out.classes != listing.classes:
        raise DataError(
            f"{tree.root / test}: expected the classes of {tree.root / train}, "
            f"{', '.join(listing.classes)}; got {', '.join(held_out.classes)}"
        )
    return {"train": listing, "test": held_out}


def _find_folder(tree: Tree, names: Sequence[str]) -> PurePosixPath | None:
    """The first outermost folder with one of these names, in any case."""
    found = {each.name.lower(): each for each in sorted(tree.folders) if len(each.parts) == 1}
    return next((found[name] for name in names if name in found), None)


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
    # Files that are no pictures are of no split; they are listed once.
    test = replace(listing.take(division.held_out), others=[])
    return {"train": listing.take(division.kept), "test": test}


def _list_classes(tree: Tree, folder: PurePosixPath) -> _Listing:
    """List the classes and files of one folder, both sorted by name."""
    classes = sorted(name for name in tree.folders if name.parent == folder)
    if len(classes) < 2:
        raise DataError(
            f"{tree.root / folder}: expected a folder for each of at least 2 classes, "
            f"got {len(classes)}{_advice(tree, classes)}"
        )
    depth = len(folder.parts) + 1
    members: dict[PurePosixPath, list[PurePosixPath]] = {name: [] for name in classes}
    others: list[PurePosixPath] = []
    for name in sorted(tree.files):
        directory = PurePosixPath(*name.parts[:depth])
        if directory in members and directory != name:
            (others if _is_no_picture(name) else members[directory]).append(name)
    for directory, found in members.items():
        if not found:
            raise DataError(f"{tree.root / directory}: expected pictures, got none")
    files = [name for found in members.values() for name in found]
    labels = np.repeat(np.arange(len(classes)), [len(found) for found in members.values()])
    names = tuple(path.name for path in classes)
    return _Listing(names, files, labels.astype(np.int64), others, tree.digest(files, folder))


def _advice(tree: Tree, classes: list[PurePosixPath]) -> str:
    """Name the folder to use if the classes lie one folder deeper."""
    below = [name for name in tree.folders if name.parent in classes]
    return f"; its classes may be those of {tree.root / classes[0]}" if len(below) > 1 else ""


def _is_no_picture(name: PurePosixPath) -> bool:
    """Whether the file's ending says that it is no picture."""
    kind = _MIME_TYPES.guess_type(name.name.lower())[0]
    return name.suffix.lower() in _NO_PICTURES or not (kind or "image/").startswith("image/")


def read_pictures(
    files: Iterable[tuple[int, str, bytes]],
    count: int,
    size: tuple[int, int],
    channels: int,
    short_side: int | None,
) -> tuple[NDArray[np.uint8], dict[int, SkippedFile]]:
    """Read pictures as the network's input; the second result holds the unreadable ones, by row.

    Args:
        files: of each picture its row, its name for messages, and its contents.
        count: of the rows.
        size: width and height; other arguments as of `read_picture`.
    """
    images = np.empty((count, size[1], size[0], channels), np.uint8)
    unreadable: dict[int, SkippedFile] = {}
    for row, name, data in files:
        try:
            images[row] = read_picture(io.BytesIO(data), size, channels, short_side)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - Pillow raises many unrelated classes
            unreadable[row] = SkippedFile(name, _reason_unreadable(data, error))
    return images, dict(sorted(unreadable.items()))


def _reason_unreadable(data: bytes, error: Exception) -> str:
    """Why a picture cannot be read, and what to do, in a few words."""
    if not data:
        return "empty"
    kind = image_format(data)
    if kind == "HEIF":
        return "HEIF, convert it to JPEG"
    if isinstance(error, TooManyParts):
        return str(error)
    if isinstance(error, Image.DecompressionBombError | Warning):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    if isinstance(error, UnidentifiedImageError) and kind not in (PNG, JPEG):
        return f"{kind}, convert it to JPEG" if kind else "no picture"
    return "damaged or cut short"


def _require_every_class(
    tree: Tree,
    listing: _Listing,
    kept: NDArray[np.int64],
    unreadable: dict[int, SkippedFile],
    least: int,
) -> None:
    """Refuse a class that lost pictures and has fewer than `least` left."""
    counts = np.bincount(listing.labels[kept], minlength=len(listing.classes))
    for label in sorted({int(listing.labels[row]) for row in unreadable}):
        if counts[label] < least:
            lost = [each for row, each in unreadable.items() if listing.labels[row] == label]
            raise DataError(
                f"{tree.root}: expected at least {least} pictures of {listing.classes[label]} that "
                f"can be read, got {counts[label]}; unreadable: {_describe(lost)}"
            )


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
        # Pillow warns of metadata and of palettes, neither of which matters here.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = _convert(_open_upright(data), channels)
    return np.asarray(_fit(picture, size, short_side)).reshape(size[1], size[0], channels)


def _open_upright(data: bytes) -> Image.Image:
    """The pixels of the first picture in a file, upright."""
    kind = image_format(data)
    bare = strip_metadata(data, kind)
    if kind in (PNG, JPEG):
        # The file may lack its end, so it may be opened twice.
        picture = load_pixels(bare, lambda file: Image.open(io.BytesIO(file), formats=(kind,)))
        return upright(picture, bare.orientation)
    with Image.open(io.BytesIO(bare.data)) as opened:
        opened.load()
        return upright(opened, _orientation(opened))


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation of a picture that is neither PNG nor JPEG; 1 if it cannot be read."""
    try:
        orientation = picture.getexif().get(Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow raises many unrelated classes on damaged EXIF
        return 1
    return orientation if isinstance(orientation, int) else 1


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
