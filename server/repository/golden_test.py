"""What a version is read from, and the proof each graph of it gives before it may answer.

Recorded inputs must give the recorded outputs, on this very provider: all together as they were recorded,
and where rows differ in length also each alone, and all in one batch put together as the scheduler does.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weir.bundle import reader
from weir.bundle.contract import FILE_NAME, Contract, Tolerance
from weir.bundle.golden import Golden
from weir.protocol.datatypes import DATATYPES
from weir.server.errors import GoldenMismatch, InvalidRequest, ModelLoadError
from weir.server.generation.decoder_batch import DecoderBatch, Row
from weir.server.generation.encoder_decoder import EncoderDecoder
from weir.server.generation.request import OUTPUT_LENGTHS, OUTPUT_TOKENS
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.preprocessing.detokenizer import Detokenizer, detokenizer_of
from weir.server.preprocessing.tokenizer import Tokenizer, tokenizer_of
from weir.server.repository import triton
from weir.server.repository.triton import TritonConfig
from weir.server.runtime import collate
from weir.server.runtime.collate import Padding, paddings_of
from weir.server.runtime.sequence_rules import SequenceRules, rules_of
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Form, Signature

Array = NDArray[Any]

# Another provider sums in another order: what counts there is that the result is not broken.
_OTHER_PROVIDER = Tolerance(absolute=1e-3, relative=1e-3)


@dataclass(frozen=True, slots=True)
class Files:
    """What is read of a version directory for one of its graphs.

    Attributes:
        part: of a pair, `encoder` or `decoder`.
        contract: of a pair the whole one, until `of_graph`.
        tokenizer: of texts, of a pair that of the whole.
        detokenizer: of a pair's answers.
        whole: of a pair, what both graphs together answered.
        config: of a plain model, what Triton's `config.pbtxt` says.
    """

    part: str | None
    graph: bytes
    contract: Contract | None
    golden: Golden | None
    labels: Mapping[str, Sequence[str]]
    tokenizer: Tokenizer | None = None
    detokenizer: Detokenizer | None = None
    whole: Golden | None = None
    config: TritonConfig | None = None


def read(directory: Path) -> list[Files]:
    """A bundle's files, each verified, for its graph or for each of its two.

    Of a directory without a contract, the graph, and what a `config.pbtxt` adds to it.
    """
    # A link that leads nowhere is a contract too, and refused as one.
    if not os.path.lexists(directory / FILE_NAME):
        model = triton.read(directory)
        return [Files(None, model.graph, None, None, model.labels, config=model.config)]
    bundle = reader.read(directory)
    labels = {output: bundle.labels(output) or [] for output in bundle.contract.labels}
    texts, answers = tokenizer_of(bundle), detokenizer_of(bundle)
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
        raise ModelLoadError(
            f"precision {contract.precision} is served on {served} only, "
            f"this server runs models on {provider.upper()} (--provider)"
        )


def check_inputs(golden: Golden | None, signature: Signature, rules: SequenceRules) -> None:
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


def replay(session: Session, files: Files) -> float | None:
    """The greatest difference from what was recorded when the model was exported; of a plain model None.

    Raises:
        GoldenMismatch: it is more than the tolerance.
        ModelLoadError: nothing was recorded.
    """
    if files.contract is None:
        return None
    if files.golden is None or not files.golden.outputs:
        raise ModelLoadError("the bundle has no recorded outputs to be held against")
    tolerance = _tolerance(files.contract, session.provider)
    rules = rules_of(files.contract, {spec.name: spec for spec in session.inputs})
    inputs = files.golden.inputs
    axes = {spec.name: spec.axes for spec in session.outputs}
    outputs = session.run(inputs)
    own, greatest = {}, 0.0
    for name, recorded in files.golden.outputs.items():
        if name not in outputs or outputs[name].shape != recorded.shape:
            raise GoldenMismatch(f"golden output {name!r}: expected shape {recorded.shape}")
        own[name] = rules.own_part(axes[name], recorded, inputs)
        actual = rules.own_part(axes[name], outputs[name], inputs)
        greatest = max(greatest, _hold(name, actual, own[name], tolerance, session.provider))
    paddings = paddings_of(files.contract, session.inputs, session.outputs)
    if any(padding.lengths for padding in paddings):
        if files.contract.precision == "int8":
            # Its ranges are those of the batch. The tolerance allows for that in the scores; of two that
            # are as good as equal, another may then be the greatest.
            own = {name: array for name, array in own.items() if array.dtype.kind == "f"}
        rows = _rows(inputs, paddings)
        greatest = max(greatest, _replay_rows(session, rows, own, paddings, tolerance))
    return greatest


def replay_pair(pair: EncoderDecoder, golden: Golden | None, max_rows: int) -> None:
    """Refuse a pair that no longer gives the tokens that were recorded when it was exported."""
    if golden is None or not {OUTPUT_TOKENS, OUTPUT_LENGTHS} <= golden.outputs.keys():
        raise ModelLoadError("the bundle has no recorded answers to be held against")
    check_inputs(golden, pair.encoder.signature, pair.encoder.rules)
    tokens, counts = golden.outputs[OUTPUT_TOKENS], golden.outputs[OUTPUT_LENGTHS]
    _check_answers(tokens, counts, len(next(iter(golden.inputs.values()))))
    together = pair.rows(golden.inputs, SearchParameters())
    _decode(pair.decoder_batch(min(max_rows, max(2, len(together) // 2))), together)
    alone = pair.rows(golden.inputs, SearchParameters())
    for row in alone:
        _decode(pair.decoder_batch(1), [row])
    for how, rows in (("together", together), ("alone", alone)):
        for row in rows:
            expected = tokens[row.number, : counts[row.number]].tolist()
            if list(row.hypotheses[0].tokens) != expected:
                raise GoldenMismatch(
                    f"golden row {row.number}, decoded {how}: expected tokens {expected}, "
                    f"got {list(row.hypotheses[0].tokens)}"
                )


def _check_answers(tokens: Array, counts: Array, rows: int) -> None:
    """As many recorded answers as rows went in, (rows, steps), and how long each is, (rows,)."""
    if tokens.shape[:-1] != (rows,) or counts.shape != (rows,) or counts.dtype.kind not in "iu":
        raise ModelLoadError(
            f"golden outputs: expected tokens and lengths of {rows} rows, got "
            f"{tokens.dtype} {tokens.shape} and {counts.dtype} {counts.shape}"
        )


def _decode(generation: DecoderBatch, rows: Sequence[Row]) -> None:
    generation.encode(rows)
    while generation.is_busy:
        generation.join()
        for error in generation.step().failed.values():
            raise error


def _replay_rows(
    session: Session,
    rows: Sequence[Mapping[str, Array]],
    recorded: Mapping[str, Array],
    paddings: Sequence[Padding],
    tolerance: Tolerance,
) -> float:
    """Rows in their own lengths, all in one batch and each alone, cut apart again: the greatest difference."""
    numbers, greatest = range(len(rows)), 0.0
    for batch in (numbers, *([number] for number in numbers)):
        requests = [rows[number] for number in batch]
        outputs = session.run(collate.join(requests, paddings))
        for number, part in zip(batch, collate.split(outputs, requests, paddings), strict=True):
            for name, values in recorded.items():
                own = (slice(number, number + 1), *map(slice, part[name].shape[1:]))
                difference = _hold(name, part[name], values[own], tolerance, session.provider)
                greatest = max(greatest, difference)
    return greatest


def _rows(inputs: Mapping[str, Array], paddings: Sequence[Padding]) -> list[dict[str, Array]]:
    """Each recorded row as a request of its own, cut to its length."""
    rows = []
    for number in range(len(next(iter(inputs.values())))):
        row = {name: array[number : number + 1] for name, array in inputs.items()}
        for padding in paddings:
            if padding.lengths is not None:
                length = int(row[padding.lengths][0])
                for name, positions in padding.inputs.items():
                    row[name] = collate.cut(row[name], positions, length)
        rows.append(row)
    return rows


def _hold(name: str, actual: Array, expected: Array, tolerance: Tolerance, provider: str) -> float:
    """The greatest difference, of values that are numbers in both."""
    with np.errstate(invalid="ignore"):  # infinity less infinity
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
    """The contract's, or on another provider than the one it was made on the wider of the two."""
    own = contract.tolerance
    if provider == "cpu":
        return own
    return Tolerance(
        absolute=max(own.absolute, _OTHER_PROVIDER.absolute),
        relative=max(own.relative, _OTHER_PROVIDER.relative),
    )
