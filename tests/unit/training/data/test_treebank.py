"""The English Web Treebank, gzipped as in the folder of data sets, and plain as a download gives it."""

import gzip
from pathlib import Path

import pytest

from weir.training.data import load_text
from weir.training.data.download import Places
from weir.training.data.text import SequenceSplit
from weir.training.data.treebank import FILES, load_treebank
from weir.training.errors import DataError


@pytest.mark.usefixtures("weir_data")
@pytest.mark.parametrize(
    ("split", "sentences", "words"),
    [("train", 12_544, 204_577), ("dev", 2_001, 25_147), ("test", 2_077, 25_094)],
)
def test_the_real_set_has_its_published_size(
    split: SequenceSplit, sentences: int, words: int
) -> None:
    data = load_text("ewt", split)

    assert len(data.rows) == sentences and sum(map(len, data.rows)) == words
    assert len(data.classes) == 17 and data.is_tagged


def test_a_plain_file_is_read_like_a_gzipped_one(weir_data: Path, tmp_path: Path) -> None:
    packed = weir_data / "ud-english-ewt" / f"{FILES['dev'].name}.gz"
    (tmp_path / "ud-english-ewt").mkdir()
    plain = tmp_path / "ud-english-ewt" / FILES["dev"].name
    plain.write_bytes(gzip.decompress(packed.read_bytes()))

    data = load_treebank("dev", Places(None, tmp_path), column="xpos")

    assert plain.stat().st_size == FILES["dev"].size_bytes
    assert data == load_text("ewt", "dev", column="xpos")
    assert data != load_text("ewt", "dev")


def test_another_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ud-english-ewt").mkdir()
    (tmp_path / "ud-english-ewt" / f"{FILES['dev'].name}.gz").write_bytes(gzip.compress(b"1\n"))

    with pytest.raises(DataError, match=r"dev\.conllu\.gz: expected SHA-256 531a.*, found"):
        load_treebank("dev", Places(tmp_path, tmp_path / "cache"))
