"""PNG and JPEG files with metadata that are broken, written byte by byte."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIXELS = np.random.default_rng(7).integers(0, 256, (8, 8, 3), np.uint8)
ORIENTATION, X_RESOLUTION, RESOLUTION_UNIT = 0x0112, 0x011A, 0x0128
XMP_ADDRESS = b"http://ns.adobe.com/xap/1.0/\0"


def encode(kind: str, **options: Any) -> bytes:
    """The picture in a format of Pillow's."""
    return encode_pixels(PIXELS, kind, **options)


def encode_pixels(pixels: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    """Pixels (H, W) or (H, W, 3) in a format of Pillow's."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


PNG, JPEG = encode("PNG"), encode("JPEG", quality=95)


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG, by default with the right checksum."""
    right = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc or right)


def png(*chunks: bytes, behind: bool = False) -> bytes:
    """The picture with more chunks after its header, or behind its pixels."""
    at = len(PNG) - 12 if behind else 33
    return PNG[:at] + b"".join(chunks) + PNG[at:]


def segment(content: bytes, marker: int = 0xE1) -> bytes:
    """A segment of a JPEG; by default the one that EXIF and XMP use."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments: bytes) -> bytes:
    """The picture with more segments after its first one, which is JFIF."""
    return JPEG[:20] + b"".join(segments) + JPEG[20:]


def tiff(*entries: tuple[int, int, int, bytes], order: str = "<", first: int = 8) -> bytes:
    """A TIFF directory of (tag, type, count, four bytes), as in an EXIF block."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    packed = b"".join(
        struct.pack(order + "HHI", tag, kind, count) + value for tag, kind, count, value in entries
    )
    end = struct.pack(order + "I", 0)
    return (
        head
        + struct.pack(order + "I", first)
        + struct.pack(order + "H", len(entries))
        + packed
        + end
    )


def short(value: int, order: str = "<") -> bytes:
    """A SHORT in the four bytes of an entry."""
    return struct.pack(order + "HH", value, 0)


TURNED = (ORIENTATION, 3, 1, short(6))
RIGHT_EXIF = tiff(TURNED)

UNREADABLE_EXIF = {
    "empty": b"",
    "one byte": b"I",
    "order alone": b"II",
    "header alone": b"II*\0\x08\0\0\0",
    "header cut": b"II*\0\x08",
    "other order": b"XX" + RIGHT_EXIF[2:],
    "bytes of the other order": b"MM\0*" + RIGHT_EXIF[4:],
    "zeros": bytes(60),
    "ones": b"\xff" * 60,
    "text": b"no TIFF",
    "directory outside": tiff(TURNED, first=9_999_999),
    "directory in its header": tiff(TURNED, first=0),
    "entry cut": RIGHT_EXIF[:15],
    "orientation 0": tiff((ORIENTATION, 3, 1, short(0))),
    "orientation 9": tiff((ORIENTATION, 3, 1, short(9))),
    "orientation as text": tiff((ORIENTATION, 2, 2, b"1\0\0\0")),
    "orientation as bytes": tiff((ORIENTATION, 7, 1, b"\6\0\0\0")),
    "orientation as float": tiff((ORIENTATION, 11, 1, struct.pack("<f", 6))),
    "orientation that is no number": tiff((ORIENTATION, 11, 1, struct.pack("<f", np.nan))),
    "orientation as fraction": tiff((ORIENTATION, 5, 1, struct.pack("<I", 26))) + bytes(8),
    "no orientation": tiff((ORIENTATION, 3, 0, short(6))),
    "four thousand million orientations": tiff((ORIENTATION, 3, 2**32 - 1, short(6))),
    "unknown type": tiff((ORIENTATION, 99, 1, short(6))),
    "negative": tiff((ORIENTATION, 8, 1, struct.pack("<hh", -6, 0))),
    "resolution of one byte": tiff(
        (X_RESOLUTION, 7, 1, b"\1\0\0\0"), (RESOLUTION_UNIT, 3, 1, short(2))
    ),
    "resolution of no letter": tiff(
        (X_RESOLUTION, 2, 1, bytes(4)), (RESOLUTION_UNIT, 3, 1, short(2))
    ),
}
"""EXIF blocks that turn nothing."""

