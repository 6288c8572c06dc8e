"""The idx format, and the data sets in it: MNIST and Fashion-MNIST.

An idx file is `00 00 08 n`, then n big-endian 32-bit sizes, then the bytes; here always gzipped.
"""

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weir.training.data.download import DataFolders, RemoteFile, locate, remote_files
from weir.training.data.images import ImageData, Split, combine_checksums
from weir.training.errors import DataError


@dataclass(frozen=True, slots=True)
class IdxSource:
    """A data set of four idx files, in a folder with the name of the set."""

    name: str
    classes: tuple[str, ...]
    train_images: RemoteFile
    train_labels: RemoteFile
    test_images: RemoteFile
    test_labels: RemoteFile

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """All four files."""
        return (self.train_images, self.train_labels, self.test_images, self.test_labels)


def load_idx(source: IdxSource, split: Split, folders: DataFolders) -> ImageData:
    """Find, verify and read one split; errors as `read_idx` and `locate`."""
    paths = {file: locate(source.name, file, folders) for file in source.files}
    train = split == "train"
    images = read_idx(paths[source.train_images if train else source.test_images], dimensions=3)
    labels = read_idx(paths[source.train_labels if train else source.test_labels], dimensions=1)
    return ImageData(
        name=source.name,
        images=images[..., np.newaxis],  # (n, height, width, 1)
        labels=labels.astype(np.int64),
        classes=source.classes,
        checksum=combine_checksums((file.name, file.sha256) for file in source.files),
    )


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read the array in a gzipped idx file of unsigned bytes; `DataError` names a broken file."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a gzip file, got {error}") from error
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic or len(content) < start:
        raise DataError(
            f"{path}: expected an idx header {magic.hex()} and {dimensions} sizes, "
            f"got {content[:start].hex() or 'nothing'}"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = int(np.prod(shape, dtype=object))
    if len(content) - start != expected:
        raise DataError(
            f"{path}: expected {expected} bytes for shape {shape}, got {len(content) - start}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


_MNIST = remote_files(
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    """\
440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609 9912422 train-images-idx3-ubyte.gz
3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c 28881 train-labels-idx1-ubyte.gz
8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6 1648877 t10k-images-idx3-ubyte.gz
f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6 4542 t10k-labels-idx1-ubyte.gz
""",
)
_FASHION = remote_files(
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    """\
3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84 26421880 train-images-idx3-ubyte.gz
a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845 29515 train-labels-idx1-ubyte.gz
346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073 4422102 t10k-images-idx3-ubyte.gz
67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5 5148 t10k-labels-idx1-ubyte.gz
""",
)
MNIST = IdxSource("mnist", tuple("0123456789"), *_MNIST.values())
FASHION_MNIST = IdxSource(
    "fashion-mnist",
    (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    *_FASHION.values(),
)
