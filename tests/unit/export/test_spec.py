import re

import pytest
import torch

from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.export.errors import ExportError
from weir.export.spec import ExportSpec, row_count


def spec(**changes: object) -> ExportSpec:
    fields: dict[str, object] = {"architecture": "any", "outputs": ["y"], **changes}
    return ExportSpec(**fields)  # type: ignore[arg-type]


def test_first_axis_is_the_batch_by_default() -> None:
    assert spec().axes_of("x") == {0: "batch"}
    assert spec().batch_position("x") == 0


def test_without_a_batch_axis_nothing_varies() -> None:
    alone = spec(batch_axis=None)

    assert alone.axes_of("x") == {}
    assert row_count({"x": torch.zeros(7, 2)}, alone) == 1


def test_the_batch_may_be_another_axis() -> None:
    time_major = spec(axes={"x": {0: "time", 1: "batch"}})

    assert row_count({"x": torch.zeros(7, 2, 3)}, time_major) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": []}, "outputs"),
        ({"outputs": ["y", "y"]}, "outputs"),
        ({"labels": {"z": ["a"]}}, "an output of"),
        ({"labels": {"y": ["a\nb"]}}, "one line each"),
    ],
    ids=["none", "twice", "labels-of-nothing", "two-lines"],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        spec(**changes)


def test_every_input_has_the_batch_axis() -> None:
    with pytest.raises(ExportError, match="bias: expected an axis named 'batch'"):
        row_count({"x": torch.zeros(2, 3), "bias": torch.zeros(3)}, spec(axes={"x": {0: "batch"}}))


@pytest.mark.parametrize(
    "inputs",
    [
        {"a": torch.zeros(2, 3), "b": torch.zeros(4, 3)},
        {"a": torch.zeros(0, 3)},
        {"a": torch.tensor(1.0)},
    ],
    ids=["different", "none", "scalar"],
)
def test_rows_must_be_countable(inputs: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ExportError, match="expected"):
        row_count(inputs, spec())


TIME = PaddedAxis(maximum=9, lengths="lengths", padding={"tokens": 0})
AXES = {"tokens": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
WORDS = {"tokens": ["<pad>", "<unknown>", "word"]}


def test_vocabulary_is_a_range() -> None:
    own = {"tokens": ValueRange(maximum=7)}

    assert spec(vocabularies=WORDS).ranges == {"tokens": ValueRange(maximum=2)}
    assert spec(vocabularies=WORDS, value_ranges=own).ranges == own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"axes": {**AXES, "tags": {0: "batch", 1: "time"}}},
            r"\['tags', 'tokens'\], got it for \['tokens'\]",
            id="another input",
        ),
        pytest.param(
            {"axes": {**AXES, "lengths": {0: "batch", 1: "more"}}},
            "expected lengths with the axis 'batch' alone, got 'lengths'",
            id="lengths",
        ),
        pytest.param({"axes": AXES, "batch_axis": None}, "expected a batch axis", id="no batch"),
        pytest.param(
            {"axes": AXES, "vocabularies": {"tokens": []}}, "expected an entry or more", id="none"
        ),
        pytest.param(
            {"axes": AXES, "vocabularies": {"tokens": ["a", "a"]}}, "once, got 'a'", id="twice"
        ),
        pytest.param(
            {"axes": AXES, "vocabularies": {"tokens": ["a\nb"]}}, "one line each", id="lines"
        ),
        pytest.param(
            {"axes": AXES, "tokenisation": Tokenisation(rule="words", unknown=1)},
            "expected a vocabulary of 'tokens'",
            id="no vocabulary",
        ),
        pytest.param(
            {
                "axes": AXES,
                "vocabularies": WORDS,
                "tokenisation": Tokenisation(rule="words", unknown=3),
            },
            "unknown: expected an id of 'tokens', below 3, got 3",
            id="unknown",
        ),
    ],
)
def test_sequences_must_fit_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        spec(padded_axes={"time": TIME}, **changes)


def test_mask_has_the_axis_and_rows() -> None:
    masked = PaddedAxis(maximum=9, mask="mask", padding={"tokens": 0, "mask": 0})
    axes = {"tokens": {0: "batch", 1: "time"}, "mask": {0: "batch", 2: "time"}}

    with pytest.raises(ExportError, match="expected a mask with the axes 'batch' and 'time'"):
        spec(axes=axes, padded_axes={"time": masked})


def test_tokenizer_json_stands_beside_its_tokenisation() -> None:
    tokenisation = Tokenisation(rule="tokenizer-json", model="tokenizer.json")
    fields = {"axes": AXES, "padded_axes": {"time": TIME}, "task": "sequence-classification"}

    with pytest.raises(ExportError, match=r"tokenizer: expected the file 'tokenizer.json' of"):
        spec(tokenisation=tokenisation, **fields)
    with pytest.raises(ExportError, match=r"tokenizer: expected the file None .* got 2 bytes"):
        spec(tokenizer=b"{}", **fields)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"value_ranges": {"tokens": (0, 9)}}, "ExportSpec: value_ranges.tokens: .*ValueRange"),
        (
            {"padded_axes": {"time": {"most": 9}}},
            "ExportSpec: padded_axes.time.maximum: .* got none",
        ),
        (
            {"axes": {"tokens": ["batch", "time"]}},
            "ExportSpec: axes.tokens: expected a .*dictionary",
        ),
        ({"outputs": "logits"}, "ExportSpec: outputs: expected"),
        ({"tolerance": 1e-3}, "ExportSpec: tolerance: .*Tolerance, got 0.001"),
        ({"task": "classification"}, "ExportSpec: task: expected .* got 'classification'"),
    ],
)
def test_field_of_another_type_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        spec(**changes)


def test_dict_may_stand_for_an_object() -> None:
    written = {"maximum": 9, "lengths": "lengths", "padding": {"tokens": 0}}

    assert spec(axes=AXES, padded_axes={"time": written}).padded_axes == {"time": TIME}


def test_forgotten_axes_are_named() -> None:
    with pytest.raises(
        ExportError,
        match=re.escape(
            "padded_axes: time: expected the axis in `axes`, such as "
            "axes={'tokens': {0: 'batch', 1: 'time'}}, got None"
        ),
    ):
        spec(padded_axes={"time": TIME})
