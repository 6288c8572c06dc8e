import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from prometheus_client import CollectorRegistry

from tests.helpers import onnx_models
from tests.helpers.pairs import CONTRACT, DECODER_GOLDEN, ENCODER_GOLDEN
from tests.unit.server.conftest import AFFINE_GOLDEN, COLOURS
from weir.bundle.contract import Batching, Contract
from weir.bundle.golden import Golden
from weir.bundle.sequences import PaddedAxis, ValueRange
from weir.server import config
from weir.server.config import ModelSettings
from weir.server.errors import GoldenMismatch, InvalidRequest, ModelLoadError
from weir.server.generation.engine import Engine
from weir.server.repository.loader import Loader
from weir.server.repository.parallelism import Measured, Parallelism, network_of
from weir.server.runtime.session import choose_provider
from weir.server.scheduling.batching import Basis, BatchDecision
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import InferRequest
from weir.server.scheduling.scheduler import Scheduler
from weir.server.scheduling.served_model import ServedModel
from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.request_record import RequestRecord

Array = NDArray[Any]
Load = Callable[..., ServedModel]
LoadAll = Callable[..., list[Any]]

# Only ever reached by a test that fails.
HANG_S = 20.0


class Call(InferRequest):
    """A fake request."""

    def __init__(self, inputs: Mapping[str, Array], rows: int = 1) -> None:
        self.inputs = inputs
        self.rows = rows
        self.length = 0
        self.work = rows
        self.key: Hashable = tuple((name, array.shape[1:]) for name, array in inputs.items())
        self.arrived_s = 0.0
        self.queued_s = 0.0
        self.deadline_s = float("inf")
        self.is_answered = False
        self.record: RequestRecord | None = None
        self.request_bytes = self.response_bytes = 0
        self.done = threading.Event()
        self.outcome: Mapping[str, Array] | Exception = {}

    def answer(self, outputs: Mapping[str, Array]) -> None:
        self.is_answered = True
        self.fail(outputs)

    def fail(self, outcome: Mapping[str, Array] | Exception) -> None:
        self.outcome = outcome
        self.done.set()

    def outputs(self) -> Mapping[str, Array]:
        assert self.done.wait(HANG_S)
        assert not isinstance(self.outcome, Exception), self.outcome
        return self.outcome


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def load_all(metrics: Metrics, clock: Callable[[], float]) -> Iterator[LoadAll]:
    """Load a version directory; what was loaded is closed at the end."""
    loaded: list[Any] = []
    deadlines = Deadlines(clock)

    def load_all(directory: Path, **settings: Any) -> list[Any]:
        own = ModelSettings(**{"max_queue_rows": 64, "instances": 1, **settings})
        loader = Loader(
            provider="cpu",
            max_message_bytes=1 << 20,
            settings=lambda _: own,
            deadlines=deadlines,
            metrics=metrics,
        )
        models = loader.load(directory.parent.name, directory.name, directory)
        loaded.extend(models)
        return models

    yield load_all
    for model in loaded:
        model.scheduler.close()
        assert model.scheduler.join(HANG_S)


@pytest.fixture
def load(load_all: LoadAll) -> Load:
    """The same, of a version of one graph."""

    def load(directory: Path, **settings: Any) -> ServedModel:
        (model,) = load_all(directory, **settings)
        assert isinstance(model, ServedModel)
        return model

    return load


def plain(models: Path, graph: bytes) -> Path:
    return onnx_models.write_plain(models, "plain", graph)


def test_bundle_is_served_as_its_contract_says(publish: Callable[..., Path], load: Load) -> None:
    directory = publish(
        labels="a\nb\nc\nd\n", batching=Batching(max_rows=16, max_queue_delay_s=0.25)
    )

    model = load(directory)

    assert (model.name, model.version, model.provider) == ("affine", "1", "cpu")
    assert model.contract is not None
    assert model.signature.has_rows
    assert model.signature.max_rows == 16
    assert (model.policy.max_rows, model.policy.max_queue_delay_s) == (16, 0.25)
    assert model.labels == {"y": ["a", "b", "c", "d"]}
    assert [(wanted.name, wanted.datatype) for wanted in model.all_outputs] == [("y", "FP32")]


def test_loaded_model_answers(publish: Callable[..., Path], load: Load) -> None:
    model = load(publish())
    call = Call(AFFINE_GOLDEN.inputs, rows=2)

    model.scheduler.submit(call)

    np.testing.assert_array_equal(call.outputs()["y"], AFFINE_GOLDEN.outputs["y"])


