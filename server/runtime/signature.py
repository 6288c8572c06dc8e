"""Signature: inputs and outputs of a model; each request is checked against it before it is queued.

Rules:
- A model has rows if a batch axis is known and comes first in every input. Without rows its
  requests run one at a time, in their own shapes.
- A batch axis that is only proved refuses nothing: a request that is no batch of rows runs alone.
- Names, counts and shapes are compared before any element is read.
- Axes with the same symbol have the same size throughout a request.
- An input that has a default in the graph may be left out. A request that sends one runs alone, as
  its value need not be a value for each row.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from weir.protocol.datatypes import DATATYPES, datatype_of
from weir.server.errors import InvalidRequest

Array = NDArray[Any]

MAX_RANK = 32
"""Most axes of a tensor: those of a numpy array before numpy 2."""
MAX_TENSORS = 1024
"""Most inputs of a graph, and most outputs: a run of a hundred thousand takes minutes."""

_MAX_ELEMENTS = 1 << 40
_MAX_REMEMBERED = 4096
_STRING_BYTES = 64

Form = tuple[str, str, tuple[int, ...]]
"""Name, datatype and shape of a tensor as it was sent."""

Axis = int | str | None
"""A fixed size, the name of a variable one, or None for a variable one without a name."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and axes of one input or output, the batch axis included.

    Attributes:
        has_shape: False if any number of axes, of any size, may follow `axes`.
        reshape: the shape that the graph has for the tensor, where requests have another one; -1 is
            the size of the next axis of any size.
    """

    name: str
    datatype: str
    axes: tuple[Axis, ...]
    has_shape: bool = True
    reshape: tuple[int, ...] | None = None

    def wire_shape(self) -> tuple[int, ...]:
        """The axes in the protocol's form: -1 is any size."""
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.axes)


class Fit(NamedTuple):
    """The properties of a request that fits its model, as the scheduler needs them.

    Attributes:
        rows: examples in the request; 1 for a model without rows, and where they are not known.
        key: requests with equal keys may share a batch; a request without one (None) runs alone.
        length: entries of a row as sent, padding included; 0 for a model without lengths.
        tensor_bytes: of its inputs, and of its outputs as far as their shapes are known.
    """

    rows: int
    key: tuple[tuple[str, tuple[int | None, ...]], ...] | None
    length: int
    tensor_bytes: int = 0


