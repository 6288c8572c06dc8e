"""Metadata of JPEG and PNG files: cut out before they are decoded, and read for the orientation.

Rules:
- Metadata cannot refuse a picture. The decoder gets the chunks and segments that pixels depend on;
  it never reads EXIF, XMP, texts, colour profiles, comments or frames of an animation.
- EXIF is read for the orientation alone. A block that cannot be read has none.
- The first orientation of 1 to 8 counts: of EXIF, else of the text in which ImageMagick keeps EXIF,
  else of XMP.
- The cost is linear in the bytes, and few blocks are read. Nothing is decompressed beyond a bound.
- A JPEG that lacks only its end of image is whole. One whose pixels end early is not.
- A file that is damaged elsewhere is passed on as it is: the decoder refuses it.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from PIL import Image, ImageChops

from weir.bundle.errors import BundleError

Bytes: TypeAlias = "bytes | memoryview"

MAX_PARTS = 16_384
"""Decoders read chunks and segments one by one. A picture of 16 MB has 2,048 chunks."""
MAX_SCANS = 100
"""A progressive JPEG passes over all pixels once a scan: 16 MB of empty scans would occupy a thread
for an hour. Encoders write about ten."""

PNG, JPEG, TIFF = "PNG", "JPEG", "TIFF"
_SIGNATURES = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PNG),
    (re.compile(rb"\xff\xd8\xff"), JPEG),
    (re.compile(rb"GIF8[79]a"), "GIF"),
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), TIFF),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WebP"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "EPS"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"BM.{8}", re.DOTALL), "BMP"),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), "AVIF"),
    (re.compile(rb"....ftyp(hei|hev|mif|msf)", re.DOTALL), "HEIF"),
    (re.compile(rb"\s*<(svg|\?xml)"), "SVG"),
)

# Blocks of one kind that are read, and the bytes of a text that are decompressed.
_MOST_BLOCKS = 8
_MOST_TEXT_BYTES = 1 << 20

_EXIF_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
# Types of TIFF that hold whole numbers: BYTE, SHORT and LONG.
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I"}
_DIRECTORY_TAGS = (0x8769, 0x8825, 0xA005)
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')

_COLOUR_TYPE = 25
_TRANSPARENCY_BYTES = {0: 2, 2: 6}
_RAW_PROFILE, _PNG_XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")

# Fill bytes, stuffed bytes and restarts are not markers.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_START_OF_SCAN, _END_OF_IMAGE, _COMMENT = 0xDA, 0xD9, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_WITHOUT_LENGTH = (0x01, 0xD8, _END_OF_IMAGE)
_SEQUENTIAL = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_RESTARTS = 0xDD
_EMPTY_COMMENT = b"\xff\xfe\0\2"
_END = b"\xff\xd9"
_OTHER_END = bytes((37 * number + 183) % 251 for number in range(251)) + _END
_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
# From these two, decoders take the colour space. libjpeg ignores shorter ones.
_COLOUR_SEGMENTS = {_APP0: (b"JFIF\0", 14), _APP14: (b"Adobe", 12)}


class TooManyParts(BundleError):
    """The file has more chunks, segments or scans than any encoder writes."""


@dataclass(frozen=True, slots=True)
class BareImage:
    """An image file without metadata.

    orientation: 1 to 8, from its EXIF block.
    lacks_end: whether it is a JPEG of one sequential scan, without restarts and end of image.
    """

    data: bytes
    orientation: int
    lacks_end: bool = False


@dataclass(frozen=True, slots=True)
class _Metadata:
    """The blocks that may hold the orientation."""

    exif: list[Bytes] = field(default_factory=list)
    profiles: list[Bytes] = field(default_factory=list)
    xmp: list[Bytes] = field(default_factory=list)


def image_format(data: bytes) -> str | None:
    """The name of the format, by the first bytes; None if it is not known."""
    return next((name for pattern, name in _SIGNATURES if pattern.match(data)), None)


def strip_metadata(data: bytes, kind: str | None) -> BareImage:
    """Cut the metadata out of a file of the format PNG or JPEG, and all pictures but the first.

    Of a TIFF the orientation stays, which Pillow applies; other formats stay as they are.

    Raises:
        TooManyParts: more than `MAX_PARTS` chunks or segments, or `MAX_SCANS` scans. Before the
            first scan of a JPEG each byte between two segments counts as one: decoders read them
            one by one, also past an end of image.
    """
    if kind == PNG:
        return _strip_png(data)
    if kind == JPEG:
        return _strip_jpeg(data)
    return BareImage(_hide_directories(data) if kind == TIFF else data, 1)


def load_pixels(bare: BareImage, open_image: Callable[[bytes], Image.Image]) -> Image.Image:
    """Decode the picture, as it is stored.

    libjpeg fills pixels that are missing at the end with grey, and Pillow does not say so. The
    picture is therefore decoded twice if its end of image is missing, with different bytes behind
    it: they change pixels unless all were there.

    Args:
        open_image: opens an image file, and raises if it is damaged or too large.

    Raises:
        OSError: the picture is cut short; Pillow raises many other classes.
    """
    if not bare.lacks_end:
        image = open_image(bare.data)
        image.load()
        # Pillow decodes such a PNG, and fails at the first use of its colours.
        if image.mode == "P" and image.palette is None:
            raise OSError("image file lacks its palette")
        return image
    # Half of an end of image may be there.
    data = bare.data.removesuffix(_END[:1])
    image = open_image(data + _END)
    if ImageChops.difference(image, open_image(data + _OTHER_END)).getbbox():
        raise OSError("image file is truncated")
    return image


def _strip_png(data: bytes) -> BareImage:
    view, metadata = memoryview(data), _Metadata()
    kept: list[Bytes] = [view[:8]]
    chunks, position, colours = 0, 8, 0
    has_pixels = has_transparency = False
    while position < len(data):
        chunks += 1
        if chunks > MAX_PARTS:
            raise TooManyParts(f"expected a PNG of at most {MAX_PARTS} chunks, got more")
        length, name = (
            int.from_bytes(view[position : position + 4]),
            data[position + 4 : position + 8],
        )
        end = position + 12 + length
        if not _is_ancillary(name):
            kept.append(view[position:end])
            has_pixels |= name == b"IDAT"
            colours = length // 3 if name == b"PLTE" else colours
        elif name == b"tRNS":
            if not (has_pixels or has_transparency):
                has_transparency = _is_transparency(
                    view[position:end], _byte(data, _COLOUR_TYPE), colours
                )
                kept += [view[position:end]] if has_transparency else []
        else:
            _collect_png(metadata, name, view[position + 8 : end - 4])
        if name == b"IEND":
            break
        position = end
    return BareImage(_join(kept, data), _orientation(metadata))


def _join(kept: list[Bytes], data: bytes) -> bytes:
    """The kept parts; the file itself if these are all of it."""
    return data if sum(map(len, kept)) == len(data) else b"".join(kept)


def _is_ancillary(name: bytes) -> bool:
    """Whether decoders may skip the chunk: its first letter is small."""
    return name.isalpha() and name[:1].islower()


def _is_transparency(chunk: memoryview, colour_type: int, colours: int) -> bool:
    """Whether a chunk tRNS is whole and goes with the colours; libpng ignores it otherwise."""
    content, crc = chunk[8:-4], chunk[-4:]
    if len(chunk) < 12 or zlib.crc32(chunk[4:-4]) != int.from_bytes(crc):
        return False
    if colour_type == 3:
        return 1 <= len(content) <= colours
    return len(content) == _TRANSPARENCY_BYTES.get(colour_type)


def _collect_png(metadata: _Metadata, name: bytes, content: memoryview) -> None:
    """Collect a chunk's content if it may hold the orientation."""
    if name == b"eXIf":
        _collect(metadata.exif, content)
    elif name in _TEXTS:
        keyword = bytes(content[: len(_RAW_PROFILE) + 1]).partition(b"\0")[0]
        if keyword == _RAW_PROFILE:
            _collect(metadata.profiles, _text(name, content[len(keyword) + 1 :]))
        elif keyword == _PNG_XMP:
            _collect(metadata.xmp, _text(name, content[len(keyword) + 1 :]))