READABLE_EXIF = {
    "little-endian": RIGHT_EXIF,
    "big-endian": tiff((ORIENTATION, 3, 1, short(6, ">")), order=">"),
    "LONG": tiff((ORIENTATION, 4, 1, struct.pack("<I", 6))),
    "BYTE": tiff((ORIENTATION, 1, 1, b"\6\0\0\0")),
    "more entries than there are": RIGHT_EXIF[:8] + b"\xff\xff" + RIGHT_EXIF[10:],
    "directory that does not end": RIGHT_EXIF[:-4],
    "version turned round": b"II\0*" + RIGHT_EXIF[4:],
    "prefix of a JPEG": b"Exif\0\0" + RIGHT_EXIF,
    "other tags broken": tiff(
        (ORIENTATION - 1, 5, 2**31, bytes(4)), TURNED, (X_RESOLUTION, 99, 7, b"\xff" * 4)
    ),
}
"""EXIF blocks that turn the picture to the right."""

_XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
_PROFILE = b"\nexif\n      20\n" + RIGHT_EXIF.hex().encode() + b"\n"
_BOMB = zlib.compress(bytes(70_000_000), 9)

UPRIGHT = {
    **{f"PNG, EXIF: {name}": png(chunk(b"eXIf", block)) for name, block in UNREADABLE_EXIF.items()},
    **{
        f"PNG, EXIF behind the pixels: {name}": png(chunk(b"eXIf", block), behind=True)
        for name, block in UNREADABLE_EXIF.items()
    },
    **{
        f"JPEG, EXIF: {name}": jpeg(segment(b"Exif\0\0" + block))
        for name, block in UNREADABLE_EXIF.items()
    },
    **{
        f"PNG, {name.decode()} {what}": png(chunk(name, content, crc), behind=behind)
        for name in (b"eXIf", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"gAMA", b"prVt")
        for what, content, crc, behind in (
            ("empty", b"", None, False),
            ("empty, behind the pixels", b"", None, True),
            ("of a wrong checksum", b"key\0\0more than it says", 1, False),
        )
    },
    "PNG, empty EXIF of a wrong checksum": png(chunk(b"eXIf", b"", 1)),
    "PNG, EXIF cut short at the end": PNG[:-12] + chunk(b"eXIf", RIGHT_EXIF)[:9],
    "PNG, text cut short at the end": PNG[:-12] + chunk(b"tEXt", b"key\0text")[:14],
    "PNG, profile that is not compressed": png(chunk(b"iCCP", b"name\0\0no zlib")),
    "PNG, profile of another compression": png(chunk(b"iCCP", b"name\0\1")),
    "PNG, profile bomb": png(chunk(b"iCCP", b"name\0\0" + _BOMB)),
    "PNG, text bomb": png(chunk(b"zTXt", b"key\0\0" + _BOMB)),
    "PNG, many texts": png(*[chunk(b"tEXt", b"key\0" + bytes(1_000_000))] * 70),
    "PNG, EXIF profile bomb": png(chunk(b"zTXt", b"Raw profile type exif\0\0" + _BOMB)),
    "PNG, EXIF profile that is none": png(chunk(b"tEXt", b"Raw profile type exif\0\n\n\nxyz")),
    "PNG, XMP bomb": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + _BOMB)),
    **{
        f"PNG, text named {key}": png(chunk(b"tEXt", key.encode() + b"\0text"), behind=behind)
        for key in ("transparency", "interlace", "bbox", "gamma", "icc_profile", "exif", "xmp")
        for behind in (False, True)
    },
    "PNG, transparency cut short": png(chunk(b"tRNS", b"\0\1")),
    "PNG, transparency of a wrong checksum": png(chunk(b"tRNS", bytes(6), 1)),
    "PNG, animation cut short": png(chunk(b"acTL", b"")),
    "PNG, frame outside": png(
        chunk(b"acTL", struct.pack(">II", 2, 0)), chunk(b"fcTL", b"\0\0\0\x09" * 6 + b"\0\0")
    ),
    "PNG, bytes behind its end": PNG + b"more" * 100,
    "PNG, without its end": PNG[:-12],
    "JPEG, two empty EXIF blocks": jpeg(*[segment(b"Exif\0\0")] * 2),
    "JPEG, two hundred EXIF blocks": jpeg(*[segment(b"Exif\0\0")] * 200),
    "JPEG, EXIF without its zeros": jpeg(segment(b"Exif")),
    "JPEG, XMP of orientation 9": jpeg(segment(XMP_ADDRESS + _XMP.replace(b"6", b"9"))),
    "JPEG, XMP that is no XML": jpeg(segment(XMP_ADDRESS + b"\xff" * 100)),
    "JPEG, profile cut short": jpeg(segment(b"ICC_PROFILE\0", 0xE2)),
    "JPEG, profile whose parts are missing": jpeg(segment(b"ICC_PROFILE\0\5\1part", 0xE2)),
    "JPEG, Photoshop's block cut short": jpeg(segment(b"Photoshop 3.0\08BIM\3\xed", 0xED)),
    "JPEG, Adobe's block cut short": jpeg(segment(b"Adobe", 0xEE)),
    "JPEG, JFIF cut short": JPEG[:2] + segment(b"JFIF", 0xE0) + JPEG[20:],
    "JPEG, list of pictures cut short": jpeg(segment(b"MPF\0", 0xE2)),
    "JPEG, segment without a length": jpeg(b"\xff\xe1\0\0"),
    "JPEG, bytes between segments": jpeg(b"more"),
    "JPEG, bytes behind a JFIF cut short": JPEG[:2] + segment(b"JF", 0xE0) + b"more" + JPEG[20:],
    "JPEG, bytes behind two blocks that are cut out": (
        JPEG[:2] + segment(b"JF", 0xE0) + segment(b"Exif") + b"more" + JPEG[20:]
    ),
    "JPEG, bytes before its end": JPEG[:-2] + bytes(20) + JPEG[-2:],
    "JPEG, bytes behind its end": JPEG + b"more" * 100,
    "JPEG, another JPEG behind it": JPEG + JPEG,
    "JPEG, without its end": JPEG[:-2],
    "JPEG, half of its end": JPEG[:-1],
}
"""Files that every viewer shows as `PNG` or `JPEG`; the name says which."""

