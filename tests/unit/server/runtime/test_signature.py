import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.server.errors import InvalidRequest
from weir.server.runtime.signature import (
    MAX_RANK,
    Axis,
    Form,
    Signature,
    TensorSpec,
    forms_of,
)


def spec(name: str, *axes: Axis) -> TensorSpec:
    return TensorSpec(name, "FP32", axes)


def signature(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] | None = None) -> Signature:
    given_outputs = (spec("y", "batch", 2),) if outputs is None else outputs
    return Signature(inputs, given_outputs, batch_axis="batch", max_rows=8)


def form(name: str, *shape: int) -> Form:
    return (name, "FP32", shape)


IMAGE = signature(spec("x", "batch", 3))
TEXT = signature(spec("tokens", "batch", "time"), spec("lengths", "batch"))
FREE = signature(spec("x", "batch", "a", None))


def text(rows: int, time: int) -> tuple[Form, ...]:
    return form("tokens", rows, time), form("lengths", rows)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        pytest.param([], "missing inputs: 'tokens', 'lengths'", id="none"),
        pytest.param(["tokens"], "missing inputs: 'lengths'", id="one missing"),
        pytest.param(["tokens", "word"], "unknown inputs: 'word'; expected 'tokens'", id="unknown"),
        pytest.param(["tokens", "lengths", "word"], "unknown inputs: 'word'", id="extra"),
        pytest.param(["tokens", "tokens"], "missing inputs: 'lengths'", id="twice, not the other"),
        pytest.param(["tokens", "lengths", "lengths"], "named twice: 'lengths'", id="twice"),
    ],
)
def test_names_that_differ_from_the_graphs_are_refused(sent: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        TEXT.admit(tuple(form(name, 1) for name in sent))


@given(st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=4))
def test_names_pass_only_if_each_is_there_once(sent: list[str]) -> None:
    pair = signature(spec("a", "batch"), spec("b", "batch"))

    try:
        pair.admit(tuple(form(name, 1) for name in sent))
    except InvalidRequest:
        assert sorted(sent) != ["a", "b"]
    else:
        assert sorted(sent) == ["a", "b"]


@pytest.mark.parametrize("names", [["y"], []], ids=["one", "none"])
def test_wanted_outputs_pass(names: list[str]) -> None:
    IMAGE.check_outputs(names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param(["z"], "unknown outputs: 'z'; expected 'y'", id="unknown"),
        pytest.param(["y", "y"], "outputs are named twice: 'y'", id="twice"),
    ],
)
def test_wanted_outputs_that_differ_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        IMAGE.check_outputs(names)


@pytest.mark.parametrize(
    ("datatype", "shape", "message"),
    [
        pytest.param("FP64", (1, 3), "input 'x': expected FP32, got 'FP64'", id="datatype"),
        pytest.param("", (1, 3), "expected FP32, got ''", id="no datatype"),
        pytest.param("FP32", (3,), r"expected 2 axes \(-1, 3\), got 1", id="rank below"),
        pytest.param("FP32", (1, 3, 1), "expected 2 axes .* got 3", id="rank above"),
        pytest.param("FP32", (1, 4), "axis 1: expected 3, got 4", id="fixed axis"),
        pytest.param("FP32", (-1, 3), "axis 0: expected 0 or more, got -1", id="negative rows"),
        pytest.param("FP32", (1, -3), "axis 1: expected 3, got -3", id="negative fixed axis"),
        pytest.param("FP32", (0, 3), "holds no rows", id="no rows"),
        pytest.param("FP32", (9, 3), "at most 8 rows in a request, got 9", id="a row too many"),
        pytest.param("FP32", (2**31, 3), "at most 8 rows", id="2**31 rows"),
        pytest.param("FP32", (2**32 + 1, 3), "at most 8 rows", id="2**32 + 1 rows"),
    ],
)
def test_tensor_that_differs_from_the_graphs_is_refused(
    datatype: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        IMAGE.admit((("x", datatype, shape),))


OVERFLOWS = {
    "product wraps to a small number": (2**4, 2**60 + 2),
    "product wraps with a small factor": (2**2, 2**60 + 2),
    "zero hides the rest": (0, 2**62),
    "zero at the end": (2**62, 0),
    "largest number": (2**63 - 1, 1),
    "two largest numbers": (2**63 - 1, 2**63 - 1),
    "product wraps to zero": (2**32, 2**32),
}


@pytest.mark.parametrize("shape", OVERFLOWS.values(), ids=OVERFLOWS.keys())
def test_shape_that_overflows_is_refused(shape: tuple[int, ...]) -> None:
    free = signature(spec("x", "batch", "time"))

    with pytest.raises(InvalidRequest, match=r"input 'x': shape \[.*\] is too large"):
        free.admit((form("x", *shape),))


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 9), max_size=MAX_RANK + 2))
def test_a_shape_either_fits_or_is_an_invalid_request(shape: list[int]) -> None:
    try:
        admission = FREE.admit((form("x", *shape),))
    except InvalidRequest:
        return

    assert len(shape) == 3
    assert admission.rows == shape[0]
    assert 1 <= shape[0] <= 8
    assert 0 <= shape[1] * shape[2] <= 2**40


