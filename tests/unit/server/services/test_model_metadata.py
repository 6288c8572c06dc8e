import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from onnx import TensorProto
from prometheus_client import CollectorRegistry

from tests.helpers import onnx_models
from tests.unit.server.batches import batch_ran
from tests.unit.server.conftest import Backend, Clock
from weir.bundle.contract import Batching
from weir.server.config import ModelSettings
from weir.server.repository.loader import Loader
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.served_model import ServedModel
from weir.server.services import model_metadata
from weir.server.telemetry.metrics import Metrics

Load = Callable[[Path], ServedModel]


@pytest.fixture
def load(clock: Clock) -> Iterator[Load]:
    loaded: list[ServedModel] = []

    def load(directory: Path) -> ServedModel:
        loader = Loader(
            provider="cpu",
            max_message_bytes=1 << 20,
            settings=lambda _: ModelSettings(max_queue_rows=256, instances=2),
            deadlines=Deadlines(clock),
            metrics=Metrics(CollectorRegistry()),
        )
        (model,) = loader.load(directory.parent.name, directory.name, directory)
        assert isinstance(model, ServedModel)
        loaded.append(model)
        return model

    yield load
    for model in loaded:
        model.scheduler.close()
        assert model.scheduler.join(20.0)


def as_dict(message: Any) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def test_metadata_of_a_bundle(publish: Callable[..., Path], load: Load) -> None:
    model = load(publish(version=3))

    assert as_dict(model_metadata.metadata(model, ["3"])) == {
        "name": "affine",
        "versions": ["3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": ["-1", "4"]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": ["-1", "4"]}],
    }


def test_config_of_a_bundle_leaves_the_batch_axis_out(
    publish: Callable[..., Path], load: Load
) -> None:
    model = load(
        publish(
            labels="a\nb\nc\nd\n",
            batching=Batching(max_rows=16, max_queue_delay_s=0.0025),
            version=3,
        )
    )

    told = (
        '{"task":"other","architecture":"affine","labels":{"y":"labels.txt"},'
        '"batching":{"max_rows":16,"max_queue_delay_s":0.0025},'
        '"tolerance":{"absolute":0.00001,"relative":0.00001}}'
    )
    assert as_dict(model_metadata.config(model)) == {
        "name": "affine",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 16,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}],
        "output": [
            {"name": "y", "data_type": "TYPE_FP32", "dims": ["4"], "label_filename": "labels.txt"}
        ],
        "instance_group": [{"name": "affine", "count": 2, "kind": "KIND_CPU"}],
        "dynamic_batching": {
            "max_queue_delay_microseconds": "2500",
            "default_queue_policy": {"max_queue_size": 256},
        },
        "model_transaction_policy": {},
        "parameters": {
            "weir.contract": {"string_value": told},
            "weir.labels.labels.txt": {"string_value": "a\nb\nc\nd"},
        },
    }


def test_config_of_a_graph_of_a_pair(
    publish_pair: Callable[..., Path], open_backend: Callable[..., Backend]
) -> None:
    publish_pair("pair")

    config = model_metadata.config(open_backend().repository.get("pair.decoder", ""))

    assert (config.name, config.default_model_filename) == ("pair.decoder", "decoder.onnx")
    assert {one.name: list(one.dims) for one in config.input} == {
        "previous": [],
        "state": [1],
        "memory": [-1, 1],
        "lengths": [],
    }
    assert [one.name for one in config.input if one.optional] == ["lengths"]


def test_config_of_a_model_without_rows_has_no_batching(models: Path, load: Load) -> None:
    model = load(onnx_models.write_plain(models, "plain", onnx_models.without_rows()))

    config = model_metadata.config(model)

    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 2]
    assert list(config.output[0].dims) == []
    assert not config.HasField("dynamic_batching")
    assert list(model_metadata.metadata(model, ["1"]).inputs[0].shape) == [-1, 2]


def test_config_has_the_fields_of_a_config_pbtxt(models: Path, load: Load) -> None:
    directory = onnx_models.write_plain(models, "plain", onnx_models.echo(axes=("n", None)))
    (directory / "model.onnx").rename(directory / "echo.onnx")
    (directory.parent / "classes.txt").write_text("a\nb\nc\n")
    (directory.parent / "config.pbtxt").write_text(
        """
        max_batch_size: 6
        default_model_filename: "echo.onnx"
        input [ { name: "x" dims: [ 3 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "classes.txt" } ]
        dynamic_batching { max_queue_delay_microseconds: 250 }
        """
    )

    config = as_dict(model_metadata.config(load(directory)))

    assert config["max_batch_size"] == 6
    assert config["default_model_filename"] == "echo.onnx"
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3"]}]
    assert config["output"] == [
        {"name": "y", "data_type": "TYPE_FP32", "dims": ["3"], "label_filename": "classes.txt"}
    ]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == "250"