def test_operators_setting_overrides_the_bundles(publish: Callable[..., Path], load: Load) -> None:
    directory = publish(batching=Batching(max_rows=16, max_queue_delay_s=0.25))

    model = load(directory, max_batch_rows=4, max_queue_delay_s=0.0)

    assert (model.policy.max_rows, model.policy.max_queue_delay_s) == (4, 0.0)
    assert model.signature.max_rows == 4


@pytest.mark.parametrize(
    ("own", "expected"), [({}, 256), ({"max_batch_tokens": 64}, 64)], ids=["bundle", "operator"]
)
def test_tokens_of_a_batch_are_limited_by_operator_or_bundle(
    own: dict[str, int], expected: int, publish: Callable[..., Path], load: Load
) -> None:
    model = load(publish(batching=Batching(max_tokens=256)), **own)

    assert model.policy.max_tokens == expected


def test_plain_model_is_read_off_its_graph(models: Path, load: Load) -> None:
    model = load(plain(models, onnx_models.affine()))

    assert model.contract is None
    assert model.labels == {}
    assert (model.policy.max_rows, model.policy.max_queue_delay_s) == (32, 0.0)
    assert [spec.axes for spec in model.signature.inputs.values()] == [("batch", 4)]


@pytest.mark.parametrize(
    ("axes", "has_rows"),
    [
        pytest.param(("batch", 3), True, id="batch"),
        pytest.param(("batch_size", 3), True, id="batch_size"),
        pytest.param(("N", 3), True, id="N"),
        pytest.param(("time", 3), True, id="time"),
        pytest.param(("s77", 3), True, id="s77"),
        pytest.param(("unk__0", 3), True, id="a name the exporter made up"),
        pytest.param((None, 3), True, id="no name"),
        pytest.param((1, 3), False, id="fixed"),
        pytest.param((3, "batch"), False, id="batch comes second"),
        pytest.param((), False, id="scalar"),
    ],
)
def test_first_axis_of_a_plain_model_is_a_batch_if_it_has_any_size(
    axes: tuple[int | str | None, ...],
    has_rows: bool,  # noqa: FBT001
    models: Path,
    load: Load,
) -> None:
    model = load(plain(models, onnx_models.echo(axes=axes)))

    assert model.signature.has_rows is has_rows
    assert model.signature.max_rows == (32 if has_rows else 1)


def test_plain_model_without_rows_answers_in_whatever_shape(models: Path, load: Load) -> None:
    model = load(plain(models, onnx_models.without_rows()))
    call = Call({"x": np.ones((5, 2), np.float32)})

    model.scheduler.submit(call)

    assert call.outputs()["y"] == 10


@pytest.mark.parametrize(
    "datatype",
    [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.BOOL, TensorProto.FLOAT16],
    ids=["strings", "BF16", "BOOL", "FP16"],
)
def test_plain_model_of_any_datatype_warms_up(
    datatype: int, models: Path, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    load(plain(models, onnx_models.echo(datatype, ("batch", 3))))

    assert caplog.text == ""


def test_contract_that_names_another_batch_axis_than_the_graph_is_refused(
    publish: Callable[..., Path], load: Load
) -> None:
    with pytest.raises(ModelLoadError, match="expected axis 'rows' first in every tensor"):
        load(publish(batch_axis="rows"))


def test_contract_may_do_without_a_batch_axis(publish: Callable[..., Path], load: Load) -> None:
    model = load(publish(batch_axis=None))

    assert not model.signature.has_rows


def test_warm_up_goes_up_to_the_largest_batch(publish: Callable[..., Path], load: Load) -> None:
    golden = Golden({"x": np.array([[5]])}, {"y": np.array([[5]])})
    batching = Batching(max_rows=12)

    load(publish(graph=onnx_models.at_most(12), golden=golden, batching=batching))
    with pytest.raises(ModelLoadError, match="cannot compute with these values"):
        load(publish(graph=onnx_models.at_most(11), golden=golden, batching=batching))


def test_warm_up_is_not_counted_as_a_request(publish: Callable[..., Path], load: Load) -> None:
    model = load(publish())

    assert (model.stats.batches, model.stats.rows) == (0, 0)
    assert not model.stats.statuses


def test_warm_up_that_fails_stops_a_bundle(publish: Callable[..., Path], load: Load) -> None:
    golden = Golden({"tokens": np.array([[9]])}, {"y": np.zeros((1, 1), np.float32)})

    with pytest.raises(ModelLoadError, match="cannot compute with these values"):
        load(publish(graph=onnx_models.gather(8), golden=golden))


def test_plain_model_is_batched_if_its_axis_is_proved(models: Path, load: Load) -> None:
    model = load(plain(models, onnx_models.affine()))

    assert model.signature.has_rows
    assert model.scheduler.decision.is_batched


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(onnx_models.detector(4), id="shapes out of values"),
        pytest.param(onnx_models.softmax_of_batch(), id="mixed rows"),
    ],
)
def test_name_alone_makes_no_rows(graph: bytes, models: Path, load: Load) -> None:
    model = load(plain(models, graph))

    assert not model.signature.has_rows
    assert model.policy.max_rows == 1


