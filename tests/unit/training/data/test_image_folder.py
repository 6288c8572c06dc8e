"""Folders and tar files of the user's pictures, valid and broken."""

import io
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.image_files import JPEG, PIXELS, PNG, UNREADABLE_EXIF, UPRIGHT, encode
from weir.training.data import load
from weir.training.data.image_folder import read_picture, require_few_skipped
from weir.training.data.images import ImageData, Images, SkippedFile, Split
from weir.training.errors import DataError

LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}}


def paint(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (10, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_train_and_test_folders_are_taken_as_given(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        for name, colour in (("b", (0, 0, 255)), ("a", (255, 0, 0))):
            for number in range(count):
                paint(tmp_path / split / name / f"{number}.png", colour)
    (tmp_path / "train" / "a" / ".DS_Store").write_bytes(b"?")

    train = load(str(tmp_path), "train", height=5, width=7, channels=3)
    test = load(str(tmp_path), "test", height=5, width=7, channels=3)

    assert train.classes == test.classes == ("a", "b")
    assert train.images.shape == (6, 5, 7, 3) and test.images.shape == (4, 5, 7, 3)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (train.images[0] == (255, 0, 0)).all() and (train.images[5] == (0, 0, 255)).all()
    assert train.checksum == test.checksum


def test_without_splits_a_fifth_of_each_class_is_held_out(shapes: Path) -> None:
    train, test = load(str(shapes), "train"), load(str(shapes), "test")
    again = load(str(shapes), "test")

    assert np.bincount(train.labels).tolist() == [16, 16]
    assert np.bincount(test.labels).tolist() == [4, 4]
    np.testing.assert_array_equal(test.images, again.images)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_equal_files_are_on_one_side(kind: str, shapes: Path, tmp_path: Path) -> None:
    for path in sorted(shapes.rglob("*.png")):
        for copy in range(3):
            (path.parent / f"{path.stem}-{copy}.png").write_bytes(path.read_bytes())
    source = shapes
    if kind == "tar":
        source = tmp_path / "shapes.tar"
        with tarfile.open(source, "w") as tar:
            tar.add(shapes, "shapes")

    train, test = load(str(source), "train"), load(str(source), "test")

    seen = {image.tobytes() for image in train.images}
    assert np.bincount(test.labels).tolist() == [16, 16]
    assert not any(image.tobytes() in seen for image in test.images)


def test_colour_turns_grey_and_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "colour" / f"{number}.jpg", (200, 200, 200))
        deep = Image.fromarray(np.full((8, 8), 200 * 256, np.uint16))
        (tmp_path / "deep").mkdir(exist_ok=True)
        deep.save(tmp_path / "deep" / f"{number}.png")

    train = load(str(tmp_path), "train", height=4, width=4)

    assert train.images.shape[1:] == (4, 4, 1)
    assert np.abs(train.images.astype(int) - 200).max() <= 1


def test_a_turned_photo_is_put_upright(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, :4] = 255
    tag = Image.Exif()
    tag[0x0112] = 6  # to be shown turned right by 90 degrees
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            path = tmp_path / name / f"{number}.jpg"
            Image.fromarray(pixels).save(path, exif=tag, quality=100)

    picture = load(str(tmp_path), "test", height=8, width=4).images[0, ..., 0]

    assert picture[:3].min() > 200 and picture[5:].max() < 50


def test_unreadable_exif_turns_nothing() -> None:
    pixels = np.array([[255, 0], [100, 50]], np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=b"no TIFF")

    np.testing.assert_array_equal(read_picture(file, (2, 2), 1)[..., 0], pixels)


def reasons(data: ImageData) -> dict[str, str]:
    return {each.name: each.reason for each in data.skipped}


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_unreadable_files_are_skipped_and_named(shapes: Path, tmp_path: Path, kind: str) -> None:
    plain = load_both(str(shapes))
    whole = (shapes / "right" / "00.png").read_bytes()
    spoil = {
        "left/note.txt": b"no picture",
        "left/IMG_1.MOV": b"\0\0\0\x14ftypqt  ",
        "left/IMG_1.JPG.json": b"{}",
        "left/zz1.heic": b"\0\0\0\x18ftypheic" + bytes(100),
        "right/zz2.png": whole[: len(whole) // 2],
        "right/zz3": b"",
        "right/zz4.jpg": b"<html>not found</html>",
        "right/zz5.png": whole[:33] + b"\0\0\0\0prVt\0\0\0\0" * 17_000,
    }
    for name, content in spoil.items():
        (shapes / name).write_bytes(content)
    if kind == "tar":
        pack(shapes, tmp_path / "set.tar", "shapes")

    data = load_both(str(tmp_path / "set.tar" if kind == "tar" else shapes))

    assert reasons(data[0]) | reasons(data[1]) == {
        "left/note.txt": "no picture",
        "left/IMG_1.MOV": "no picture",
        "left/IMG_1.JPG.json": "no picture",
        "left/zz1.heic": "HEIF, convert it to JPEG",
        "right/zz2.png": "damaged or cut short",
        "right/zz3": "empty",
        "right/zz4.jpg": "no picture",
        "right/zz5.png": "expected a PNG of at most 16384 chunks, got more",
    }
    assert len(data[0].skipped) + len(data[1].skipped) == len(spoil)
    assert len(data[0]) + len(data[1]) == len(plain[0]) + len(plain[1])
    assert all(len(each.images) == len(each.labels) for each in data)
    seen = {(image.tobytes(), label) for each in data for image, label in rows(each)}
    assert seen == {(image.tobytes(), label) for each in plain for image, label in rows(each)}


def load_both(name: str) -> tuple[ImageData, ImageData]:
    return load(name, "train"), load(name, "test")


def rows(data: ImageData) -> Iterator[tuple[Images, int]]:
    yield from zip(data.images, data.labels.tolist(), strict=True)


def test_many_unreadable_pictures_are_refused() -> None:
    skipped = [SkippedFile(f"a/{number}.heic", "HEIF, convert it to JPEG") for number in range(6)]

    with pytest.raises(DataError, match=r"at most 5% .* got 6 of 106: .* 1 more \(HEIF, conv"):
        require_few_skipped("phone", skipped, 100)


@pytest.mark.parametrize(
    ("pictures", "others", "read"), [(5, 0, 95), (1, 0, 2), (0, 500, 10)], ids=str
)
def test_few_unreadable_pictures_are_told(
    pictures: int, others: int, read: int, caplog: pytest.LogCaptureFixture
) -> None:
    skipped = [SkippedFile(f"a/{number}.jpg", "empty") for number in range(pictures)]
    skipped += [
        SkippedFile(f"a/{number}.txt", "no picture", is_picture=False) for number in range(others)
    ]

    require_few_skipped("set", skipped, read)

    told = f"set: skipped {pictures} of {read + pictures} pictures: a/0.jpg"
    assert (told in caplog.text) == bool(pictures)
    assert (f"set: skipped {others} other files: a/0.txt, a/1.txt" in caplog.text) == bool(others)


def test_class_of_which_too_little_can_be_read_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(4):
            paint(tmp_path / name / f"{number}.png", (number, 0, 0))
    for number in range(3):
        (tmp_path / "b" / f"{number}.png").write_bytes(b"broken")

    with pytest.raises(DataError, match=r"at least 2 pictures of b that can be read, got [01]; "):
        load(str(tmp_path))


@pytest.mark.parametrize("name", UPRIGHT)
def test_metadata_skip_no_picture(name: str) -> None:
    plain = read_picture(io.BytesIO(JPEG if name.startswith("JPEG") else PNG), (8, 8), 3)

    np.testing.assert_array_equal(read_picture(io.BytesIO(UPRIGHT[name]), (8, 8), 3), plain)


@pytest.mark.parametrize("block", UNREADABLE_EXIF.values(), ids=UNREADABLE_EXIF.keys())
def test_unreadable_exif_of_a_webp_turns_nothing(block: bytes) -> None:
    data = encode("WEBP", exif=b"Exif\0\0" + block, lossless=True)

    np.testing.assert_array_equal(read_picture(io.BytesIO(data), (8, 8), 3), PIXELS)


@pytest.mark.parametrize("tag", [0x8769, 0x8825, 0xA005], ids=["EXIF", "GPS", "other"])
@pytest.mark.parametrize(
    "entry",
    [(9, 1, struct.pack("<i", -5)), (4, 1, b"\xff" * 4), (2, 3, b"abc\0"), (4, 1, b"\x08\0\0\0")],
    ids=["negative", "outside", "text", "itself"],
)
def test_broken_link_in_a_tiff_harms_nothing(tag: int, entry: tuple[int, int, bytes]) -> None:
    data = bytearray(encode("TIFF"))
    (directory,) = struct.unpack_from("<I", data, 4)
    # The last entry is replaced: the planar configuration, which is the default one.
    (count,) = struct.unpack_from("<H", data, directory)
    last = directory + 2 + 12 * (count - 1)
    data[last : last + 12] = struct.pack("<HHI", tag, *entry[:2]) + entry[2]

    np.testing.assert_array_equal(read_picture(io.BytesIO(bytes(data)), (8, 8), 3), PIXELS)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_picture_of_an_animation_is_read(kind: str) -> None:
    second = Image.fromarray(255 - PIXELS)
    data = encode(kind, save_all=True, append_images=[second], **LOSSLESS.get(kind, {}))

    picture = read_picture(io.BytesIO(data), (8, 8), 3)

    assert np.abs(picture.astype(int) - PIXELS).mean() < (40 if kind == "GIF" else 1)


def test_first_picture_of_a_phone_is_read() -> None:
    """Phones write several JPEGs into one file, and sometimes a list of them that is wrong."""
    data = encode("MPO", save_all=True, append_images=[Image.new("RGB", (4, 4))], quality=95)
    broken = data.replace(b"MPF\0II*\0", b"MPF\0XX*\0").replace(b"MPF\0MM\0*", b"MPF\0XX\0*")

    for each in (data, broken):
        np.testing.assert_array_equal(
            read_picture(io.BytesIO(each), (8, 8), 3), read_picture(io.BytesIO(JPEG), (8, 8), 3)
        )


@pytest.mark.filterwarnings("error")
def test_palette_of_alphas_makes_no_warning() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).quantize(4).save(file, "PNG", transparency=bytes((0, 0, 0, 0)))

    assert (read_picture(file, (8, 8), 3) == 255).all()


def test_names_of_splits_and_systems_are_understood(tmp_path: Path) -> None:
    for split in ("Training", "Validation"):
        for name in ("cat", "dog"):
            paint(tmp_path / split / name / "A.PNG", (0, 0, 0))
    for name in (
        "__MACOSX/cat/._A.PNG",
        "Training/cat/@eaDir/A.PNG/thumb.jpg",
        "Training/dog/Thumbs.db",
        "Training/dog/.DS_Store",
        "Training/__MACOSX/x.png",
        "README.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "Training" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere")

    train, test = load_both(str(tmp_path))

    assert train.classes == test.classes == ("cat", "dog")
    assert (len(train), len(test)) == (2, 2)
    assert not train.skipped


def test_pictures_of_a_folder_below_belong_to_the_class(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            paint(tmp_path / name / f"album {number}" / "deep" / "0.png", (0, 0, 0))
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)

    train, test = load_both(str(tmp_path))

    assert train.classes == ("a", "b")
    assert (len(train), len(test)) == (4, 2)


def test_folder_above_the_classes_is_refused_with_the_right_one(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        paint(tmp_path / "pets" / name / "0.png", (0, 0, 0))

    with pytest.raises(DataError, match=r"2 classes, got 1; its classes may be those of .*/pets$"):
        load(str(tmp_path))


def test_zip_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "pictures.ZIP").write_bytes(b"PK")

    with pytest.raises(DataError, match="or a tar file; unpack it and name the folder"):
        load(str(tmp_path / "pictures.ZIP"))


def test_a_folder_without_classes_is_refused(tmp_path: Path, shapes: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="at least 2 classes, got 0"):
        load(str(tmp_path / "empty"))
    (shapes / "void").mkdir()
    with pytest.raises(DataError, match="void: expected pictures, got none"):
        load(str(shapes))
    paint(shapes / "void" / "one.png", (0, 0, 0))
    with pytest.raises(DataError, match="void: expected at least 3 pictures"):
        load(str(shapes))
    with pytest.raises(DataError, match=r"neither a data set \(digits, mnist, .*\) nor a folder"):
        load(str(tmp_path / "absent"))


def test_test_classes_must_be_those_of_training(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/c"):
        paint(tmp_path / name / "0.png", (0, 0, 0))

    with pytest.raises(DataError, match=r"expected the classes of .*, a, b; got a, c"):
        load(str(tmp_path))


def pack(folder: Path, tar_file: Path, inside: str) -> None:
    """A tar of the folder, its files in an order of their own."""
    with tarfile.open(tar_file, "w") as tar:
        for path in sorted(folder.rglob("*"), reverse=True):
            tar.add(path, Path(inside) / path.relative_to(folder), recursive=False)


@pytest.mark.parametrize("inside", ["", "./", "shapes"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_tar_is_read_as_the_folder_in_it(
    shapes: Path, tmp_path: Path, inside: str, split: Split
) -> None:
    (shapes / "left" / ".DS_Store").write_bytes(b"?")
    pack(shapes, tmp_path / "shapes.tar", inside)

    of_folder, of_tar = load(str(shapes), split), load(str(tmp_path / "shapes.tar"), split)

    np.testing.assert_array_equal(of_tar.images, of_folder.images)
    np.testing.assert_array_equal(of_tar.labels, of_folder.labels)
    assert of_tar.classes == of_folder.classes == ("left", "right")


def test_a_class_of_broken_pictures_alone_is_refused(tmp_path: Path) -> None:
    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        paint(tmp_path / "set" / f"{name}.png", (0, 0, 0))
    (tmp_path / "set/val/b/0.png").write_bytes(b"broken")
    pack(tmp_path / "set", tmp_path / "set.tar", "")

    assert load(str(tmp_path / "set.tar"), "train").labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"of b that can be read, got 0; .*val/b/0\.png \(no pict"):
        load(str(tmp_path / "set.tar"), "test")


def test_a_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar")

    with pytest.raises(DataError, match=r"x\.tar: expected a tar file, got [^\n]+\Z"):
        load(str(tmp_path / "x.tar"))


@pytest.mark.parametrize("size", [(40, 21), (20, 41), (30, 30)], ids=["wide", "high", "square"])
def test_the_short_side_is_resized_and_the_centre_cropped(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")

    picture = read_picture(tmp_path / "x.png", (10, 8), 3, short_side=12)

    long = round(max(size) * 12 / min(size))
    width, height = (long, 12) if size[0] >= size[1] else (12, long)
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    left, top = (width - 10) // 2, (height - 8) // 2
    np.testing.assert_array_equal(picture, whole[top : top + 8, left : left + 10])


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    grey = Image.new("LA", (4, 4), (0, 51))
    half.save(tmp_path / "rgba.png")
    palette.save(tmp_path / "p.png", transparency=1)
    grey.save(tmp_path / "la.png")

    pictures = {
        name: read_picture(tmp_path / f"{name}.png", (2, 2), 3) for name in ("rgba", "p", "la")
    }

    assert (pictures["rgba"] == 255).all() and (pictures["p"] == 255).all()
    assert (pictures["la"] == 204).all()


def test_print_colours_become_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=100)

    assert read_picture(tmp_path / "x.jpg", (2, 2), 3)[0, 0].tolist() == pytest.approx(
        [255, 0, 0], abs=3
    )
