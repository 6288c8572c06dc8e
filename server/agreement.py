"""Where a contract and its graph must agree, or the model is not served (for sequences: `sequences`)."""

from collections.abc import Mapping, Sequence

from bundle.contract import Contract
from server.errors import InvalidRequest, ModelFailed
from server.session import Session
from server.signature import Signature

_BATCH_AXES = ("N", "n", "bs")
_FLOATS = ("FP16", "FP32", "FP64")


def check_labels(labels: Mapping[str, Sequence[str]], session: Session) -> None:
    """Each labelled output exists and has one label a class."""
    outputs = {spec.name: spec for spec in session.outputs}
    for name, lines in labels.items():
        if name not in outputs:
            raise ModelFailed(f"labels: the graph has no output {name!r}")
        classes = outputs[name].axes[-1] if outputs[name].axes else None
        if isinstance(classes, int) and classes != len(lines):
            raise ModelFailed(
                f"labels of output {name!r}: expected {classes} lines, got {len(lines)}"
            )


def check_preprocessing(contract: Contract | None, signature: Signature) -> None:
    """What pictures are made into is what the graph takes, and what is ranked are its probabilities."""
    preprocessing = contract.preprocessing if contract else None
    if preprocessing is None:
        return
    shape = (1, preprocessing.height, preprocessing.width, preprocessing.channels)
    try:
        signature.admit(((preprocessing.input, "UINT8", shape),))
    except InvalidRequest as error:
        raise ModelFailed(f"preprocessing: {error}") from error
    output = signature.outputs.get(preprocessing.output)
    if output is None or output.datatype not in _FLOATS or len(output.axes) != 2:
        raise ModelFailed(
            f"preprocessing: expected an output {preprocessing.output!r} of numbers "
            f"[batch, classes], got {output.wire_shape() if output else 'none'}"
        )
    if not signature.has_rows:
        raise ModelFailed("preprocessing: expected a model whose requests have rows")


def batch_axis(contract: Contract | None, session: Session) -> str | None:
    """The contract's word, or for a plain model the first axis, where its name says what it is.

    A first axis of another name is left alone: joined along a time axis, requests would be answered
    with each other's rows.
    """
    first_axes = {
        spec.axes[0] if spec.axes else None for spec in (*session.inputs, *session.outputs)
    }
    if contract is not None:
        if contract.batch_axis is not None and first_axes != {contract.batch_axis}:
            raise ModelFailed(
                f"contract: expected axis {contract.batch_axis!r} first in every tensor, "
                f"got {sorted(map(str, first_axes))}"
            )
        return contract.batch_axis
    axis = first_axes.pop() if len(first_axes) == 1 else None
    is_batch = isinstance(axis, str) and ("batch" in axis.lower() or axis in _BATCH_AXES)
    return str(axis) if is_batch else None
