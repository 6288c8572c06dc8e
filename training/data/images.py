"""Image sets: pictures with labels, stratified splits, and checksums of data sets."""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from weir.training.equal_rows import digest
from weir.training.errors import DataError

Split = Literal["train", "test"]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of the user's pictures that was left out.

    name: relative to the data set.
    is_picture: whether a picture was expected there; other files are left out unread.
    """

    name: str
    reason: str
    is_picture: bool = True

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


@dataclass(frozen=True, slots=True)
class ImageData:
    """One split of a data set.

    images: uint8 (n, height, width, channels); labels: int64 (n,), indices into `classes`;
    checksum: SHA-256 over the source files of all splits; skipped: the files that were left out;
    split_checksum: SHA-256 over the source files of this split, if it has files of its own.
    """

    name: str
    images: Images
    labels: Labels
    classes: tuple[str, ...]
    checksum: str
    skipped: tuple[SkippedFile, ...] = ()
    split_checksum: str = ""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise DataError(
                f"{self.name}: images {self.images.shape} do not go with labels {self.labels.shape}"
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(
                f"{self.name}: labels must be 0 to {len(self.classes) - 1}, "
                f"got {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def contents(self) -> list[bytes]:
        """A key of each image; equal images have equal keys."""
        return [digest(image.tobytes()) for image in self.images]

    def take(self, rows: Rows) -> "ImageData":
        """The given rows, in the given order."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    @property
    def source_checksum(self) -> str:
        """SHA-256 of what this split was read from: its own files, or those of all splits."""
        return self.split_checksum or self.checksum


OWN_TEST_SHARE, OWN_TEST_SEED = 0.2, 1998
"""The test set of data that come without one: always the same rows."""


@dataclass(frozen=True, slots=True)
class Division:
    """The rows that are kept and the rows that are held out, both ascending."""

    kept: Rows
    held_out: Rows


class Divisible(Protocol):
    """Rows that can be selected."""

    def take(self, rows: Rows) -> Self:
        """The given rows, in the given order."""


Data = TypeVar("Data", bound=Divisible)


def take_own_split(
    data: Data, split: str, divide_rows: Callable[[Data, float, int], Division]
) -> Data:
    """The rows of `train` or of the test, of data that come without a test set."""
    division = divide_rows(data, OWN_TEST_SHARE, OWN_TEST_SEED)
    return data.take(division.kept if split == "train" else division.held_out)


def divide(
    labels: Labels, share: float, seed: int, contents: Sequence[Hashable] | None = None
) -> Division:
    """Stratified split: hold out a share of each class, at least one row of a class that has two.

    Deterministic: the result depends on the arguments only.

    Args:
        contents: (rows,), rows with equal contents stay together; they count for the class of the
            first of them. None: all rows differ. If no class has two contents, rows are held out
            all the same.
    """
    groups = np.arange(len(labels)) if contents is None else group_equal(contents)
    _, firsts, sizes = np.unique(groups, return_index=True, return_counts=True)
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen: list[int] = []
    for label in np.unique(labels[firsts]):
        of_label = generator.permutation(np.flatnonzero(labels[firsts] == label))
        wanted = max(round(share * int(sizes[of_label].sum())), 1)
        chosen += _fill(of_label, sizes[of_label], wanted)
    if contents is not None and not chosen:
        return divide(labels, share, seed)
    is_held_out = np.isin(groups, chosen)
    return Division(kept=np.flatnonzero(~is_held_out), held_out=np.flatnonzero(is_held_out))


def _fill(groups: Rows, sizes: Rows, wanted: int) -> list[int]:
    """The first groups that fit into so many rows; the smallest if none fits, never all groups."""
    chosen: list[int] = []
    left = wanted
    for group, size in zip(groups.tolist(), sizes.tolist(), strict=True):
        if size <= left and len(chosen) < len(groups) - 1:
            chosen.append(group)
            left -= size
    if not chosen and len(groups) > 1:
        chosen.append(int(groups[sizes.argmin()]))
    return chosen


def group_equal(contents: Iterable[Hashable]) -> Rows:
    """The number of each row's group (rows,): rows with equal contents have the same one."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(each, len(numbers)) for each in contents], np.int64)


def draw_rows(count: int, most: int | None, seed: int) -> Rows | None:
    """Draw `most` of `count` rows, ascending; None if all rows are kept."""
    if most is None or most >= count:
        return None
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def joint_checksum(train: str, dev: str, test: str) -> str:
    """The checksum of three sets; if all three come from the same files, that of the files."""
    if train == dev == test:
        return train
    return combine_checksums([("train", train), ("dev", dev), ("test", test)])


def combine_checksums(files: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 for several files: over `checksum  name` lines sorted by name."""
    lines = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