def test_names_of_an_attacker_are_cut_and_made_printable() -> None:
    with pytest.raises(InvalidRequest) as refused:
        IMAGE.admit((form("x" * 10_000, 1), form("line\nbreak", 1)))

    assert len(str(refused.value)) < 300
    assert "\n" not in str(refused.value)


def test_a_thousand_unknown_names_make_a_short_message() -> None:
    with pytest.raises(InvalidRequest, match="and 992 more") as refused:
        IMAGE.admit(tuple(form(f"n{number}", 1) for number in range(1000)))

    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("rows", [1, 7, 8])
def test_rows_are_counted_on_the_batch_axis(rows: int) -> None:
    assert IMAGE.admit((form("x", rows, 3),)).rows == rows


def test_inputs_of_different_rows_are_refused() -> None:
    with pytest.raises(
        InvalidRequest, match="axis 'batch': expected 2 as in input 'tokens', got 3"
    ):
        TEXT.admit((form("tokens", 2, 5), form("lengths", 3)))


def test_axes_of_one_name_have_one_size() -> None:
    square = signature(spec("x", "batch", "side", "side"))

    square.admit((form("x", 1, 4, 4),))
    with pytest.raises(InvalidRequest, match="axis 'side': expected 4 as in input 'x', got 5"):
        square.admit((form("x", 1, 4, 5),))


def test_axes_without_a_name_are_free() -> None:
    free = signature(spec("x", "batch", None, None))

    assert free.admit((form("x", 2, 4, 5),)).rows == 2


def test_batch_mates_have_the_same_variable_axes() -> None:
    five, also_five, six = TEXT.admit(text(1, 5)), TEXT.admit(text(3, 5)), TEXT.admit(text(1, 6))

    assert five.key == also_five.key
    assert five.key != six.key


def test_key_does_not_depend_on_the_order_of_the_inputs() -> None:
    forms = text(1, 5)

    assert TEXT.admit(forms).key == TEXT.admit(forms[::-1]).key


def test_requests_of_a_model_of_fixed_axes_all_match() -> None:
    assert IMAGE.admit((form("x", 1, 3),)).key == IMAGE.admit((form("x", 5, 3),)).key


def test_what_was_admitted_once_is_admitted_alike_ever_after() -> None:
    """More forms than are remembered, and each again."""
    forms = [text(1 + number % 8, number) for number in range(5000)]

    first = [TEXT.admit(each) for each in forms]
    again = [TEXT.admit(each) for each in forms]

    assert first == again
    assert [admission.rows for admission in again[:9]] == [1, 2, 3, 4, 5, 6, 7, 8, 1]


def test_what_was_refused_once_is_refused_again() -> None:
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            IMAGE.admit((form("x", 9, 3),))


@pytest.mark.parametrize(
    "without",
    [
        pytest.param(
            Signature([spec("x", "batch", 2)], [spec("y", "batch")], batch_axis=None, max_rows=8),
            id="no batch axis",
        ),
        pytest.param(signature(spec("x", 2, 2)), id="fixed first axis"),
        pytest.param(signature(spec("x", "time", "batch")), id="batch axis not first"),
        pytest.param(signature(spec("x", "batch"), spec("s")), id="one input without"),
        pytest.param(signature(), id="no inputs at all"),
    ],
)
def test_model_without_rows_runs_one_request_at_a_time(without: Signature) -> None:
    forms = tuple(form(name, *(2 for _ in each.axes)) for name, each in without.inputs.items())

    admission = without.admit(forms)

    assert not without.has_rows
    assert without.max_rows == 1
    assert admission.rows == 1


def test_wire_shape_writes_variable_axes_as_minus_one() -> None:
    assert spec("x", "batch", None, 3, 0).wire_shape() == (-1, -1, 3, 0)


ONLY_PROVED = Signature(
    [spec("a", None, 2), spec("b", None, 2)],
    [spec("y", "Addy_dim_0", 2)],
    batch_axis="batch",
    max_rows=8,
    only_proved=True,
)


