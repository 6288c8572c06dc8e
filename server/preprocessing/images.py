"""Pictures as received → pixels as a model was trained on them. Pure: bytes in, pixels out.

Rules:
- The format is read from the bytes. JPEG and PNG are supported; no other decoder is ever called.
- The cost of a picture is read from its header before a pixel is decompressed.
- The pixels are exactly those of `weir.training.data.image_folder.read_picture`: turned upright by
  EXIF, 16 bits cut to 8, on white where transparent, converted to grey or RGB, then resized. Colour
  profiles are ignored. Of an animated PNG the first frame is read.
- A picture that is damaged, too large or in another format raises InvalidRequest, without Pillow's
  text; one that does not fit into memory raises OutOfMemory.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from weir.bundle.contract import Preprocessing
from weir.bundle.image_geometry import centre_crop, short_side_size, upright
from weir.server.errors import InvalidRequest, OutOfMemory

Pixels = NDArray[np.uint8]

MAX_PIXELS = 32_000_000
MAX_REQUEST_PIXELS = 128_000_000
"""Pixels of all pictures of a request: so many take a thread 0.6 s."""
# A JPEG's own limit. Resizing needs memory in proportion to a line: 30 million pixels took 1 GB.
_MAX_SIDE = 65_535
# Pillow reads chunks and segments one by one in Python. A picture of 16 MB has 2,048 chunks.
_MAX_PARTS = 16_384
# Pillow joins the EXIF of several segments by repeated copies. One segment is usual.
_MAX_EXIF_PARTS = 100
# A progressive JPEG passes over all pixels once a scan: 16 MB of empty scans would occupy a thread
# for an hour. Encoders write about ten.
_MAX_SCANS = 100

_PNG, _JPEG = "PNG", "JPEG"
_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _PNG),
    (re.compile(rb"\xff\xd8\xff"), _JPEG),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), "TIFF"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "EPS"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"BM.{8}", re.DOTALL), "BMP"),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "AVIF"),
    (re.compile(rb"....ftyp(hei|mif|msf)", re.DOTALL), "HEIF"),
    (re.compile(rb"\s*<(svg|\?xml)"), "SVG"),
)
# Fill bytes, stuffed bytes and restarts are not markers.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_START_OF_SCAN, _END_OF_IMAGE, _APP1 = 0xDA, 0xD9, 0xE1
_WITHOUT_LENGTH = (0x01, 0xD8, _END_OF_IMAGE)

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_encoded(data: bytes, preprocessing: Preprocessing) -> Pixels:
    """The pixels of a JPEG or PNG file as the model takes them: (height, width, channels)."""
    kind = _format(data)
    if kind == _PNG:
        _check_chunks(data)
    else:
        _check_segments(data)
    with _memory_errors():
        return _prepare(_decode(data, kind), preprocessing)


def header_pixels(data: bytes) -> int:
    """The pixels that a JPEG or PNG file says it has; 0 if it says nothing that can be read."""
    try:
        kind = _format(data)
        if kind == _PNG:
            return int.from_bytes(data[16:20]) * int.from_bytes(data[20:24])
        _check_segments(data)
        width, height = JpegImageFile(io.BytesIO(data)).size
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
    found = next((name for pattern, name in _SIGNATURES if pattern.match(data)), None)
    if found in (_PNG, _JPEG):
        return str(found)
    got = found or ("something else" if data else "no bytes")
    raise InvalidRequest(f"expected JPEG or PNG, got {got}")


def _check_chunks(data: bytes) -> None:
    """Refuse a PNG of too many chunks."""
    chunks, position = 0, 8
    while position < len(data):
        chunks += 1
        if chunks > _MAX_PARTS:
            raise InvalidRequest(f"expected a PNG of at most {_MAX_PARTS} chunks, got more")
        position += 12 + int.from_bytes(data[position : position + 4])


def _check_segments(data: bytes) -> None:
    """Refuse a JPEG of too many segments or scans.

    Before the first scan each byte between two segments counts as one: Pillow reads them one by
    one, also past an end of image.
    """
    parts = exif_parts = scans = 0
    position = 2
    while position < len(data):
        found = _MARKER.search(data, position)
        start, end = found.span() if found else (len(data), len(data))
        marker = found[1][0] if found else _END_OF_IMAGE
        if scans and marker == _END_OF_IMAGE:
            return
        parts += 1 if scans else 1 + start - position
        scans += marker == _START_OF_SCAN
        exif_parts += marker == _APP1 and data.startswith(b"Exif", end + 2)
        if parts > _MAX_PARTS or exif_parts > _MAX_EXIF_PARTS or scans > _MAX_SCANS:
            raise InvalidRequest(
                f"expected a JPEG of at most {_MAX_PARTS} segments, {_MAX_EXIF_PARTS} of EXIF, "
                f"and {_MAX_SCANS} scans, got more"
            )
        position = end
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[end : end + 2])


def _decode(data: bytes, kind: str) -> Image.Image:
    """The picture, upright.

    The format's class is called directly: `Image.open` tries other formats, and changes warning
    filters that all threads share.
    """
    file = io.BytesIO(data)
    try:
        image = PngImageFile(file) if kind == _PNG else JpegImageFile(file)
        _check_size(*image.size)
        return upright(image)
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
