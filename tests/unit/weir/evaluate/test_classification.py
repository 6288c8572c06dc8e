"""The rows of a text file that are sent, and their targets."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers import text_models
from tests.helpers.sequence_files import write_labelled, write_tagged
from weir.bundle.contract import Contract, Provenance, Tolerance
from weir.bundle.reader import Bundle, read
from weir.bundle.sequences import Tokenisation
from weir.client.errors import UsageError
from weir.evaluate.classification import of_sequences
from weir.evaluate.test_set import ClassifiedSet
from weir.training.data import load_text
from weir.training.data.download import checksum
from weir.training.errors import TrainingError


def tagger(root: Path, digest: str) -> Bundle:
    training = Provenance(recipe="tagger", data="rows", data_checksum=digest, seed=0)
    return read(text_models.write_tagger(root, training=training))


def count(selected: ClassifiedSet) -> int:
    return sum(len(request.targets) for request in selected.requests)


def test_of_the_training_file_only_the_held_out_rows_are_sent(tmp_path: Path) -> None:
    data = write_tagged(tmp_path / "rows.txt", 60)

    selected = of_sequences(str(data), tagger(tmp_path, checksum(data)), None, 7)

    assert count(selected) == len(load_text(str(data), "test").rows) == 12
    assert selected.origin == f"what training held out of {data}" and not selected.is_unseen


@pytest.mark.parametrize("rows", [1, 2, 60])
def test_any_other_file_is_sent_whole(tmp_path: Path, rows: int) -> None:
    trained, other = write_tagged(tmp_path / "a.txt"), write_tagged(tmp_path / "b.txt", rows, 5)

    selected = of_sequences(str(other), tagger(tmp_path, checksum(trained)), None, 7)

    assert count(selected) == rows and selected.is_unseen
    assert selected.origin == f"all of {other}, which the bundle was not trained on"


def test_a_file_is_other_to_a_bundle_that_was_trained_elsewhere(tmp_path: Path) -> None:
    data = write_tagged(tmp_path / "rows.txt", 2)

    selected = of_sequences(str(data), read(text_models.write_tagger(tmp_path)), None, 7)

    assert count(selected) == 2 and selected.is_unseen


def test_rows_are_in_the_numbers_of_the_bundle(tmp_path: Path) -> None:
    data = tmp_path / "rows.txt"
    data.write_text("the/DET cat/NOUN\nfoo/VERB\n")

    (request,) = of_sequences(str(data), tagger(tmp_path, "c"), None, 7).requests

    np.testing.assert_array_equal(request.inputs["tokens"], [[1, 0], [4, 5]])
    np.testing.assert_array_equal(request.targets, [[2, -100], [0, 1]])


def test_unusable_files_are_rejected(tmp_path: Path) -> None:
    bundle = tagger(tmp_path, "c")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "broken").write_text("the/DET\ncat\n")
    (tmp_path / "others").write_text("the/ART cat/SUBST\n")
    write_labelled(tmp_path / "labelled")

    for name, error, message in (
        ("missing", TrainingError, "missing: neither a text set"),
        ("empty", TrainingError, "empty: expected lines of text, got none"),
        ("broken", TrainingError, "line 2: expected token/TAG"),
        ("others", UsageError, "others: expected labels such as DET, got ART"),
        ("labelled", UsageError, "labelled: not the kind of data"),
    ):
        with pytest.raises(error, match=message):
            of_sequences(str(tmp_path / name), bundle, None, 7)


def test_bundle_with_a_tokenizer_json_is_not_measured(tmp_path: Path) -> None:
    contract = Contract(
        task="sequence-classification",
        architecture="bert",
        tokenisation=Tokenisation(rule="tokenizer-json", model="tokenizer.json"),
        tolerance=Tolerance(absolute=0, relative=0),
    )

    with pytest.raises(UsageError, match=r"bert: expected .* got one with tokenizer\.json"):
        of_sequences("trec", Bundle(contract, graphs={}, files={}, texts={}), None, 7)
