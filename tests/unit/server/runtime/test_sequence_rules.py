from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import hypothesis.strategies
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers.sequence_networks import Recurrent, Tagger, examples, recurrent_spec, tag_spec
from tests.unit.server.conftest import Backend, Clock
from tests.unit.server.scheduling.test_admission import admission_of, admit, answer_of, floats
from weir.bundle import reader
from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import Golden
from weir.bundle.sequences import PaddedAxis, ValueRange
from weir.export.publishing import publish as export
from weir.protocol import inference_pb2 as pb
from weir.protocol.datatypes import DATATYPES
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.runtime import collate
from weir.server.runtime.collate import paddings_of
from weir.server.runtime.sequence_rules import SequenceRules, rules_of
from weir.server.runtime.session import Session
from weir.server.runtime.signature import TensorSpec
from weir.server.services import model_metadata

Array = NDArray[Any]
OpenBackend = Callable[..., Backend]

INPUTS = {
    spec.name: spec
    for spec in (
        TensorSpec("tokens", "INT64", ("batch", "time")),
        TensorSpec("characters", "INT64", ("batch", "time", "letters")),
        TensorSpec("lengths", "INT64", ("batch",)),
    )
}
TIME = PaddedAxis(maximum=24, lengths="lengths", padding={"tokens": 0, "characters": 0})
LETTERS = PaddedAxis(maximum=8, padding={"characters": 0})
# The vocabulary has 20 entries.
LAST, WORDS = 19, 20


def contract(**changes: Any) -> Contract:
    fields: dict[str, Any] = {
        "task": "tagging",
        "architecture": "tagger",
        "padded_axes": {"time": TIME, "letters": LETTERS},
        "value_ranges": {"tokens": ValueRange(maximum=LAST)},
        "tolerance": Tolerance(absolute=0, relative=0),
    }
    return Contract(**{**fields, **changes})


RULES = rules_of(contract(), INPUTS)


def given(tokens: list[list[int]], **others: Array) -> dict[str, Array]:
    array = np.array(tokens)
    return {"tokens": array, "characters": np.ones((*array.shape, 2), np.int64), **others}


@pytest.mark.parametrize(
    "value", [WORDS, 2**63 - 1, -1, -(2**63)], ids=["size", "greatest", "minus-1", "least"]
)
def test_value_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(
        InvalidRequest, match=f"^input 'tokens': expected values from 0 to {LAST}, got {value}$"
    ):
        RULES.check(given([[3, value, 4]], lengths=np.array([3])))


@pytest.mark.parametrize("length", [0, -1, 4, 2**40])
def test_length_out_of_the_axis_is_refused(length: int) -> None:
    with pytest.raises(
        InvalidRequest, match=f"^input 'lengths': expected lengths from 1 to 3, got {length}$"
    ):
        RULES.check(given([[3, 1, 4], [1, 1, 1]], lengths=np.array([3, length])))


def test_what_fits_passes() -> None:
    RULES.check(given([[0, LAST, 4], [1, 1, 1]], lengths=np.array([3, 1])))


def test_lengths_left_out_are_those_of_full_rows() -> None:
    inputs = given([[1, 2, 3], [4, 5, 6]])

    RULES.complete(inputs)

    assert inputs["lengths"].dtype == np.int64
    assert inputs["lengths"].tolist() == [3, 3]


def test_lengths_that_were_sent_stay() -> None:
    inputs = given([[1, 2, 3]], lengths=np.array([2]))

    RULES.complete(inputs)

    assert inputs["lengths"].tolist() == [2]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        pytest.param(("batch", "time"), [[1, 1, 0], [1, 0, 0]], id="steps"),
        pytest.param(("batch", 3), [[1, 1, 1], [1, 1, 1]], id="none"),
    ],
)
def test_entries_past_a_rows_end_are_zero(axes: Any, expected: list[list[int]]) -> None:
    array = np.array([[1, 1, np.nan], [1, np.nan, np.inf]])
    own = np.where(np.isfinite(array), array, 1.0) if axes[1] == 3 else array

    assert RULES.own_part(axes, own, {"lengths": np.array([2, 1])}).tolist() == expected


def test_time_comes_last_as_well() -> None:
    array = np.ones((2, 4, 3))

    own = RULES.own_part(("batch", 4, "time"), array, {"lengths": np.array([2, 3])})

    assert own[0].tolist() == [[1, 1, 0]] * 4 and (own[1] == 1).all()


