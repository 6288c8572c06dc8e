import io
import struct
import tracemalloc
import warnings
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile

from tests.helpers.image_files import JPEG, PNG, RIGHT, UPRIGHT
from weir.bundle.contract import Preprocessing
from weir.server.errors import InvalidRequest, OutOfMemory
from weir.server.preprocessing.images import header_pixels, read_encoded, read_raw
from weir.training.data.image_folder import read_picture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
ORIENTATION = 0x0112


def preprocessing(
    height: int = 8, width: int = 8, channels: int = 3, short_side: int | None = None
) -> Preprocessing:
    return Preprocessing.model_validate(
        {
            "input": "image",
            "height": height,
            "width": width,
            "channels": channels,
            "resize": "stretch" if short_side is None else "short-side",
            "short_side": short_side,
            "output": "probabilities",
        }
    )


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int = 20, width: int = 31, *, seed: int = 0) -> Image.Image:
    """Smooth enough for JPEG, rough enough that a shift by a pixel shows."""
    generator = np.random.default_rng(seed)
    rough = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 4), np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()


def tagged_png(image: Image.Image, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with more chunks right after its header."""
    data = encode(image)
    more = b"".join(chunk(name, content) for name, content in chunks)
    return data[:33] + more + data[33:]


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def header_png(width: int, height: int) -> bytes:
    """A PNG of a header without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def transparent_palette() -> Image.Image:
    return noise().convert("RGB").quantize(16)


WIDE = Image.fromarray(np.arange(20 * 31, dtype=np.uint16).reshape(20, 31) * 100)
FILES = {
    "RGB PNG": encode(noise().convert("RGB")),
    "RGB JPEG": encode(noise().convert("RGB"), "JPEG"),
    "progressive JPEG": encode(noise().convert("RGB"), "JPEG", progressive=True),
    "grey PNG": encode(noise().convert("L")),
    "grey JPEG": encode(noise().convert("L"), "JPEG"),
    "black and white PNG": encode(noise().convert("1")),
    "grey PNG of 2 bits": encode(noise().convert("L").quantize(4), bits=2),
    "grey PNG of 16 bits": encode(WIDE),
    "RGBA PNG": encode(noise()),
    "grey PNG with alpha": encode(noise().convert("LA")),
    "palette PNG": encode(transparent_palette()),
    "palette PNG, one colour transparent": encode(transparent_palette(), transparency=3),
    "palette PNG, alphas": encode(transparent_palette(), transparency=bytes(range(0, 256, 16))),
    "RGB PNG, one colour transparent": encode(
        Image.new("RGB", (9, 5), RED), transparency=RED
    ),
    "grey PNG, one grey transparent": encode(noise().convert("L"), transparency=7),
    "CMYK JPEG": encode(noise().convert("RGB").convert("CMYK"), "JPEG"),
    "animated PNG": encode(
        noise().convert("RGB"), save_all=True, append_images=[noise(seed=1).convert("RGB")]
    ),
    "JPEG with a profile": encode(
        noise().convert("RGB"),
        "JPEG",
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ),
    **{
        f"JPEG of orientation {number}": encode(noise().convert("RGB"), "JPEG", exif=exif(number))
        for number in range(10)
    },
    **{
        f"PNG of orientation {number}": encode(noise(), exif=exif(number)) for number in range(1, 9)
    },
    "16 bits, orientation 6": encode(WIDE, exif=exif(6)),
    "palette PNG, orientation 5": encode(transparent_palette(), exif=exif(5), transparency=3),
    "portrait": encode(noise(31, 20).convert("RGB")),
    "one pixel": encode(Image.new("RGB", (1, 1), GREEN)),
    "a line": encode(noise(1, 40).convert("RGB")),
}  # fmt: skip
FORMS = {
    "stretched": preprocessing(),
    "stretched to grey": preprocessing(12, 7, 1),
    "larger than it came": preprocessing(40, 50),
    "cut from the middle": preprocessing(8, 8, 3, 9),
    "cut oddly, grey": preprocessing(7, 10, 1, 13),
    "cut without a rest": preprocessing(16, 16, 3, 16),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_pixels_are_those_of_training(data: bytes, form: Preprocessing) -> None:
    size = (form.width, form.height)
    expected = read_picture(io.BytesIO(data), size, form.channels, form.short_side)

    pixels = read_encoded(data, form)

    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    form=st.builds(
        lambda height, width, more: preprocessing(
            height, width, 3, more and max(height, width) + more
        ),
        st.integers(1, 30),
        st.integers(1, 30),
        st.none() | st.integers(1, 30),
    ),
)
def test_pixels_are_those_of_training_in_any_size(
    width: int, height: int, form: Preprocessing
) -> None:
    data = encode(noise(height, width).convert("RGB"))
    expected = read_picture(io.BytesIO(data), (form.width, form.height), 3, form.short_side)

    np.testing.assert_array_equal(read_encoded(data, form), expected)


CORNERS: NDArray[np.uint8] = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)
# The upright picture for each stored orientation, by the table of EXIF 2.32, tag 0x0112.
TURNED = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.transpose(1, 0, 2),
    6: CORNERS[::-1].transpose(1, 0, 2),
    7: CORNERS[::-1, ::-1].transpose(1, 0, 2),
    8: CORNERS[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_picture_is_turned_upright(orientation: int) -> None:
    data = encode(Image.fromarray(CORNERS), exif=exif(orientation))

    np.testing.assert_array_equal(read_encoded(data, preprocessing(2, 2)), TURNED[orientation])


def read_by_both(data: bytes) -> Any:
    """The pixels (8, 8, 3) of a file: the server's, which must be those of training."""
    pixels = read_encoded(data, preprocessing())
    np.testing.assert_array_equal(read_picture(io.BytesIO(data), (8, 8), 3), pixels)
    return pixels


@pytest.mark.parametrize("name", UPRIGHT)
def test_metadata_refuse_no_picture(name: str) -> None:
    plain = JPEG if name.startswith("JPEG") else PNG

    np.testing.assert_array_equal(read_by_both(UPRIGHT[name]), read_by_both(plain))


@pytest.mark.parametrize("name", RIGHT)
def test_orientation_is_found_among_broken_metadata(name: str) -> None:
    plain = JPEG if name.startswith("JPEG") else PNG

    np.testing.assert_array_equal(read_by_both(RIGHT[name]), np.rot90(read_by_both(plain), -1))


def test_pixels_of_a_request_are_counted_behind_other_chunks() -> None:
    """A chunk before the header, which decoders take, hides no size."""
    data = header_png(8000, 4000)

    assert header_pixels(data[:8] + chunk(b"prVt", bytes(40)) + data[8:]) == 32_000_000


def test_png_without_its_palette_is_damaged() -> None:
    data = encode(transparent_palette())

    with pytest.raises(InvalidRequest, match="the PNG is damaged"):
        read_encoded(data.replace(b"PLTE", b"pLTE"), FORMS["stretched"])


def test_heif_is_refused_with_advice() -> None:
    with pytest.raises(
        InvalidRequest, match=r"^expected JPEG or PNG, got HEIF; convert it to JPEG$"
    ):
        read_encoded(b"\0\0\0\x18ftypheic" + bytes(100), FORMS["stretched"])


def test_orientation_that_does_not_exist_turns_nothing() -> None:
    data = encode(Image.fromarray(CORNERS), exif=exif(77))

    np.testing.assert_array_equal(read_encoded(data, preprocessing(2, 2)), CORNERS)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.new("RGBA", (2, 2), (9, 9, 9, 0)), WHITE, id="transparent"),
        pytest.param(Image.new("RGBA", (2, 2), (255, 0, 0, 51)), (255, 204, 204), id="a fifth"),
        pytest.param(Image.new("LA", (2, 2), (0, 51)), (204, 204, 204), id="grey"),
    ],
)
def test_transparent_pixels_become_white(image: Image.Image, expected: tuple[int, ...]) -> None:
    pixels = read_encoded(encode(image), preprocessing(1, 1))

    assert tuple(pixels[0, 0]) == expected


