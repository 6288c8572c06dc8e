"""Where a `config.pbtxt` and the graph must agree, and what of a plain model's tensors is said by which."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from weir.bundle.contract import Contract
from weir.bundle.wording import quoted
from weir.server.errors import ModelLoadError
from weir.server.repository.agreement import batch_axis
from weir.server.repository.triton_config import FILE_NAME, TritonConfig, TritonTensor
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Axis, TensorSpec


@dataclass(frozen=True, slots=True)
class Tensors:
    """What requests are held against: the graph's, with the sizes that the configuration fixes."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    batch_axis: str | None


def tensors_of(config: TritonConfig | None, contract: Contract | None, session: Session) -> Tensors:
    """The tensors of a graph, as its contract, its configuration, or it alone has them.

    Raises:
        ModelLoadError: the graph has other tensors than contract or configuration say.
    """
    if config is None or config.max_batch_size is None:
        # A configuration without a batch size describes no tensors either.
        return Tensors(session.inputs, session.outputs, batch_axis(contract, session))
    return hold(config, config.max_batch_size, session.inputs, session.outputs)


def hold(
    config: TritonConfig,
    max_batch_size: int,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> Tensors:
    """The graph's tensors, with the first axis as the batch axis where there is to be one.

    A symbol whose size the configuration fixes for an input has that size everywhere.
    """
    batch = None
    if max_batch_size:
        batch = _free_symbol([*inputs, *outputs])
        inputs = [_with_rows("input", spec, batch, max_batch_size) for spec in inputs]
        outputs = [_with_rows("output", spec, batch, max_batch_size) for spec in outputs]
    narrowed = _narrowed("input", inputs, config.inputs, batch)
    sizes = _sizes(inputs, narrowed)
    return Tensors(
        [_fixed(spec, sizes) for spec in narrowed],
        _narrowed("output", [_fixed(spec, sizes) for spec in outputs], config.outputs, batch),
        batch,
    )


def _free_symbol(specs: Iterable[TensorSpec]) -> str:
    """A name for the batch axis that no other axis has: its own may be missing, or differ."""
    taken = {axis for spec in specs for axis in spec.axes[1:]}
    name = "batch"
    while name in taken:
        name += "_"
    return name


def _with_rows(field: str, spec: TensorSpec, batch: str, max_batch_size: int) -> TensorSpec:
    if not spec.axes or isinstance(spec.axes[0], int):
        raise ModelLoadError(
            f"{FILE_NAME}: max_batch_size {max_batch_size}: expected a first axis of any size in "
            f"every tensor, got {field} {spec.name!r} {list(spec.wire_shape())}"
        )
    return replace(spec, axes=(batch, *spec.axes[1:]))


def _narrowed(
    field: str, specs: Sequence[TensorSpec], told: Sequence[TritonTensor], batch: str | None
) -> list[TensorSpec]:
    """The same, with the sizes that are told in place of free ones."""
    by_name = {tensor.name: tensor for tensor in told}
    names = [spec.name for spec in specs]
    if strays := [name for name in by_name if name not in names]:
        raise ModelLoadError(
            f"{FILE_NAME}: {field}: expected the graph's {quoted(names)}, got {quoted(strays)}"
        )
    return [
        _narrow(field, spec, by_name[spec.name], batch) if spec.name in by_name else spec
        for spec in specs
    ]


def _narrow(field: str, spec: TensorSpec, told: TritonTensor, batch: str | None) -> TensorSpec:
    where = f"{FILE_NAME}: {field} {spec.name!r}"
    if told.datatype not in (None, spec.datatype):
        raise ModelLoadError(
            f"{where}: data_type: expected {spec.datatype} as in the graph, got {told.datatype}"
        )
    if told.dims is None:
        return spec
    first = () if batch is None else spec.axes[:1]
    axes = spec.axes[len(first) :]
    if len(axes) != len(told.dims) or not all(map(_fits, told.dims, axes)):
        expected = list(spec.wire_shape()[len(first) :])
        besides = " without the batch axis" if first else " without a batch axis"
        raise ModelLoadError(
            f"{where}: dims: expected {expected} as in the graph{besides}, got {list(told.dims)}"
        )
    own: tuple[Axis, ...] = tuple(
        axis if size == -1 else size for size, axis in zip(told.dims, axes, strict=True)
    )
    return replace(spec, axes=(*first, *own))


def _fits(size: int, axis: Axis) -> bool:
    return size == -1 or not isinstance(axis, int) or size == axis


def _sizes(free: Sequence[TensorSpec], narrowed: Sequence[TensorSpec]) -> dict[str, int]:
    """The size of each symbol that was narrowed to one."""
    sizes: dict[str, int] = {}
    for before, after in zip(free, narrowed, strict=True):
        for symbol, size in zip(before.axes, after.axes, strict=True):
            if not isinstance(symbol, str) or not isinstance(size, int):
                continue
            if sizes.setdefault(symbol, size) != size:
                raise ModelLoadError(
                    f"{FILE_NAME}: input {before.name!r}: dims: expected {sizes[symbol]} for the "
                    f"graph's axis {symbol!r} as in another input, got {size}"
                )
    return sizes


def _fixed(spec: TensorSpec, sizes: Mapping[str, int]) -> TensorSpec:
    axes = tuple(sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.axes)
    return replace(spec, axes=axes)