def _collect(blocks: list[Bytes], block: Bytes) -> None:
    if len(blocks) < _MOST_BLOCKS:
        blocks.append(block)


def _text(name: bytes, content: memoryview) -> bytes:
    """The start of a PNG's text, behind its keyword; empty if it cannot be decompressed."""
    if name == b"tEXt":
        return bytes(content[:_MOST_TEXT_BYTES])
    if name == b"zTXt":
        return _decompress(content[1:])
    # A flag of compression, its method, then two words that end with a zero, and the text.
    text = bytes(content[2:]).split(b"\0", 2)[-1]
    return _decompress(text) if bytes(content[:1]) == b"\1" else text[:_MOST_TEXT_BYTES]


def _decompress(packed: Bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MOST_TEXT_BYTES)
    except zlib.error:
        return b""


def _strip_jpeg(data: bytes) -> BareImage:
    view, metadata = memoryview(data), _Metadata()
    kept: list[Bytes] = []
    parts = scans = components = 0
    has_end = is_sequential = has_restarts = False
    # Bytes from `start` on are kept unless a segment is cut out; the next one begins at `position`.
    start, position = 0, 2
    while position < len(data):
        found = _MARKER.search(data, position)
        before, behind = found.span() if found else (len(data), len(data))
        marker = found[1][0] if found else _END_OF_IMAGE
        if scans and marker == _END_OF_IMAGE:
            has_end, position = found is not None, behind
            break
        parts += 1 if scans else 1 + before - position
        scans += marker == _START_OF_SCAN
        if parts > MAX_PARTS or scans > MAX_SCANS:
            raise TooManyParts(
                f"expected a JPEG of at most {MAX_PARTS} segments and {MAX_SCANS} scans, got more"
            )
        end = behind
        if marker not in _WITHOUT_LENGTH:
            end += max(int.from_bytes(view[behind : behind + 2]), 2)
        if marker in _FRAMES:
            is_sequential, components = marker in _SEQUENTIAL, _byte(data, behind + 7)
        elif marker == _START_OF_SCAN:
            is_sequential &= components == _byte(data, behind + 2)
        elif marker == _RESTARTS:
            has_restarts = True
        elif not scans and _is_metadata(data, marker, behind + 2, end):
            _collect_jpeg(metadata, data, behind + 2, end)
            kept.append(view[start:position])
            start = end
        position = end
    kept.append(view[start:position])
    # Between restarts, missing pixels could not be told from those that are grey.
    lacks_end = scans == 1 and is_sequential and not (has_end or has_restarts)
    bare = _join(kept, data)
    if bare[2:3] != b"\xff":
        # Decoders want a marker behind the first one, and skip other bytes after that.
        bare = bare[:2] + _EMPTY_COMMENT + bare[2:]
    return BareImage(bare, _orientation(metadata), lacks_end)