def test_sixteen_bits_become_their_upper_eight() -> None:
    wide = np.array([[0x1234, 0xFFFF], [0x00FF, 0x8000]], np.uint16)

    pixels = read_encoded(encode(Image.fromarray(wide)), preprocessing(2, 2, 1))

    assert pixels[..., 0].tolist() == [[0x12, 0xFF], [0x00, 0x80]]


@pytest.mark.parametrize(
    ("size", "left", "top"), [((40, 20), 10, 0), ((20, 40), 0, 10), ((41, 20), 10, 0)]
)
def test_centre_is_cropped(size: tuple[int, int], left: int, top: int) -> None:
    image = noise(size[1], size[0]).convert("RGB")

    pixels = read_encoded(encode(image), preprocessing(20, 20, 3, 20))

    expected = image.crop((left, top, left + 20, top + 20))
    np.testing.assert_array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_raw_pixels_are_treated_like_those_of_a_file(mode: str, form: Preprocessing) -> None:
    image = noise().convert(mode)

    raw = read_raw(
        image.tobytes(), height=20, width=31, channels=len(mode), preprocessing=form
    )  # fmt: skip

    np.testing.assert_array_equal(raw, read_encoded(encode(image), form))


@pytest.mark.parametrize(
    ("height", "width", "channels", "values", "says"),
    [
        pytest.param(2, 2, 2, 8, "1, 3 or 4 channels, got 2", id="channels"),
        pytest.param(2, 2, 0, 0, "1, 3 or 4 channels, got 0", id="no channels"),
        pytest.param(2, 0, 3, 0, "expected pixels, got 0 x 2", id="no width"),
        pytest.param(2, 2, 3, 11, "expected 12 values for 2 x 2 x 3, got 11", id="too few"),
        pytest.param(2, 2, 3, 13, "expected 12 values for 2 x 2 x 3, got 13", id="too many"),
        pytest.param(2**32 - 1, 2**32 - 1, 3, 3, "at most 32000000 pixels", id="largest"),
    ],
)
def test_invalid_raw_pixels_are_refused(
    height: int, width: int, channels: int, values: int, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_raw(
            bytes(values),
            height=height,
            width=width,
            channels=channels,
            preprocessing=FORMS["stretched"],
        )


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "EPS", "BMP", "PDF", "AVIF"])
def test_other_formats_are_refused_by_name(kind: str) -> None:
    data = encode(noise().convert("RGB"), kind)

    with pytest.raises(InvalidRequest, match=f"(?i)^expected JPEG or PNG, got {kind}$"):
        read_encoded(data, FORMS["stretched"])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "got no bytes", id="empty"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "got SVG", id="SVG"),
        pytest.param(b"not a picture", "got something else", id="text"),
        pytest.param(bytes(1000), "got something else", id="zeros"),
        pytest.param(b"\xff\xd8\xff", "the JPEG is damaged", id="JPEG's first bytes"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "the PNG is damaged", id="PNG's first bytes"),
        pytest.param(b"\xff\xd8\xff" + FILES["RGB PNG"], "the JPEG is damaged", id="PNG in a JPEG"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n" + FILES["RGB JPEG"], "the PNG is damaged", id="JPEG in a PNG"
        ),
    ],
)
def test_data_without_a_picture_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_encoded(data, FORMS["stretched"])


