"""What a version is read from, and the two proofs each graph of it gives before it may answer.

warm-up   every batch size the scheduler will cut, doubled   (no first request pays for it)
replay    recorded inputs give the recorded outputs          (on this very provider)
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bundle import reader
from bundle.contract import FILE_NAME, Contract, Tolerance
from bundle.golden import Golden
from server.datatypes import DATATYPES
from server.errors import ModelFailed, ServerError
from server.reading import TextReader, reader_of
from server.sequences import rules_of
from server.session import Session
from server.signature import Signature, TensorSpec
from server.writing import TextWriter, writer_of

logger = logging.getLogger(__name__)

Array = NDArray[Any]

# Another provider sums in another order: what counts there is that the result is not broken.
_OTHER_PROVIDER = Tolerance(absolute=1e-3, relative=1e-3)


@dataclass(frozen=True, slots=True)
class Files:
    """What is read of a version directory for one of its graphs.

    Attributes:
        part: of a pair, `encoder` or `decoder`.
        contract: of a pair the whole one, until `of_graph`.
        reader: of texts, of a pair that of the whole.
        writer: of a pair's answers.
        whole: of a pair, what both graphs together answered.
    """

    part: str | None
    graph: bytes
    contract: Contract | None
    golden: Golden | None
    labels: Mapping[str, Sequence[str]]
    reader: TextReader | None = None
    writer: TextWriter | None = None
    whole: Golden | None = None


def read(directory: Path) -> list[Files]:
    """A bundle's files, each verified, for its graph or for each of its two.

    Of a directory without a contract, the graph alone.
    """
    if not (directory / FILE_NAME).exists():
        return [Files(None, reader.read_plain(directory), None, None, {})]
    bundle = reader.read(directory)
    labels = {output: bundle.labels(output) or [] for output in bundle.contract.labels}
    texts, answers = reader_of(bundle), writer_of(bundle)
    parts = (None,) if bundle.contract.decoding is None else tuple(bundle.graphs)
    return [
        Files(
            part,
            bundle.graphs[part or "model"],
            bundle.contract,
            bundle.golden(part),
            labels,
            texts,
            answers,
            bundle.golden() if part else None,
        )
        for part in parts
    ]


def of_graph(files: Files, session: Session) -> Files:
    """The same, with what contract and labels say of the session's graph alone, if it is one of two."""
    if files.contract is None or files.contract.decoding is None:
        return files
    outputs = {spec.name for spec in session.outputs}
    return replace(
        files,
        contract=files.contract.of_graph({spec.name for spec in session.inputs}),
        labels={name: lines for name, lines in files.labels.items() if name in outputs},
    )


def check_provider(files: Files, provider: str) -> None:
    """Refuse a bundle whose precision this provider cannot compute in, or only slowly."""
    contract = files.contract
    if contract is not None and provider not in contract.providers:
        served = " or ".join(name.upper() for name in contract.providers)
        raise ModelFailed(
            f"precision {contract.precision} is served on {served} only, "
            f"this server runs models on {provider.upper()} (--provider)"
        )


def warm_up(session: Session, signature: Signature, files: Files, name: str) -> None:
    """Run every batch size once, doubled up to the largest, so that memory and kernels are there."""
    rows = 1
    while True:
        inputs = _inputs(session.inputs, signature, files.golden, rows)
        if inputs is None:
            return
        try:
            session.run(inputs)
        except ServerError as error:
            if files.contract is not None:
                raise
            logger.warning("warm-up failed model=%s reason=%s", name, error)
            return
        if rows >= signature.max_rows:
            return
        rows = min(2 * rows, signature.max_rows)


def _inputs(
    specs: Sequence[TensorSpec], signature: Signature, golden: Golden | None, rows: int
) -> dict[str, Array] | None:
    """Recorded inputs, repeated to so many rows, or zeros where all other axes are fixed."""
    if golden is not None:
        if not signature.has_rows:
            return dict(golden.inputs)
        for name, array in golden.inputs.items():
            if not array.shape[:1] or not len(array):
                raise ModelFailed(f"golden input {name!r}: expected rows, got shape {array.shape}")
        return {name: array[np.arange(rows) % len(array)] for name, array in golden.inputs.items()}
    inputs = {}
    for spec in specs:
        axes = (rows, *spec.axes[1:]) if signature.has_rows else spec.axes
        if not all(isinstance(axis, int) for axis in axes):
            return None
        shape = tuple(int(axis) for axis in axes if axis is not None)
        dtype = DATATYPES[spec.datatype].dtype
        inputs[spec.name] = np.full(shape, "" if dtype.kind == "O" else 0, dtype)
    return inputs


def replay(session: Session, files: Files) -> None:
    """Refuse a model that no longer gives what was recorded when it was exported."""
    if files.contract is None:
        return
    if files.golden is None or not files.golden.outputs:
        raise ModelFailed("the bundle has no recorded outputs to be held against")
    tolerance = _tolerance(files.contract, session.provider)
    rules = rules_of(files.contract, {spec.name: spec for spec in session.inputs})
    inputs = files.golden.inputs
    outputs = session.run(inputs)
    axes = {spec.name: spec.axes for spec in session.outputs}
    for name, recorded in files.golden.outputs.items():
        if name not in outputs or outputs[name].shape != recorded.shape:
            raise ModelFailed(f"golden output {name!r}: expected shape {recorded.shape}")
        actual = rules.own_part(axes[name], outputs[name], inputs)
        expected = rules.own_part(axes[name], recorded, inputs)
        if not np.allclose(
            actual, expected, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True
        ):
            worst = np.abs(actual.astype(np.float64) - expected).max()
            raise ModelFailed(
                f"golden output {name!r} differs by {worst:.3g} on provider {session.provider}; "
                f"allowed are {tolerance.absolute:g} and {tolerance.relative:g} of the value"
            )


def _tolerance(contract: Contract, provider: str) -> Tolerance:
    """The contract's, or on another provider than the one it was made on the wider of the two."""
    own = contract.tolerance
    if provider == "cpu":
        return own
    return Tolerance(
        absolute=max(own.absolute, _OTHER_PROVIDER.absolute),
        relative=max(own.relative, _OTHER_PROVIDER.relative),
    )
