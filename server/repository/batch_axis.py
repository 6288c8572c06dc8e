"""Batch axis of a graph: named by contract, `config.pbtxt` or setting, or proved at load.

The name of an axis proves nothing, and a missing name disproves nothing. Requests of a plain model
share batches if the first axis of every tensor has any size, no two of those axes have different
names, and the proof holds (`batch_axis_proof`). The operator's setting `batch_axis` replaces the
proof.
"""

import logging
import re
from dataclasses import dataclass, replace

from weir.bundle.contract import Contract
from weir.bundle.escaping import short_list, short_repr
from weir.bundle.external_data import ResolvedGraph
from weir.server.config import ModelSettings
from weir.server.errors import ModelLoadError
from weir.server.repository import batch_axis_proof, plain_tensors, triton
from weir.server.repository.batch_axis_proof import UnprovedError
from weir.server.repository.generated_rows import Row
from weir.server.repository.plain_tensors import Tensors
from weir.server.repository.triton import TritonConfig
from weir.server.runtime.session import Session
from weir.server.runtime.signature import TensorSpec
from weir.server.scheduling.batching import BATCHED_BY_CONTRACT, Basis, BatchDecision
from weir.server.scheduling.batching import max_rows as most_rows

logger = logging.getLogger(__name__)

_NAMES = ("N", "n", "bs")
# Names that exporters generate, no two alike: torch.onnx for an output's axis that only its tracer
# knew, and for an axis that `dynamic_axes` lists without a name; Paddle2ONNX for any axis.
_GENERATED_NAME = re.compile(r".*_(dim|dynamic_axes)_\d+|(.*\.)?DynamicDimension\.\d+")

_PROVED = BatchDecision(
    is_batched=True, basis=Basis.PROOF, reason="the batch axis was proved at load"
)


@dataclass(frozen=True, slots=True)
class BatchAxis:
    """The tensors of a graph with its batch axis, and whether requests share batches.

    Attributes:
        only_proved: whether the batch axis is proved, and not named by contract, configuration,
            setting or graph.
    """

    tensors: Tensors
    decision: BatchDecision
    only_proved: bool = False


def resolve(
    graph: bytes,
    session: Session,
    contract: Contract | None,
    config: TritonConfig | None,
    *,
    setting: bool | None,
    max_rows: int,
) -> BatchAxis:
    """The batch axis of a graph; of a plain model it is set or proved.

    Args:
        setting: the operator's `batch_axis`.

    Raises:
        ModelLoadError: the graph has other tensors than contract or configuration, or no first axes
            that can be the batch axis as it is set.
        OutOfMemory: a single row needs more memory than there is, as small as a row may be.
    """
    if contract is not None:
        return _of_contract(contract, session, setting=setting)
    tensors = Tensors(session.inputs, session.outputs, None, defaults=session.defaults)
    if config is not None and config.max_batch_size is not None:
        tensors = plain_tensors.narrow(
            config,
            config.max_batch_size,
            session.inputs,
            session.outputs,
            defaults=session.defaults,
            unserved=session.unserved,
        )
    is_configured = tensors.batch_axis is not None
    if setting is not None:
        if setting:
            tensors = _with_batch_axis(tensors)
        return BatchAxis(tensors, _by_setting(is_batched=setting))
    is_named = is_configured
    declared = tensors.outputs
    try:
        _check_first_axes(tensors, config)
        tensors = replace(tensors, outputs=[_with_free_axis(spec) for spec in tensors.outputs])
        if not is_configured:
            tensors = replace(tensors, batch_axis=_candidate(tensors))
            is_named = _is_named(tensors)
        batch_axis_proof.prove(
            graph,
            tensors.of(session),
            tensors.inputs,
            tensors.outputs,
            is_configured=is_configured,
            max_rows=max_rows,
        )
    except UnprovedError as error:
        tensors = replace(tensors, outputs=declared)
        has_axis = is_configured or (is_named and error.basis is Basis.SETTING)
        return BatchAxis(
            tensors if has_axis else replace(tensors, batch_axis=None),
            BatchDecision(is_batched=False, basis=error.basis, reason=str(error)),
        )
    return BatchAxis(tensors, _PROVED, only_proved=not is_named)


def inspect(graph: ResolvedGraph, config: TritonConfig | None) -> BatchDecision:
    """The decision of a server on the CPU that has no settings for this plain model.

    Raises:
        ModelLoadError, OutOfMemory: the server would not serve it.
    """
    session = Session(
        graph.model, provider="cpu", threads=1, has_few_shapes=False, external=graph.external
    )
    rows = most_rows(triton.with_config(ModelSettings(), config), None)
    axis = resolve(graph.model, session, None, config, setting=None, max_rows=rows)
    return axis.decision


def generated_inputs(
    graph: ResolvedGraph, config: TritonConfig | None
) -> tuple[list[Row], int | None]:
    """Two generated rows that a plain model takes, and the most rows of a batch.

    If it is not batched, the rows are the inputs of whole requests, and the number is None.

    Raises:
        ModelLoadError, OutOfMemory: the server would not serve it, or it takes no generated row.
    """
    session = Session(
        graph.model, provider="cpu", threads=1, has_few_shapes=False, external=graph.external
    )
    rows = most_rows(triton.with_config(ModelSettings(), config), None)
    axis = resolve(graph.model, session, None, config, setting=None, max_rows=rows)
    specs = axis.tensors.inputs
    if any(spec.reshape is not None for spec in specs):
        specs = session.inputs
    is_batched = axis.decision.is_batched
    try:
        found = batch_axis_proof.runnable_rows(session, specs, is_batched=is_batched)
    except UnprovedError as error:
        raise ModelLoadError(str(error)) from error
    return found, rows if is_batched else None


