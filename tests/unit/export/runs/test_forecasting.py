"""Runs on series as bundles: raw values in, raw values out."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from rich.console import Console

from weir.bundle.contract import Series
from weir.bundle.reader import Bundle, read
from weir.export.errors import ExportError
from weir.export.publishing import publish
from weir.export.runs import forecasting
from weir.export.runs.provenance import provenance_of
from weir.export.runs.publishing import publish_run
from weir.export.spec import ExportSpec
from weir.training.__main__ import main as train
from weir.training.console import print_result
from weir.training.errors import DataError
from weir.training.forecasting.experiment import load_model, load_test
from weir.training.models.series import build_forecaster
from weir.training.run_directory import read_record

OPTIONS = "--value y --exogenous u --lags 6 --horizon 3 --epochs 1 --out"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two columns, one of them far from 0."""
    path = tmp_path_factory.mktemp("data") / "sales.csv"
    noise = np.random.default_rng(0).standard_normal((200, 2)).cumsum(axis=0)
    np.savetxt(path, noise * [30.0, 1.0] + [500.0, 0.0], delimiter=",", header="y,u", comments="")
    return path


@pytest.fixture(scope="module", params=["ar", "narx", "series-lstm"])
def run(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert train([request.param, "--data", str(data), *OPTIONS.split(), str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return read(publish_run(run, to=tmp_path_factory.mktemp("models")).path)


def test_tensors_and_contract_say_what_is_forecast(run: Path, bundle: Bundle) -> None:
    graph = onnx.load_model_from_string(bundle.model).graph
    contract = bundle.contract

    described = {
        value.name: (
            value.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in [*graph.input, *graph.output]
    }
    assert described == {
        "history": (onnx.TensorProto.FLOAT, ["batch", 6, 2]),
        "forecast": (onnx.TensorProto.FLOAT, ["batch", 3]),
    }
    assert contract.task == "forecasting" and not contract.padded_axes
    series = contract.series
    assert series is not None and series.interval is not None
    assert series.model_copy(update={"interval": None}) == Series(
        target="y", exogenous=["u"], lags=6, horizon=3, season=0
    )
    measured = read_record(run).series
    assert measured is not None and measured.interval is not None
    assert series.interval.model_dump() == measured.interval.model_dump()
    assert contract.parity is not None and contract.parity.examples == "test rows of sales.csv"
    assert contract.training is not None
    metrics = read_record(run).test_metrics
    assert contract.training.metrics["test_rmse_3"] == metrics["rmse_3"]


def test_the_graph_forecasts_what_the_run_was_tested_with(run: Path, bundle: Bundle) -> None:
    rows = load_test(read_record(run))

    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    ahead = np.asarray(session.run(["forecast"], {"history": rows.histories.numpy()})[0])

    with torch.inference_mode():
        expected = load_model(run)(rows.histories).numpy()
    np.testing.assert_allclose(ahead, expected, rtol=1e-5, atol=1e-3)
    errors = ahead[:, 2] - rows.targets[:, 2].numpy()
    rmse = read_record(run).test_metrics["rmse_3"]
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(rmse, rel=1e-4)


def test_no_validation_figure_is_that_of_weights_that_were_not_kept(run: Path) -> None:
    record, told = read_record(run), StringIO()
    assert record.series is not None
    record.series.trained_share = 0.0
    trained = record.model_copy(
        update={"series": record.series.model_copy(update={"trained_share": 1.0})}
    )

    print_result(Console(file=told, width=200), record, run)

    assert "validation_loss" in provenance_of(trained).metrics
    assert "validation_loss" not in provenance_of(record).metrics
    assert "of the trained weights in epoch 1 of 1" in told.getvalue()


def test_without_the_data_random_rows_are_used_and_recorded(
    *,
    run: Path,
    bundle: Bundle,
    reuse_graph: Callable[[bytes], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(*_: object) -> None:
        raise DataError(f"{read_record(run).data.name}: gone")

    monkeypatch.setattr(forecasting, "load_test", missing)
    reuse_graph(bundle.model)

    parity = publish_run(run, to=tmp_path).parity

    assert parity.examples == "random, without the data set: sales.csv: gone"


def test_int8_needs_an_accuracy(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="got int8, which needs an accuracy"):
        publish_run(run, to=tmp_path, precision="int8")


def test_a_series_that_is_not_the_networks_is_refused(tmp_path: Path) -> None:
    network = build_forecaster("ar", mean=[0.0], std=[1.0], lags=4, horizon=3)
    spec = ExportSpec(
        architecture="ar",
        outputs=["forecast"],
        task="forecasting",
        series=Series(target="y", lags=5, horizon=3),
    )

    with pytest.raises(ExportError, match=r"series: history: .* \(5, 1\), got \(4, 1\)"):
        publish(network, {"history": torch.zeros(2, 4, 1)}, spec, to=tmp_path, name="ar")


def test_forecasting_without_a_series_is_refused() -> None:
    with pytest.raises(ExportError, match="series: expected a series with the task forecasting"):
        ExportSpec(architecture="ar", outputs=["forecast"], task="forecasting")
