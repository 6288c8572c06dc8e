"""`weir evaluate` from a training to its words: which rows are sent, and what is compared."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.sequence_files import write_conllu, write_labelled
from tests.integration.harness import Server, running
from weir.cli import main as cli
from weir.export.runs.publishing import publish_run
from weir.training.__main__ import main as train


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Evaluate = Callable[..., Done]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of texts and of tagged sentences, each of other rows."""
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("train", "dev", "test", "other")):
        write_labelled(root / f"{name}.tsv", 60, seed)
        write_conllu(root / f"{name}.conllu", 60, seed)
    shutil.copy(root / "test.tsv", root / "copy.tsv")
    return root


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles of a text classifier with files for all three sets, and of a tagger with one file."""
    root = tmp_path_factory.mktemp("trained")
    texts = ["--data", data / "train.tsv", "--dev", data / "dev.tsv", "--test", data / "test.tsv"]
    runs = {"question": texts, "tagger": ["--data", data / "train.conllu"]}
    for recipe, files in runs.items():
        run = root / recipe
        order = [recipe, *files, "--out", run, "--quick", "--epochs", "2"]
        assert train(list(map(str, order))) == 0
        publish_run(run, to=root / "models")
    return root / "models"


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of both models."""
    with running(models, tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(params=["server", "bundle"])
def evaluate(
    server: Server, models: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Evaluate:
    """Run the command; the server describes the model, or a bundle does."""

    def evaluate(model: str, *order: object) -> Done:
        bundle = ["--bundle", models / model] if request.param == "bundle" else []
        words = ["evaluate", model, *map(str, [*order, *bundle, "--target", server.target])]
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        code = ended.value.code
        return Done(code if isinstance(code, int) else 1, *capsys.readouterr())

    return evaluate


@pytest.mark.parametrize(
    ("file", "words", "compared"),
    [
        ("test", "which training tested on", True),
        ("copy", "which training tested on", True),
        ("dev", "by which training chose its epoch", True),
        ("train", "which the bundle was trained on", False),
        ("other", "which is not a file of the bundle's training", False),
    ],
)
def test_each_file_of_a_training_is_told_and_compared(
    evaluate: Evaluate, data: Path, file: str, words: str, *, compared: bool
) -> None:
    path = data / f"{file}.tsv"

    done = evaluate("question", "--data", path)

    assert done.err == f"asking 60 texts: all of {path}, {words}\n"
    assert done.code == 0 and "60 texts)" in done.out and "baseline 0.5000: " in done.out
    assert ("as expected" in done.out) == compared
    assert ("training had" in done.out) != compared
    is_of_training = file == "train"
    assert ("the result says nothing of others" in done.out) == is_of_training


def test_another_result_on_the_test_file_is_a_failure(evaluate: Evaluate, data: Path) -> None:
    done = evaluate("question", "--data", data / "test.tsv", "--expect", 0.01)

    assert done.code == 1 and "weir: expected accuracy 0.0100, got" in done.err


def test_a_file_that_training_divided_is_measured_by_its_held_out_rows(
    evaluate: Evaluate, data: Path
) -> None:
    path = data / "train.conllu"

    done = evaluate("tagger", "--data", path)

    assert "sentences: what training held out of" in done.err
    assert done.code == 0 and "as expected" in done.out
    assert "each word's most frequent tag in training" in done.out
    assert " tokens in " in done.out and "the most frequent tag of these tokens" in done.out


def test_tags_of_another_column_are_said_not_to_be_those_of_the_model(
    evaluate: Evaluate, data: Path
) -> None:
    done = evaluate("tagger", "--data", data / "other.conllu", "--column", "xpos")

    assert done.code == 2 and "accuracy" not in done.out
    assert "expected labels of the model, such as DET, NOUN, VERB" in done.err
    assert "got tags of column xpos such as " in done.err
    assert "the model was trained on the column upos" in done.err


def test_some_unknown_labels_are_counted(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.tsv"
    path.write_text((data / "other.tsv").read_text() + "birds\ta bird\n" * 2)

    done = evaluate("question", "--data", path)

    assert "2 of 62 texts have labels that the model lacks, which count as wrong: birds" in done.err
    assert done.code == 0 and "of 62 texts)" in done.out
