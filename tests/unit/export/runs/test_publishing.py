from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from weir.bundle.contract import Preprocessing
from weir.bundle.reader import Bundle, read
from weir.export.runs import images
from weir.export.runs import publishing as runs
from weir.export.runs.publishing import LOG, publish_run
from weir.training.data import load
from weir.training.errors import DataError, RunError
from weir.training.run_directory import ImageRecord, part_of, read_record

Reuse = Callable[[bytes], None]


@pytest.fixture(name="bundle")
def bundle_of_the_run(run_bundle: Bundle) -> Bundle:
    return run_bundle


def test_tensors_are_as_every_image_network_has_them(bundle: Bundle) -> None:
    graph = onnx.load_model_from_string(bundle.model).graph

    described = {
        value.name: (
            value.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in [*graph.input, *graph.output]
    }
    assert described == {
        "image": (onnx.TensorProto.UINT8, ["batch", 28, 28, 1]),
        "logits": (onnx.TensorProto.FLOAT, ["batch", 10]),
        "probabilities": (onnx.TensorProto.FLOAT, ["batch", 10]),
    }


def test_contract_tells_where_it_comes_from(run: Path, bundle: Bundle) -> None:
    record = read_record(run)
    contract = bundle.contract

    assert (contract.task, contract.architecture) == ("image-classification", "lenet5")
    assert contract.training is not None
    assert contract.training.data == "digits"
    assert contract.training.data_checksum == record.data.checksum
    assert contract.training.metrics["test_accuracy"] == record.test_accuracy
    assert contract.parity is not None
    assert contract.parity.examples == "test pictures of digits"
    assert bundle.labels("logits") == bundle.labels("probabilities") == record.classes


def test_weights_are_counted_as_they_were_trained(bundle: Bundle) -> None:
    sharing = bundle.contract.sharing

    assert sharing is not None and sharing.parameters == 61_706
    # C1, S2, C3 (each map joined with all six), S4, C5, F6 and the output.
    assert sharing.connections == 122_304 + 4_704 + 241_600 + 1_600 + 48_120 + 10_164 + 850


def test_pictures_are_made_into_rows_as_in_training(bundle: Bundle) -> None:
    assert bundle.contract.preprocessing == Preprocessing(
        input="image",
        height=28,
        width=28,
        channels=1,
        resize="stretch",
        output="probabilities",
    )


def test_short_side_of_training_is_the_servers_too(
    *,
    run: Path,
    bundle: Bundle,
    reuse_graph: Reuse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reuse_graph(bundle.model)
    record = read_record(run)
    image = part_of(record, ImageRecord).model_copy(
        update={"resize": "short-side", "short_side": 32}
    )
    monkeypatch.setattr(runs, "read_record", lambda _: record.model_copy(update={"image": image}))

    preprocessing = read(publish_run(run, to=tmp_path).path).contract.preprocessing

    assert preprocessing is not None
    assert (preprocessing.resize, preprocessing.short_side) == ("short-side", 32)


def test_int8_is_calibrated_on_training_pictures_and_measured_on_test_pictures(
    run: Path, bundle: Bundle, reuse_graph: Reuse, tmp_path: Path
) -> None:
    reuse_graph(bundle.model)

    cost = publish_run(run, to=tmp_path, precision="int8").quantisation

    assert cost is not None
    assert cost.before == pytest.approx(read_record(run).test_accuracy)
    assert cost.after > cost.before - 0.01
    assert (cost.calibration, cost.calibration_rows) == ("training pictures of digits, seed 0", 512)
    assert (cost.test, cost.test_rows) == ("test pictures of digits", 359)


def test_int8_needs_the_data(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise DataError("digits: gone")

    monkeypatch.setattr(images, "load_data", missing)

    with pytest.raises(DataError, match="gone"):
        publish_run(run, to=tmp_path, precision="int8")


def test_bundle_is_as_accurate_as_training_says(run: Path, bundle: Bundle) -> None:
    data = load("digits", "test")

    session = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": data.images})[0]

    accuracy = float(np.mean(logits.argmax(axis=1) == data.labels))
    assert accuracy == pytest.approx(read_record(run).test_accuracy)


def test_without_the_data_random_pictures_are_used_and_recorded(
    *,
    run: Path,
    bundle: Bundle,
    reuse_graph: Reuse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reuse_graph(bundle.model)

    def missing(*_: object) -> None:
        raise DataError("digits: gone\nwith more to say")

    monkeypatch.setattr(images, "load_data", missing)

    published = publish_run(run, to=tmp_path, name="other", version=3)

    assert published.path == tmp_path / "other" / "3"
    assert published.parity.examples == "random, without the data set: digits: gone"


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        publish_run(tmp_path, to=tmp_path / "models")


def test_log_of_the_export_is_in_the_run(run: Path, bundle: Bundle) -> None:
    assert (run / LOG).is_file()