@pytest.mark.parametrize("name", ["RGB PNG", "RGB JPEG", "progressive JPEG", "palette PNG"])
def test_picture_cut_short_is_refused_or_whole(name: str) -> None:
    """What lacks only its end is whole, as that holds no pixels."""
    data, form = FILES[name], FORMS["stretched"]
    whole = read_encoded(data, form)

    for end in (*range(0, len(data) - 24, 7), *range(len(data) - 24, len(data))):
        try:
            pixels = read_encoded(data[:end], form)
        except InvalidRequest:
            continue
        assert len(data) - end <= (24 if "PNG" in name else 2)
        np.testing.assert_array_equal(pixels, whole)


@given(
    name=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
)
@example(name="RGB JPEG", changes=[(20, 255)])
def test_damaged_picture_is_read_or_refused(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[name])
    for position, value in changes:
        data[position % len(data)] = value

    # As in the server, where Pillow's warnings are silenced.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(InvalidRequest):
            assert read_encoded(bytes(data), FORMS["stretched"]).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("width", "height"),
    [(20_000, 20_000), (10_000, 10_000), (32_000_001, 1), (2**31 - 1, 2**31 - 1)],
)
def test_huge_picture_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(InvalidRequest, match=f"at most 32000000 pixels, got {width} x {height}"):
        read_encoded(header_png(width, height), FORMS["stretched"])


@pytest.mark.parametrize(("width", "height"), [(65_536, 1), (1, 30_000_000)])
def test_line_of_endless_pixels_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(InvalidRequest, match=f"65535 pixels a side, got {width} x {height}"):
        read_encoded(header_png(width, height), FORMS["stretched"])


def test_longest_side_is_read() -> None:
    data = encode(Image.new("L", (65_535, 1), 255))

    assert (read_encoded(data, FORMS["stretched"]) == 255).all()


def test_huge_jpeg_is_refused_by_its_header() -> None:
    data = encode(Image.new("RGB", (16, 16)), "JPEG")
    start = data.index(b"\xff\xc0") + 5
    huge = data[:start] + struct.pack(">HH", 65_500, 65_500) + data[start + 4 :]

    with pytest.raises(InvalidRequest, match="got 65500 x 65500"):
        read_encoded(huge, FORMS["stretched"])


def test_largest_picture_is_read() -> None:
    data = encode(Image.new("1", (8000, 4000), 1))

    assert (read_encoded(data, FORMS["stretched to grey"]) == 255).all()


