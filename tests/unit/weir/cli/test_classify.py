import json
from pathlib import Path

import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of different sizes, and what is none."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name, size in {"b.JPG": 2, "a.png": 1, "more/c.jpeg": 3, ".cache/d.png": 4}.items():
        (folder / name).write_bytes(b"x" * size)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_classes_are_shown_as_a_table(weir: Weir, fake: FakeServer, folder: Path) -> None:
    done = weir("classify", folder / "a.png", "--model", "threes", "--target", fake.target)

    assert done.code == 0
    assert "a.png" in done.out and "of 1 bytes" in done.out and "0.7500" in done.out
    assert "│ 4 " in done.out, "a class without a label is told by its number"


def test_json_is_printed_with_the_option(weir: Weir, fake: FakeServer, folder: Path) -> None:
    picture = folder / "a.png"

    done = weir(
        "classify", picture, "--model", "threes", "--top", 1, "--json", "--target", fake.target
    )

    assert json.loads(done.out) == [
        {
            "picture": str(picture),
            "classes": [{"label": "of 1 bytes", "index": 3, "probability": 0.75}],
        }
    ]
    assert done.err == ""


def test_the_pictures_of_a_folder_are_taken_in_order(
    weir: Weir, fake: FakeServer, folder: Path
) -> None:
    done = weir(
        "classify", folder, folder / "a.png", "--model", "threes", "--json", "--target", fake.target
    )

    named = {each["picture"]: each["classes"][0]["label"] for each in json.loads(done.out)}
    assert done.code == 0
    assert named == {
        str(folder / name): f"of {size} bytes"
        for name, size in {"a.png": 1, "b.JPG": 2, "more/c.jpeg": 3}.items()
    }
    assert len(json.loads(done.out)) == 4


def test_what_cannot_be_read_is_named_and_the_others_are_answered(
    weir: Weir, fake: FakeServer, folder: Path
) -> None:
    broken, missing = folder / "broken.jpg", folder / "missing.jpg"
    broken.write_bytes(b"broken")

    done = weir(
        "classify", broken, folder / "a.png", missing, "--model", "threes", "--target", fake.target
    )

    assert done.code == 1
    assert "of 1 bytes" in done.out
    assert done.err.splitlines() == [
        f"weir: {broken}: the JPEG is damaged or cut short",
        f"weir: {missing}: No such file or directory",
        "weir: 2 of 3 pictures could not be classified",
    ]


def test_failures_stand_in_the_json_too(weir: Weir, fake: FakeServer, folder: Path) -> None:
    missing = folder / "missing.jpg"

    done = weir("classify", missing, "--model", "threes", "--json", "--target", fake.target)

    assert json.loads(done.out) == [{"picture": str(missing), "error": "No such file or directory"}]
    assert done.code == 1


def test_an_overloaded_server_is_called_again(weir: Weir, fake: FakeServer, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"crowded")

    done = weir("classify", picture, "--model", "threes", "--target", fake.target)

    assert done.code == 0 and "of 7 bytes" in done.out
    assert len(fake.pictures) == 3


@pytest.mark.parametrize("count", [1, 40])
def test_what_is_wrong_with_every_picture_is_said_once(
    weir: Weir, fake: FakeServer, tmp_path: Path, count: int
) -> None:
    for number in range(count):
        (tmp_path / f"{number}.png").write_bytes(b"x")

    done = weir("classify", tmp_path, "--model", "nobody", "--target", fake.target)

    assert done.code == 1
    assert done.err.strip().splitlines()[-1] == (
        "weir: unknown model 'nobody'; there are away, flop, good"
    )
    assert done.err.count("weir: ") == 1


def test_an_unreachable_server_has_its_exit_code(weir: Weir, nobody: str, folder: Path) -> None:
    done = weir("classify", folder / "a.png", "--model", "threes", "--target", nobody)

    assert done.code == 3


def test_a_folder_without_pictures_is_a_mistake_of_the_caller(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    done = weir("classify", tmp_path, "--model", "threes", "--target", fake.target)

    assert done.code == 2 and "no pictures there" in done.err


def test_pictures_of_other_formats_in_a_folder_are_told(
    weir: Weir, fake: FakeServer, tmp_path: Path
) -> None:
    for name in ("A.JPG", "b.heic", "c.HEIC", "d.webp", "e.txt", ".f.heic", "__MACOSX/g.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"a picture")

    some = weir("classify", tmp_path, "--model", "threes", "--target", fake.target)
    (tmp_path / "A.JPG").unlink()
    none = weir("classify", tmp_path, "--model", "threes", "--target", fake.target)

    says = "skipped 2 .heic, 1 .webp: convert them to JPEG or PNG"
    assert some.code == 0 and f"weir: {tmp_path}: {says}" in some.err
    assert len(fake.pictures) == 1
    assert none.code == 2 and none.err.strip().endswith(says)
