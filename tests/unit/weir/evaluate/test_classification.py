"""The rows of a text file that are sent, and their targets."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import text_models
from tests.helpers.sequence_files import write_conllu, write_labelled, write_tagged
from tests.unit.training.conftest import write_shapes
from weir.bundle.contract import Contract, Provenance, SplitChecksums, Tolerance
from weir.bundle.reader import read
from weir.bundle.sequences import PaddedAxis, Tokenisation
from weir.client.errors import UsageError
from weir.client.results import ModelMetadata, TensorMetadata
from weir.evaluate.classification import labels_of, of_pictures, of_texts
from weir.evaluate.model_description import ModelDescription, of_bundle
from weir.evaluate.test_set import ClassifiedSet, Origin, TextRequest
from weir.training.data import load_text
from weir.training.data.download import checksum
from weir.training.data.image_folder import load_folder
from weir.training.errors import TrainingError

PICTURES = ModelMetadata(
    "shapes", ("1",), "", (TensorMetadata("image", "UINT8", (-1, 28, 28, 1)),), ()
)


def tagger(root: Path, digest: str, **settings: str | int | bool) -> ModelDescription:
    training = Provenance(
        recipe="tagger",
        data="rows",
        data_checksum=digest,
        split_checksums=SplitChecksums(train=digest, validation=digest, test=digest),
        row_settings=settings,
        seed=0,
    )
    return of_bundle(read(text_models.write_tagger(root, training=training)))


def count(selected: ClassifiedSet) -> int:
    return sum(request.row_count for request in selected.requests)


def test_of_the_training_file_only_the_held_out_rows_are_sent(tmp_path: Path) -> None:
    data = write_tagged(tmp_path / "rows.txt", 60)

    selected = of_texts(str(data), tagger(tmp_path, checksum(data)), None, 7)

    short = [row for row in load_text(str(data), "test").rows if len(row) <= 6]
    assert count(selected) == len(short)
    assert selected.origin.text.startswith(f"what training held out of {data}")


@pytest.mark.parametrize("rows", [1, 2, 60])
def test_any_other_file_is_sent_whole(tmp_path: Path, rows: int) -> None:
    trained, other = write_tagged(tmp_path / "a.txt"), write_tagged(tmp_path / "b.txt", rows, 5)

    selected = of_texts(str(other), tagger(tmp_path, checksum(trained)), None, 7)

    left_out = sum(len(line.split()) > 6 for line in other.read_text().splitlines())
    assert count(selected) == rows - left_out
    assert selected.origin == Origin(
        f"all of {other}, which is not a file of the bundle's training"
    )


def test_rows_too_long_for_the_model_are_left_out_and_not_compared(tmp_path: Path) -> None:
    data = tmp_path / "rows.txt"
    data.write_text("the/DET\n" * 4 + " ".join(["the/DET"] * 7) + "\n")
    bundle = tagger(tmp_path, "c")
    training = bundle.training
    assert training is not None
    splits = SplitChecksums(train="c", validation="c", test=checksum(data))
    tested = training.model_copy(update={"split_checksums": splits})
    assert bundle.contract is not None
    contract = bundle.contract.model_copy(update={"training": tested})

    selected = of_texts(str(data), replace(bundle, contract=contract), None, 7)

    assert count(selected) == 4 and selected.origin.recorded is None
    assert selected.remarks == [
        "left out: 1 of 5 rows, which have more than the 6 tokens that the model takes"
    ]


def test_texts_are_sent_as_tokens_with_their_tags(tmp_path: Path) -> None:
    data = tmp_path / "rows.txt"
    data.write_text("the/DET cat/NOUN\nfoo/VERB\n")

    (request,) = of_texts(str(data), tagger(tmp_path, "c"), None, 7).requests

    assert request == TextRequest([("foo",), ("the", "cat")], [("VERB",), ("DET", "NOUN")])


def test_a_request_has_no_more_tokens_than_the_server_tags(tmp_path: Path) -> None:
    data = tmp_path / "rows.txt"
    data.write_text((" ".join(["the/DET"] * 400) + "\n") * 60)
    axes = {"time": PaddedAxis(maximum=500, lengths="lengths", padding={"tokens": 0})}
    described = tagger(tmp_path, "c")
    assert described.contract is not None
    contract = described.contract.model_copy(update={"padded_axes": axes})

    selected = of_texts(str(data), replace(described, contract=contract), None, 60)

    assert [request.row_count for request in selected.requests] == [25, 25, 10]


def test_tags_of_another_column_are_refused_with_examples_of_both(tmp_path: Path) -> None:
    data = write_conllu(tmp_path / "rows.conllu", 60)
    described = tagger(tmp_path, "c", column="upos")

    with pytest.raises(UsageError) as refused:
        of_texts(str(data), described, "xpos", 7)

    assert str(refused.value).startswith(
        f"{data}: expected labels of the model, such as DET, NOUN, VERB; "
        "got tags of column xpos such as "
    )
    assert str(refused.value).endswith("; the model was trained on the column upos")


def test_the_column_is_that_of_the_training(tmp_path: Path) -> None:
    """The XPOS of the file are the UPOS in small letters, which the model has not."""
    data = write_conllu(tmp_path / "rows.conllu", 60)

    with pytest.raises(UsageError, match="got tags of column xpos"):
        of_texts(str(data), tagger(tmp_path, "c", column="xpos"), None, 7)

    assert count(of_texts(str(data), tagger(tmp_path, "c", column="xpos"), "upos", 7)) > 0


def test_rows_with_some_unknown_labels_are_sent_and_counted(tmp_path: Path) -> None:
    data = tmp_path / "rows.txt"
    data.write_text("the/DET cat/NOUN\n" * 3 + "the/DET cat/PROPN sat/X\n")

    selected = of_texts(str(data), tagger(tmp_path, "c"), None, 7)

    assert count(selected) == 4
    assert selected.remarks == [
        "1 of 4 sentences have labels that the model lacks, which count as wrong: PROPN, X"
    ]


def test_unusable_files_are_rejected(tmp_path: Path) -> None:
    described = tagger(tmp_path, "c")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "broken").write_text("the/DET\ncat\n")
    (tmp_path / "others").write_text("the/ART cat/SUBST\n")
    write_labelled(tmp_path / "labelled")

    for name, error, message in (
        ("missing", TrainingError, "missing: neither a text set"),
        ("empty", TrainingError, "empty: expected lines of text, got none"),
        ("broken", TrainingError, "line 2: expected token/TAG"),
        ("others", UsageError, "others: expected labels of the model, such as DET, NOUN, VERB; "),
        ("labelled", UsageError, "labelled: made up answers a tag for each word, got a label"),
    ):
        with pytest.raises(error, match=message):
            of_texts(str(tmp_path / name), described, None, 7)


def test_bundle_with_a_tokenizer_json_is_not_measured(tmp_path: Path) -> None:
    contract = Contract(
        task="sequence-classification",
        architecture="bert",
        tokenisation=Tokenisation(rule="tokenizer-json", model="tokenizer.json"),
        tolerance=Tolerance(absolute=0, relative=0),
    )

    with pytest.raises(UsageError, match=r"bert: expected .* got one with tokenizer\.json"):
        of_texts("trec", ModelDescription(contract, {}), None, 7)


def test_pictures_are_compared_by_the_names_of_their_classes(tmp_path: Path) -> None:
    """The folder has two of the model's three classes, and they have other numbers there."""
    write_shapes(tmp_path / "shapes")
    labels = ["middle", "right", "left"]

    selected = of_pictures(
        str(tmp_path / "shapes"), PICTURES, ModelDescription(labels={"probabilities": labels}), 7
    )

    targets = [each for request in selected.requests for each in request.targets]
    assert Counter(targets) == {"left": 20, "right": 20}
    answers = np.eye(3, dtype="f4")[[2, 1, 0]]
    assert labels_of(answers, selected.labels) == ["left", "right", "middle"]