@pytest.mark.parametrize("rows", [1, 8])
def test_rows_of_an_axis_that_is_only_proved_share_a_batch(rows: int) -> None:
    admission = ONLY_PROVED.admit((form("a", rows, 2), form("b", rows, 2)))

    assert admission[:3] == (rows, (("a", (2,)), ("b", (2,))), 0)


@pytest.mark.parametrize(
    ("a", "b"), [(0, 0), (9, 9), (5632, 5632), (3, 1)], ids=["none", "many", "more", "unequal"]
)
def test_request_that_is_no_batch_of_rows_runs_alone_if_the_axis_is_only_proved(
    a: int, b: int
) -> None:
    assert ONLY_PROVED.admit((form("a", a, 2), form("b", b, 2)))[:3] == (1, None, 0)


def test_axes_of_one_name_have_one_size_also_if_the_batch_axis_is_only_proved() -> None:
    inputs = [spec("a", "s77", 2), spec("b", "s77", 2)]
    named = Signature(inputs, [spec("y", None, 2)], batch_axis="s77", max_rows=8, only_proved=True)

    with pytest.raises(InvalidRequest, match="axis 's77': expected 3 as in input 'a', got 1"):
        named.admit((form("a", 3, 2), form("b", 1, 2)))


WITH_DEFAULTS = Signature(
    [spec("x", "batch", 3)],
    [spec("y", "batch", 3)],
    batch_axis="batch",
    max_rows=8,
    defaults=[spec("scale"), spec("weight", 3, None)],
    described=["scale"],
)


def test_default_may_be_left_out_or_sent() -> None:
    rows = form("x", 2, 3)

    assert WITH_DEFAULTS.admit((rows,)).key == (("x", (3,)),)
    assert WITH_DEFAULTS.admit((form("scale"), rows))[:3] == (2, None, 0)
    assert WITH_DEFAULTS.admit((form("weight", 3, 7), rows, form("scale")))[:3] == (2, None, 0)
    assert WITH_DEFAULTS.may_omit("scale") and not WITH_DEFAULTS.may_omit("x")


def test_bytes_of_a_request_are_those_of_its_inputs_and_of_known_answers() -> None:
    classes, any_size = spec("y", "batch", 10), spec("z", "batch", None)
    model = Signature([spec("x", "batch", 3)], [classes, any_size], batch_axis="batch", max_rows=8)

    fit = model.admit((form("x", 2, 3),))

    assert fit.tensor_bytes == 4 * (2 * 3 + 2 * 10 + 2)


def test_default_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'weight': axis 0: expected 3, got 2"):
        WITH_DEFAULTS.admit((form("x", 2, 3), form("weight", 2, 7)))


def test_default_is_described_where_it_is_wanted() -> None:
    assert [one.name for one in WITH_DEFAULTS.described_inputs] == ["x", "scale"]


@pytest.mark.parametrize("shape", [(), (2,), (0, 3), (1,) * MAX_RANK], ids=str)
def test_tensor_without_a_shape_takes_any(shape: tuple[int, ...]) -> None:
    free = Signature(
        [TensorSpec("x", "FP32", (), has_shape=False)], [], batch_axis=None, max_rows=1
    )

    assert free.admit((form("x", *shape),))[:3] == (1, (), 0)
    with pytest.raises(InvalidRequest, match="expected FP32"):
        free.admit((("x", "INT64", shape),))


def test_rows_of_the_server_get_the_types_of_the_graph() -> None:
    graph = signature(
        TensorSpec("ids", "INT32", ("batch",)), TensorSpec("mask", "BOOL", ("batch",))
    )
    ones = np.ones(2, np.int64)

    inputs = graph.cast({"ids": ones, "mask": ones, "other": ones})

    assert forms_of(inputs) == (
        ("ids", "INT32", (2,)),
        ("mask", "BOOL", (2,)),
        ("other", "INT64", (2,)),
    )


def test_mask_that_is_left_out_does_not_part_a_batch() -> None:
    masked = Signature(
        [spec("tokens", "batch", "time"), spec("mask", "batch", "time")],
        [spec("y", "batch", 2)],
        batch_axis="batch",
        max_rows=8,
        maxima={"time": 9},
        optional=["mask"],
        length_axis="time",
    )

    with_mask = masked.admit((form("tokens", 1, 4), form("mask", 1, 4)))
    without = masked.admit((form("tokens", 2, 6),))

    assert with_mask.key == without.key
    assert (with_mask.length, without.length) == (4, 6)