def test_without_a_contract_nothing_is_ruled() -> None:
    assert rules_of(None, INPUTS) == SequenceRules({}, {}, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"value_ranges": {"words": ValueRange(maximum=1)}}, "words: expected.*none", id="range"
        ),
        pytest.param(
            {"padded_axes": {"time": TIME.model_copy(update={"padding": {"tokens": 0}})}},
            r"time: expected padding.*\['characters', 'tokens'\], got it for \['tokens'\]",
            id="carriers",
        ),
        pytest.param(
            {"padded_axes": {"steps": TIME}}, r"steps: expected padding.*\[\], got", id="axis"
        ),
        pytest.param(
            {"padded_axes": {"time": TIME.model_copy(update={"lengths": "sizes"})}},
            "time: lengths 'sizes': expected an input of integers, got none",
            id="lengths",
        ),
        pytest.param({"batch_axis": "rows"}, r"expected lengths \[rows\], got", id="batch"),
    ],
)
def test_contract_that_does_not_fit_the_graph_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        rules_of(contract(**changes), INPUTS)


@pytest.mark.parametrize("padding", [-129, 128, 2**40])
def test_padding_that_its_input_cannot_hold_is_refused(padding: int) -> None:
    inputs = {**INPUTS, "tokens": TensorSpec("tokens", "INT8", ("batch", "time"))}
    axis = TIME.model_copy(update={"padding": {"tokens": padding, "characters": 0}})

    with pytest.raises(ModelLoadError, match=f"padding of 'tokens': expected int8, got {padding}"):
        rules_of(contract(padded_axes={"time": axis}, value_ranges={}), inputs)


@pytest.mark.parametrize("padding", [-128, 127])
def test_padding_may_be_all_that_its_input_holds(padding: int) -> None:
    inputs = {**INPUTS, "tokens": TensorSpec("tokens", "INT8", ("batch", "time"))}
    axis = TIME.model_copy(update={"padding": {"tokens": padding, "characters": 0}})
    letters = LETTERS

    assert rules_of(
        contract(padded_axes={"time": axis, "letters": letters}, value_ranges={}), inputs
    ).maxima