def test_batch_axis_of_a_config_has_to_be_proved_too(models: Path, load: Load) -> None:
    directory = plain(models, onnx_models.detector(4))
    (directory.parent / "config.pbtxt").write_text("max_batch_size: 8")

    model = load(directory)

    assert not model.scheduler.decision.is_batched
    # A request is checked against the file nevertheless.
    assert (model.signature.has_rows, model.signature.max_rows) == (True, 8)


def test_contract_is_taken_at_its_word(publish: Callable[..., Path], load: Load) -> None:
    one = np.array([[1]])
    golden = Golden({"iterations": one}, {"echo": one, "steps": one})

    assert load(publish(graph=onnx_models.burner(), golden=golden)).scheduler.decision.is_batched


def test_setting_forbids_batches_of_a_bundle(publish: Callable[..., Path], load: Load) -> None:
    model = load(publish(), batch_axis=False)

    assert model.scheduler.decision == BatchDecision(
        is_batched=False, basis=Basis.SETTING, reason="the setting batch_axis is false"
    )
    # Requests of several rows are still checked, and cut, as the contract says.
    assert (model.signature.has_rows, model.signature.max_rows) == (True, 32)


def test_setting_does_not_overrule_a_contract(publish: Callable[..., Path], load: Load) -> None:
    assert load(publish(), batch_axis=True).scheduler.decision.basis is Basis.CONTRACT
    with pytest.raises(ModelLoadError, match="batch_axis = true: the contract names no batch axis"):
        load(publish(batch_axis=None), batch_axis=True)


def test_warm_up_that_fails_does_not_stop_a_plain_model(
    models: Path, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    """Zeros are a guess: its real inputs may well be fine."""
    with caplog.at_level(logging.WARNING):
        model = load(plain(models, onnx_models.refuses_zero()))

    call = Call({"x": np.array([[1]])})
    model.scheduler.submit(call)

    assert "warm-up failed model=plain" in caplog.text
    assert call.outputs()["y"].tolist() == [[8]]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        pytest.param([[1, 3, 5, 7], [-1, 2, 9, 21.5]], "'y' differs by 0.5 on", id="one value"),
        pytest.param([[1, 3, 5, 7]], r"'y': expected shape \(1, 4\)", id="another shape"),
        pytest.param([[1, 3, 5, 7], [-1, 2, 9, np.nan]], "'y' differs by", id="NaN"),
    ],
)
def test_model_that_no_longer_gives_the_golden_outputs_is_refused(
    expected: list[list[float]], message: str, publish: Callable[..., Path], load: Load
) -> None:
    golden = Golden(AFFINE_GOLDEN.inputs, {"y": np.array(expected, np.float32)})

    with pytest.raises(ModelLoadError, match=f"golden output {message}"):
        load(publish(golden=golden))


@pytest.mark.parametrize(
    ("first", "off_by", "expected"),
    [
        pytest.param(0, [0, 0], 0.0, id="nothing"),
        pytest.param(0, [2**-20, -(2**-18)], 2**-18, id="less than the tolerance"),
        pytest.param(np.nan, [0, 2**-20], 2**-20, id="no number in both"),
        pytest.param(np.inf, [0, 2**-20], 2**-20, id="no bounds in both"),
    ],
)
def test_model_says_how_far_it_is_from_what_was_recorded(
    first: float, off_by: list[float], expected: float, publish: Callable[..., Path], load: Load
) -> None:
    given = np.array([[first, 1, 2, 3], [-1, 0.5, 4, 10]], np.float32)
    recorded = 2 * given + 1
    recorded[:, 1] += off_by

    model = load(publish(golden=Golden({"x": given}, {"y": recorded})))

    assert model.golden == expected


def test_plain_model_has_nothing_to_be_held_against(models: Path, load: Load) -> None:
    assert load(plain(models, onnx_models.affine())).golden is None


def test_pair_is_as_far_from_what_was_recorded_as_its_worse_graph(
    publish_pair: Callable[..., Path], load_all: LoadAll
) -> None:
    outputs = DECODER_GOLDEN.outputs
    floats = next(name for name, array in outputs.items() if array.dtype.kind == "f")
    recorded = {**outputs, floats: outputs[floats] - np.float32(2**-20)}
    golden = Golden(DECODER_GOLDEN.inputs, recorded)

    encoder, decoder, pair = load_all(publish_pair(decoder_golden=golden))

    assert encoder.golden == 0
    assert 0 < pair.golden == decoder.golden < 1e-5


