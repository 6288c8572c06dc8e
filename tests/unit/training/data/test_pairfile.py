"""The user's own pairs."""

import gzip
from pathlib import Path

import pytest

from weir.training.data import load_pairs
from weir.training.data.pairfile import load_pair_file
from weir.training.errors import DataError


def test_a_pair_a_line_and_further_targets(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("read\tR IY D\n\nred\tR EH D \nread\tR EH D\nrow\tR OW\tR AW\n")

    data = load_pair_file(path)

    assert data.name == str(path)
    assert data.sources == ("read", "red", "row")
    assert data.references == (("R IY D", "R EH D"), ("R EH D",), ("R OW", "R AW"))


def test_two_files_go_line_by_line(tmp_path: Path) -> None:
    german, english = tmp_path / "x.de.gz", tmp_path / "x.en"
    german.write_bytes(gzip.compress(b"Ein Hund.\n\nEin Hund.\n"))
    english.write_text("A dog.\n \nOne dog.\n")

    data = load_pair_file(german, english)

    assert list(data.pairs()) == [("Ein Hund.", "A dog."), ("Ein Hund.", "One dog.")]
    assert len(data) == 2 and data.checksum != load_pair_file(english, german).checksum


@pytest.mark.parametrize("line", ["b", "b\t", "\tB", "b\tB\t", "b\t \tB"])
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(f"a\tA\n{line}\n")

    with pytest.raises(DataError, match=r"x\.tsv, line 2: expected source<TAB>target, found 'b?"):
        load_pair_file(path)


def test_files_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    short, long, blank = tmp_path / "short", tmp_path / "long", tmp_path / "blank"
    short.write_text("a\nb\n")
    long.write_text("a\nb\nc")
    blank.write_text("a\n\n")

    with pytest.raises(DataError, match=r"long: expected 2 lines, as .*short has, found 3"):
        load_pair_file(short, long)
    with pytest.raises(DataError, match=r"blank, line 2: expected what goes with 'b', found ''"):
        load_pair_file(short, blank)
    with pytest.raises(DataError, match=r"blank, line 2: expected what goes with 'b', found ''"):
        load_pair_file(blank, short)


def test_a_file_without_pairs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("\n")

    with pytest.raises(DataError, match=r"x\.tsv: expected pairs of text, found none"):
        load_pair_file(path)


def test_a_fifth_of_the_sources_is_the_test_set(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("".join(f"{row % 10}\t{row}\n" for row in range(20)))

    train, test = load_pairs(str(path)), load_pairs(str(path), "test")

    assert len(train) == 8 and len(test) == 2 and not set(train.sources) & set(test.sources)
    assert all(len(targets) == 2 for targets in (*train.references, *test.references))


def test_what_there_is_not_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("a\tA\nb\tB\n")

    with pytest.raises(DataError, match=r"nowhere: neither a set of pairs .*multi30k.* nor a file"):
        load_pairs("nowhere")
    with pytest.raises(DataError, match=r"x\.tsv: expected the split train or test, found dev"):
        load_pairs(str(path), "dev")
    with pytest.raises(DataError, match="nowhere: expected a file of targets, found none"):
        load_pairs(str(path), target_data="nowhere")
    with pytest.raises(DataError, match="multi30k: has its own targets, found x too"):
        load_pairs("multi30k", target_data="x")
