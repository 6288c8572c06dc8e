"""CoNLL-U, whole and broken."""

import gzip
from pathlib import Path

import pytest

from weir.training.data.conllu import read_conllu
from weir.training.data.text import TextRow
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
    with pytest.raises(DataError, match="column: expected upos, xpos, deprel or feats:NAME, found"):
        read_conllu(write(tmp_path / "x.conllu"), column=column)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2|b|b|X|_|_", "line 3: expected 10 columns between tabs, found 6"),
        ("2|b|b|_|_|_|_|_|_|_", "line 3: expected a tag in column UPOS, found '_'"),
        ("2|b|b||_|_|_|_|_|_", "line 3: expected a tag in column UPOS, found ''"),
        ("3|b|b|X|_|_|_|_|_|_", "line 3: expected the ID 2, found '3'"),
        ("1|b|b|X|_|_|_|_|_|_", "line 3: expected the ID 2, found '1'"),
        ("2-|b|b|X|_|_|_|_|_|_", "line 3: expected the ID 2, found '2-'"),
        ("2||b|X|_|_|_|_|_|_", "line 3: expected a word in column FORM, found nothing"),
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
    with pytest.raises(DataError, match="line 1: expected NAME=VALUE in column FEATS, found"):
        read_conllu(path, column="feats:Number")


@pytest.mark.parametrize("text", ["", "\n\n", "# a comment\n"])
def test_a_file_without_sentences_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"x\.conllu: expected sentences in CoNLL-U, found none"):
        read_conllu(write(tmp_path / "x.conllu", text))


def test_a_treebank_without_spaces_between_words_is_read(weir_data: Path) -> None:
    rows = read_conllu(weir_data / "ud-chinese-gsdsimp" / "zh_gsdsimp-ud-test.conllu.gz")

    assert len(rows) == 500 and sum(len(row.tokens) for row in rows) == 12_012
