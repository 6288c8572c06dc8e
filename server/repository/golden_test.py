"""Golden test: a loaded graph gives the outputs that were recorded when it was exported.

It runs on the provider that will serve: on all recorded rows together, and if rows have lengths,
also on each row alone and on all rows in one batch as the scheduler makes it. An encoder-decoder
pair has a golden test of its own, after those of its graphs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import Golden
from weir.protocol.datatypes import DATATYPES
from weir.server.errors import GoldenMismatch, InvalidRequest, ModelLoadError
from weir.server.generation.decoder_batch import DecoderBatch, Row
from weir.server.generation.encoder_decoder import EncoderDecoder
from weir.server.generation.request import OUTPUT_LENGTHS, OUTPUT_TOKENS
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.runtime import collate
from weir.server.runtime.collate import Padding, paddings_of
from weir.server.runtime.sequence_rules import SequenceRules, rules_of
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Form, Signature

Array = NDArray[Any]

# Another provider sums in another order: there the test only finds broken results.
_OTHER_PROVIDER = Tolerance(absolute=1e-3, relative=1e-3)


def check_inputs(golden: Golden | None, signature: Signature, rules: SequenceRules) -> None:
    """Check that recorded inputs are a request of the model; the number of rows is not limited."""
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


def replay(session: Session, contract: Contract, golden: Golden | None) -> float:
    """Run a graph on the recorded inputs; the greatest difference from the recorded outputs.

    Raises:
        GoldenMismatch: the difference exceeds the tolerance.
        ModelLoadError: no outputs were recorded.
    """
    if golden is None or not golden.outputs:
        raise ModelLoadError("the bundle has no recorded outputs")
    tolerance = _tolerance(contract, session.provider)
    rules = rules_of(contract, {spec.name: spec for spec in session.inputs})
    inputs = golden.inputs
    axes = {spec.name: spec.axes for spec in session.outputs}
    outputs = session.run(inputs)
    own, greatest = {}, 0.0
    for name, recorded in golden.outputs.items():
        if name not in outputs or outputs[name].shape != recorded.shape:
            raise GoldenMismatch(f"golden output {name!r}: expected shape {recorded.shape}")
        own[name] = rules.own_part(axes[name], recorded, inputs)
        actual = rules.own_part(axes[name], outputs[name], inputs)
        greatest = max(greatest, _compare(name, actual, own[name], tolerance, session.provider))
    paddings = paddings_of(contract, session.inputs, session.outputs)
    if any(padding.length_input for padding in paddings):
        if contract.precision == "int8":
            # The quantisation ranges depend on the batch. The tolerance allows for that in scores,
            # but of two nearly equal scores another may be the greatest.
            own = {name: array for name, array in own.items() if array.dtype.kind == "f"}
        rows = _rows(inputs, paddings)
        greatest = max(greatest, _replay_rows(session, rows, own, paddings, tolerance))
    return greatest


def replay_pair(pair: EncoderDecoder, golden: Golden | None, max_rows: int) -> None:
    """Decode the recorded sources, each alone and all in a batch smaller than their number.

    In that batch, rows join and leave between steps.

    Raises:
        GoldenMismatch: the tokens are not the recorded ones.
        ModelLoadError: no outputs were recorded.
    """
    if golden is None or not {OUTPUT_TOKENS, OUTPUT_LENGTHS} <= golden.outputs.keys():
        raise ModelLoadError("the bundle has no recorded outputs of the pair")
    check_inputs(golden, pair.encoder.signature, pair.encoder.rules)
    tokens, counts = golden.outputs[OUTPUT_TOKENS], golden.outputs[OUTPUT_LENGTHS]
    rows = len(next(iter(golden.inputs.values())))
    # Tokens are (rows, steps), counts (rows,).
    if tokens.shape[:-1] != (rows,) or counts.shape != (rows,) or counts.dtype.kind not in "iu":
        raise ModelLoadError(
            f"golden outputs: expected tokens and lengths of {rows} rows, got "
            f"{tokens.dtype} {tokens.shape} and {counts.dtype} {counts.shape}"
        )
    together = pair.rows(golden.inputs, SearchParameters())
    _decode(pair.decoder_batch(min(max_rows, max(2, len(together) // 2))), together)
    alone = pair.rows(golden.inputs, SearchParameters())
    for row in alone:
        _decode(pair.decoder_batch(1), [row])
    for how, decoded in (("together", together), ("alone", alone)):
        for row in decoded:
            expected = tokens[row.number, : counts[row.number]].tolist()
            actual = list(row.hypotheses[0].tokens)
            if actual != expected:
                raise GoldenMismatch(
                    f"golden row {row.number}, decoded {how}: expected tokens {expected}, "
                    f"got {actual}"
                )


def _form(name: str, array: Array, signature: Signature) -> Form:
    """The input as a request of one row, since a request's row limit does not apply."""
    datatype = signature.inputs[name].datatype
    if array.dtype != DATATYPES[datatype].dtype:
        datatype = str(array.dtype)
    shape = array.shape
    return name, datatype, (1, *shape[1:]) if signature.has_rows and shape else shape