@pytest.mark.parametrize(
    ("tokens", "lengths", "is_served"),
    [
        pytest.param([[2, 4], [6, 8]], [2, 2], True, id="full rows"),
        pytest.param([[2, 4], [6, 0]], [2, 1], False, id="a short row"),
    ],
)
def test_rows_must_give_alone_and_in_a_batch_what_was_recorded(
    tokens: list[list[int]],
    lengths: list[int],
    publish: Callable[..., Path],
    load: Load,
    *,
    is_served: bool,
) -> None:
    """This graph's answers depend on how far a row is filled up."""
    given = np.array(tokens)
    directory = publish(
        graph=onnx_models.mean_of_steps(),
        golden=Golden(
            {"tokens": given, "lengths": np.array(lengths)},
            {"y": given.mean(axis=1, dtype=np.float32)},
        ),
        padded_axes={"time": PaddedAxis(maximum=8, lengths="lengths", padding={"tokens": 0})},
    )

    if is_served:
        assert load(directory).signature.has_rows
    else:
        with pytest.raises(GoldenMismatch, match="golden output 'y' differs by 3"):
            load(directory)


def test_recorded_rows_without_lengths_are_refused(
    publish: Callable[..., Path], load: Load
) -> None:
    directory = publish(
        graph=onnx_models.mean_of_steps(),
        golden=Golden({"tokens": np.array([[2, 4]])}, {"y": np.array([3], np.float32)}),
        padded_axes={"time": PaddedAxis(maximum=8, lengths="lengths", padding={"tokens": 0})},
    )

    with pytest.raises(ModelLoadError, match=r"expected \['lengths', 'tokens'\], got \['tokens'\]"):
        load(directory)


def test_golden_output_the_graph_lacks_is_refused(publish: Callable[..., Path], load: Load) -> None:
    golden = Golden(AFFINE_GOLDEN.inputs, {"z": np.zeros((2, 4), np.float32)})

    with pytest.raises(ModelLoadError, match="golden output 'z'"):
        load(publish(golden=golden))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param({}, id="none"),
        pytest.param({"z": np.zeros((2, 4), np.float32)}, id="another name"),
        pytest.param({"x": np.zeros((0, 4), np.float32)}, id="no rows"),
        pytest.param({"x": np.float32(0)}, id="no axes"),
        pytest.param({"x": np.zeros((2, 4), np.float64)}, id="another type"),
        pytest.param({"x": np.zeros((2, 5), np.float32)}, id="another shape"),
    ],
)
def test_golden_inputs_that_do_not_fit_the_graph_are_refused(
    inputs: dict[str, Array], publish: Callable[..., Path], load: Load
) -> None:
    with pytest.raises(ModelLoadError):
        load(publish(golden=Golden(inputs, AFFINE_GOLDEN.outputs)))


def test_difference_within_the_tolerance_is_allowed(
    publish: Callable[..., Path], load: Load
) -> None:
    outputs = {"y": AFFINE_GOLDEN.outputs["y"] * np.float32(1 + 5e-6)}

    assert load(publish(golden=Golden(AFFINE_GOLDEN.inputs, outputs)))


def test_bundle_without_golden_outputs_is_refused(publish: Callable[..., Path], load: Load) -> None:
    with pytest.raises(ModelLoadError, match="no recorded outputs"):
        load(publish(golden=None))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        pytest.param("model.onnx", b"x", "model.onnx: expected SHA-256", id="changed graph"),
        pytest.param("extra.txt", b"x", "not listed: 'extra.txt'", id="extra file"),
        pytest.param("model.json", b"{}", "model.json: task: expected a value", id="contract"),
    ],
)
def test_damaged_bundle_is_refused(
    file: str, content: bytes, message: str, publish: Callable[..., Path], load: Load
) -> None:
    directory = publish()
    (directory / file).write_bytes(content)

    with pytest.raises(ModelLoadError, match=message):
        load(directory)


def test_directory_without_a_graph_is_refused(models: Path, load: Load) -> None:
    directory = models / "empty" / "1"
    directory.mkdir(parents=True)

    with pytest.raises(
        ModelLoadError, match=r"model\.onnx: expected an ONNX file of this name, got an empty"
    ):
        load(directory)


