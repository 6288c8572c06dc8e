from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from weir.export import lstm_quantisation, runtime
from weir.export.errors import ExportError

UNITS, COLUMNS, STEPS = 6, 5, 12

Array = NDArray[Any]


def lstm(
    *,
    direction: str = "forward",
    states: bool = False,
    bias: bool = True,
    peepholes: bool = False,
    computed: bool = False,
    opset: int = 18,
    **attributes: Any,
) -> bytes:
    """`x` [time, batch, 5] and `lengths` [batch] → the three outputs of one LSTM layer.

    With `states`, it starts at the inputs `h` and `c` [directions, batch, 6].
    """
    random = np.random.default_rng(0)
    directions = 2 if direction == "bidirectional" else 1

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(
            (0.5 * random.standard_normal(shape)).astype(np.float32), name
        )

    constants = [
        weights("W", directions, 4 * UNITS, COLUMNS),
        weights("R", directions, 4 * UNITS, UNITS),
        weights("B", directions, 8 * UNITS),
        weights("P", directions, 3 * UNITS),
    ]
    inputs: dict[str, list[str | int | None]] = {
        "x": ["time", "batch", COLUMNS],
        "lengths": ["batch"],
    }
    if states:
        inputs |= {name: [directions, "batch", UNITS] for name in ("h", "c")}
    nodes = [helper.make_node("Identity", ["R"], ["R computed"])] if computed else []
    nodes.append(
        helper.make_node(
            "LSTM",
            [
                "x",
                "W",
                "R computed" if computed else "R",
                "B" if bias else "",
                "lengths",
                *(("h", "c") if states else ("", "")),
                "P" if peepholes else "",
            ],
            ["y", "y_h", "y_c"],
            hidden_size=UNITS,
            direction=direction,
            **attributes,
        )
    )
    graph = helper.make_graph(
        nodes,
        "lstm",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT32 if name == "lengths" else TensorProto.FLOAT, shape
            )
            for name, shape in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
            for name, rank in (("y", 4), ("y_h", 3), ("y_c", 3))
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model.SerializeToString()


def rows(
    count: int, *, scale: float = 1.0, direction: str = "forward", states: bool = False, **_: Any
) -> dict[str, Array]:
    random = np.random.default_rng(1)
    lengths = random.integers(1, STEPS + 1, count).astype(np.int32)
    lengths[0] = STEPS

    def draw(*shape: int) -> Array:
        return (scale * random.standard_normal(shape)).astype(np.float32)

    given = {"x": draw(STEPS, count, COLUMNS), "lengths": lengths}
    if states:
        directions = 2 if direction == "bidirectional" else 1
        given |= {name: np.tanh(draw(directions, count, UNITS)) for name in ("h", "c")}
    return given


def row_of(inputs: Mapping[str, Array], row: int) -> dict[str, Array]:
    """One row, without its padding."""
    lengths = inputs["lengths"][row : row + 1]
    alone = {name: inputs[name][:, row : row + 1] for name in inputs if name != "lengths"}
    return {**alone, "x": alone["x"][: lengths[0]], "lengths": lengths}


