"""One version of a model, from its files to a session that has proved itself.

A version is served only after all of this, in this order:

    read      every file, hashed against the contract            (bundle)
    session   the graph, on the provider that was asked for      (session)
    warm-up   every batch size the scheduler will cut, doubled   (no first request pays for it)
    golden    recorded inputs give the recorded outputs          (on this very provider)
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle import reader
from bundle.contract import FILE_NAME, Contract, Tolerance
from bundle.errors import BundleError
from bundle.golden import Golden
from server.batching import BatchPolicy
from server.codec import ResponseEncoder
from server.config import ModelSettings
from server.datatypes import DATATYPES
from server.deadlines import Deadlines
from server.errors import ModelFailed, ServerError
from server.metrics import Metrics, ModelMetrics
from server.scheduler import BatchTimes, Request, Scheduler
from server.session import Session
from server.signature import Signature, TensorSpec

logger = logging.getLogger(__name__)

Array = NDArray[Any]

# Another provider sums in another order: what counts there is that the result is not broken.
_OTHER_PROVIDER = Tolerance(absolute=1e-3, relative=1e-3)
_BATCH_AXES = ("N", "n", "bs")
_DEFAULT_MAX_ROWS = 32


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output to be sent; `classes` is set where its best classes are wanted as text."""

    name: str
    datatype: str
    classes: int | None = None


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version that answers. Immutable: a reload makes another one.

    Attributes:
        contract: None for a plain model, an ONNX file without one.
        labels: of the outputs that have some, one a class.
        all_outputs: what a request gets that asks for none in particular.
        policy: when its batches are cut.
        settings: the operator's word on it, complete.
    """

    name: str
    version: str
    contract: Contract | None
    signature: Signature
    labels: Mapping[str, Sequence[str]]
    all_outputs: Sequence[WantedOutput]
    encoder: ResponseEncoder
    policy: BatchPolicy
    settings: ModelSettings
    provider: str
    scheduler: Scheduler
    metrics: ModelMetrics


@dataclass(frozen=True, slots=True)
class _Files:
    """What is read of a version directory."""

    graph: bytes
    contract: Contract | None
    golden: Golden | None
    labels: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads versions, all in the same way.

    Attributes:
        provider: `cpu` or `cuda`.
        threads: inside one operator.
        max_message_bytes: of an answer.
        settings: by model name.
    """

    provider: str
    threads: int
    max_message_bytes: int
    settings: Callable[[str], ModelSettings]
    deadlines: Deadlines
    metrics: Metrics
    clock: Callable[[], float] = time.monotonic

    def load(self, name: str, version: str, directory: Path) -> ServedModel:
        """A started model.

        Raises:
            ModelFailed: the reason why it cannot be served.
        """
        started_s = self.clock()
        try:
            files = _read(directory)
            session = Session(files.graph, provider=self.provider, threads=self.threads)
            model = self._assemble(name, version, files, session)
            _warm_up(session, model, files)
            _replay(session, files)
        except (BundleError, ServerError) as error:
            raise ModelFailed(str(error)) from error
        model.scheduler.start()
        with model.metrics.lock:
            model.metrics.load_seconds = self.clock() - started_s
            model.metrics.provider = session.provider
        return model

    def _assemble(self, name: str, version: str, files: _Files, session: Session) -> ServedModel:
        settings = self.settings(name)
        policy = _policy(settings, files.contract)
        signature = Signature(
            session.inputs,
            session.outputs,
            batch_axis=_batch_axis(files.contract, session),
            max_rows=policy.max_rows,
        )
        metrics = self.metrics.model(name, version)
        scheduler = Scheduler(
            name,
            session.run,
            policy=policy,
            max_queue_rows=settings.max_queue_rows or 1,
            instances=settings.instances or 1,
            has_rows=signature.has_rows,
            deadlines=self.deadlines,
            observer=_Observer(metrics),
            clock=self.clock,
        )
        return ServedModel(
            name=name,
            version=version,
            contract=files.contract,
            signature=signature,
            labels=files.labels,
            all_outputs=[WantedOutput(spec.name, spec.datatype) for spec in session.outputs],
            encoder=ResponseEncoder(name, version, max_bytes=self.max_message_bytes),
            policy=policy,
            settings=settings,
            provider=session.provider,
            scheduler=scheduler,
            metrics=metrics,
        )


