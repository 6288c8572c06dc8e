"""Metadata of image files: none reaches the decoder, and the orientation is that of the block."""

import io
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.image_files import (
    JPEG,
    PIXELS,
    PNG,
    RIGHT,
    RIGHT_EXIF,
    UPRIGHT,
    chunk,
    encode,
    jpeg,
    png,
    segment,
)
from weir.bundle.image_file import (
    BareImage,
    TooManyParts,
    image_format,
    load_pixels,
    strip_metadata,
)


def strip(data: bytes) -> BareImage:
    return strip_metadata(data, str(image_format(data)))


@pytest.mark.parametrize("name", UPRIGHT)
def test_decoder_gets_a_plain_file(name: str) -> None:
    bare = strip(UPRIGHT[name])

    assert bare.orientation == 1
    if "JPEG" not in name:
        assert bare.data in (PNG, PNG[:-12])
    elif "bytes" not in name:
        assert bare.data in (JPEG, JPEG[:2] + JPEG[20:], JPEG[:-1], JPEG[:-2])


@pytest.mark.parametrize("data", RIGHT.values(), ids=RIGHT.keys())
def test_orientation_is_read(data: bytes) -> None:
    assert strip(data).orientation == 6


@pytest.mark.parametrize("data", [PNG, JPEG], ids=["PNG", "JPEG"])
def test_plain_file_is_not_copied(data: bytes) -> None:
    assert strip(data).data is data


@given(block=st.binary(max_size=200))
def test_any_block_is_read_or_turns_nothing(block: bytes) -> None:
    for data in (png(chunk(b"eXIf", block)), jpeg(segment(b"Exif\0\0" + block))):
        assert 1 <= strip(data).orientation <= 8


@given(changes=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 255)), max_size=4))
def test_any_change_of_a_block_is_read_or_turns_nothing(changes: list[tuple[int, int]]) -> None:
    block = bytearray(RIGHT_EXIF)
    for position, value in changes:
        block[position] = value

    assert 1 <= strip(png(chunk(b"eXIf", bytes(block)))).orientation <= 8


@given(
    names=st.lists(st.sampled_from([b"IHDR", b"tRNS", b"PLTE", b"eXIf", b"zTXt", b"IDAT"])),
    content=st.binary(max_size=30),
    end=st.integers(0, 60),
)
@example(names=[b"tRNS"], content=b"", end=12)
def test_file_of_any_chunks_may_end_anywhere(names: list[bytes], content: bytes, end: int) -> None:
    data = PNG[:8] + b"".join(chunk(name, content) for name in names)

    assert 1 <= strip(data[: 8 + end]).orientation <= 8


@given(content=st.binary(max_size=60))
def test_any_bytes_behind_the_first_ones_are_read(content: bytes) -> None:
    for start in (b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\0\x20Exif\0\0", b"II*\0", b"MM\0*"):
        assert 1 <= strip(start + content).orientation <= 8


def test_blocks_without_end_take_little_time() -> None:
    """16 MB of them, which are read twice over in less than a second."""
    entries = b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65_535)
    blocks = [chunk(b"eXIf", entries)] * 20
    texts = [chunk(b"tEXt", b"XML:com.adobe.xmp\0" + b"tiff:Orientation" * 60_000)] * 20

    started_s = time.process_time()
    assert strip(png(*blocks, *texts)).orientation == 1

    assert time.process_time() - started_s < 5


def test_bombs_are_not_unpacked() -> None:
    tracemalloc.start()
    strip(UPRIGHT["PNG, EXIF profile bomb"])
    strip(UPRIGHT["PNG, XMP bomb"])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 20_000_000


def test_endless_chunks_are_refused() -> None:
    with pytest.raises(TooManyParts, match="at most 16384 chunks, got more"):
        strip(png(*[chunk(b"prVt", b"")] * 20_000))


def test_transparency_is_kept() -> None:
    palette = Image.fromarray(PIXELS).quantize(4)
    file = io.BytesIO()
    palette.save(file, "PNG", transparency=bytes((0, 255, 7, 9)))

    assert strip(file.getvalue()).data.count(b"tRNS") == 1


def test_colour_space_is_kept() -> None:
    """Without Adobe's segment a decoder takes these four inks for others."""
    inks = Image.fromarray(PIXELS).convert("CMYK")
    file = io.BytesIO()
    inks.save(file, "JPEG", quality=100)
    bare = strip(file.getvalue())

    image = load_pixels(bare, lambda data: Image.open(io.BytesIO(data)))

    with Image.open(file) as expected:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize("quality", [30, 75, 97])
@pytest.mark.parametrize("seed", range(3))
def test_jpeg_is_whole_or_refused(seed: int, quality: int) -> None:
    """No cut that loses a pixel goes unseen, although libjpeg fills the gap without an error."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    picture = Image.fromarray(rough).resize((31, 20), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    data = file.getvalue()
    with Image.open(io.BytesIO(data)) as whole:
        expected = np.asarray(whole)

    read = []
    for end in range(len(data) - 120, len(data)):
        try:
            image = load_pixels(strip(data[:end]), lambda cut: Image.open(io.BytesIO(cut)))
        except OSError:
            continue
        read.append(end)
        np.testing.assert_array_equal(np.asarray(image), expected)

    assert {len(data) - 1, len(data) - 2} <= set(read)


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_rows": 1}], ids=str)
def test_jpeg_whose_missing_pixels_could_not_be_seen_needs_its_end(
    options: dict[str, int],
) -> None:
    data = encode("JPEG", **options)

    with pytest.raises(OSError, match="truncated"):
        load_pixels(strip(data[:-2]), lambda cut: Image.open(io.BytesIO(cut)))