def test_failed_load_leaves_no_thread_behind(publish: Callable[..., Path], load: Load) -> None:
    before = threading.active_count()

    with pytest.raises(ModelLoadError):
        load(publish(golden=Golden({}, {})))

    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("pair.instances=2", ["model=pair source=--model-setting pair.instances"]),
        ("pair.encoder.instances=2", []),
    ],
    ids=["the pair", "its encoder"],
)
def test_instances_of_a_pair_have_no_effect_and_a_warning(
    publish_pair: Callable[..., Path],
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
    flag: str,
    expected: list[str],
) -> None:
    # A number for all models holds for the graphs, and is no reason to warn.
    settings = config.load({"models_dir": "models", "instances": 2}, {}, None, [flag])
    loader = Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=settings.for_model,
        source_of=settings.source_of,
        deadlines=Deadlines(time.monotonic),
        metrics=metrics,
        cores=2,
    )

    models = loader.load("pair", "1", publish_pair())

    for model in models:
        model.scheduler.close()
        assert model.scheduler.join(HANG_S)
    warnings = [each for each in caplog.records if each.levelname == "WARNING"]
    assert [each.getMessage() for each in warnings] == [
        f"setting without effect {each} reason=an encoder-decoder has one engine"
        for each in expected
    ]


def test_scheduler_that_does_not_start_closes_those_that_are_started(
    publish_pair: Callable[..., Path],
    load_all: LoadAll,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(threading.enumerate())
    started: list[weakref.ref[Scheduler]] = []
    start = Scheduler.start

    def recorded(scheduler: Scheduler) -> None:
        start(scheduler)
        started.append(weakref.ref(scheduler))

    def refused(_: Engine) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Scheduler, "start", recorded)
    monkeypatch.setattr(Engine, "start", refused)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        load_all(publish_pair(), instances=2)

    assert len(started) == 2
    for thread in set(threading.enumerate()) - before:
        thread.join(HANG_S)
        assert not thread.is_alive()
    gc.collect()
    assert [scheduler() for scheduler in started] == [None, None], "the deadlines know them"


def triton(models: Path, graph: bytes, config: str) -> Path:
    directory = plain(models, graph)
    (directory.parent / "config.pbtxt").write_text(config)
    return directory


CONFIG = """
max_batch_size: 5
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "classes.txt" } ]
dynamic_batching { max_queue_delay_microseconds: 1500 }
instance_group [ { count: 3 } ]
default_model_filename: "model.onnx"
"""


def test_plain_model_is_served_as_its_configuration_says(
    models: Path, load: Load, metrics: Metrics
) -> None:
    directory = triton(models, onnx_models.echo(axes=(None, 4)), CONFIG)
    (directory.parent / "classes.txt").write_text("a\nb\nc\nd\n")

    model = load(directory, instances=None)

    assert model.signature.has_rows
    assert (model.policy.max_rows, model.policy.max_queue_delay_s) == (5, 0.0015)
    assert model.signature.max_rows == 5
    assert model.settings.instances == 3
    assert model.labels == {"y": ["a", "b", "c", "d"]}


def test_operators_setting_overrides_the_configurations(models: Path, load: Load) -> None:
    directory = triton(
        models, onnx_models.echo(axes=("n", 4)), CONFIG.replace('label_filename: "classes.txt"', "")
    )

    model = load(directory, max_batch_rows=2, max_queue_delay_s=0.0, instances=1)

    assert (model.policy.max_rows, model.policy.max_queue_delay_s) == (2, 0.0)
    assert model.settings.instances == 1


def test_batch_size_of_none_leaves_requests_alone(models: Path, load: Load) -> None:
    directory = triton(models, onnx_models.affine(), "max_batch_size: 0")
    call = Call({"x": np.ones((3, 4), np.float32)})

    model = load(directory)
    model.scheduler.submit(call)

    assert not model.signature.has_rows
    np.testing.assert_array_equal(call.outputs()["y"], np.full((3, 4), 3.0))


def test_empty_configuration_leaves_all_to_the_graph(models: Path, load: Load) -> None:
    model = load(triton(models, onnx_models.affine(), ""), instances=None)

    assert model.signature.has_rows
    assert (model.policy.max_rows, model.policy.max_queue_delay_s) == (32, 0.0)
    assert model.settings.instances is None


def test_rows_on_an_axis_without_a_name_are_joined(models: Path, load: Load) -> None:
    graph = onnx_models.echo(axes=(None, "time"))
    model = load(triton(models, graph, "max_batch_size: 4"), max_queue_delay_s=86400.0)
    calls = [
        Call({"x": np.full((2, 3), number, np.float32)}, rows=2) for number in range(2)
    ]  # a full batch, or no request is answered

    for call in calls:
        model.scheduler.submit(call)

    for number, call in enumerate(calls):
        np.testing.assert_array_equal(call.outputs()["y"], np.full((2, 3), float(number)))


