"""Pictures as received → pixels as a model was trained on them. Pure: bytes in, pixels out.

Rules:
- The format is read from the bytes. JPEG and PNG are supported; no other decoder is ever called.
- The cost of a picture is read from its header before a pixel is decompressed.
- Metadata cannot refuse a picture: the decoder never gets it, see `weir.bundle.image_file`.
- The pixels are exactly those of `weir.training.data.image_folder.read_picture`: turned upright by
  EXIF, 16 bits cut to 8, on white where transparent, converted to grey or RGB, then resized. Colour
  profiles are ignored. Of an animated PNG the first frame is read.
- A picture that is damaged, too large or in another format raises InvalidRequest, without Pillow's
  text; one that does not fit into memory raises OutOfMemory.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from weir.bundle.contract import Preprocessing
from weir.bundle.image_file import (
    JPEG,
    PNG,
    BareImage,
    TooManyParts,
    image_format,
    load_pixels,
    strip_metadata,
)
from weir.bundle.image_geometry import centre_crop, short_side_size, upright
from weir.server.errors import InvalidRequest, OutOfMemory

Pixels = NDArray[np.uint8]

MAX_PIXELS = 32_000_000
MAX_REQUEST_PIXELS = 128_000_000
"""Pixels of all pictures of a request: so many take a thread 0.6 s."""
# A JPEG's own limit. Resizing needs memory in proportion to a line: 30 million pixels took 1 GB.
_MAX_SIDE = 65_535

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_encoded(data: bytes, preprocessing: Preprocessing) -> Pixels:
    """The pixels of a JPEG or PNG file as the model takes them: (height, width, channels)."""
    kind = _format(data)
    with _memory_errors():
        return _prepare(_decode(_strip(data, kind), kind), preprocessing)


def header_pixels(data: bytes) -> int:
    """The pixels that a JPEG or PNG file says it has; 0 if it says nothing that can be read."""
    try:
        kind = _format(data)
        bare = _strip(data, kind).data
        if kind == PNG:
            return int.from_bytes(bare[16:20]) * int.from_bytes(bare[20:24])
        width, height = JpegImageFile(io.BytesIO(bare)).size
    except Exception:  # noqa: BLE001 - Pillow raises many classes; `read_encoded` refuses the file
        return 0
    return int(width) * int(height)


def check_request_pixels(pixels: int) -> None:
    """Refuse a request of too many pixels in all."""
    if pixels > MAX_REQUEST_PIXELS:
        raise InvalidRequest(
            f"pictures: expected at most {MAX_REQUEST_PIXELS} pixels in a request, got {pixels}"
        )


def read_raw(
    values: bytes, *, height: int, width: int, channels: int, preprocessing: Preprocessing
) -> Pixels:
    """Raw pixels as the model takes them, as if they had come in a PNG.

    Args:
        values: a byte each, (height, width, channels).
        channels: 1 for grey, 3 for RGB, 4 for RGB and alpha.
    """
    mode = _MODES.get(channels)
    if mode is None:
        raise InvalidRequest(f"expected 1, 3 or 4 channels, got {channels}")
    _check_size(width, height)
    expected_bytes = height * width * channels
    if len(values) != expected_bytes:
        raise InvalidRequest(
            f"expected {expected_bytes} values for {height} x {width} x {channels}, "
            f"got {len(values)}"
        )
    with _memory_errors():
        return _prepare(Image.frombytes(mode, (width, height), values), preprocessing)


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory("a picture needs more memory than there is") from error


def _format(data: bytes) -> str:
    """PNG or JPEG, by the first bytes."""
    found = image_format(data)
    if found in (PNG, JPEG):
        return found
    got = found or ("something else" if data else "no bytes")
    advice = "; convert it to JPEG" if found == "HEIF" else ""
    raise InvalidRequest(f"expected JPEG or PNG, got {got}{advice}")


def _strip(data: bytes, kind: str) -> BareImage:
    try:
        return strip_metadata(data, kind)
    except TooManyParts as error:
        raise InvalidRequest(str(error)) from error


def _decode(bare: BareImage, kind: str) -> Image.Image:
    """The picture, upright.

    The format's class is called directly: `Image.open` tries other formats, and changes warning
    filters that all threads share.
    """

    def open_image(data: bytes) -> Image.Image:
        file = io.BytesIO(data)
        image = PngImageFile(file) if kind == PNG else JpegImageFile(file)
        _check_size(*image.size)
        return image

    try:
        return upright(load_pixels(bare, open_image), bare.orientation)
    except (InvalidRequest, MemoryError):
        raise
    except Exception as error:  # Pillow raises many unrelated classes on damaged bytes
        raise InvalidRequest(f"the {kind} is damaged or cut short") from error


def _check_size(width: int, height: int) -> None:
    if not width or not height:
        raise InvalidRequest(f"expected pixels, got {width} x {height}")
    if width * height > MAX_PIXELS:
        raise InvalidRequest(f"expected at most {MAX_PIXELS} pixels, got {width} x {height}")
    if max(width, height) > _MAX_SIDE:
        raise InvalidRequest(f"expected at most {_MAX_SIDE} pixels a side, got {width} x {height}")


def _prepare(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    resized = _resize(_convert(image, preprocessing.channels), preprocessing)
    return np.asarray(resized).reshape(
        preprocessing.height, preprocessing.width, preprocessing.channels
    )


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits to 8 instead of scaling them.
        wide: NDArray[Any] = np.asarray(image)
        image = Image.fromarray((wide >> 8).astype(np.uint8))
    if image.has_transparency_data:
        # The colour of fully transparent pixels is arbitrary.
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(_MODES[channels])


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    width, height = preprocessing.width, preprocessing.height
    if preprocessing.short_side is None:
        return image.resize((width, height), Image.Resampling.BILINEAR)
    size = short_side_size(image.size, preprocessing.short_side)
    if size[0] * size[1] > MAX_PIXELS:
        raise InvalidRequest(
            f"{image.width} x {image.height} pixels are too narrow: with a short side of "
            f"{preprocessing.short_side} they would be {size[0]} x {size[1]}"
        )
    resized = image.resize(size, Image.Resampling.BILINEAR)
    return resized.crop(centre_crop(size, (width, height)))