def log(name: str, decision: BatchDecision) -> None:
    """Log what was decided of a plain model; a failed proof is a warning."""
    match decision.basis:
        case Basis.PROOF:
            logger.info("batch axis proved model=%s", name)
        case Basis.FORM | Basis.RUN:
            logger.warning("model is not batched model=%s reason=%s", name, decision.reason)
        case Basis.SETTING | Basis.NO_AXIS:
            event = "model is batched" if decision.is_batched else "model is not batched"
            logger.info("%s model=%s reason=%s", event, name, decision.reason)


def _of_contract(contract: Contract, session: Session, *, setting: bool | None) -> BatchAxis:
    specs = (*session.inputs, *session.outputs)
    first_axes = {spec.axes[0] if spec.axes else None for spec in specs}
    if contract.batch_axis is not None and first_axes != {contract.batch_axis}:
        raise ModelLoadError(
            f"contract: expected axis {contract.batch_axis!r} first in every tensor, "
            f"got {sorted(map(str, first_axes))}"
        )
    tensors = Tensors(session.inputs, session.outputs, contract.batch_axis)
    if contract.batch_axis is None:
        if setting:
            raise ModelLoadError("batch_axis = true: the contract names no batch axis")
        decision = BatchDecision(
            is_batched=False, basis=Basis.CONTRACT, reason="the contract names no batch axis"
        )
    else:
        decision = BATCHED_BY_CONTRACT if setting is not False else _by_setting(is_batched=False)
    return BatchAxis(tensors, decision)


def _by_setting(*, is_batched: bool) -> BatchDecision:
    reason = f"the setting batch_axis is {str(is_batched).lower()}"
    return BatchDecision(is_batched=is_batched, basis=Basis.SETTING, reason=reason)


def _with_batch_axis(tensors: Tensors) -> Tensors:
    """The tensors with one symbol for their first axes, which the operator says are the batch."""
    if fixed := _without_free_axis(tensors):
        raise ModelLoadError(
            f"batch_axis = true: expected a first axis of any size in every tensor, got {fixed}"
        )
    if not tensors.inputs:
        raise ModelLoadError("batch_axis = true: expected inputs, got none")
    batch = plain_tensors.free_symbol([*tensors.inputs, *tensors.outputs])
    inputs, outputs = (
        [replace(spec, axes=(batch, *spec.axes[1:])) for spec in group]
        for group in (tensors.inputs, tensors.outputs)
    )
    return replace(tensors, inputs=inputs, outputs=outputs, batch_axis=batch)


def _check_first_axes(tensors: Tensors, config: TritonConfig | None) -> None:
    if config is not None and config.max_batch_size == 0:
        raise UnprovedError(Basis.NO_AXIS, "max_batch_size of config.pbtxt is 0")
    if not tensors.inputs:
        raise UnprovedError(Basis.NO_AXIS, "the graph has no inputs")
    if fixed := _without_free_axis(tensors):
        raise UnprovedError(Basis.NO_AXIS, f"{fixed} has no first axis of any size")


def _candidate(tensors: Tensors) -> str:
    """The symbol of the axis that may be the batch axis; `batch` if the graph has none for it."""
    specs = (*tensors.inputs, *tensors.outputs)
    names = {
        axis
        for axis in (axis for spec in specs for axis in spec.axes[:1])
        if isinstance(axis, str) and not _GENERATED_NAME.fullmatch(axis)
    }
    if len(names) > 1:
        listed = short_list([short_repr(name) for name in sorted(names)])
        raise UnprovedError(Basis.NO_AXIS, f"the first axes have different names: {listed}")
    for spec in specs:
        if names & set(spec.axes[1:]):
            raise UnprovedError(
                Basis.NO_AXIS,
                f"{short_repr(spec.name)} has the size of its first axis on another axis too",
            )
    return names.pop() if names else "batch"


def _is_named(tensors: Tensors) -> bool:
    """Whether the graph calls the first axis of every tensor the batch axis."""
    axis = tensors.batch_axis
    return (
        axis is not None
        and ("batch" in axis.lower() or axis in _NAMES)
        and all(spec.axes[:1] == (axis,) for spec in (*tensors.inputs, *tensors.outputs))
    )


def _without_free_axis(tensors: Tensors) -> str | None:
    """The first tensor whose first axis has no free size, in words; None if there is none."""
    for kind, specs in (("input", tensors.inputs), ("output", tensors.outputs)):
        for spec in specs:
            # An output without a shape may have rows; of such an input, not all ranks can be tried.
            if kind == "output" and (not spec.has_shape or spec.axes[:1] == (1,)):
                continue
            if not spec.axes or isinstance(spec.axes[0], int):
                return f"{kind} {short_repr(spec.name)} {list(spec.wire_shape())}"
    return None


def _with_free_axis(output: TensorSpec) -> TensorSpec:
    """The output with any number of rows; an exporter may write the one row of its example."""
    if output.axes[:1] != (1,):
        return output
    return replace(output, axes=(None, *output.axes[1:]))