def test_request_is_held_against_the_size_that_is_with_decoding(models: Path, load: Load) -> None:
    graph = onnx_models.echo(axes=("batch", "time"))
    text = 'max_batch_size: 4 input { name: "x" dims: [ 6 ] }'

    model = load(triton(models, graph, text))

    assert model.signature.admit((("x", "FP32", (2, 6)),)).rows == 2
    with pytest.raises(InvalidRequest, match="axis 1: expected 6, got 5"):
        model.signature.admit((("x", "FP32", (2, 5)),))


def test_configuration_beside_a_bundle_changes_nothing(
    publish: Callable[..., Path], load: Load
) -> None:
    directory = publish()
    (directory.parent / "config.pbtxt").write_text("max_batch_size: nonsense")

    model = load(directory)

    assert (model.file, model.label_files) == ("model.onnx", {})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("max_batch_size: many", "line 1: Couldn't parse integer", id="malformed"),
        pytest.param('input { name: "z" }', "expected the graph's x, got z", id="another input"),
        pytest.param('backend: "python"', "backend: expected", id="another backend"),
    ],
)
def test_plain_model_and_its_configuration_must_agree(
    text: str, reason: str, models: Path, load: Load
) -> None:
    with pytest.raises(ModelLoadError, match=f"^config.pbtxt: .*{reason}"):
        load(triton(models, onnx_models.affine(), text))


def test_labels_beside_the_versions_are_one_a_class(models: Path, load: Load) -> None:
    directory = triton(models, onnx_models.affine(), CONFIG)
    (directory.parent / "classes.txt").write_text("a\nb\n")

    with pytest.raises(ModelLoadError, match="labels of output 'y': expected 4 lines, got 2"):
        load(directory)


def test_instances_are_the_operators_choice(publish: Callable[..., Path], load: Load) -> None:
    load(publish("twins"), instances=2)

    names = {thread.name for thread in threading.enumerate()}
    assert {"weir-run-twins-0", "weir-run-twins-1"} <= names


def test_load_time_and_provider_are_measured(publish: Callable[..., Path], load: Load) -> None:
    model = load(publish())

    assert model.stats.provider == "cpu"
    assert model.stats.load_seconds > 0


def test_batches_are_measured(publish: Callable[..., Path], load: Load) -> None:
    model = load(publish())

    for _ in range(3):
        call = Call(AFFINE_GOLDEN.inputs, rows=2)
        model.scheduler.submit(call)
        call.outputs()
    model.scheduler.close()
    assert model.scheduler.join(HANG_S)

    assert model.stats.rows == 6
    assert model.stats.batches == 3
    assert model.stats.statuses == {"OK": 3}
    assert model.stats.queue.count == 3
    assert model.stats.last_inference_epoch_s > 1e9


def test_labels_that_do_not_fit_the_output_are_refused(
    publish: Callable[..., Path], load: Load
) -> None:
    with pytest.raises(ModelLoadError, match="labels of output 'y': expected 4 lines, got 2"):
        load(publish(labels="a\nb\n"))


def test_requests_of_a_model_without_rows_are_never_put_together(models: Path, load: Load) -> None:
    model = load(plain(models, onnx_models.without_rows()), max_queue_rows=64)
    calls = [Call({"x": np.full((count, 2), count, np.float32)}) for count in range(1, 20)]
    for call in calls:
        call.key = ()

    for call in calls:
        model.scheduler.submit(call)

    assert [float(call.outputs()["y"]) for call in calls] == [2 * n * n for n in range(1, 20)]


def test_model_that_takes_pictures_is_served(publish: Callable[..., Path], load: Load) -> None:
    model = load(
        publish(
            graph=onnx_models.colours(),
            golden=onnx_models.recorded(onnx_models.colours()),
            preprocessing=COLOURS,
            labels="red\ngreen\nblue\n",
        )
    )

    assert model.contract is not None
    assert model.contract.preprocessing == COLOURS
    assert model.labels == {"probabilities": ["red", "green", "blue"]}


@pytest.mark.parametrize(
    ("changes", "graph", "reason"),
    [
        pytest.param({"input": "picture"}, onnx_models.colours(), "unknown inputs", id="input"),
        pytest.param(
            {"height": 9}, onnx_models.colours(), "axis 1: expected 8, got 9", id="height"
        ),
        pytest.param({"channels": 1}, onnx_models.colours(), "axis 3: expected 3", id="channels"),
        pytest.param({"output": "logits"}, onnx_models.colours(), "got none", id="output"),
        pytest.param(
            {"input": "x", "output": "y"},
            onnx_models.echo(TensorProto.UINT8, ("batch", 8, 8, 3)),
            r"numbers \[batch, classes\], got \(-1, 8, 8, 3\)",
            id="output of pictures",
        ),
        pytest.param(
            {"input": "x"}, onnx_models.affine(), "expected FP32, got 'UINT8'", id="datatype"
        ),
    ],
)
def test_preprocessing_that_does_not_fit_the_graph_is_refused(
    changes: dict[str, Any], graph: bytes, reason: str, publish: Callable[..., Path], load: Load
) -> None:
    preprocessing = COLOURS.model_copy(update=changes)
    directory = publish(graph=graph, golden=None, preprocessing=preprocessing)

    with pytest.raises(ModelLoadError, match=f"preprocessing: .*{reason}"):
        load(directory)


