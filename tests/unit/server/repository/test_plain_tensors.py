from dataclasses import replace
from typing import Any

import pytest

from weir.server.errors import ModelLoadError
from weir.server.repository.plain_tensors import Tensors, narrow
from weir.server.repository.triton import TritonConfig, TritonTensor
from weir.server.runtime.signature import TensorSpec


def spec(name: str, *axes: int | str | None, datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name, datatype, axes)


def narrowed(
    inputs: list[TensorSpec],
    outputs: list[TensorSpec],
    *,
    max_batch_size: int,
    inputs_config: tuple[TritonTensor, ...] = (),
    outputs_config: tuple[TritonTensor, ...] = (),
    **others: Any,
) -> Tensors:
    config = TritonConfig(max_batch_size, inputs_config, outputs_config)
    return narrow(config, max_batch_size, inputs, outputs, **others)


def test_first_axes_are_the_batch_axis_whatever_their_names() -> None:
    tensors = narrowed(
        [spec("x", None, 4), spec("ids", "N", "time")], [spec("y", "rows")], max_batch_size=8
    )

    assert tensors.batch_axis == "batch"
    assert [one.axes for one in tensors.inputs] == [("batch", 4), ("batch", "time")]
    assert [one.axes for one in tensors.outputs] == [("batch",)]


def test_batch_axis_is_none_of_the_other_axes() -> None:
    tensors = narrowed(
        [spec("x", "rows", "batch")], [spec("y", "rows", "batch_")], max_batch_size=8
    )

    assert tensors.batch_axis == "batch__"
    assert tensors.inputs[0].axes == ("batch__", "batch")


def test_without_a_batch_size_shapes_are_whole() -> None:
    tensors = narrowed(
        [spec("x", "batch", 4)],
        [spec("y", "batch", 4)],
        max_batch_size=0,
        inputs_config=(TritonTensor("x", "FP32", (-1, 4)),),
    )

    assert tensors == Tensors([spec("x", "batch", 4)], [spec("y", "batch", 4)], None)


def test_configured_size_takes_the_place_of_a_free_one() -> None:
    tensors = narrowed(
        [spec("x", "batch", None, "width"), spec("mask", "batch", "width")],
        [spec("y", "batch", "width"), spec("z", "batch", None)],
        max_batch_size=8,
        inputs_config=(TritonTensor("x", None, (3, 5)), TritonTensor("mask", None, (-1,))),
        outputs_config=(TritonTensor("z", None, (7,)),),
    )

    assert [one.axes for one in tensors.inputs] == [("batch", 3, 5), ("batch", 5)]
    assert [one.axes for one in tensors.outputs] == [("batch", 5), ("batch", 7)]


@pytest.mark.parametrize(
    "configured",
    [
        pytest.param(TritonTensor("x"), id="nothing but its name"),
        pytest.param(TritonTensor("x", "FP32"), id="no dims"),
        pytest.param(TritonTensor("x", None, (-1, 4)), id="any size"),
        pytest.param(TritonTensor("x", None, (3, 4)), id="the same"),
    ],
)
def test_what_fits_leaves_the_graphs_sizes(configured: TritonTensor) -> None:
    tensors = narrowed([spec("x", "n", 3, 4)], [], max_batch_size=1, inputs_config=(configured,))

    assert tensors.inputs[0].axes == ("batch", 3, 4)


@pytest.mark.parametrize(
    ("configured", "reason"),
    [
        pytest.param(TritonTensor("z"), "input: expected the graph's x, got z", id="name"),
        pytest.param(
            TritonTensor("x", "INT64"),
            "input 'x': data_type: expected FP32 as in the graph, got INT64",
            id="datatype",
        ),
        pytest.param(
            TritonTensor("x", None, (3, 5)),
            r"input 'x': dims: expected \[3, -1, 4\] as in the graph without the batch axis, "
            r"got \[3, 5\]",
            id="rank",
        ),
        pytest.param(
            TritonTensor("x", None, (3, 1, 5)),
            r"expected \[3, -1, 4\] .* got \[3, 1, 5\]",
            id="size",
        ),
    ],
)
def test_disagreement_names_tensor_expected_and_got(configured: TritonTensor, reason: str) -> None:
    with pytest.raises(ModelLoadError, match=f"^config.pbtxt: .*{reason}"):
        narrowed([spec("x", "n", 3, None, 4)], [], max_batch_size=1, inputs_config=(configured,))


