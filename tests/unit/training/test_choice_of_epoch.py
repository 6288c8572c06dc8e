"""The epoch of the kept weights: the best one, or the last if validation rows are few."""

import logging
from pathlib import Path

import pytest
import torch

from tests.helpers.sequence_files import write_labelled, write_tagged
from tests.helpers.training import Silent, train
from weir.training.recipes import make_recipe
from weir.training.run_directory import RunRecord
from weir.training.train import FEWEST_TO_CHOOSE

CPU = torch.device("cpu")
SMALL = {"encoder": {"cell": "gru", "hidden": 4}, "epochs": 3, "batch_size": 16}


def run(out: Path, recipe: str, data: Path, **changes: object) -> RunRecord:
    made = make_recipe(recipe, str(data), **{**SMALL, **changes})  # type: ignore[arg-type]
    return train(made, out, CPU, Silent(), None)


def rank(record: RunRecord) -> int:
    """The epoch with the highest validation accuracy, and of equals the lowest loss."""
    scores = [(e.validation_accuracy, -e.validation_loss) for e in record.epochs]
    return 1 + max(range(len(scores)), key=scores.__getitem__)


# A high rate makes an early epoch the best of these few rows.
UNSTEADY = {"optimizer": {"learning_rate": 0.3}, "average_decay": 0.0}


def test_few_validation_rows_choose_no_epoch_and_training_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_labelled(tmp_path / "texts.tsv", 120)

    with caplog.at_level(logging.WARNING):
        records = [
            run(tmp_path / str(seed), "question", data, seed=seed, **UNSTEADY) for seed in range(4)
        ]

    assert {record.best_epoch for record in records} == {3}
    assert any(rank(record) < 3 for record in records)
    assert all(record.keeps_last for record in records)
    assert records[0].data.validation_rows < FEWEST_TO_CHOOSE
    told = caplog.messages[0]
    assert told.startswith(f"validation: {records[0].data.validation_rows} sentences are too few")
    assert "the last epoch is kept, not the best; --dev FILE gives more" in told


def test_a_validation_file_chooses_the_epoch_at_any_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_labelled(tmp_path / "texts.tsv", 120)
    dev = write_labelled(tmp_path / "dev.tsv", 12, 7)

    with caplog.at_level(logging.WARNING):
        record = run(tmp_path / "run", "question", data, dev=str(dev), **UNSTEADY)

    assert not record.keeps_last and record.best_epoch == rank(record)
    assert not any("too few to tell epochs apart" in message for message in caplog.messages)


def test_tags_are_counted_by_words(tmp_path: Path) -> None:
    data = write_tagged(tmp_path / "tagged.txt", 400)

    record = run(tmp_path / "run", "tagger", data, keep="auto")

    assert record.data.validation_rows < FEWEST_TO_CHOOSE
    assert not record.keeps_last and record.best_epoch == rank(record)


def test_an_option_decides_at_any_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_labelled(tmp_path / "texts.tsv", 120)

    with caplog.at_level(logging.WARNING):
        best = run(tmp_path / "best", "question", data, keep="best", **UNSTEADY)
        last = run(tmp_path / "last", "question", data, keep="last", **UNSTEADY)

    assert best.best_epoch == rank(best) and not best.keeps_last
    assert last.best_epoch == 3 and last.keeps_last
    assert not any("too few to tell epochs apart" in message for message in caplog.messages)
