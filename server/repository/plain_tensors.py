"""Tensors of a plain model: those of its graph, in the sizes that its `config.pbtxt` gives them.

Rules:
- The graph supplies what the configuration omits. A size that the graph leaves free becomes the
  configured one.
- A tensor has two shapes where the configuration has a `reshape`: requests have its dims.
- With a batch size, the first axis of every tensor is the batch axis, whatever its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from weir.bundle.escaping import short_list
from weir.server.errors import ModelLoadError
from weir.server.repository.triton import FILE_NAME, TritonConfig, TritonTensor
from weir.server.runtime.session import Session, hint_for
from weir.server.runtime.signature import Axis, TensorSpec


@dataclass(frozen=True, slots=True)
class Tensors:
    """Tensors that requests are checked against: the graph's, with the sizes that are configured.

    Attributes:
        batch_axis: the first axis of every input, and of every output that can have it; None if
            requests have no rows.
        defaults: inputs that have a default in the graph.
        described: the names of those defaults that the configuration describes.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    batch_axis: str | None
    defaults: Sequence[TensorSpec] = ()
    described: frozenset[str] = frozenset()

    def of(self, session: Session) -> Session:
        """The session with these tensors."""
        return session.with_tensors(self.inputs, self.outputs, self.defaults)


def narrow(
    config: TritonConfig,
    max_batch_size: int,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    defaults: Sequence[TensorSpec] = (),
    unserved: Mapping[str, str] = MappingProxyType({}),
) -> Tensors:
    """The graph's tensors in the configured sizes; with a batch size, the first axis is the batch.

    A symbol whose size the configuration fixes for an input has that size everywhere. A tensor with
    a `reshape` has the configured dims in requests. An output that the configuration omits may lack
    the batch axis, as in Triton.

    Args:
        defaults: inputs that have a default in the graph.
        unserved: outputs that are not served, with their types.

    Raises:
        ModelLoadError: the graph has other tensors than the configuration.
    """
    _check_inputs(config, inputs, defaults)
    _check_outputs(config, outputs, unserved)
    batch = free_symbol([*inputs, *outputs]) if max_batch_size else None
    fit_input = _Fitting("input", config.inputs, batch, max_batch_size)
    fit_output = _Fitting("output", config.outputs, batch, max_batch_size)
    described = frozenset(spec.name for spec in defaults if spec.name in fit_input.configured)
    fitted = [fit_input.in_graph(spec) for spec in inputs]
    sizes = _sizes(inputs, fitted)
    return Tensors(
        inputs=[fit_input.in_requests(_fix(spec, sizes)) for spec in fitted],
        outputs=[
            fit_output.in_requests(fit_output.in_graph(_fix(spec, sizes, batch)))
            for spec in outputs
        ],
        batch_axis=batch,
        defaults=tuple(
            fit_input.in_requests(fit_input.in_graph(spec)) if spec.name in described else spec
            for spec in defaults
        ),
        described=described,
    )


def free_symbol(specs: Iterable[TensorSpec]) -> str:
    """A name for the batch axis that no other axis has: its own may be missing, or differ."""
    taken = {axis for spec in specs for axis in spec.axes[1:]}
    name = "batch"
    while name in taken:
        name += "_"
    return name


def _check_inputs(
    config: TritonConfig, inputs: Sequence[TensorSpec], defaults: Sequence[TensorSpec]
) -> None:
    required = [spec.name for spec in inputs]
    names = [*required, *(spec.name for spec in defaults)]
    if strays := [tensor.name for tensor in config.inputs if tensor.name not in names]:
        raise _failed(f"input: expected the graph's {short_list(names)}, got {short_list(strays)}")
    for tensor in config.inputs:
        if tensor.is_optional and tensor.name in required:
            raise _failed(
                f"input {tensor.name!r}: optional: expected an initializer of that name in the "
                "graph as its default, got none"
            )


def _check_outputs(
    config: TritonConfig, outputs: Sequence[TensorSpec], unserved: Mapping[str, str]
) -> None:
    names = [spec.name for spec in outputs]
    strays = [tensor.name for tensor in config.outputs if tensor.name not in names]
    for name in strays:
        if name in unserved:
            hint = hint_for(unserved[name])
            raise _failed(
                f"output {name!r}: expected a tensor, its type is {unserved[name]}"
                f"{f'; {hint}' if hint else ''}"
            )
    if strays:
        raise _failed(f"output: expected the graph's {short_list(names)}, got {short_list(strays)}")