def test_outputs_are_checked_against_the_graph_too() -> None:
    with pytest.raises(ModelLoadError, match=r"output 'y': dims: expected \[2\] .*, got \[3\]"):
        narrowed(
            [], [spec("y", 2)], max_batch_size=0, outputs_config=(TritonTensor("y", None, (3,)),)
        )


def test_one_symbol_has_one_size() -> None:
    configured = (TritonTensor("a", None, (3,)), TritonTensor("b", None, (4,)))

    with pytest.raises(ModelLoadError, match=r"input 'b': dims: expected 3 .*'time'.* got 4"):
        narrowed(
            [spec("a", "time"), spec("b", "time")], [], max_batch_size=0, inputs_config=configured
        )


@pytest.mark.parametrize(
    "output", [pytest.param(spec("y"), id="scalar"), pytest.param(spec("y", 1, 4), id="fixed")]
)
def test_batch_size_needs_a_first_axis_of_any_size_of_what_is_configured(
    output: TensorSpec,
) -> None:
    configured = (TritonTensor("y", None, (4,)),)

    with pytest.raises(
        ModelLoadError, match=r"max_batch_size 8: expected a first axis .* output 'y'"
    ):
        narrowed([spec("x", "n", 4)], [output], max_batch_size=8, outputs_config=configured)

    assert narrowed([spec("x", "n", 4)], [output], max_batch_size=8).outputs == [output]


WITHOUT_SHAPE = TensorSpec("x", "FP32", (), has_shape=False)


@pytest.mark.parametrize(
    ("axes", "configured", "expected"),
    [
        pytest.param(
            (1, 3, 4), TritonTensor("x", None, (3, 4), (1, 3, 4)), ((3, 4), (1, 3, 4)), id="fixed"
        ),
        pytest.param(
            ("n", 12, None),
            TritonTensor("x", None, (-1, 3, 4, -1), (-1, 12, -1)),
            (("n", 3, 4, None), (-1, 12, -1)),
            id="free",
        ),
        pytest.param(
            (7, None), TritonTensor("x", None, (-1, 2), (-1, 2)), ((7, 2), None), id="the same"
        ),
        pytest.param(
            (7, 2), TritonTensor("x", None, (-1, 1, 2), (-1, 2)), ((7, 1, 2), (7, 2)), id="of graph"
        ),
        pytest.param((), TritonTensor("x", None, (1,)), ((1,), ()), id="scalar of one"),
        pytest.param((), TritonTensor("x", None, (1,), ()), ((1,), ()), id="scalar"),
    ],
)
def test_requests_have_dims_and_the_graph_their_reshape(
    axes: tuple[Any, ...], configured: TritonTensor, expected: tuple[Any, Any]
) -> None:
    tensors = narrowed(
        [spec("x", *axes)],
        [spec("y", *axes)],
        max_batch_size=0,
        inputs_config=(configured,),
        outputs_config=(replace(configured, name="y"),),
    )

    for one in (*tensors.inputs, *tensors.outputs):
        assert (one.axes, one.reshape) == expected


def test_reshape_is_compared_with_the_graph() -> None:
    with pytest.raises(
        ModelLoadError, match=r"input 'x': reshape: expected \[1, 6\] as in .* got \[6, 1\]"
    ):
        narrowed(
            [spec("x", 1, 6)],
            [],
            max_batch_size=0,
            inputs_config=(TritonTensor("x", None, (2, 3), (6, 1)),),
        )


