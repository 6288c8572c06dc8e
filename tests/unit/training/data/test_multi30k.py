"""Multi30k, on small files and on the real set."""

import gzip
from pathlib import Path

import pytest

from weir.training.data import load_pairs, multi30k
from weir.training.data.download import DataFolders, RemoteFile, checksum
from weir.training.data.multi30k import Language, load_multi30k
from weir.training.errors import DataError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolders:
    """Two sentences to train on, in two languages."""
    folder = tmp_path / "multi30k"
    folder.mkdir()
    files = {}
    for language, text in (("de", "Ein Hund.\nZwei.\n"), ("en", "A dog.\nTwo.\n")):
        path = folder / f"train.{language}.gz"
        path.write_bytes(gzip.compress(text.encode()))
        url = f"https://nowhere.invalid/{path.name}"
        files["train", language] = RemoteFile(url, path.stat().st_size, checksum(path))
    monkeypatch.setattr(multi30k, "FILES", files)
    return DataFolders(tmp_path, tmp_path / "cache")


def test_german_to_english_is_the_default(folders: DataFolders) -> None:
    data = load_multi30k("train", folders)
    back = load_multi30k("train", folders, source_language="en", target_language="de")

    assert list(data.pairs()) == [("Ein Hund.", "A dog."), ("Zwei.", "Two.")]
    assert list(back.pairs()) == [("A dog.", "Ein Hund."), ("Two.", "Zwei.")]
    assert (data.name, back.name) == ("multi30k-de-en", "multi30k-en-de")


def test_one_language_twice_is_refused(folders: DataFolders) -> None:
    with pytest.raises(DataError, match="multi30k: expected two languages, got de twice"):
        load_multi30k("train", folders, target_language="de")


@pytest.mark.usefixtures("weir_data")
@pytest.mark.parametrize("target", ["en", "fr"])
def test_the_real_set_has_its_published_size(target: Language) -> None:
    sets = [
        load_pairs("multi30k", split, target_language=target) for split in ("train", "dev", "test")
    ]

    assert [len(data) for data in sets] == [29_000, 1_014, 1_000]
    assert len({data.checksum for data in sets}) == 1
    assert sets[2].sources[0] == "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt."
