"""Runs on sequences as bundles: a classifier, a tagger that reads spelling, and frames."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers.sequence_files import write_labelled, write_tagged
from weir.bundle.reader import Bundle, read
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.export.runs.publishing import publish_run
from weir.export.runs.text import MOST_STEPS
from weir.training.__main__ import main as train
from weir.training.data.vocabulary import UNKNOWN
from weir.training.errors import DataError
from weir.training.run_directory import read_record
from weir.training.text.experiment import load_model, load_test, load_vocabularies

TOLERANCE = 1e-5
"""Sums of at most some hundred float32 products of size 1, in another order."""

Rows = Mapping[str, NDArray[Any]]
SMALL = ["--quick", "--epochs", "1", "--hidden", "12"]
NAMES = ("question", "tagger", "stress", "row-digits")
every_run = pytest.mark.parametrize("name", NAMES)


class Trained(NamedTuple):
    """A run, its data if they are a file, and the bundle made of it."""

    run: Path
    data: Path | None
    bundle: Bundle


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """By recipe."""
    folder = tmp_path_factory.mktemp("sequences")
    labelled, tagged = write_labelled(folder / "rows.tsv"), write_tagged(folder / "rows.txt")
    data = {"question": labelled, "tagger": tagged, "stress": tagged, "row-digits": None}
    made = {}
    for name, path in data.items():
        run = folder / name
        given = ["--data", str(path)] if path else []
        assert train([name, *given, "--out", str(run), *SMALL]) == 0
        made[name] = Trained(run, path, read(publish_run(run, to=folder / "models").path))
    return made


def serve(bundle: Bundle, rows: Rows) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(rows)), strict=True))


def test_graphs_have_named_tensors_and_axes(trained: dict[str, Trained]) -> None:
    shapes = {}
    for name, each in trained.items():
        session = onnxruntime.InferenceSession(
            each.bundle.model, providers=["CPUExecutionProvider"]
        )
        shapes[name] = {
            value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())
        }

    words = {"tokens": ["batch", "time"], "lengths": ["batch"]}
    letters = {"characters": ["batch", "time", "letters"]}
    tags = {"logits": ["batch", "time", 3], "tag_ids": ["batch", "time"]}
    assert shapes == {
        "question": words | letters | {"logits": ["batch", 2], "probabilities": ["batch", 2]},
        "tagger": words | letters | tags,
        "stress": words | tags,
        "row-digits": {
            "frames": ["batch", "time", 28],
            "lengths": ["batch"],
            "logits": ["batch", 10],
            "probabilities": ["batch", 10],
        },
    }


@every_run
def test_contract_names_padded_axes_ranges_and_vocabularies(
    name: str, trained: dict[str, Trained]
) -> None:
    run, _, bundle = trained[name]
    contract, spelt = bundle.contract, name in ("question", "tagger")
    first = "frames" if name == "row-digits" else "tokens"
    padded = {first: 0, "characters": 0} if spelt else {first: 0}
    letters = {"letters": PaddedAxis(maximum=24, padding={"characters": 0})} if spelt else {}
    vocabularies = load_vocabularies(run)

    assert contract.padded_axes == {
        "time": PaddedAxis(maximum=MOST_STEPS, lengths="lengths", padding=padded),
        **letters,
    }
    assert set(vocabularies) == set(padded) - {"frames"}
    assert contract.vocabularies == {each: f"vocabulary.{each}.txt" for each in vocabularies}
    assert contract.value_ranges == {
        each: ValueRange(maximum=len(vocabulary) - 1) for each, vocabulary in vocabularies.items()
    }
    for each, vocabulary in vocabularies.items():
        assert bundle.vocabulary(each) == list(vocabulary.entries)


@every_run
def test_contract_names_tokenisation_and_labels(name: str, trained: dict[str, Trained]) -> None:
    run, _, bundle = trained[name]

    spelt = Tokenisation(rule="words", lower=True, unknown=UNKNOWN, characters="characters")
    assert (
        bundle.contract.tokenisation
        == {
            "question": spelt,
            "tagger": spelt,
            "stress": Tokenisation(rule="spaces", unknown=UNKNOWN),
            "row-digits": None,
        }[name]
    )
    labelled = {"logits", "probabilities"} if name in ("question", "row-digits") else {"logits"}
    assert set(bundle.contract.labels) == labelled
    assert all(bundle.labels(output) == read_record(run).classes for output in labelled)


@every_run
def test_parity_and_provenance_are_recorded(name: str, trained: dict[str, Trained]) -> None:
    run, data, bundle = trained[name]
    record, contract = read_record(run), bundle.contract
    known = data.name if data else "digits"

    assert (contract.task, contract.architecture) == (record.task, name)
    assert contract.parity is not None and contract.training is not None
    assert contract.parity.max_absolute <= TOLERANCE
    assert contract.parity.examples == f"test rows of {known}"
    assert contract.training.data == known
    assert contract.training.metrics["test_macro_f1"] == record.test_metrics["macro_f1"]


@every_run
def test_test_rows_are_served_as_torch_answers_them(name: str, trained: dict[str, Trained]) -> None:
    run, _, bundle = trained[name]
    packed = load_test(run, read_record(run))
    batch = packed.take(torch.arange(len(packed)))
    inputs = ("frames" if name == "row-digits" else "tokens", "lengths", "characters")
    with torch.inference_mode():
        expected = load_model(run)(*batch.inputs).numpy()

    answers = serve(
        bundle, {key: value.numpy() for key, value in zip(inputs, batch.inputs, strict=False)}
    )

    np.testing.assert_allclose(answers["logits"], expected, atol=TOLERANCE, rtol=0)
    right = answers["logits"].argmax(axis=-1) == batch.targets.numpy()
    accuracy = right.sum() / (batch.targets >= 0).sum().item()
    assert accuracy == pytest.approx(read_record(run).test_accuracy)
    if "tag_ids" in answers:
        np.testing.assert_array_equal(answers["tag_ids"], answers["logits"].argmax(axis=-1))
    else:
        shares = torch.from_numpy(answers["logits"]).softmax(dim=-1).numpy()
        np.testing.assert_allclose(answers["probabilities"], shares, atol=TOLERANCE)


@every_run
def test_without_the_data_random_rows_are_used_and_recorded(
    name: str, trained: dict[str, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise DataError("rows: gone\nwith more to say")

    monkeypatch.setattr("weir.export.runs.text.load_test", gone)

    published = publish_run(trained[name].run, to=tmp_path)

    bundle = read(published.path)
    assert published.parity.examples == "random, without the data set: rows: gone"
    assert bundle.model == trained[name].bundle.model
    recorded = bundle.golden()
    assert recorded is not None
    answers = serve(bundle, recorded.inputs)
    for output, expected in recorded.outputs.items():
        np.testing.assert_allclose(answers[output], expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("longest_only", [False, True], ids=["some", "all"])
def test_rows_too_long_to_be_served_are_no_hindrance(
    longest_only: bool,  # noqa: FBT001  pytest gives it by name
    tmp_path: Path,
) -> None:
    path, run = tmp_path / "long.txt", tmp_path / "run"
    lengths = [MOST_STEPS + 50 if longest_only or row % 2 else 3 for row in range(20)]
    path.write_text("".join(" ".join(["a/X", *["b/Y"] * (size - 1)]) + "\n" for size in lengths))
    assert train(["stress", "--data", str(path), "--out", str(run), *SMALL]) == 0

    parity = publish_run(run, to=tmp_path / "models").parity

    found = f"random, without the data set: long.txt: expected a test row of at most {MOST_STEPS}"
    assert parity.examples.startswith(found if longest_only else "test rows of long.txt")


def test_rows_of_a_test_file_are_named_by_that_file(tmp_path: Path) -> None:
    rows, others, run = tmp_path / "rows.txt", tmp_path / "others.txt", tmp_path / "run"
    for path in (rows, others):
        path.write_text("a/X b/Y\n" * 20)
    given = ["--data", str(rows), "--test", str(others), "--out", str(run)]
    assert train(["stress", *given, *SMALL]) == 0

    parity = publish_run(run, to=tmp_path / "models").parity

    assert parity.examples == "test rows of others.txt"


def test_int8_is_measured_on_the_test_rows(
    trained: dict[str, Trained], reuse_graph: Callable[[bytes], None], tmp_path: Path
) -> None:
    run, _, bundle = trained["tagger"]
    reuse_graph(bundle.model)

    cost = publish_run(run, to=tmp_path, precision="int8", max_accuracy_drop=100.0).quantisation

    assert cost is not None and cost.method == "static"
    assert cost.calibration == "training rows of rows.txt, seed 0"
    assert cost.before == pytest.approx(read_record(run).test_accuracy)
    assert (cost.test, cost.test_rows) == ("test rows of rows.txt", 12)


def test_directory_of_the_data_is_not_published(
    trained: dict[str, Trained], reuse_graph: Callable[[bytes], None], tmp_path: Path
) -> None:
    run, data, bundle = trained["stress"]
    reuse_graph(bundle.model)
    assert data is not None
    hidden = data.rename(data.with_suffix(".away"))
    try:
        parity = publish_run(run, to=tmp_path).parity
    finally:
        hidden.rename(data)

    assert parity.examples.startswith("random, without the data set: rows.txt: neither a text set")