def test_batch_axis_stays_in_front_of_a_reshape() -> None:
    tensors = narrowed(
        [spec("x", None)],
        [spec("y", "N", "time")],
        max_batch_size=8,
        inputs_config=(TritonTensor("x", None, (1,), ()),),
        outputs_config=(TritonTensor("y", None, (1, -1, 1), (-1,)),),
    )

    assert tensors.inputs == [TensorSpec("x", "FP32", ("batch", 1), reshape=(-1,))]
    assert tensors.outputs == [TensorSpec("y", "FP32", ("batch", 1, "time", 1), reshape=(-1, -1))]


def test_first_axis_of_an_output_is_the_batch_axis_whatever_it_is_called() -> None:
    tensors = narrowed(
        [spec("x", "N", "time")],
        [spec("y", "time", "time")],
        max_batch_size=8,
        inputs_config=(TritonTensor("x", None, (5,)),),
    )

    assert [one.axes for one in tensors.outputs] == [("batch", 5)]


def test_size_fixed_by_one_input_is_that_of_another_ones_reshape() -> None:
    tensors = narrowed(
        [spec("a", "time"), spec("b", "time", 2)],
        [],
        max_batch_size=0,
        inputs_config=(TritonTensor("a", None, (3,)), TritonTensor("b", None, (1, -1, 2), (-1, 2))),
    )

    assert tensors.inputs[1] == TensorSpec("b", "FP32", (1, 3, 2), reshape=(3, 2))


@pytest.mark.parametrize(
    ("max_batch_size", "configured", "expected"),
    [
        pytest.param(0, (), ((), False, None), id="nothing is known"),
        pytest.param(0, TritonTensor("x", None, (-1, 3)), ((None, 3), True, None), id="dims"),
        pytest.param(8, TritonTensor("x", None, (3,)), (("batch", 3), True, None), id="batch"),
        pytest.param(
            8, TritonTensor("x", None, (4, -1), (2, 2, -1)),
            (("batch", 4, None), True, (-1, 2, 2, -1)), id="reshape",
        ),
    ],
)  # fmt: skip
def test_tensor_without_a_shape_has_the_configured_one(
    max_batch_size: int, configured: Any, expected: tuple[Any, ...]
) -> None:
    tensors = narrowed(
        [WITHOUT_SHAPE],
        [],
        max_batch_size=max_batch_size,
        inputs_config=(configured,) if configured else (),
    )

    (one,) = tensors.inputs
    assert (one.axes, one.has_shape, one.reshape) == expected


def test_output_without_a_shape_has_rows_if_there_is_a_batch_size() -> None:
    output = replace(WITHOUT_SHAPE, name="label")

    tensors = narrowed([spec("x", None, 4)], [output], max_batch_size=8)

    assert tensors.outputs == [replace(output, axes=("batch",))]


def test_batch_size_needs_the_dims_of_an_input_without_a_shape() -> None:
    with pytest.raises(ModelLoadError, match=r"input 'x': expected dims, as it has no shape"):
        narrowed([WITHOUT_SHAPE], [], max_batch_size=8)


def test_default_is_described_where_the_configuration_names_it() -> None:
    defaults = [spec("scale", 1), spec("weight", 3, 4)]

    tensors = narrowed(
        [spec("x", None, 4)],
        [],
        max_batch_size=0,
        inputs_config=(TritonTensor("scale", None, (1,), is_optional=True),),
        defaults=defaults,
    )

    assert list(tensors.defaults) == defaults
    assert tensors.described == {"scale"}


def test_optional_input_needs_a_default() -> None:
    with pytest.raises(ModelLoadError, match="input 'x': optional: expected an initializer"):
        narrowed(
            [spec("x", None, 4)],
            [],
            max_batch_size=0,
            inputs_config=(TritonTensor("x", is_optional=True),),
        )


def test_output_that_cannot_be_served_is_no_output() -> None:
    with pytest.raises(
        ModelLoadError, match=r"output 'p': expected a tensor.* seq\(.*zipmap=False"
    ):
        narrowed(
            [],
            [spec("label", None)],
            max_batch_size=0,
            outputs_config=(TritonTensor("p"),),
            unserved={"p": "seq(map(int64,tensor(float)))"},
        )