def test_pictures_need_rows(publish: Callable[..., Path], load: Load) -> None:
    directory = publish(
        graph=onnx_models.colours(), golden=None, preprocessing=COLOURS, batch_axis=None
    )

    with pytest.raises(
        ModelLoadError, match="preprocessing: expected a model whose requests have rows"
    ):
        load(directory)


def test_half_precision_is_refused_on_a_cpu(publish: Callable[..., Path], load: Load) -> None:
    directory = publish(precision="fp16", providers=["cuda"])

    with pytest.raises(
        ModelLoadError,
        match=r"^precision fp16 is served on CUDA only, this server runs models on CPU "
        r"\(--provider\)$",
    ):
        load(directory)


def test_integers_are_served_on_a_cpu(publish: Callable[..., Path], load: Load) -> None:
    model = load(publish(precision="int8", providers=["cpu"]))

    assert model.contract is not None and model.contract.precision == "int8"


def test_pair_is_two_models_and_itself(
    publish_pair: Callable[..., Path], load_all: LoadAll
) -> None:
    encoder, decoder, pair = load_all(publish_pair())

    assert (pair.name, pair.contract.decoding) == ("pair", CONTRACT.decoding)

    assert [model.name for model in (encoder, decoder)] == ["pair.encoder", "pair.decoder"]
    assert [model.file for model in (encoder, decoder)] == ["encoder.onnx", "decoder.onnx"]
    assert list(encoder.signature.inputs) == ["tokens", "lengths"]
    assert list(decoder.signature.inputs) == ["previous", "state", "memory", "lengths"]
    assert list(encoder.rules.ranges) == ["tokens"]
    assert list(decoder.rules.ranges) == ["previous"]
    for model in (encoder, decoder):
        assert model.contract is not None and model.contract.decoding is None
        assert model.rules.maxima == {"time": 16}
        assert model.signature.optional == {"lengths"}
        assert model.policy.max_rows == 4
        assert model.stats.provider == "cpu" and model.stats.load_seconds > 0


def test_graphs_of_a_pair_answer_by_themselves(
    publish_pair: Callable[..., Path], load_all: LoadAll
) -> None:
    models = load_all(publish_pair())[:2]

    for model, golden in zip(models, (ENCODER_GOLDEN, DECODER_GOLDEN), strict=True):
        call = Call(golden.inputs, rows=2)
        model.scheduler.submit(call)

        for name, expected in golden.outputs.items():
            np.testing.assert_array_equal(call.outputs()[name], expected)


def with_decoding(**changes: Any) -> Contract:
    """The pair's contract, with another word on decoding."""
    assert CONTRACT.decoding is not None
    return CONTRACT.model_copy(update={"decoding": CONTRACT.decoding.model_copy(update=changes)})


def changed(**changes: Any) -> Contract:
    return CONTRACT.model_copy(update=changes)


SWAPPED = {"state": "log_probabilities"}
SPOILT_STEP = Golden(
    DECODER_GOLDEN.inputs,
    {**DECODER_GOLDEN.outputs, "next_state": DECODER_GOLDEN.outputs["next_state"] + 1},
)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        pytest.param(
            {"decoder_golden": SPOILT_STEP},
            "^decoder: golden output 'next_state' differs by 1 on",
            id="one graph",
        ),
        pytest.param(
            {"decoder_golden": None}, "^decoder: the bundle has no recorded outputs", id="no golden"
        ),
        pytest.param(
            {"contract": with_decoding(lengths=None)},
            r"expected \['memory', 'previous', 'state'\] as the decoder's inputs, got \['lengths'",
            id="decoder's inputs",
        ),
        pytest.param(
            {"contract": with_decoding(from_encoder={"memory": "keys", "state": "state"})},
            r"from_encoder: expected an output for 'memory', FP32 \['batch', 'time', 1\], got none",
            id="no such output",
        ),
        pytest.param(
            {"contract": with_decoding(from_step=SWAPPED, log_probabilities="next_state")},
            r"from_step: expected an output for 'state', .* got FP32 \['batch', 8\]",
            id="another size",
        ),
        pytest.param(
            {"contract": with_decoding(from_encoder={"memory": "state", "state": "state"})},
            r"from_encoder: expected an output for 'memory', .* got FP32 \['batch', 1\]",
            id="another rank",
        ),
        pytest.param(
            {"contract": with_decoding(attention="weights")},
            r"expected outputs of the decoder, .* got \['weights'\]",
            id="attention",
        ),
        pytest.param(
            {
                "contract": changed(
                    value_ranges={**CONTRACT.value_ranges, "x": ValueRange(maximum=1)}
                )
            },
            r"expected inputs of the pair, .* got \['x'\]",
            id="range of neither",
        ),
        pytest.param(
            {"contract": changed(labels={"y": "labels.txt"}), "labels.txt": b"a\n"},
            r"expected outputs of the pair, .* got \['y'\]",
            id="labels of neither",
        ),
        pytest.param(
            {"contract": with_decoding(maximum_steps=1)},
            r"^golden row 0, decoded together: expected tokens \[4, 4\], got \[4\]",
            id="answers of both",
        ),
        pytest.param(
            {"contract": changed(providers=["cuda"])},
            "^encoder: precision fp32 is served on",
            id="provider",
        ),
    ],
)
def test_pair_that_does_not_fit_is_refused_as_a_whole(
    own: dict[str, Any], message: str, publish_pair: Callable[..., Path], load_all: LoadAll
) -> None:
    before = threading.active_count()

    with pytest.raises(ModelLoadError, match=message):
        load_all(publish_pair(**own))

    assert threading.active_count() == before