def _check_rows(inputs: Mapping[str, Array]) -> None:
    rows = {name: len(array) for name, array in inputs.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise InvalidRequest(f"expected the same number of rows in every input, got {rows}")


def _replay_rows(
    session: Session,
    rows: Sequence[Mapping[str, Array]],
    recorded: Mapping[str, Array],
    paddings: Sequence[Padding],
    tolerance: Tolerance,
) -> float:
    """Run rows in their own lengths, all in one batch and each alone; the greatest difference."""
    numbers, greatest = range(len(rows)), 0.0
    for batch in (numbers, *([number] for number in numbers)):
        requests = [rows[number] for number in batch]
        outputs = session.run(collate.join(requests, paddings))
        for number, part in zip(batch, collate.split(outputs, requests, paddings), strict=True):
            for name, values in recorded.items():
                own = (slice(number, number + 1), *map(slice, part[name].shape[1:]))
                difference = _compare(name, part[name], values[own], tolerance, session.provider)
                greatest = max(greatest, difference)
    return greatest


def _rows(inputs: Mapping[str, Array], paddings: Sequence[Padding]) -> list[dict[str, Array]]:
    """Each recorded row as a request of its own, cut to its length."""
    rows = []
    for number in range(len(next(iter(inputs.values())))):
        row = {name: array[number : number + 1] for name, array in inputs.items()}
        for padding in paddings:
            if padding.length_input is not None:
                length = int(padding.length_input.lengths(row)[0])
                for name, positions in padding.inputs.items():
                    row[name] = collate.cut(row[name], positions, length)
        rows.append(row)
    return rows


def _compare(
    name: str, actual: Array, expected: Array, tolerance: Tolerance, provider: str
) -> float:
    """The greatest difference between values that are numbers in both; texts must be equal."""
    if expected.dtype == object:
        if not np.array_equal(actual, expected):
            raise GoldenMismatch(f"golden output {name!r}: expected the recorded texts, got others")
        return 0.0
    with np.errstate(invalid="ignore"):  # infinity - infinity
        differences = np.abs(actual.astype(np.float64) - expected)
    if not np.allclose(
        actual, expected, rtol=tolerance.relative, atol=tolerance.absolute, equal_nan=True
    ):
        raise GoldenMismatch(
            f"golden output {name!r} differs by {differences.max():.3g} on provider {provider}; "
            f"allowed are {tolerance.absolute:g} and {tolerance.relative:g} of the value"
        )
    return float(np.fmax.reduce(differences, axis=None, initial=0.0))


def _tolerance(contract: Contract, provider: str) -> Tolerance:
    """The contract's tolerance; on another provider than the exporter's, at least the wide one."""
    own = contract.tolerance
    if provider == "cpu":
        return own
    return Tolerance(
        absolute=max(own.absolute, _OTHER_PROVIDER.absolute),
        relative=max(own.relative, _OTHER_PROVIDER.relative),
    )


def _decode(batch: DecoderBatch, rows: Sequence[Row]) -> None:
    batch.add(batch.encode(rows))
    while batch.is_busy:
        batch.join()
        for error in batch.step().failed.values():
            raise error