def test_picture_that_would_grow_huge_is_refused() -> None:
    """One pixel by ten thousand: in proportion, its long side would be 2,560,000."""
    data = encode(Image.new("L", (1, 10_000)))

    with pytest.raises(InvalidRequest, match=r"1 x 10000 pixels are too narrow.* 256 x 2560000"):
        read_encoded(data, preprocessing(224, 224, 3, 256))


def test_jpeg_of_endless_scans_is_refused() -> None:
    data = FILES["progressive JPEG"]
    end = data.index(b"\xff\xd9")
    last_scan = data[data.rindex(b"\xff\xda", 0, end) : end]

    with pytest.raises(InvalidRequest, match=r"at most 16384 segments and 100 scans, got more"):
        read_encoded(data[:end] + last_scan * 100 + data[end:], FORMS["stretched"])


EMPTY_COMMENT = b"\xff\xfe\x00\x02"
EXIF_PART = b"\xff\xe1\x00\x08Exif\0\0"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\xff\xd9" + EMPTY_COMMENT * 20_000, id="behind an end of image"),
        pytest.param(b"\xff" * 20_000, id="fill bytes"),
        pytest.param(b"\xff\x00" * 10_000, id="stuffed bytes"),
        pytest.param(b"\xff\xd0" * 10_000, id="restarts"),
        pytest.param(b"\xff\xd0" + bytes(20_000), id="zeros"),
        pytest.param(EXIF_PART * 20_000, id="EXIF"),
    ],
)
@pytest.mark.parametrize("rest", [FILES["RGB JPEG"][2:], b""], ids=["with a picture", "alone"])
def test_jpeg_whose_header_is_endless_is_refused(header: bytes, rest: bytes) -> None:
    """Pillow reads all of it in Python: 16 MB kept a thread for half a minute."""
    with pytest.raises(InvalidRequest, match=r"at most 16384 segments .* got more"):
        read_encoded(b"\xff\xd8" + header + rest, FORMS["stretched"])


def test_few_fill_bytes_are_no_harm() -> None:
    data = FILES["RGB JPEG"]

    pixels = read_encoded(data[:2] + b"\xff" * 100 + data[2:], FORMS["stretched"])

    np.testing.assert_array_equal(pixels, read_encoded(data, FORMS["stretched"]))


def test_markers_in_a_comment_are_no_scans() -> None:
    data = encode(noise().convert("RGB"), "JPEG", comment=b"\xff\xda" * 1000)

    assert read_encoded(data, FORMS["stretched"]).shape == (8, 8, 3)


@pytest.mark.parametrize("name", ["RGB JPEG", "RGB PNG"])
def test_picture_of_endless_parts_is_refused(name: str) -> None:
    data = FILES[name]
    parts = (
        data[:2] + b"\xff\xfe\x00\x02" * 20_000 + data[2:]
        if "JPEG" in name
        else data[:33] + chunk(b"abCd", b"") * 20_000 + data[33:]
    )

    with pytest.raises(InvalidRequest, match=r"at most 16384 .* got more"):
        read_encoded(parts, FORMS["stretched"])


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_bomb_in_a_text_or_profile_is_unread(name: bytes) -> None:
    packed = zlib.compress(bytes(100_000_000), 9)
    prefix = b"key\0\1\0\0\0" if name == b"iTXt" else b"key\0\0"
    data = tagged_png(Image.fromarray(CORNERS), (name, prefix + packed))

    np.testing.assert_array_equal(read_encoded(data, preprocessing(2, 2)), CORNERS)


def test_bomb_in_the_exif_takes_no_memory() -> None:
    """A thousand tags that share one value of half a megabyte."""
    tags, value_bytes = 1000, 500_000
    entries = b"".join(struct.pack("<HHII", tag, 1, value_bytes, 0) for tag in range(1, tags + 1))
    directory = b"II*\0" + struct.pack("<IH", 8, tags) + entries + bytes(4 + value_bytes)
    data = tagged_png(Image.fromarray(CORNERS), (b"eXIf", directory))

    tracemalloc.start()
    read_encoded(data, preprocessing(2, 2))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 20_000_000


@pytest.mark.parametrize(
    ("owner", "name"),
    [(PngImageFile, "load"), (Image.Image, "convert"), (Image.Image, "resize")],
    ids=["decode", "convert", "resize"],
)
def test_exhausted_memory_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(owner, name, fail)

    with pytest.raises(OutOfMemory, match="more memory than there is"):
        read_encoded(FILES["RGB PNG"], FORMS["stretched"])


def test_exhausted_memory_for_raw_pixels_is_out_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", fail)

    with pytest.raises(OutOfMemory, match="more memory than there is"):
        read_raw(bytes(12), height=2, width=2, channels=3, preprocessing=FORMS["stretched"])