@dataclass(frozen=True, slots=True)
class _Observer:
    """Turns what the scheduler saw of a batch into metrics."""

    metrics: ModelMetrics

    def batch_ran(self, requests: Sequence[Request], times: BatchTimes) -> None:
        """Once per batch."""
        answered = [request for request in requests if request.is_answered]
        self.metrics.batch_ended(
            rows=sum(request.rows for request in requests),
            total_s=[times.answered_s - request.arrived_s for request in answered],
            queue_s=[times.cut_s - request.arrived_s for request in answered],
            input_s=times.run_s - times.cut_s,
            infer_s=times.ran_s - times.run_s,
            output_s=times.answered_s - times.ran_s,
            epoch_s=time.time(),
        )


def _read(directory: Path) -> _Files:
    if not (directory / FILE_NAME).exists():
        return _Files(reader.read_plain(directory), None, None, {})
    bundle = reader.read(directory)
    labels = {output: bundle.labels(output) or [] for output in bundle.contract.labels}
    return _Files(bundle.model, bundle.contract, bundle.golden(), labels)


def _policy(settings: ModelSettings, contract: Contract | None) -> BatchPolicy:
    max_rows = contract.batching.max_rows if contract else _DEFAULT_MAX_ROWS
    delay_s = contract.batching.max_queue_delay_s if contract else 0.0
    if settings.max_queue_delay_s is not None:
        delay_s = settings.max_queue_delay_s
    return BatchPolicy(settings.max_batch_rows or max_rows, delay_s)


def _batch_axis(contract: Contract | None, session: Session) -> str | None:
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


def _warm_up(session: Session, model: ServedModel, files: _Files) -> None:
    """Run every batch size once, doubled up to the largest, so that memory and kernels are there."""
    rows = 1
    while True:
        inputs = _warm_up_inputs(session.inputs, model, files.golden, rows)
        if inputs is None:
            return
        try:
            session.run(inputs)
        except ServerError as error:
            if files.contract is not None:
                raise
            logger.warning("warm-up failed model=%s reason=%s", model.name, error)
            return
        if rows >= model.signature.max_rows:
            return
        rows = min(2 * rows, model.signature.max_rows)


def _warm_up_inputs(
    specs: Sequence[TensorSpec], model: ServedModel, golden: Golden | None, rows: int
) -> dict[str, Array] | None:
    """Recorded inputs, repeated to so many rows, or zeros where all other axes are fixed."""
    if golden is not None:
        if not model.signature.has_rows:
            return dict(golden.inputs)
        for name, array in golden.inputs.items():
            if not array.shape[:1] or not len(array):
                raise ModelFailed(f"golden input {name!r}: expected rows, got shape {array.shape}")
        return {name: array[np.arange(rows) % len(array)] for name, array in golden.inputs.items()}
    inputs = {}
    for spec in specs:
        axes = (rows, *spec.axes[1:]) if model.signature.has_rows else spec.axes
        if not all(isinstance(axis, int) for axis in axes):
            return None
        shape = tuple(int(axis) for axis in axes if axis is not None)
        dtype = DATATYPES[spec.datatype].dtype
        inputs[spec.name] = np.full(shape, "" if dtype.kind == "O" else 0, dtype)
    return inputs


def _replay(session: Session, files: _Files) -> None:
    """Refuse a model that no longer gives what PyTorch gave when it was exported."""
    if files.golden is None or files.contract is None:
        return
    tolerance = files.contract.tolerance if session.provider == "cpu" else _OTHER_PROVIDER
    outputs = session.run(files.golden.inputs)
    for name, expected in files.golden.outputs.items():
        actual = outputs.get(name)
        if actual is None or actual.shape != expected.shape:
            raise ModelFailed(f"golden output {name!r}: expected shape {expected.shape}")
        if not np.allclose(
            actual, expected, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True
        ):
            worst = np.abs(actual.astype(np.float64) - expected).max()
            raise ModelFailed(
                f"golden output {name!r} differs by {worst:.3g} on provider {session.provider}; "
                f"allowed are {tolerance.absolute:g} and {tolerance.relative:g} of the value"
            )
