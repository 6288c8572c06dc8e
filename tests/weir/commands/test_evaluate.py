from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import writer
from bundle.contract import Contract, Preprocessing, Provenance, Tolerance
from bundle.series import Series
from tests import onnx_models
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


def bundle_of(root: Path, **fields: Any) -> Path:
    contract = Contract(
        task="forecasting" if "series" in fields else "image-classification",
        architecture="threes",
        tolerance=Tolerance(absolute=0.0, relative=0.0),
        **fields,
    )
    return writer.write({"model.onnx": onnx_models.affine()}, contract, root, "threes", None)


def trained(**metrics: float) -> Provenance:
    return Provenance(recipe="r", data="digits", data_checksum="c", seed=0, metrics=metrics)


def test_the_bundle_says_what_to_expect(
    weir: Weir, fake: FakeServer, share_of_threes: float, tmp_path: Path
) -> None:
    right = bundle_of(tmp_path / "right", training=trained(test_accuracy=share_of_threes))
    wrong = bundle_of(tmp_path / "wrong", training=trained(test_accuracy=0.9))
    silent = bundle_of(tmp_path / "silent", training=trained())
    imported = bundle_of(tmp_path / "imported")
    done = {
        bundle: weir(
            "evaluate", "threes", "--data", "digits", "--bundle", bundle, "--target", fake.target
        )
        for bundle in (right, wrong, silent, imported)
    }

    assert done[right].code == 0 and "as expected" in done[right].out
    assert done[wrong].code == 1 and "expected accuracy 0.9000" in done[wrong].err
    assert done[silent].code == 2 and "records no test_accuracy" in done[silent].err
    assert done[imported].code == 0 and "expected" not in done[imported].out


def test_pictures_are_prepared_as_the_bundle_says(
    weir: Weir, fake: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def spy(name: str, split: str, **options: Any) -> Any:
        seen.append(options)
        return load("digits", "test")

    monkeypatch.setattr("training.data.load", spy)
    pictures = Preprocessing(
        input="x", height=28, width=28, channels=1, resize="short-side", short_side=32, output="y"
    )
    bundle = bundle_of(tmp_path, preprocessing=pictures)

    done = weir("evaluate", "threes", "--data", "mine", "--bundle", bundle, "--target", fake.target)

    assert done.code == 0, done.err
    assert seen == [{"height": 28, "width": 28, "channels": 1, "short_side": 32}]


@pytest.mark.parametrize(("model", "data"), [("echo", "digits"), ("threes", "no/such/folder")])
def test_a_model_or_data_that_does_not_fit_is_refused(
    weir: Weir, fake: FakeServer, model: str, data: str
) -> None:
    done = weir("evaluate", model, "--data", data, "--target", fake.target)

    assert done.code == 2 and len(done.err.strip().splitlines()) == 1


@pytest.fixture
def sales(tmp_path: Path) -> Path:
    """A hundred values, of which the last twenty are tested on and the first seventy trained on."""
    values = np.random.default_rng(0).normal(10, 2, 100)
    path = tmp_path / "sales.csv"
    path.write_text("sales\n" + "".join(f"{value:.3f}\n" for value in values))
    return path


SALES = Series(target="sales", lags=3, horizon=2)


@pytest.mark.parametrize("rows", [7, 32])
def test_errors_of_a_series_are_those_of_the_served_model(
    weir: Weir, fake: FakeServer, sales: Path, tmp_path: Path, rows: int
) -> None:
    values = np.loadtxt(sales, skiprows=1)
    origins = np.arange(80, 99)
    errors = values[origins[:, None] + [0, 1]] - values[origins - 1][:, None]
    rmse = np.sqrt(np.square(errors).mean(axis=0))
    mase = np.abs(errors).mean(axis=0) / np.abs(np.diff(values[:70])).mean()
    measured = {"test_rmse_1": rmse[0], "test_mase_2": mase[1]}
    right = bundle_of(tmp_path / "right", series=SALES, training=trained(**measured))
    wrong = bundle_of(tmp_path / "wrong", series=SALES, training=trained(test_rmse_2=9.0))
    imported = bundle_of(tmp_path / "imported", series=SALES)

    order = ["evaluate", "steady", "--data", sales, "--rows", rows, "--target", fake.target]
    done = {bundle: weir(*order, "--bundle", bundle) for bundle in (right, wrong, imported)}

    assert done[right].code == 0 and done[right].out.endswith("as expected\n")
    lines = [line.split() for line in done[right].out.splitlines()[:-1]]
    assert {name: float(error) for name, error in lines} == pytest.approx(
        {"rmse_1": rmse[0], "rmse_2": rmse[1], "mase_1": mase[0], "mase_2": mase[1]}, rel=1e-5
    )
    assert done[wrong].code == 1 and "expected rmse_2 9, got" in done[wrong].err
    assert done[imported].code == 0 and "expected" not in done[imported].out


def test_a_series_is_asked_with_its_bundle_and_without_an_accuracy(
    weir: Weir, fake: FakeServer, sales: Path, tmp_path: Path
) -> None:
    order = ["evaluate", "steady", "--data", sales, "--target", fake.target]
    bundle = bundle_of(tmp_path / "models", series=SALES)
    other = bundle_of(tmp_path / "other", series=Series(target="price", lags=3, horizon=2))

    without = weir(*order)
    expecting = weir(*order, "--bundle", bundle, "--expect", "0.9")
    lacking = weir(*order, "--bundle", other)

    assert without.code == expecting.code == lacking.code == 2
    assert "say --bundle" in without.err
    assert "forecasts have no accuracy" in expecting.err
    assert "expected a column 'price', found none" in lacking.err
