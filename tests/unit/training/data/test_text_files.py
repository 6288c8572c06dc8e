"""Text files of the user, in three formats."""

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weir.training.data import load_text
from weir.training.data.download import checksum
from weir.training.data.text_files import load_file
from weir.training.errors import DataError

letters = st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n")
tokens = st.text(letters, min_size=1)
tags = st.text(letters, min_size=1).filter(lambda tag: "/" not in tag)
sentences = st.lists(st.lists(st.tuples(tokens, tags), min_size=1), min_size=1)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_a_label_before_a_tab_belongs_to_the_text(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "good film\tA joy!\n\nbad\tNo, no\tthank you\r\n")

    data = load_file(path)

    assert data.rows == (("A", "joy", "!"), ("No", ",", "no", "thank", "you"))
    assert data.labels == (("good film",), ("bad",)) and not data.is_tagged
    assert load_file(path, lower=True).rows[0] == ("a", "joy", "!")
    assert data.name == str(path.resolve()) and data.checksum == checksum(path)


def test_the_last_slash_parts_a_token_from_its_tag(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "either/or/CC 1/2/CD\n\n//SYM  U.S./NNP \n")

    data = load_file(path, lower=True)

    assert data.rows == (("either/or", "1/2"), ("/", "U.S."))
    assert data.labels == (("CC", "CD"), ("SYM", "NNP")) and data.is_tagged


@given(sentences)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tagged_lines_come_back(tmp_path: Path, rows: list[list[tuple[str, str]]]) -> None:
    # A mark at the very beginning is one of byte order, and no part of the text.
    text = "".join(" ".join(f"{token}/{tag}" for token, tag in row) + "\n" for row in rows)
    path = write(tmp_path / "x", "\ufeff" + text)

    data = load_file(path)

    assert data.rows == tuple(tuple(token for token, _ in row) for row in rows)
    assert data.labels == tuple(tuple(tag for _, tag in row) for row in rows)


@pytest.mark.parametrize("name", ["x.conllu", "x.conllu.gz"])
def test_an_ending_tells_conllu(tmp_path: Path, name: str) -> None:
    content = b"1\ta\ta\tX\tY" + b"\t_" * 5 + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    data = load_file(tmp_path / name, column="xpos")

    assert data.rows == (("a",),) and data.labels == (("Y",),) and data.is_tagged


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\nc d\n", r"x, line 2: expected LABEL<TAB>text, got 'c d'"),
        ("a\tb\n\n \tc\n", r"x, line 3: expected LABEL<TAB>text, got ' \\tc'"),
        ("a\t \n", r"x, line 1: expected LABEL<TAB>text, got 'a\\t '"),
        ("a/A\nb/B c\n", r"x, line 2: expected token/TAG with a space between two, got 'c'"),
        (
            "\nbad: no tab\n",
            r"x, line 2: expected LABEL<TAB>text \(.*no tab\) or token/TAG .*'bad:'",
        ),
        ("a/A\nb/\n", r"x, line 2: expected token/TAG with a space between two, got 'b/'"),
        ("a/A\n/A\n", r"x, line 2: expected token/TAG with a space between two, got '/A'"),
        ("a/A\nb/B\tc/C\n", r"x, line 2: expected token/TAG with .*, got 'b/B\\tc/C'"),
        ("\n \n", r"x: expected lines of text, got none"),
    ],
    ids=[
        "no tab",
        "no label",
        "no text",
        "no slash",
        "neither",
        "no tag",
        "no token",
        "tab",
        "blank",
    ],
)
def test_a_broken_line_is_named_with_expected_and_found(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_file(write(tmp_path / "x", text))


def test_a_fifth_of_a_file_is_held_out(tmp_path: Path) -> None:
    lines = [f"{label}\trow {number}\n" for label in "ab" for number in range(10)]
    path = write(tmp_path / "x", "".join(lines))

    train, test = load_text(str(path)), load_text(str(path), "test")

    assert [labels[0] for labels in train.labels] == ["a"] * 8 + ["b"] * 8
    assert [labels[0] for labels in test.labels] == ["a"] * 2 + ["b"] * 2
    assert sorted(train.rows + test.rows) == sorted(load_file(path).rows)
    assert load_text(str(path), "test") == test and test.checksum == train.checksum


def test_invalid_text_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a text set \(trec, trec-fine, ewt, .*\) nor a"):
        load_text(str(tmp_path))
    with pytest.raises(DataError, match="expected the split train or test, got dev"):
        load_text(str(write(tmp_path / "x", "a\tb\n")), "dev")