def test_pictures_of_other_classes_are_refused(tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes")
    described = ModelDescription(labels={"probabilities": ["cat", "dog"]})

    with pytest.raises(UsageError, match="such as cat, dog; got labels such as left, right"):
        of_pictures(str(tmp_path / "shapes"), PICTURES, described, 7)


@pytest.mark.parametrize("form", ["folder", "test folder", "its test folder alone", "other", "tar"])
def test_pictures_of_a_training_are_known_in_every_form(tmp_path: Path, form: str) -> None:
    root = tmp_path / "shapes"
    write_shapes(root / "train" if "test" in form else root)
    if "test" in form:
        shutil.copytree(root / "train", root / "test")
        for path in root.glob("test/*/0*.png"):
            path.unlink()
    if form == "tar":
        shutil.make_archive(str(root), "tar", tmp_path, "shapes")
        root = tmp_path / "shapes.tar"
    size = {"height": 28, "width": 28, "channels": 1}
    train, test = load_folder(root, "train", **size), load_folder(root, "test", **size)
    splits = SplitChecksums(
        train=train.source_checksum,
        validation=train.source_checksum,
        test="0" if form == "other" else test.source_checksum,
    )
    training = Provenance(
        recipe="lenet5", data=root.name, data_checksum="0", split_checksums=splits, seed=0
    )
    contract = Contract(
        task="image-classification",
        architecture="lenet5",
        tolerance=Tolerance(absolute=0, relative=0),
        training=training,
    )
    data = root / "test" if form == "its test folder alone" else root

    selected = of_pictures(str(data), PICTURES, ModelDescription(contract, {}), 7)

    rows, words, recorded = {
        "folder": (8, f"what training held out of {data}", "test"),
        "tar": (8, f"what training held out of {data}", "test"),
        "test folder": (20, f"the test folder of {data}, which training tested on", "test"),
        "its test folder alone": (20, f"all of {data}, which training tested on", "test"),
        "other": (40, f"all of {data}, which the bundle was trained on", None),
    }[form]
    assert (count(selected), selected.origin.text, selected.origin.recorded) == (
        rows,
        words,
        recorded,
    )
