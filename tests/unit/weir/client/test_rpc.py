import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from weir.client import rpc
from weir.client.errors import Internal, InvalidArgument
from weir.client.results import Class, ModelMetadata, Parameter, TensorMetadata
from weir.protocol import inference_pb2 as pb
from weir.protocol.datatypes import DATATYPES

NUMBERS = sorted(set(DATATYPES) - {"BYTES", "BF16"})


def echoed(request: pb.ModelInferRequest) -> bytes:
    """The request's inputs as the outputs of an answer."""
    answer = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
    for tensor in request.inputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    answer.raw_output_contents.extend(request.raw_input_contents)
    return answer.SerializeToString()


@given(st.data(), st.sampled_from(NUMBERS))
def test_every_array_of_numbers_comes_back_as_it_went(data: st.DataObject, datatype: str) -> None:
    dtype = DATATYPES[datatype].dtype
    shapes = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
    array = data.draw(arrays.arrays(dtype, shapes))

    back = rpc.read_answer(echoed(rpc.infer_request("m", {"x": array})))["x"]

    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_every_array_of_bytes_comes_back_as_it_went(elements: list[bytes]) -> None:
    array = np.array(elements, object)

    back = rpc.read_answer(echoed(rpc.infer_request("m", {"x": array})))["x"]

    assert back.tolist() == elements


@pytest.mark.parametrize(
    "array",
    [np.arange(6).reshape(2, 3).T, np.arange(3, dtype=">i4"), [[1.5, 2.5]], 7],
    ids=["transposed", "big-endian", "list", "scalar"],
)
def test_layout_and_byte_order_do_not_matter(array: object) -> None:
    back = rpc.read_answer(echoed(rpc.infer_request("m", {"x": np.asarray(array)})))["x"]

    np.testing.assert_array_equal(back, np.asarray(array))


def test_a_dtype_without_a_datatype_is_refused_naming_the_input() -> None:
    with pytest.raises(InvalidArgument, match="input 'x': dtype complex128"):
        rpc.infer_request("m", {"x": np.zeros(1, complex)})


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (True, "bool_param"),
        (-5, "int64_param"),
        (1 << 63, "uint64_param"),
        (0.5, "double_param"),
        ("hi", "string_param"),
    ],
)
def test_a_parameter_travels_in_the_field_of_its_type(value: Parameter, field: str) -> None:
    request = rpc.infer_request("m", {}, parameters={"key": value})

    assert request.parameters["key"].WhichOneof("parameter_choice") == field
    assert getattr(request.parameters["key"], field) == value


def test_parameters_of_an_answer_are_plain_values() -> None:
    answer = pb.ModelInferResponse()
    answer.parameters["final"].bool_param = True
    answer.parameters["none"].Clear()

    parameters = rpc.read_answer(answer.SerializeToString()).parameters

    assert parameters == {"final": True, "none": ""}


def test_no_requested_outputs_means_all() -> None:
    assert not rpc.infer_request("m", {}).outputs
    assert not rpc.infer_request("m", {}, outputs=None).outputs


def test_top_goes_with_each_requested_output() -> None:
    request = rpc.infer_request("m", {}, outputs=["a", "b"], top=3)

    assert [o.parameters["classification"].int64_param for o in request.outputs] == [3, 3]


def _broken(kind: str) -> bytes:
    answer = pb.ModelInferResponse()
    answer.outputs.add(name="y", datatype="FP99" if kind == "datatype" else "FP32", shape=[2])
    if kind != "missing":
        answer.raw_output_contents.append(b"\0" * (8 if kind == "datatype" else 7))
    return answer.SerializeToString()


@pytest.mark.parametrize("kind", ["missing", "datatype", "size"])
def test_an_answer_that_breaks_the_protocol_is_internal(kind: str) -> None:
    with pytest.raises(Internal):
        rpc.read_answer(_broken(kind))


def test_classes_are_read_with_and_without_labels() -> None:
    answer = pb.ModelInferResponse()
    answer.outputs.add(name="y", datatype="BYTES", shape=[1, 2])
    entries = [b"0.75:3:cat: tabby", b"0.25:1"]
    answer.raw_output_contents.append(b"".join(len(e).to_bytes(4, "little") + e for e in entries))

    call = rpc.rank("model", {"x": [1]}, top=2, output="y", version="")
    rows = call.read(answer.SerializeToString())

    assert rows == [[Class(0.75, 3, "cat: tabby"), Class(0.25, 1, "")]]


def _metadata(inputs: list[str], outputs: list[str]) -> ModelMetadata:
    def tensors(names: list[str]) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(name, "FP32", (-1,)) for name in names)

    return ModelMetadata("m", ("1",), "p", tensors(inputs), tensors(outputs))


@pytest.mark.parametrize("inputs", [[], ["a", "b"]])
def test_one_array_fits_only_a_model_of_one_input(inputs: list[str]) -> None:
    with pytest.raises(InvalidArgument, match="by name"):
        rpc.only_input(_metadata(inputs, ["y"]), 1)


def test_probabilities_are_ranked_before_any_other_output() -> None:
    assert rpc.ranked_output(_metadata(["x"], ["logits", "probabilities"])) == "probabilities"
    assert rpc.ranked_output(_metadata(["x"], ["scores", "more"])) == "scores"
