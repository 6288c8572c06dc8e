from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle import writer
from bundle.contract import Contract, Preprocessing, Provenance, Tolerance
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
        task="image-classification",
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