RIGHT = {
    **{f"PNG, {name}": png(chunk(b"eXIf", block)) for name, block in READABLE_EXIF.items()},
    **{
        f"JPEG, {name}": jpeg(segment(b"Exif\0\0" + block)) for name, block in READABLE_EXIF.items()
    },
    "PNG, EXIF behind the pixels": png(chunk(b"eXIf", RIGHT_EXIF), behind=True),
    "PNG, ImageMagick's EXIF": png(
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(_PROFILE))
    ),
    "PNG, XMP": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP)),
    "PNG, compressed XMP": png(
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(_XMP))
    ),
    "JPEG, XMP": jpeg(segment(XMP_ADDRESS + _XMP)),
    "JPEG, EXIF before another XMP": jpeg(
        segment(XMP_ADDRESS + _XMP.replace(b"6", b"3")), segment(b"Exif\0\0" + RIGHT_EXIF)
    ),
    "JPEG, an empty EXIF block and a right one": jpeg(
        segment(b"Exif\0\0"), segment(b"Exif\0\0" + RIGHT_EXIF)
    ),
    "JPEG, a right EXIF block and an empty one": jpeg(
        segment(b"Exif\0\0" + RIGHT_EXIF), segment(b"Exif\0\0")
    ),
    "PNG, a right EXIF block and a broken one": png(
        chunk(b"eXIf", RIGHT_EXIF), chunk(b"eXIf", b"")
    ),
}
"""Files that are shown turned right by 90 degrees."""
