"""Folders and tar files of the user's pictures, valid and broken."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from weir.training.data import load
from weir.training.data.image_folder import read_picture
from weir.training.data.images import Split
from weir.training.errors import DataError


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


def test_unreadable_files_are_all_named(shapes: Path) -> None:
    (shapes / "left" / "note.txt").write_text("no picture")
    whole = (shapes / "right" / "00.png").read_bytes()
    (shapes / "right" / "zz.png").write_bytes(whole[: len(whole) // 2])

    errors = []
    for split in ("train", "test"):
        try:
            load(str(shapes), split)
        except DataError as error:
            errors.append(str(error))

    assert any("note.txt" in error for error in errors)
    assert any("zz.png" in error for error in errors)


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


def test_a_tar_with_splits_and_broken_pictures_names_them(tmp_path: Path) -> None:
    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        paint(tmp_path / "set" / f"{name}.png", (0, 0, 0))
    (tmp_path / "set/val/b/1.png").write_bytes(b"broken")
    pack(tmp_path / "set", tmp_path / "set.tar", "")

    assert load(str(tmp_path / "set.tar"), "train").labels.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"1 unreadable files: .*set\.tar/val/b/1\.png"):
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
