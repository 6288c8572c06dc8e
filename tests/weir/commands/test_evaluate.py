import numpy as np
import pytest

from tests.weir.commands.shell import Weir
from tests.weir.fake_server import FakeServer
from training.data import load


@pytest.fixture(scope="module")
def share_of_threes() -> float:
    return float(np.mean(load("digits", "test").labels == 3))


@pytest.mark.parametrize("rows", [32, 7, 1000])
def test_the_accuracy_is_that_of_the_served_model(
    weir: Weir, fake: FakeServer, share_of_threes: float, rows: int
) -> None:
    done = weir("evaluate", "threes", "--data", "digits", "--rows", rows, "--target", fake.target)

    assert done.code == 0 and f"accuracy {share_of_threes:.4f}" in done.out


def test_the_expected_accuracy_is_confirmed(
    weir: Weir, fake: FakeServer, share_of_threes: float
) -> None:
    expect = ["--expect", share_of_threes, "--target", fake.target]

    done = weir("evaluate", "threes", "--data", "digits", *expect)

    assert done.code == 0 and "as expected" in done.out


def test_another_accuracy_is_a_failure(weir: Weir, fake: FakeServer) -> None:
    done = weir("evaluate", "threes", "--data", "digits", "--expect", 0.9, "--target", fake.target)

    assert done.code == 1 and "weir: expected accuracy 0.9000, got" in done.err


@pytest.mark.parametrize(("model", "data"), [("echo", "digits"), ("threes", "no/such/folder")])
def test_a_model_or_data_that_does_not_fit_is_refused(
    weir: Weir, fake: FakeServer, model: str, data: str
) -> None:
    done = weir("evaluate", model, "--data", data, "--target", fake.target)

    assert done.code == 2 and len(done.err.strip().splitlines()) == 1