def test_labels_of_a_pair_go_to_the_graph_that_has_the_output(
    publish_pair: Callable[..., Path], load_all: LoadAll
) -> None:
    contract = changed(labels={"log_probabilities": "labels.txt"})

    encoder, decoder, _ = load_all(
        publish_pair(contract=contract, **{"labels.txt": b"a\nb\nc\nd\ne\nf\ng\nh\n"})
    )

    assert encoder.labels == {}
    assert decoder.labels == {"log_probabilities": list("abcdefgh")}


def test_next_version_of_a_network_takes_the_choice_over(
    publish: Callable[..., Path], metrics: Metrics, clock: Callable[[], float]
) -> None:
    chosen = Parallelism(2, 3, "measured before")
    loader = Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=lambda _: ModelSettings(max_queue_rows=64, threads="auto", instances="auto"),
        deadlines=Deadlines(clock),
        metrics=metrics,
        cores=2,
        measured={"affine": Measured(network_of(onnx_models.affine(slope=9.0)), chosen)},
    )

    (model,) = loader.load("affine", "1", publish())
    model.scheduler.close()
    assert model.scheduler.join(HANG_S)

    assert (model.threads, model.instances) == (2, 3)
    assert (model.stats.threads, model.stats.instances) == (2, 3)


def test_other_network_of_the_same_name_is_measured(
    publish: Callable[..., Path], metrics: Metrics, clock: Callable[[], float]
) -> None:
    loader = Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=lambda _: ModelSettings(max_queue_rows=64, threads="auto", instances="auto"),
        deadlines=Deadlines(clock),
        metrics=metrics,
        cores=2,
        measured={"affine": Measured(network_of(onnx_models.echo()), Parallelism(2, 3))},
    )

    (model,) = loader.load("affine", "1", publish())
    model.scheduler.close()
    assert model.scheduler.join(HANG_S)

    assert (model.threads, model.instances) == (1, 1)
    assert loader.measured["affine"].network == network_of(onnx_models.affine())


@pytest.mark.parametrize(
    ("threads", "instances", "is_warned"), [(2, 1, False), (3, 1, True), (1, 3, True)]
)
def test_more_threads_than_cores_are_warned_of(
    *,
    threads: int,
    instances: int,
    is_warned: bool,
    publish: Callable[..., Path],
    metrics: Metrics,
    clock: Callable[[], float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    loader = Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=lambda _: ModelSettings(
            max_queue_rows=64, threads=threads, instances=instances, provider="cpu"
        ),
        deadlines=Deadlines(clock),
        metrics=metrics,
        cores=2,
    )

    (model,) = loader.load("affine", "1", publish())
    model.scheduler.close()
    assert model.scheduler.join(HANG_S)

    assert ("more threads or instances than usable cores model=affine" in caplog.text) is is_warned


def test_model_of_provider_auto_has_one_that_works(
    publish: Callable[..., Path], metrics: Metrics, clock: Callable[[], float]
) -> None:
    loader = Loader(
        provider="cpu",
        max_message_bytes=1 << 20,
        settings=lambda _: ModelSettings(max_queue_rows=64, provider="auto"),
        deadlines=Deadlines(clock),
        metrics=metrics,
    )

    (model,) = loader.load("affine", "1", publish())
    model.scheduler.close()
    assert model.scheduler.join(HANG_S)

    assert model.provider == choose_provider("auto")