def test_config_states_what_a_config_pbtxt_states(models: Path, load: Load) -> None:
    directory = onnx_models.write_plain(models, "plain", onnx_models.echo(axes=("n", 3, 8, 8)))
    (directory.parent / "config.pbtxt").write_text(
        """
        max_batch_size: 6
        input [ { name: "x" format: FORMAT_NCHW dims: [ 3, 8, 8 ] } ]
        instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
        dynamic_batching {
          preferred_batch_size: [ 4 ]
          default_queue_policy { timeout_action: DELAY }
        }
        parameters { key: "classes" value { string_value: "cats" } }
        model_warmup [ { name: "zeros" batch_size: 1 } ]
        model_operations { op_library_filename: "ops.so" }
        """
    )

    config = as_dict(model_metadata.config(load(directory)))

    assert config["input"][0]["format"] == "FORMAT_NCHW"
    assert config["parameters"] == {"classes": {"string_value": "cats"}}
    assert config["model_warmup"] == [{"name": "zeros", "batch_size": 1}]
    assert config["dynamic_batching"]["preferred_batch_size"] == [4]
    # As the model is served, whatever the file states.
    assert "timeout_action" not in config["dynamic_batching"]["default_queue_policy"]
    assert config["instance_group"] == [{"name": "plain", "count": 2, "kind": "KIND_CPU"}]
    # Its contents are not read.
    assert "model_operations" not in config


@pytest.mark.parametrize(
    ("datatype", "name", "config_name"),
    [
        pytest.param(TensorProto.STRING, "BYTES", "TYPE_STRING", id="strings"),
        pytest.param(TensorProto.BFLOAT16, "BF16", "TYPE_BF16", id="BF16"),
        pytest.param(TensorProto.FLOAT16, "FP16", "TYPE_FP16", id="FP16"),
        pytest.param(TensorProto.BOOL, "BOOL", "TYPE_BOOL", id="BOOL"),
    ],
)
def test_datatypes_have_both_of_their_names(
    datatype: int, name: str, config_name: str, models: Path, load: Load
) -> None:
    graph = onnx_models.echo(datatype, ("batch", None, "time"))
    model = load(onnx_models.write_plain(models, "plain", graph))

    assert as_dict(model_metadata.metadata(model, ["1"]))["inputs"] == [
        {"name": "x", "datatype": name, "shape": ["-1", "-1", "-1"]}
    ]
    assert as_dict(model_metadata.config(model))["input"] == [
        {"name": "x", "data_type": config_name, "dims": ["-1", "-1"]}
    ]


def test_every_input_of_the_config_is_in_the_metadata(models: Path, load: Load) -> None:
    """perf_analyzer insists on it."""
    model = load(onnx_models.write_plain(models, "plain", onnx_models.arithmetic()))

    metadata, config = (
        model_metadata.metadata(model, ["1"]),
        model_metadata.config(model),
    )

    assert [each.name for each in config.input] == [each.name for each in metadata.inputs]
    assert [each.name for each in config.output] == ["sum", "product"]


def test_statistics_are_sums_over_requests_and_batches(
    publish: Callable[..., Path], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(publish(version=3))
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.25)
    for rows, answered in [(4, 3), (2, 2), (4, 4)]:
        batch_ran(
            model.stats,
            rows=rows,
            answered=answered,
            total_s=0.5,
            queue_s=0.25,
            input_s=0.125,
            infer_s=1.0,
            output_s=0.0625,
        )
    model.stats.request_failed("DEADLINE_EXCEEDED", "deadline_exceeded", 2.0, 10)

    statistics = model_metadata.statistics(model.stats)

    assert (statistics.name, statistics.version) == ("affine", "3")
    assert statistics.last_inference == 1_700_000_000_250
    assert statistics.inference_count == 10
    assert statistics.execution_count == 3
    stats = statistics.inference_stats
    assert {
        name: (getattr(stats, name).count, getattr(stats, name).ns)
        for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    } == {
        "success": (9, 4_500_000_000),
        "fail": (1, 2_000_000_000),
        "queue": (9, 2_250_000_000),
        "compute_input": (3, 375_000_000),
        "compute_infer": (3, 3_000_000_000),
        "compute_output": (3, 187_500_000),
    }
    assert [
        (size.batch_size, size.compute_infer.count, size.compute_infer.ns)
        for size in statistics.batch_stats
    ] == [(2, 1, 1_000_000_000), (4, 2, 2_000_000_000)]


def test_statistics_of_an_unused_model_are_zero(publish: Callable[..., Path], load: Load) -> None:
    statistics = model_metadata.statistics(load(publish()).stats)

    assert statistics.last_inference == statistics.inference_count == 0
    assert statistics.inference_stats.queue.count == 0
    assert list(statistics.batch_stats) == []
