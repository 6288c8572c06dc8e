"""The data sets by name: `load` gives one split of a known set, or of your own pictures."""

from pathlib import Path

from training.data.cifar10 import load_cifar10
from training.data.digits import load_digits
from training.data.folder import load_folder
from training.data.idx import FASHION_MNIST, MNIST, load_idx
from training.data.images import ImageData, Split
from training.data.sources import Places
from training.errors import DataError

__all__ = ["DATA_SETS", "ImageData", "Split", "load"]

IDX_SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST)}
DATA_SETS = ("digits", *IDX_SOURCES, "cifar10")
"""The names `load` knows; any other is taken for the path of a folder or a tar file."""


def load(
    name: str,
    split: Split = "train",
    *,
    height: int = 28,
    width: int = 28,
    channels: int = 1,
    short_side: int | None = None,
) -> ImageData:
    """One split of a data set.

    Args:
        name: one of `DATA_SETS`, or the path of a folder or tar file of images (see `training.data.folder`).
        split: `train` or `test`; a validation set is taken from `train` by whoever needs one.
        height: in pixels; your own pictures are brought to it, a named set must have it.
        width: likewise.
        channels: 1 grey or 3 colours, likewise.
        short_side: of your own pictures, before their middle is cut out; none stretches them.

    Raises:
        DataError: unknown name, or broken files.
        DownloadError: files that are neither here nor could be fetched.
    """
    if name not in DATA_SETS:
        place = Path(name)
        if not place.exists():
            known = ", ".join(DATA_SETS)
            raise DataError(f"{name}: neither a data set ({known}) nor a folder or tar file")
        return load_folder(
            place, split, height=height, width=width, channels=channels, short_side=short_side
        )
    if name == "digits":
        data = load_digits(split)
    elif name == "cifar10":
        data = load_cifar10(split, Places.from_environment())
    else:
        data = load_idx(IDX_SOURCES[name], split, Places.from_environment())
    if data.images.shape[1:] != (height, width, channels):
        found = " x ".join(str(size) for size in data.images.shape[1:])
        raise DataError(f"{name}: pictures are {found}, expected {height} x {width} x {channels}")
    return data