def _byte(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 1])


def _is_metadata(data: bytes, marker: int, start: int, end: int) -> bool:
    """Whether a segment, its content from `start` to `end`, is one that no pixel depends on."""
    if marker == _COMMENT or not _APP0 <= marker <= _APP15:
        return marker == _COMMENT
    prefix, least_bytes = _COLOUR_SEGMENTS.get(marker, (b"", 0))
    return not prefix or end - start < least_bytes or not data.startswith(prefix, start)


def _collect_jpeg(metadata: _Metadata, data: bytes, start: int, end: int) -> None:
    """Collect a segment's content if it may hold the orientation."""
    if data.startswith(_EXIF_PREFIX, start):
        _collect(metadata.exif, data[start:end])
    elif data.startswith(_JPEG_XMP, start):
        _collect(metadata.xmp, data[start:end])


def _orientation(metadata: _Metadata) -> int:
    profiles = (_profile(block) for block in metadata.profiles)
    for block in (*metadata.exif, *profiles):
        if orientation := _exif_orientation(block):
            return orientation
    for block in metadata.xmp:
        if found := _XMP_ORIENTATION.search(block):
            return int(found[1])
    return 1


def _profile(text: Bytes) -> bytes:
    """The bytes of a raw profile: lines of its name and length, then hexadecimal digits."""
    digits = b"".join(bytes(text).split(b"\n")[3:])
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return b""


def _exif_orientation(block: Bytes) -> int | None:
    """The orientation of an EXIF block, 1 to 8; None if there is none that can be read."""
    for _ in range(2):
        # PNG has none of these prefixes and JPEG one; some writers add another.
        if block[:6] == _EXIF_PREFIX:
            block = block[6:]
    directory = _directory(block)
    for tag, kind, number, value in struct.iter_unpack(directory.entry, directory.entries):
        if tag == _ORIENTATION_TAG and kind in _WHOLE_NUMBERS and number == 1:
            order = directory.entry[0]
            (orientation,) = struct.unpack_from(order + _WHOLE_NUMBERS[kind], value)
            return int(orientation) if 1 <= orientation <= 8 else None
    return None


@dataclass(frozen=True, slots=True)
class _Directory:
    """The whole entries of a TIFF's first directory, and the format of one for `struct`."""

    entry: str = "<HHI4s"
    start: int = 0
    entries: Bytes = b""


def _directory(block: Bytes) -> _Directory:
    """Find the first directory of a TIFF; none if it cannot be read."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    # Some writers swap the two bytes of the version.
    if order is None or bytes(block[2:4]) not in (b"*\0", b"\0*") or len(block) < 8:
        return _Directory()
    (first,) = struct.unpack_from(f"{order}I", block, 4)
    if first + 2 > len(block):
        return _Directory()
    (count,) = struct.unpack_from(f"{order}H", block, first)
    start = first + 2
    entries = block[start : start + 12 * count]
    return _Directory(f"{order}HHI4s", start, entries[: len(entries) // 12 * 12])


def _hide_directories(data: bytes) -> bytes:
    """Give a TIFF's links to EXIF and GPS a type that does not exist, so that they are not read."""
    directory, hidden = _directory(data), bytearray(data)
    entries = struct.iter_unpack(directory.entry, directory.entries)
    for number, (tag, *_) in enumerate(entries):
        if tag in _DIRECTORY_TAGS:
            position = directory.start + 12 * number + 2
            hidden[position : position + 2] = bytes(2)
    return bytes(hidden)
