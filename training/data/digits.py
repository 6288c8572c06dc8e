"""scikit-learn's digits: 1,797 handwritten digits that are part of the package.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998), its test
part: 8 x 8 pictures with values of 0 to 16. A fifth of each class is the test set, always the same
rows.
"""

import hashlib
from importlib import resources

import numpy as np
from PIL import Image

from weir.training.data.images import OWN_TEST_SEED, OWN_TEST_SHARE, ImageData, Split, divide

SIDE = 28
MARGIN = 2
"""Background around the enlarged digit, as in MNIST: augmentation then cuts nothing off."""


def load_digits(split: Split) -> ImageData:
    """Load one split: uint8 pictures (n, 28, 28, 1), white on black."""
    from sklearn.datasets import load_digits as read_digits  # type: ignore[import-untyped]

    bunch = read_digits()
    labels = bunch.target.astype(np.int64)
    division = divide(labels, OWN_TEST_SHARE, OWN_TEST_SEED)
    source = resources.files("sklearn.datasets.data") / "digits.csv.gz"
    everything = ImageData(
        name="digits",
        images=np.stack([_enlarge(picture) for picture in bunch.images]),
        labels=labels,
        classes=tuple("0123456789"),
        checksum=hashlib.sha256(source.read_bytes()).hexdigest(),
    )
    return everything.take(division.kept if split == "train" else division.held_out)


def _enlarge(
    picture: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Scale (8, 8) of 0 to 16 to (28, 28, 1) of 0 to 255."""
    grey = np.rint(picture * (255.0 / 16.0)).astype(np.uint8)
    inside = SIDE - 2 * MARGIN
    large = Image.fromarray(grey).resize((inside, inside), Image.Resampling.BILINEAR)
    return np.pad(np.asarray(large), MARGIN)[..., np.newaxis]
