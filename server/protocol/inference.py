"""A `ModelInfer` of one graph, from its message to a request."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from weir.protocol import inference_pb2 as pb
from weir.server.errors import InvalidRequest
from weir.server.protocol import parameters, request_decoder, response_encoder
from weir.server.repository.served_model import ServedModel, WantedOutput
from weir.server.scheduling.pending import InferRequest, Reply

Array = NDArray[Any]


def read_request(
    message: pb.ModelInferRequest,
    model: ServedModel,
    reply: Reply,
    *,
    arrived_s: float,
    deadline_s: float,
    request_bytes: int,
    clock: Callable[[], float],
) -> InferRequest:
    """The request of a message, held against the model.

    Args:
        message: as it came.
        model: that it names.
        reply: where its answer goes.
        arrived_s: when it came.
        deadline_s: after which nobody wants it.
        request_bytes: of the message.
        clock: of these times.

    Raises:
        InvalidRequest: anything about it is off.
    """
    timeout_s = parameters.read_timeout_s(message.parameters)
    for tensor in message.inputs:
        if tensor.parameters:
            parameters.check_input(tensor.name, tensor.parameters)
    forms = request_decoder.forms(message)
    fit = model.signature.admit(forms)
    inputs = request_decoder.decode_inputs(message, forms)
    model.rules.complete(inputs)
    model.rules.check(inputs)
    if model.settings.non_finite == "reject":
        request_decoder.check_finite(inputs, forms)
    if timeout_s is not None:
        deadline_s = min(deadline_s, arrived_s + timeout_s)
    outputs = _wanted(message, model) if message.outputs else model.all_outputs
    return InferRequest(
        model,
        reply,
        inputs=inputs,
        fit=fit,
        encode=partial(_encode, model, message.id, outputs),
        arrived_s=arrived_s,
        queued_s=arrived_s,
        deadline_s=deadline_s,
        request_bytes=request_bytes,
        clock=clock,
    )


def _wanted(message: pb.ModelInferRequest, model: ServedModel) -> list[WantedOutput]:
    signature = model.signature
    signature.check_outputs([output.name for output in message.outputs])
    wanted = []
    for output in message.outputs:
        classes = parameters.read_classification(output.name, output.parameters)
        spec = signature.outputs[output.name]
        if classes is not None and (spec.datatype in ("BYTES", "BOOL", "BF16") or not spec.axes):
            raise InvalidRequest(f"output {output.name!r}: classification needs axes of numbers")
        wanted.append(WantedOutput(output.name, spec.datatype, classes))
    return wanted


def _encode(
    model: ServedModel,
    request_id: str,
    wanted: Sequence[WantedOutput],
    outputs: Mapping[str, Array],
) -> bytes:
    return model.encoder.encode(
        request_id, [_output(model, each, outputs[each.name]) for each in wanted]
    )


def _output(model: ServedModel, wanted: WantedOutput, array: Array) -> response_encoder.Output:
    if wanted.classes is None:
        return response_encoder.Output(wanted.name, wanted.datatype, array)
    labels = model.labels.get(wanted.name)
    return response_encoder.Output(
        wanted.name, "BYTES", response_encoder.classify(array, wanted.classes, labels)
    )
