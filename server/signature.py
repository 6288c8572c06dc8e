"""What a model takes and gives, read off its graph; a request is held against it before it may wait.

Rules:
- A model has rows when its contract names a batch axis and that axis comes first in every input and
  every output. Without rows its requests run one at a time, in the shapes they came in.
- Names, counts and shapes are compared before any element is looked at.
- Axes with the same symbol have the same size throughout a request.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.errors import InvalidRequest

MAX_RANK = 8
_MAX_ELEMENTS = 1 << 40

Axis = int | str | None
"""A fixed size, the name of a variable one, or None for a variable one without a name."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and axes of one input or output, the batch axis included."""

    name: str
    datatype: str
    axes: tuple[Axis, ...]

    def wire_shape(self) -> tuple[int, ...]:
        """The axes as the protocol writes them: -1 is any size."""
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.axes)


@dataclass(frozen=True, slots=True)
class Admission:
    """What the scheduler needs to know of a request that fits.

    Attributes:
        rows: how many examples it holds; 1 for a model without rows.
        key: requests with equal keys may share a batch.
    """

    rows: int
    key: tuple[tuple[int, ...], ...]


class Signature:
    """A model's inputs and outputs, and the check of requests against them.

    Args:
        inputs: in the graph's order.
        outputs: in the graph's order.
        batch_axis: the symbol of the batch axis; None if requests are never put together.
        max_rows: the most rows of one request, and of one batch.
    """

    def __init__(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        batch_axis: str | None,
        max_rows: int,
    ) -> None:
        self.inputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in inputs}
        self.outputs: Mapping[str, TensorSpec] = {spec.name: spec for spec in outputs}
        self.has_rows = batch_axis is not None and all(
            spec.axes[:1] == (batch_axis,) for spec in (*inputs, *outputs)
        )
        self.max_rows = max_rows if self.has_rows else 1
        self._fixed_rows = all(
            isinstance(axis, int) for spec in inputs for axis in spec.axes[self.has_rows :]
        )

    def check_names(self, sent: Sequence[str]) -> None:
        """Refuse missing, unknown and repeated inputs."""
        if len(sent) == len(self.inputs) and all(name in self.inputs for name in sent):
            if len(sent) == 1 or len(set(sent)) == len(sent):
                return
            raise InvalidRequest(f"inputs are named twice: {_quoted(_repeated(sent))}")
        unknown = [name for name in sent if name not in self.inputs]
        if unknown:
            expected = _quoted(self.inputs)
            raise InvalidRequest(f"unknown inputs: {_quoted(unknown)}; expected {expected}")
        missing = [name for name in self.inputs if name not in sent]
        if missing:
            raise InvalidRequest(f"missing inputs: {_quoted(missing)}")
        raise InvalidRequest(f"inputs are named twice: {_quoted(_repeated(sent))}")

    def check_outputs(self, wanted: Sequence[str]) -> None:
        """Refuse unknown and repeated requested outputs."""
        unknown = [name for name in wanted if name not in self.outputs]
        if unknown:
            expected = _quoted(self.outputs)
            raise InvalidRequest(f"unknown outputs: {_quoted(unknown)}; expected {expected}")
        if len(set(wanted)) != len(wanted):
            raise InvalidRequest(f"outputs are named twice: {_quoted(_repeated(wanted))}")

    def check_tensor(self, name: str, datatype: str, shape: Sequence[int]) -> None:
        """Refuse a tensor whose datatype, rank or fixed axes differ from the graph's."""
        spec = self.inputs[name]
        if datatype != spec.datatype:
            raise InvalidRequest(
                f"input {_quote(name)}: expected {spec.datatype}, got {_quote(datatype)}"
            )
        if len(shape) != len(spec.axes):
            raise InvalidRequest(
                f"input {_quote(name)}: expected {len(spec.axes)} axes {spec.wire_shape()}, "
                f"got {len(shape)}"
            )
        elements = 1
        for position, (size, axis) in enumerate(zip(shape, spec.axes, strict=True)):
            if size < 0 or (isinstance(axis, int) and size != axis):
                expected = axis if isinstance(axis, int) else "0 or more"
                raise InvalidRequest(
                    f"input {_quote(name)}: axis {position}: expected {expected}, got {size}"
                )
            elements *= max(size, 1)
        if elements > _MAX_ELEMENTS:
            raise InvalidRequest(f"input {_quote(name)}: shape {list(shape)} is too large")

    def admit(self, shapes: Mapping[str, Sequence[int]]) -> Admission:
        """Rows and batch-mates of a request whose tensors all passed `check_tensor`.

        Args:
            shapes: by input name, in any order.

        Raises:
            InvalidRequest: no rows, more than the limit, or axes that disagree with each other.
        """
        if not (self.has_rows and self._fixed_rows and len(shapes) == 1):
            self._check_symbols(shapes)
        if not self.has_rows:
            return Admission(1, ())
        rows = next(iter(shapes.values()))[0]
        if rows < 1:
            raise InvalidRequest("the request holds no rows: expected 1 or more on axis 0, got 0")
        if rows > self.max_rows:
            raise InvalidRequest(f"expected at most {self.max_rows} rows in a request, got {rows}")
        if self._fixed_rows:
            return Admission(rows, ())
        return Admission(rows, tuple(tuple(shapes[name][1:]) for name in self.inputs))

    def _check_symbols(self, shapes: Mapping[str, Sequence[int]]) -> None:
        sizes: dict[str, tuple[int, str]] = {}
        for name, shape in shapes.items():
            for axis, size in zip(self.inputs[name].axes, shape, strict=True):
                if not isinstance(axis, str):
                    continue
                first, owner = sizes.setdefault(axis, (size, name))
                if first != size:
                    raise InvalidRequest(
                        f"input {_quote(name)}: axis {_quote(axis)}: expected {first} as in input "
                        f"{_quote(owner)}, got {size}"
                    )


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _quote(text: str) -> str:
    """The text as it may stand in a message: short and printable."""
    return repr(text if len(text) <= 64 else text[:61] + "...")


def _quoted(names: Iterable[str]) -> str:
    listed = [_quote(name) for name in names]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
