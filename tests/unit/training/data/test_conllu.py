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
        TextRow(
            ("Vamos", "nos", "a", "el", "mar"),
            ("VERB", "PRON", "ADP", "DET", "NOUN"),
            "Vámonos al mar",
        ),
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
    with pytest.raises(DataError, match="column: expected upos, xpos, deprel, feats:NAME or a"):
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


CORENLP = "1|Hi|hi|_|UH|_|0|root|_|_\n2|all|all|_|DT|_|1|dep|_|_\n"


@pytest.mark.parametrize(
    ("text", "column", "rows"),
    [
        ("@a|O\n#b|O\n|\nEU|B-org\n \n\ufeff", "upos", [("@a #b", "O O"), ("EU", "B-org")]),
        ("EU NNP\nvotes  VBZ \n\n# NN", "upos", [("EU votes", "NNP VBZ"), ("#", "NN")]),
        ("-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\n", "2", [("EU", "NNP")]),
        ("-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\n", "4", [("EU", "I-ORG")]),
        (CORENLP, "xpos", [("Hi all", "UH DT")]),
        ("1|Hi|hi|UH|O|0|root\n2|all|all|DT|O|1|dep\n", "4", [("Hi all", "UH DT")]),
        ("1|Hi|hi|X|UH|_|0|root|_\n", "upos", [("Hi", "X")]),
        ("1|Hi|hi|X|UH|_|0|root\n", "xpos", [("Hi", "UH")]),
        ("1 Hi hi X UH _ 0 root _ _\n", "xpos", [("Hi", "UH")]),
        ("1|Hi|hi|X|UH|_|0|root|_|_|\n", "upos", [("Hi", "X")]),
        ("1| Hi |hi|X |UH|_|0|root|_|_  \n", "upos", [("Hi", "X")]),
        ("0|a|_|X|_|_|_|_|_|_\n1|b|_|Y|_|_|_|_|_|_\n\n7|c|_|Z|_|_|_|_|_|_", "upos",
         [("a b", "X Y"), ("c", "Z")]),
        ("1|a|_|X|_|_|_|_|_|_\r\n# x = y\r\n#|z\r\n2|b|_|Y|_|_|_|_|_|_\r\n", "upos",
         [("a b", "X Y")]),
        ("# global.columns = ID FORM UPOS\n1|a|X\n2|b|Y\n", "upos", [("a b", "X Y")]),
    ],
    ids=[
        "wnut", "words and tags", "conll-2003 pos", "conll-2003 ner", "corenlp", "seven columns",
        "nine columns", "eight columns", "spaces", "tab at the end", "spaces around",
        "ids from 0 and 7", "crlf and comments", "columns named",
    ],
)  # fmt: skip
def test_files_of_other_tools_are_read(
    tmp_path: Path, text: str, column: str, rows: list[tuple[str, str]]
) -> None:
    found = read_conllu(write(tmp_path / "x.conll", text), column=column)

    assert [(" ".join(row.tokens), " ".join(row.labels)) for row in found] == rows


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (CORENLP, "upos", "got '_'; every word has one in XPOS: --column xpos"),
        ("1|a|_|_|_|_|_|_|_|_\n", "upos", "line 1: expected a tag in column UPOS, got '_'$"),
        ("EU NNP I-NP I-ORG\n", "upos", r"line 1: .* --column 2 \(NNP\), 3 \(I-NP\) or 4"),
        ("1|Hi|hi|UH|O|0|root\n", "upos", r"--column 3 \(hi\), 4 \(UH\), 5 \(O\), 6 \(0\) or"),
        ("EU|X\n", "xpos", "words and tags alone need no --column, got xpos"),
        ("EU|X\n", "3", "expected --column up to 2, got 3"),
        ("EU|X\nis\n", "upos", "line 2: expected 2 columns between tabs, got 1"),
        ("EU|X\nis|\n", "upos", "line 2: expected a tag in column 2, got ''"),
        ("EU\n", "upos", "line 1: expected a word and its tag, with a tab or a space between, got"),
        ("1|a|_|X|_|_|_|_|_|_\n2|b|_|Y _|_|_|_|_|_\n", "upos",
         "line 2: expected 10 columns between tabs, got 9; a space stands where a tab should be"),
        ("1|a|_|X|_|_|_|_|_|_\n1|b|_|Y|_|_|_|_|_|_\n", "upos",
         "line 2: expected the ID 2, got '1'; a blank line goes between two sentences"),
        ("# global.columns = ID FORM\n1|a|X\n", "upos", "line 1: expected the names of 3 columns"),
    ],
    ids=[
        "no upos", "no tags", "which column", "which column beside ids", "no column",
        "too high", "no tag", "empty tag", "words only", "space for a tab", "no blank line",
        "names",
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_what_to_do(
    tmp_path: Path, text: str, column: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_conllu(write(tmp_path / "x.conll", text), column=column)


def test_an_id_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.conllu", f"{'9' * 5000}|a|_|X|_|_|_|_|_|_\n")

    with pytest.raises(DataError, match="line 1: expected the ID 1, got '9999"):
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
