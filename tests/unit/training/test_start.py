"""From an order to a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.sequence_files import write_labelled
from weir.training.errors import RecipeError, RunError
from weir.training.loop import Task
from weir.training.progress import Progress
from weir.training.recipe import Setting
from weir.training.start import Order, start
from weir.training.text.gradient_log import GRADIENTS


class Remover:
    """A watcher that takes the data away as soon as the training begins."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def must_stop(self) -> bool:
        return False

    @contextmanager
    def showing(self, epochs: int, task: Task) -> Iterator[Callable[[Progress], None]]:
        self.data.unlink()
        yield lambda progress: None


def order_of(data: Path) -> Order:
    changes: dict[str, Setting] = {"epochs": 1, "encoder": {"hidden": 4}}
    return Order("question", str(data), data.parent / "run", changes=changes)


def test_gradients_are_logged_of_the_data_that_were_trained_on(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "rows.tsv", 20)

    start(replace(order_of(data), log_gradients=True), Remover(data))

    assert (tmp_path / "run" / GRADIENTS).stat().st_size > 1000


def test_what_goes_with_a_new_run_is_refused_where_one_is_resumed(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "rows.tsv", 20)
    resumed = replace(order_of(data), resume=True)

    for option, order in (
        ("quick", replace(resumed, quick=True)),
        ("overwrite", replace(resumed, overwrite=True)),
    ):
        with pytest.raises(RecipeError, match=f"--{option} goes with a run that begins, got --res"):
            start(order, Remover(data))


def test_what_nothing_heeds_is_refused_of_a_resumed_run_too(tmp_path: Path) -> None:
    """Even where it is what the run began with."""
    data = write_labelled(tmp_path / "rows.tsv", 20)
    order = order_of(data)
    start(order, Remover(data))

    with pytest.raises(RecipeError, match="--column goes with CoNLL-U"):
        start(
            replace(order, resume=True, changes={**order.changes, "column": "upos"}), Remover(data)
        )


def test_gradients_of_a_finished_run_are_refused(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "rows.tsv", 20)
    start(order_of(data), Remover(data))

    with pytest.raises(RunError, match="--log-gradients goes with a training, this run is fini"):
        start(replace(order_of(data), resume=True, log_gradients=True), Remover(data))
