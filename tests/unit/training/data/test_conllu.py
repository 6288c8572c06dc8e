"""CoNLL-U files, valid and broken, and the English Web Treebank."""

import gzip
from pathlib import Path

import pytest

from weir.training.data import load_text
from weir.training.data.conllu import EWT_FILES, load_treebank, read_conllu
from weir.training.data.download import DataFolders
from weir.training.data.text import SequenceSplit, TextRow
from weir.training.errors import DataError

WHOLE = """\
# sent_id = 1
# text = Vámonos al mar
1-2|Vámonos|_|_|_|_|_|_|_|_
1|Vamos|ir|VERB|V|Mood=Imp;Number=Plur|0|root|_|_
2|nos|nosotros|PRON|P|Number=Plur|1|obj|_|_
3-4|al|_|_|_|_|_|_|_|_
3|a|a|ADP|E|_|5|case|_|_
4|el|el|DET|D|Definite=Def;Number=Sing|5|det|_|_
5|mar|mar|NOUN|N|Number=Sing|1|obl|_|_
5.1|x|_|_|_|_|_|_|_|_

# a comment alone


1|20 000|20000|NUM|M|_|0|root|_|SpaceAfter=No
"""


def fields(text: str) -> str:
    """The columns of the tests, which are easier to read."""
    return text.replace("|", "\t").replace(";", "|")


def write(path: Path, text: str = WHOLE) -> Path:
    content = fields(text).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["x.conllu", "x.conllu.gz"])
def test_words_and_tags_are_read_and_the_rest_passed_over(tmp_path: Path, name: str) -> None:
    rows = read_conllu(write(tmp_path / name))

    assert rows == [
        TextRow(("Vamos", "nos", "a", "el", "mar"), ("VERB", "PRON", "ADP", "DET", "NOUN")),
        TextRow(("20 000",), ("NUM",)),
    ]


@pytest.mark.parametrize(
    ("column", "tags"),
    [
        ("xpos", ("V", "P", "E", "D", "N")),
        ("deprel", ("root", "obj", "case", "det", "obl")),
        ("feats:Number", ("Plur", "Plur", "_", "Sing", "Sing")),
    ],
)
def test_the_tag_may_come_from_another_column(
    tmp_path: Path, column: str, tags: tuple[str, ...]
) -> None:
    assert read_conllu(write(tmp_path / "x.conllu"), column=column)[0].labels == tags


@pytest.mark.parametrize("column", ["form", "feats", "feats:", ""])
def test_another_column_is_refused(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError, match="column: expected upos, xpos, deprel or feats:NAME, got"):
        read_conllu(write(tmp_path / "x.conllu"), column=column)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2|b|b|X|_|_", "line 3: expected 10 columns between tabs, got 6"),
        ("2|b|b|_|_|_|_|_|_|_", "line 3: expected a tag in column UPOS, got '_'"),
        ("2|b|b||_|_|_|_|_|_", "line 3: expected a tag in column UPOS, got ''"),
        ("3|b|b|X|_|_|_|_|_|_", "line 3: expected the ID 2, got '3'"),
        ("1|b|b|X|_|_|_|_|_|_", "line 3: expected the ID 2, got '1'"),
        ("2-|b|b|X|_|_|_|_|_|_", "line 3: expected the ID 2, got '2-'"),
        ("2||b|X|_|_|_|_|_|_", "line 3: expected a word in column FORM, got nothing"),
    ],
    ids=["columns", "no tag", "empty tag", "gap", "no blank line", "no number", "no word"],
)
def test_a_broken_line_is_named_with_expected_and_found(
    tmp_path: Path, line: str, message: str
) -> None:
    path = write(tmp_path / "x.conllu", f"# text\n1|a|a|X|_|_|_|_|_|_\n{line}\n\n")

    with pytest.raises(DataError, match=rf"x\.conllu, {message}"):
        read_conllu(path)


def test_a_broken_feature_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.conllu", "1|a|a|X|_|Plural|_|_|_|_\n")

    assert read_conllu(path)[0].labels == ("X",)
    with pytest.raises(DataError, match="line 1: expected NAME=VALUE in column FEATS, got"):
        read_conllu(path, column="feats:Number")


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n"])
def test_a_file_without_sentences_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"x\.conllu: expected sentences in CoNLL-U, got none"):
        read_conllu(write(tmp_path / "x.conllu", text))


def test_a_treebank_without_spaces_between_words_is_read(weir_data: Path) -> None:
    rows = read_conllu(weir_data / "ud-chinese-gsdsimp" / "zh_gsdsimp-ud-test.conllu.gz")

    assert len(rows) == 500 and sum(len(row.tokens) for row in rows) == 12_012


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
    packed = weir_data / "ud-english-ewt" / f"{EWT_FILES['dev'].name}.gz"
    (tmp_path / "ud-english-ewt").mkdir()
    plain = tmp_path / "ud-english-ewt" / EWT_FILES["dev"].name
    plain.write_bytes(gzip.decompress(packed.read_bytes()))

    data = load_treebank("dev", DataFolders(None, tmp_path), column="xpos")

    assert plain.stat().st_size == EWT_FILES["dev"].size_bytes
    assert data == load_text("ewt", "dev", column="xpos")
    assert data != load_text("ewt", "dev")


def test_another_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ud-english-ewt").mkdir()
    (tmp_path / "ud-english-ewt" / f"{EWT_FILES['dev'].name}.gz").write_bytes(gzip.compress(b"1\n"))

    with pytest.raises(DataError, match=r"dev\.conllu\.gz: expected SHA-256 531a.*, got"):
        load_treebank("dev", DataFolders(tmp_path, tmp_path / "cache"))