class _Fitting:
    """The inputs or the outputs of a graph, in their configured sizes.

    Args:
        field: `input` or `output`.
        batch: the symbol of the batch axis; None if shapes are whole.
    """

    def __init__(
        self, field: str, configured: Sequence[TritonTensor], batch: str | None, max_batch_size: int
    ) -> None:
        self.configured = {tensor.name: tensor for tensor in configured}
        self._field = field
        self._batch = batch
        self._first: tuple[Axis, ...] = () if batch is None else (batch,)
        self._max_batch_size = max_batch_size

    def in_graph(self, spec: TensorSpec) -> TensorSpec:
        """The tensor with the configured sizes in place of free ones."""
        configured = self.configured.get(spec.name, TritonTensor(spec.name))
        if configured.datatype not in (None, spec.datatype):
            raise _failed(
                f"{self._where(spec)}: data_type: expected {spec.datatype} as in the graph, "
                f"got {configured.datatype}"
            )
        sizes = _graph_sizes(configured, spec)
        if not spec.has_shape:
            return self._with_shape(spec, sizes)
        if self._batch is not None and (not spec.axes or isinstance(spec.axes[0], int)):
            if self._field == "output" and spec.name not in self.configured:
                return spec
            raise _failed(
                f"max_batch_size {self._max_batch_size}: expected a first axis of any size in "
                f"every tensor, got {self._field} {spec.name!r} {list(spec.wire_shape())}"
            )
        axes = spec.axes[len(self._first) :]
        if sizes is None:
            return replace(spec, axes=(*self._first, *axes))
        if not _agree(sizes, axes):
            expected = [axis if isinstance(axis, int) else -1 for axis in axes]
            field = "dims" if configured.reshape is None else "reshape"
            besides = "without a batch axis" if self._batch is None else "without the batch axis"
            raise _failed(
                f"{self._where(spec)}: {field}: expected {expected} as in the graph {besides}, "
                f"got {list(sizes)}"
            )
        own = (axis if size == -1 else size for size, axis in zip(sizes, axes, strict=True))
        return replace(spec, axes=(*self._first, *own))

    def in_requests(self, spec: TensorSpec) -> TensorSpec:
        """The tensor as requests have it, of its form in the graph."""
        configured = self.configured.get(spec.name, TritonTensor(spec.name))
        dims, sizes = configured.dims, _graph_sizes(configured, spec)
        if dims is None or sizes is None or dims == sizes:
            return spec
        axes = spec.axes[len(self._first) :]
        free = iter([axis for axis, size in zip(axes, sizes, strict=True) if size == -1])
        own = [next(free) if size == -1 else size for size in dims]
        return replace(spec, axes=(*self._first, *own), reshape=spec.wire_shape())

    def _with_shape(self, spec: TensorSpec, sizes: Sequence[int] | None) -> TensorSpec:
        """A tensor that has no shape in the graph, in the configured sizes."""
        if sizes is not None:
            own = (None if size == -1 else size for size in sizes)
            return replace(spec, axes=(*self._first, *own), has_shape=True)
        if self._batch is not None and self._field == "input":
            raise _failed(
                f"{self._where(spec)}: expected dims, as it has no shape in the graph, and "
                f"max_batch_size is {self._max_batch_size}"
            )
        return replace(spec, axes=self._first)

    def _where(self, spec: TensorSpec) -> str:
        return f"{self._field} {spec.name!r}"


def _graph_sizes(configured: TritonTensor, spec: TensorSpec) -> tuple[int, ...] | None:
    """The configured sizes of a tensor in the graph, without the batch axis."""
    if configured.reshape is not None:
        return configured.reshape
    # As in Triton, whose tensors have an axis.
    if configured.dims == (1,) and spec.has_shape and not spec.axes:
        return ()
    return configured.dims


def _agree(sizes: Sequence[int], axes: Sequence[Axis]) -> bool:
    return len(axes) == len(sizes) and all(
        size in (-1, axis) or not isinstance(axis, int)
        for size, axis in zip(sizes, axes, strict=True)
    )


def _sizes(free: Sequence[TensorSpec], narrowed: Sequence[TensorSpec]) -> dict[str, int]:
    """The size of each symbol that the configuration fixes."""
    sizes: dict[str, int] = {}
    for before, after in zip(free, narrowed, strict=True):
        for symbol, size in zip(before.axes, after.axes, strict=before.has_shape):
            if not isinstance(symbol, str) or not isinstance(size, int):
                continue
            if sizes.setdefault(symbol, size) != size:
                raise _failed(
                    f"input {before.name!r}: dims: expected {sizes[symbol]} for the "
                    f"graph's axis {symbol!r} as in another input, got {size}"
                )
    return sizes


def _fix(spec: TensorSpec, sizes: Mapping[str, int], batch: str | None = None) -> TensorSpec:
    """The tensor with the sizes of its symbols; with `batch`, the first axis is the batch axis."""
    first = spec.axes[:1] if batch is not None else ()
    others = spec.axes[len(first) :]
    own = (sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in others)
    return replace(spec, axes=(*first, *own))


def _failed(problem: str) -> ModelLoadError:
    return ModelLoadError(f"{FILE_NAME}: {problem}")
