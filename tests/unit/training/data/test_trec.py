"""TREC questions, on small files and on the real set."""

from collections import Counter
from pathlib import Path

import pytest

from weir.training.data import load_text, trec
from weir.training.data.download import DataFolders, RemoteFile, checksum
from weir.training.data.trec import load_trec
from weir.training.errors import DataError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolders:
    """A set of two questions to train and a broken one to test."""
    folder = tmp_path / "trec"
    folder.mkdir()
    for name, text in (
        ("TRAIN", "NUM:dist How far is it from Denver to Aspen ?\nHUM:ind Who 's he ?\n"),
        ("TEST", "HUM:ind Who ?\nWhere is it ?\n"),
    ):
        path = folder / name
        path.write_text(text)
        file = RemoteFile(f"https://nowhere.invalid/{name}", len(text), checksum(path))
        monkeypatch.setattr(trec, name, file)
    return DataFolders(tmp_path, tmp_path / "cache")


def test_questions_are_split_and_labelled(folders: DataFolders) -> None:
    data = load_trec("train", folders)

    assert data.rows[1] == ("Who", "'", "s", "he", "?")
    assert data.labels == (("NUM",), ("HUM",)) and not data.is_tagged
    assert data.name == "trec" and data.classes == ("HUM", "NUM")


def test_fine_classes_and_lower_case_are_options(folders: DataFolders) -> None:
    data = load_trec("train", folders, is_fine=True, lower=True)

    assert data.rows[0][5:8] == ("denver", "to", "aspen")
    assert data.labels == (("NUM:dist",), ("HUM:ind",)) and data.name == "trec-fine"


def test_an_invalid_question_is_named(folders: DataFolders) -> None:
    with pytest.raises(DataError, match=r"TEST, line 2: expected COARSE:fine and a question, got"):
        load_trec("test", folders)
    with pytest.raises(DataError, match="trec: expected the split train or test, got dev"):
        load_trec("dev", folders)


@pytest.mark.usefixtures("weir_data")
def test_the_real_set_has_its_published_size() -> None:
    train, test = load_text("trec"), load_text("trec", "test")
    fine = load_text("trec-fine")

    assert len(train.rows) == 5_452 and len(test.rows) == 500
    assert Counter(labels[0] for labels in train.labels) == {
        "ABBR": 86,
        "DESC": 1162,
        "ENTY": 1250,
        "HUM": 1223,
        "LOC": 835,
        "NUM": 896,
    }
    assert len(fine.classes) == 50 and len(load_text("trec-fine", "test").classes) == 42
    assert train.checksum == test.checksum == fine.checksum