class Signature:
    """A model's inputs and outputs, and the check of requests against them.

    Args:
        batch_axis: the symbol of the batch axis; None if requests never share a batch.
        max_rows: the most rows of one request, and of one batch.
        only_proved: whether the batch axis is proved but not named as such. A request with other
            numbers of rows than a batch may have then runs alone, as the graph may take it.
        maxima: the most entries along padded axes, by symbol; the least is 1.
        optional: inputs that a request may leave out, as the server can fill them in.
        defaults: inputs that a request may leave out, as the graph has a default for them.
        described: the names of those that metadata has.
        unserved: the outputs that are no tensors, with their types.
        length_axis: the symbol of the padded axis whose size is a request's length.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        batch_axis: str | None,
        max_rows: int,
        only_proved: bool = False,
        maxima: Mapping[str, int] | None = None,
        optional: Collection[str] = (),
        defaults: Sequence[TensorSpec] = (),
        described: Collection[str] = (),
        unserved: Mapping[str, str] = MappingProxyType({}),
        length_axis: str | None = None,
    ) -> None:
        self.inputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in inputs}
        self.outputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in outputs}
        self._defaults = {spec.name: spec for spec in defaults}
        self.unserved = unserved
        self.described_inputs = [*inputs, *(spec for spec in defaults if spec.name in described)]
        self.has_rows = (
            batch_axis is not None
            and bool(inputs)
            and (only_proved or all(spec.axes[:1] == (batch_axis,) for spec in inputs))
        )
        self._only_proved = only_proved
        self.max_rows = max_rows if self.has_rows else 1
        self.optional = frozenset(optional)
        self._maxima = maxima or {}
        self._length_axis = length_axis
        self._admitted: dict[tuple[Form, ...], Fit] = {}

    def may_omit(self, name: str) -> bool:
        """Whether a request may leave an input out."""
        return name in self.optional or name in self._defaults

    def admit(self, forms: tuple[Form, ...]) -> Fit:
        """Check everything about a request's tensors but their values.

        Admitted forms are remembered: a server gets the same few forms all day.
        """
        fit = self._admitted.get(forms)
        if fit is None:
            fit = self._admit(forms)
            fit = fit._replace(tensor_bytes=self._tensor_bytes(forms, fit.rows))
            if len(self._admitted) >= _MAX_REMEMBERED:
                self._admitted.clear()
            self._admitted[forms] = fit
        return fit

    def cast(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs that the server made, in the graph's datatypes; those of other names as they are.

        Some exporters declare token ids as INT32.
        """
        return {
            name: array.astype(DATATYPES[self.inputs[name].datatype].dtype, copy=False)
            if name in self.inputs
            else array
            for name, array in inputs.items()
        }

    def check_outputs(self, names: Sequence[str]) -> None:
        """Refuse unknown and repeated requested outputs."""
        for name in names:
            if name in self.unserved:
                raise InvalidRequest(
                    f"output {_quote(name)}: expected a tensor, its type is {self.unserved[name]}"
                )
        unknown = [name for name in names if name not in self.outputs]
        if unknown:
            expected = _quoted(self.outputs)
            raise InvalidRequest(f"unknown outputs: {_quoted(unknown)}; expected {expected}")
        _check_repeated("outputs", names)

    def _admit(self, forms: tuple[Form, ...]) -> Fit:
        self._check_names([name for name, _, _ in forms])
        for name, datatype, shape in forms:
            _check_tensor(self._spec(name), datatype, shape)
        sizes = self._check_symbols(forms)
        if not self.has_rows:
            return Fit(1, (), 0)
        own_rows = [shape[0] for name, _, shape in forms if name in self.inputs]
        sends_default = len(own_rows) < len(forms)
        rows = own_rows[0]
        if self._only_proved and (
            sends_default or not 1 <= rows <= self.max_rows or set(own_rows) != {rows}
        ):
            return Fit(1, None, 0)
        if rows < 1:
            raise InvalidRequest("the request holds no rows: expected 1 or more on axis 0, got 0")
        if rows > self.max_rows:
            raise InvalidRequest(f"expected at most {self.max_rows} rows in a request, got {rows}")
        if sends_default:
            return Fit(rows, None, 0)
        shapes = {name: self._fixed(name, shape) for name, _, shape in forms}
        # Once filled in they equal those that were sent, so the requests may share a batch.
        shapes |= {name: self._free(name) for name in self.optional if name not in shapes}
        length = 0 if self._length_axis is None else sizes[self._length_axis]
        return Fit(rows, tuple(sorted(shapes.items())), length)

    def _tensor_bytes(self, forms: tuple[Form, ...], rows: int) -> int:
        sent = sum(math.prod(shape) * _item_bytes(datatype) for _, datatype, shape in forms)
        own_axes = [
            (spec, spec.axes[1:] if self.has_rows else spec.axes) for spec in self.outputs.values()
        ]
        answered = sum(
            rows
            * math.prod(axis for axis in axes if isinstance(axis, int))
            * _item_bytes(spec.datatype)
            for spec, axes in own_axes
        )
        return sent + answered

    def _spec(self, name: str) -> TensorSpec:
        return self.inputs.get(name) or self._defaults[name]

    def _fixed(self, name: str, shape: tuple[int, ...]) -> tuple[int | None, ...]:
        """A row's shape as batch-mates must share it; None for padded axes, which may differ."""
        axes = self.inputs[name].axes
        return tuple(
            None if axis in self._maxima else size
            for axis, size in zip(axes[1:], shape[1:], strict=True)
        )

    def _free(self, name: str) -> tuple[int | None, ...]:
        """The shape of a row that the server fills in: its axes are padded ones."""
        return (None,) * (len(self.inputs[name].axes) - 1)

    def _check_names(self, sent: Sequence[str]) -> None:
        unknown = [name for name in sent if name not in self.inputs and name not in self._defaults]
        if unknown:
            expected = _quoted(self.inputs)
            raise InvalidRequest(f"unknown inputs: {_quoted(unknown)}; expected {expected}")
        missing = [name for name in self.inputs if name not in sent and name not in self.optional]
        if missing:
            raise InvalidRequest(f"missing inputs: {_quoted(missing)}")
        _check_repeated("inputs", sent)

    def _check_symbols(self, forms: tuple[Form, ...]) -> dict[str, int]:
        """The size of each axis with a symbol."""
        sizes: dict[str, tuple[int, str]] = {}
        for name, _, shape in forms:
            for axis, size in zip(self._spec(name).axes, shape, strict=False):
                if not isinstance(axis, str):
                    continue
                first, owner = sizes.setdefault(axis, (size, name))
                if first != size:
                    raise InvalidRequest(
                        f"input {_quote(name)}: axis {_quote(axis)}: expected {first} as in input "
                        f"{_quote(owner)}, got {size}"
                    )
                most = self._maxima.get(axis)
                if most is not None and not 1 <= size <= most:
                    raise InvalidRequest(
                        f"input {_quote(name)}: axis {_quote(axis)}: "
                        f"expected 1 to {most}, got {size}"
                    )
        return {axis: size for axis, (size, _) in sizes.items()}


def forms_of(inputs: Mapping[str, Array]) -> tuple[Form, ...]:
    """The forms of arrays that the server made."""
    return tuple((name, datatype_of(array.dtype), array.shape) for name, array in inputs.items())


def _item_bytes(datatype: str) -> int:
    """Bytes of an element; of a string, those of its Python object, without its text."""
    return _STRING_BYTES if datatype == "BYTES" else DATATYPES[datatype].dtype.itemsize


def _check_tensor(spec: TensorSpec, datatype: str, shape: tuple[int, ...]) -> None:
    where = f"input {_quote(spec.name)}"
    if datatype != spec.datatype:
        raise InvalidRequest(f"{where}: expected {spec.datatype}, got {_quote(datatype)}")
    axes = spec.axes
    if not spec.has_shape:
        axes += (None,) * (len(shape) - len(axes))
    if len(shape) != len(axes):
        raise InvalidRequest(
            f"{where}: expected {len(axes)} axes {spec.wire_shape()}, got {len(shape)}"
        )
    elements = 1
    for position, (size, axis) in enumerate(zip(shape, axes, strict=True)):
        if size < 0 or (isinstance(axis, int) and size != axis):
            expected = axis if isinstance(axis, int) else "0 or more"
            raise InvalidRequest(f"{where}: axis {position}: expected {expected}, got {size}")
        elements *= max(size, 1)
    if elements > _MAX_ELEMENTS:
        raise InvalidRequest(f"{where}: shape {list(shape)} is too large")


def _check_repeated(what: str, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InvalidRequest(f"{what} are named twice: {_quoted(repeated)}")


def _quote(text: str) -> str:
    """The text, short and printable."""
    return repr(text if len(text) <= 64 else text[:61] + "...")


def _quoted(names: Iterable[str]) -> str:
    listed = [_quote(name) for name in names]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