def run(model: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return runtime.run(runtime.open_session(model), ["y", "y_h", "y_c"], inputs)


FORMS: dict[str, dict[str, Any]] = {
    "forward": {},
    "reverse": {"direction": "reverse"},
    "bidirectional": {"direction": "bidirectional"},
    "without a bias": {"bias": False},
    "as PyTorch writes it": {"input_forget": 0, "layout": 0},
    "given states": {"states": True},
    "given states of both directions": {"states": True, "direction": "bidirectional"},
}


@pytest.fixture(params=list(FORMS.values()), ids=list(FORMS))
def form(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def test_fixed_ranges_change_no_result(form: dict[str, Any]) -> None:
    model, inputs = lstm(**form), rows(7, **form)
    proto = onnx.load_from_string(model)

    lstm_quantisation.fix_ranges(proto, {"x": (-10.0, 10.0), "h": (-1.0, 1.0)})

    onnx.checker.check_model(proto, full_check=True)
    expected = run(model, inputs)
    for name, array in run(proto.SerializeToString(), inputs).items():
        np.testing.assert_allclose(array, expected[name], atol=1e-6, err_msg=name)


def test_input_is_clipped_to_its_range() -> None:
    proto, inputs = onnx.load_from_string(lstm()), rows(3, scale=3.0)
    clipped = {**inputs, "x": inputs["x"].clip(-0.5, 1.0)}

    lstm_quantisation.fix_ranges(proto, {"x": (-0.5, 1.0)})

    expected = run(lstm(), clipped)["y"]
    np.testing.assert_allclose(run(proto.SerializeToString(), inputs)["y"], expected, atol=1e-6)


def test_row_is_the_same_alone_and_in_any_batch(form: dict[str, Any]) -> None:
    model, inputs = lstm_quantisation.quantise(lstm(**form), [rows(40, **form)]), rows(9, **form)

    together = run(model, inputs)
    for row, length in enumerate(inputs["lengths"]):
        alone = run(model, row_of(inputs, row))
        np.testing.assert_array_equal(alone["y"][:, :, 0], together["y"][:length, :, row])
        for name in ("y_h", "y_c"):
            np.testing.assert_array_equal(alone[name][:, 0], together[name][:, row])


def test_rows_beyond_every_range_do_not_change_another_row() -> None:
    model, inputs = lstm_quantisation.quantise(lstm(), [rows(40)]), rows(9)
    expected = run(model, inputs)["y"][:, :, 0]

    inputs["x"][:, 1:] *= 100.0

    np.testing.assert_array_equal(run(model, inputs)["y"][:, :, 0], expected)


def test_large_initial_states_of_other_rows_do_not_change_a_row() -> None:
    calibration, inputs = rows(40, states=True), rows(9, states=True)
    for given in (calibration, inputs):
        given["h"] *= 3.0
    exact = lstm(states=True)
    model = lstm_quantisation.quantise(exact, [calibration])
    expected = run(model, row_of(inputs, 0))["y"][:, :, 0]
    error = np.abs(run(model, inputs)["y"] - run(exact, inputs)["y"])

    inputs["h"][:, 1:] *= 100.0

    np.testing.assert_array_equal(run(model, inputs)["y"][:, :, 0], expected)
    assert error.max() < 0.1


def test_integers_are_near_the_exact_states(form: dict[str, Any]) -> None:
    inputs = rows(20, **form)

    model = lstm_quantisation.quantise(lstm(**form), [inputs])

    kinds = [node.op_type for node in onnx.load_from_string(model).graph.node]
    assert "DynamicQuantizeLSTM" in kinds and "LSTM" not in kinds
    expected, found = run(lstm(**form), inputs), run(model, inputs)
    error = np.abs(found["y"] - expected["y"])
    assert 0.0 < error.max() < 0.1 and error.mean() < 0.01


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        pytest.param({"peepholes": True}, "without peepholes", id="peepholes"),
        pytest.param({"clip": 3.0}, "without clip", id="clip"),
        pytest.param({"input_forget": 1}, "without input_forget", id="input and forget gate"),
        pytest.param({"computed": True}, "constant weights R", id="computed weights"),
    ],
)
def test_layer_of_another_form_is_refused(form: dict[str, Any], reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        lstm_quantisation.quantise(lstm(**form), [rows(4)])


@pytest.mark.parametrize(("opset", "states"), [(17, True), (14, False)])
def test_opset_without_the_added_operators_is_refused(*, opset: int, states: bool) -> None:
    model = lstm(opset=opset, states=states)

    with pytest.raises(
        ExportError, match=rf"int8: expected opset {opset + 1} or later .* {opset}$"
    ):
        lstm_quantisation.quantise(model, [rows(3, states=states)])


@pytest.mark.parametrize(("opset", "states"), [(18, True), (15, False)])
def test_oldest_opset_with_the_added_operators_is_quantised(*, opset: int, states: bool) -> None:
    inputs = rows(3, states=states)

    model = lstm_quantisation.quantise(lstm(opset=opset, states=states), [inputs])

    assert run(model, inputs).keys() == {"y", "y_h", "y_c"}
