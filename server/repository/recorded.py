"""What a bundle's recorded inputs must be, before anything is made of them: a request of its own model."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from weir.bundle.golden import Golden
from weir.protocol.datatypes import DATATYPES
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.signature import Form, Signature

Array = NDArray[Any]


def check_recorded(golden: Golden | None, signature: Signature, rules: SequenceRules) -> None:
    """Raise ModelLoadError unless all inputs are there, and fit; of rows, there may be any number."""
    if golden is None:
        return
    if golden.inputs.keys() != signature.inputs.keys():
        raise ModelLoadError(
            f"golden inputs: expected {sorted(signature.inputs)}, got {sorted(golden.inputs)}"
        )
    try:
        signature.admit(
            tuple(_form(name, array, signature) for name, array in golden.inputs.items())
        )
        if signature.has_rows:
            _check_rows(golden.inputs)
        rules.check(golden.inputs)
    except InvalidRequest as error:
        raise ModelLoadError(f"golden inputs: {error}") from error


def _form(name: str, array: Array, signature: Signature) -> Form:
    """The input as if it were sent, as one row: how many a request may hold is for others to say."""
    datatype = signature.inputs[name].datatype
    if array.dtype != DATATYPES[datatype].dtype:
        datatype = str(array.dtype)
    shape = array.shape
    return name, datatype, (1, *shape[1:]) if signature.has_rows and shape else shape


def _check_rows(inputs: Mapping[str, Array]) -> None:
    rows = {name: len(array) for name, array in inputs.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise InvalidRequest(f"expected rows, in every input as many, got {rows}")