def test_range_of_numbers_that_are_no_integers_is_refused() -> None:
    inputs = {**INPUTS, "tokens": TensorSpec("tokens", "FP32", ("batch", "time"))}

    with pytest.raises(ModelLoadError, match="tokens: expected an input of integers, got FP32"):
        rules_of(contract(), inputs)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of two models that the exporter wrote."""
    models = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    letters = examples(has_letters=True)
    export(Tagger().eval(), letters, tag_spec(), to=models, name="speller")
    export(Recurrent().eval(), examples(), recurrent_spec(), to=models, name="tagger")
    return models


@pytest.fixture
def backend(exported: Path, models: Path, open_backend: OpenBackend) -> Backend:
    models.rmdir()
    models.symlink_to(exported)
    return open_backend()


def sentence(model: str = "tagger", /, **tensors: Array) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model)
    for name, array in tensors.items():
        message.inputs.add(name=name, datatype="INT64", shape=array.shape)
        message.raw_input_contents.append(array.astype("<i8").tobytes())
    return message


@pytest.mark.parametrize("model", ["tagger", "speller"])
def test_exported_bundle_is_loaded_and_replayed(
    model: str, exported: Path, backend: Backend, clock: Clock
) -> None:
    golden = reader.read(exported / model / "1").golden()
    assert golden is not None

    answer = answer_of(admit(admission_of(backend, clock), sentence(model, **golden.inputs)))

    expected = golden.outputs["logits"]
    actual = np.array(floats(answer)).reshape(expected.shape)
    for row, length in enumerate(golden.inputs["lengths"]):
        np.testing.assert_allclose(actual[row, :length], expected[row, :length], atol=1e-5)


requests = hypothesis.strategies.lists(
    hypothesis.strategies.tuples(
        hypothesis.strategies.integers(1, 3),  # rows
        hypothesis.strategies.integers(1, 24),  # steps
        hypothesis.strategies.integers(1, 8),  # letters
        hypothesis.strategies.integers(0, 2**32 - 1),  # seed
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module", params=["tagger", "speller"])
def graph(request: pytest.FixtureRequest, exported: Path) -> tuple[Session, Contract]:
    """A recurrent one, and a convolution over words and letters."""
    bundle = reader.read(exported / request.param / "1")
    return Session(bundle.model, provider="cpu", threads=1), bundle.contract


@hypothesis.given(requests)
def test_exported_network_gives_from_any_batch_what_it_gives_alone(
    graph: tuple[Session, Contract], shapes: list[tuple[int, int, int, int]]
) -> None:
    session, rules = graph
    names = {spec.name for spec in session.inputs}
    paddings = paddings_of(rules, session.inputs, session.outputs)
    asked = []
    for rows, steps, letters, seed in shapes:
        generator = np.random.default_rng(seed)
        inputs = {
            "tokens": generator.integers(0, WORDS, (rows, steps)),
            "characters": generator.integers(0, 10, (rows, steps, letters)),
            "lengths": generator.integers(1, steps + 1, rows),
        }
        asked.append({name: array for name, array in inputs.items() if name in names})

    outputs = session.run(collate.join(asked, paddings))
    parts = collate.split(outputs, asked, paddings)

    for part, inputs in zip(parts, asked, strict=True):
        alone = session.run(inputs)
        assert part["logits"].shape == alone["logits"].shape
        for row, length in enumerate(inputs["lengths"]):
            np.testing.assert_allclose(
                part["logits"][row, :length], alone["logits"][row, :length], rtol=1e-5, atol=1e-5
            )


def test_lengths_may_be_left_out(backend: Backend, clock: Clock) -> None:
    admission = admission_of(backend, clock)
    tokens = np.array([[2, 3, 4], [5, 6, 7]])

    told = answer_of(admit(admission, sentence(tokens=tokens, lengths=np.array([3, 3]))))
    untold = answer_of(admit(admission, sentence(tokens=tokens)))

    assert untold.raw_output_contents == told.raw_output_contents


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        pytest.param(
            {"tokens": [[WORDS]]}, "input 'tokens': expected values from 0 to 19, got 20", id="size"
        ),
        pytest.param({"tokens": [[2**63 - 1]]}, "got 9223372036854775807", id="greatest"),
        pytest.param({"tokens": [[-1]]}, "from 0 to 19, got -1", id="minus-1"),
        pytest.param({"tokens": [[1] * 25]}, "axis 'time': expected 1 to 24, got 25", id="long"),
        pytest.param({"tokens": [[]]}, "axis 'time': expected 1 to 24, got 0", id="empty"),
        pytest.param(
            {"tokens": [[1, 2]], "lengths": [3]},
            "'lengths': expected lengths from 1 to 2, got 3",
            id="longer",
        ),
        pytest.param({"tokens": [[1, 2]], "lengths": [0]}, "from 1 to 2, got 0", id="none"),
        pytest.param({"lengths": [1]}, "missing inputs: 'tokens'", id="no tokens"),
        pytest.param(
            {"tokens": [[1, 2]], "lengths": [2, 2]},
            "axis 'batch': expected 1 as in input 'tokens', got 2",
            id="more lengths than rows",
        ),
        pytest.param(
            {"tokens": [[1]], "lengths": [[1]]}, "expected 1 axes", id="lengths of rank 2"
        ),
        pytest.param({"tokens": [], "lengths": []}, "expected 2 axes", id="tokens of rank 1"),
    ],
)
def test_bad_sentence_is_refused_before_it_waits(
    tensors: dict[str, Any], message: str, backend: Backend, clock: Clock
) -> None:
    arrays = {name: np.array(values, np.int64) for name, values in tensors.items()}

    call = admit(admission_of(backend, clock), sentence(**arrays))

    assert call.wait_until_finished() is grpc.StatusCode.INVALID_ARGUMENT
    assert message in call.details
    assert backend.repository.get("tagger", "").stats.batches == 0


def test_requests_of_unequal_length_may_share_a_batch(backend: Backend) -> None:
    signature = backend.repository.get("tagger", "").signature

    full = signature.admit((("tokens", "INT64", (1, 5)),))
    told = signature.admit((("lengths", "INT64", (2,)), ("tokens", "INT64", (2, 6))))

    assert full.key == told.key
    assert (full.rows, full.length) == (1, 5)
    assert (told.rows, told.length) == (2, 6)


def test_secondary_axis_is_padded_and_is_no_length(backend: Backend) -> None:
    signature = backend.repository.get("speller", "").signature

    fits = [
        signature.admit(
            (("tokens", "INT64", (1, time)), ("characters", "INT64", (1, time, letters)))
        )
        for time, letters in ((5, 2), (7, 8))
    ]

    assert fits[0].key == fits[1].key
    assert [fit.length for fit in fits] == [5, 7]


def test_configuration_says_what_may_be_left_out(backend: Backend) -> None:
    described = model_metadata.config(backend.repository.get("speller", ""))

    assert {each.name: each.optional for each in described.input} == {
        "tokens": False,
        "characters": False,
        "lengths": True,
    }


def test_callers_of_one_batch_get_answers_of_their_own_length(
    backend: Backend, clock: Clock
) -> None:
    admission = admission_of(backend, clock)
    rows = [np.arange(1, 1 + size)[None] for size in (3, 19, 17, 4)]
    alone = [answer_of(admit(admission, sentence(tokens=tokens))) for tokens in rows]

    calls = [admit(admission, sentence(tokens=tokens)) for tokens in rows]

    for call, before, tokens in zip(calls, alone, rows, strict=True):
        answer = answer_of(call)
        assert [list(output.shape) for output in answer.outputs] == [
            [1, tokens.size, 3],
            [1, tokens.size],
        ]
        np.testing.assert_allclose(floats(answer), floats(before), rtol=1e-5, atol=1e-5)


def test_what_was_recorded_beyond_a_row_is_not_replayed(
    exported: Path, publish: Callable[..., Path], open_backend: OpenBackend
) -> None:
    bundle = reader.read(exported / "tagger" / "1")
    golden = bundle.golden()
    assert golden is not None
    changed = {name: array.copy() for name, array in golden.outputs.items()}
    changed["logits"][1, golden.inputs["lengths"][1] :] = np.nan
    axes = bundle.contract.padded_axes
    publish("tagger", graph=bundle.model, golden=Golden(golden.inputs, changed), padded_axes=axes)
    spoilt = {name: array.copy() for name, array in golden.outputs.items()}
    spoilt["logits"][1, 0] += 1.0
    publish("spoilt", graph=bundle.model, golden=Golden(golden.inputs, spoilt), padded_axes=axes)

    repository = open_backend().repository

    assert repository.get("tagger", "").version == "1"
    with pytest.raises(Exception, match="spoilt"):
        repository.get("spoilt", "")


MASKED = PaddedAxis(maximum=24, mask="mask", padding={"mask": 0, "tokens": 0})
MASKED_INPUTS = {
    "mask": TensorSpec("mask", "INT64", ("batch", "time")),
    "tokens": TensorSpec("tokens", "INT64", ("batch", "time")),
}


def mask_rules(datatype: str = "INT64", axes: tuple[str, ...] = ("batch", "time")) -> SequenceRules:
    spec = TensorSpec("mask", datatype, axes)
    masked = contract(padded_axes={"time": MASKED}, value_ranges={})
    return rules_of(masked, {**MASKED_INPUTS, "mask": spec})


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 2]], "expected a mask of 0 and 1, got another value"),
        ([[1, -1]], "expected a mask of 0 and 1, got another value"),
        ([[1, 1], [0, 0]], "expected a 1 in each row of the mask, got none"),
    ],
    ids=["two", "negative", "empty row"],
)
def test_mask_without_a_meaning_is_refused(mask: list[list[int]], message: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^input 'mask': {message}$"):
        mask_rules().check({"mask": np.array(mask), "tokens": np.array(mask)})


@pytest.mark.parametrize(
    "mask",
    [np.array([[1, 0]]), np.array([[True, False]]), np.array([[1.0, 0.0]], np.float32)],
    ids=["integers", "booleans", "floats"],
)
def test_mask_may_have_any_type_of_number(mask: Array) -> None:
    mask_rules().check({"mask": mask, "tokens": np.array([[3, 4]])})


def test_mask_with_a_gap_is_the_clients_matter() -> None:
    mask_rules().check({"mask": np.array([[0, 1, 0, 1]]), "tokens": np.array([[3, 4, 5, 6]])})


@pytest.mark.parametrize("datatype", ["INT64", "BOOL", "FP32"])
def test_mask_that_is_left_out_is_one_of_full_rows(datatype: str) -> None:
    inputs = {"tokens": np.array([[3, 4], [5, 6]])}

    mask_rules(datatype).complete(inputs)

    assert inputs["mask"].tolist() == [[1, 1], [1, 1]]
    assert inputs["mask"].dtype == DATATYPES[datatype].dtype


def test_graph_without_the_mask_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"expected mask \[batch, time\], got"):
        mask_rules(axes=("batch", "time", "time"))
    with pytest.raises(ModelLoadError, match="expected padding for the inputs with that axis"):
        mask_rules(axes=("batch",))


def test_masked_axis_counts_its_tokens() -> None:
    (padding,) = paddings_of(
        contract(padded_axes={"time": MASKED}, value_ranges={}), MASKED_INPUTS.values(), []
    )
    rows = [
        {"tokens": np.array([[3, 4, 5]]), "mask": np.array([[1, 1, 0]])},
        {"tokens": np.array([[6, 7, 8, 9, 9]]), "mask": np.array([[1, 1, 1, 1, 1]])},
    ]

    batch = collate.join(rows, [padding])

    assert batch["mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert collate.count_tokens(batch, [padding]) == collate.Tokens(real=7, computed=10)
