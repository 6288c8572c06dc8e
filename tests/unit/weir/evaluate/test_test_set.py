"""What the data given to `weir evaluate` are to a bundle: which rows are sent, in true words."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from weir.bundle.contract import Provenance, SplitChecksums
from weir.evaluate.test_set import Origin, Selection, select_rows


@dataclass(frozen=True)
class Read:
    """Rows that were read, by their count."""

    count: int
    checksum: str

    @property
    def source_checksum(self) -> str:
        return self.checksum


def trained(train: str, validation: str, test: str) -> Provenance:
    return Provenance(
        recipe="question",
        data="mails.tsv",
        data_checksum="joined",
        split_checksums=SplitChecksums(train=train, validation=validation, test=test),
        seed=0,
    )


DIVIDED = trained("a", "a", "a")
WITH_TEST = trained("a", "a", "t")
WITH_DEV = trained("a", "d", "d")
WITH_BOTH = trained("a", "d", "t")


@pytest.fixture
def select(tmp_path: Path) -> Callable[..., Selection[Read]]:
    """Select of a file with a checksum: 100 rows, of which 20 are held out."""

    def select(
        checksum: str, training: Provenance | None, name: str = "mails.tsv"
    ) -> Selection[Read]:
        path = tmp_path / name
        path.touch()
        return select_rows(
            str(path),
            (),
            training,
            read_all=lambda: Read(100, checksum),
            read_test=lambda: Read(20, checksum),
        )

    return select


@pytest.mark.parametrize(
    ("checksum", "training", "rows", "words", "recorded"),
    [
        ("a", DIVIDED, 20, "what training held out of {}", "test"),
        ("b", DIVIDED, 100, "all of {}, which is not a file of the bundle's training", None),
        ("a", WITH_TEST, 100, "all of {}, which the bundle was trained on", None),
        ("t", WITH_TEST, 100, "all of {}, which training tested on", "test"),
        ("b", WITH_TEST, 100, "all of {}, which is not a file of the bundle's training", None),
        ("a", WITH_DEV, 100, "all of {}, which the bundle was trained on", None),
        (
            "d",
            WITH_DEV,
            100,
            "all of {}, by which training chose its epoch, and which it tested on",
            "test",
        ),
        ("d", WITH_BOTH, 100, "all of {}, by which training chose its epoch", "validation"),
        ("t", WITH_BOTH, 100, "all of {}, which training tested on", "test"),
        ("a", None, 100, "all of {}; what the model was trained on is not known", None),
    ],
    ids=[
        "divided",
        "another beside divided",
        "training file alone",
        "test file",
        "another",
        "training file beside dev",
        "dev file as test",
        "dev file",
        "test beside dev",
        "no record",
    ],
)
def test_the_words_for_a_file_are_true(
    select: Callable[..., Selection[Read]],
    tmp_path: Path,
    *,
    checksum: str,
    training: Provenance | None,
    rows: int,
    words: str,
    recorded: str | None,
) -> None:
    selected = select(checksum, training)

    assert selected.rows.count == rows
    assert selected.origin.text == words.format(tmp_path / "mails.tsv")
    assert selected.origin.recorded == recorded


def test_a_copy_is_the_file_that_it_copies(
    select: Callable[..., Selection[Read]], tmp_path: Path
) -> None:
    copy = select("a", DIVIDED, "copy.tsv")
    of_test = select("t", WITH_BOTH, "copy.tsv")

    path = tmp_path / "copy.tsv"
    told = f"what training held out of {path} (in the bundle: mails.tsv)"
    assert copy.origin == Origin(told, "test") and copy.rows.count == 20
    assert of_test.origin == Origin(f"all of {path}, which training tested on", "test")


def test_rows_that_were_trained_on_prove_nothing(select: Callable[..., Selection[Read]]) -> None:
    remark = select("a", WITH_TEST).origin.remark

    assert remark == "the bundle was trained on these rows: the result says nothing of others"


def test_an_earlier_bundle_knows_a_file_only_if_it_was_divided(
    select: Callable[..., Selection[Read]],
) -> None:
    earlier = DIVIDED.model_copy(update={"split_checksums": None})

    divided, other = select("joined", earlier), select("t", earlier)

    assert divided.rows.count == 20 and divided.origin.recorded == "test"
    assert other.rows.count == 100 and other.origin.recorded is None
    assert other.origin.text.endswith(
        "; the bundle is of an earlier version, which does not say whether training read this file"
    )


@pytest.mark.parametrize(
    ("data", "checksum", "training", "words", "recorded"),
    [
        ("trec", "a", trained("a", "a", "a"), "the test set of trec", "test"),
        ("trec", "a", WITH_TEST, "the test set of trec; training tested on other rows", None),
        ("trec", "b", DIVIDED, "the test set of trec, which the bundle was not trained on", None),
        (
            "ewt",
            "b",
            DIVIDED.model_copy(update={"data": "ewt"}),
            "the test set of ewt; the bundle was trained on another release of it",
            None,
        ),
        ("trec", "b", None, "the test set of trec", None),
    ],
    ids=["its own", "tested elsewhere", "another set", "another release", "no record"],
)
def test_the_words_for_a_named_set_are_true(
    data: str, checksum: str, training: Provenance | None, words: str, recorded: str | None
) -> None:
    read = Read(20, checksum)

    selected = select_rows(
        data, ("trec", "ewt"), training, read_all=lambda: read, read_test=lambda: read
    )

    assert selected.origin == Origin(words, recorded)  # type: ignore[arg-type]
