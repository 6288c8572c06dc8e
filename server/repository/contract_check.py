"""Contract check: a model whose contract disagrees with its graph or the server is not served."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from weir.bundle.contract import Contract
from weir.server.errors import InvalidRequest, ModelLoadError
from weir.server.preprocessing.tokenizer import BundleTokenizer
from weir.server.runtime.sequence_rules import SequenceRules
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Form, Signature, TensorSpec, forms_of

_FLOATS = ("FP16", "FP32", "FP64")


def check_provider(contract: Contract | None, provider: str) -> None:
    """Refuse a bundle whose precision the provider does not compute in, or only slowly."""
    if contract is not None and provider not in contract.providers:
        served = " or ".join(name.upper() for name in contract.providers)
        raise ModelLoadError(
            f"precision {contract.precision} is served on {served} only, "
            f"this server runs models on {provider.upper()} (--provider)"
        )


def check_labels(labels: Mapping[str, Sequence[str]], session: Session) -> None:
    """Check that each labelled output exists and has one label per class."""
    outputs = {spec.name: spec for spec in session.outputs}
    for name, lines in labels.items():
        if name not in outputs:
            raise ModelLoadError(f"labels: the graph has no output {name!r}")
        classes = outputs[name].axes[-1] if outputs[name].axes else None
        if isinstance(classes, int) and classes != len(lines):
            raise ModelLoadError(
                f"labels of output {name!r}: expected {classes} lines, got {len(lines)}"
            )


def check_preprocessing(contract: Contract | None, signature: Signature) -> None:
    """Check that the graph takes preprocessed pictures and gives the output that is ranked."""
    if contract is None or contract.preprocessing is None:
        return
    own = contract.preprocessing
    shape = (1, own.height, own.width, own.channels)
    _check_admitted("preprocessing", signature, ((own.input, "UINT8", shape),))
    output = signature.outputs.get(own.output)
    is_ranked = output is not None and len(output.axes) == 2
    _check_numbers("preprocessing", own.output, "classes", output, fits=is_ranked)
    if not signature.has_rows:
        raise ModelLoadError("preprocessing: expected a model whose requests have rows")


def check_series(contract: Contract | None, signature: Signature) -> None:
    """Check that the graph takes preprocessed series and gives a value per step of the horizon."""
    if contract is None or contract.series is None:
        return
    own = contract.series
    shape = (1, own.lags, 1 + len(own.exogenous))
    _check_admitted("series", signature, ((own.input, "FP32", shape),))
    output = signature.outputs.get(own.output)
    has_horizon = output is not None and output.axes[1:] == (own.horizon,)
    _check_numbers("series", own.output, str(own.horizon), output, fits=has_horizon)


def check_tokenizer(
    tokenizer: BundleTokenizer | None, signature: Signature, rules: SequenceRules
) -> None:
    """Check that the graph takes tokenized text."""
    if tokenizer is None:
        return
    try:
        # This text is really tokenized, so that the first request finds every table built.
        rows = signature.cast(tokenizer.rows([tokenizer.example()]))
        signature.admit(forms_of(rows))
        rules.check(rows)
    except InvalidRequest as error:
        raise ModelLoadError(f"tokenisation: {error}") from error


def _check_admitted(what: str, signature: Signature, forms: tuple[Form, ...]) -> None:
    try:
        signature.admit(forms)
    except InvalidRequest as error:
        raise ModelLoadError(f"{what}: {error}") from error


def _check_numbers(
    what: str, name: str, axis: str, output: TensorSpec | None, *, fits: bool
) -> None:
    if output is None or output.datatype not in _FLOATS or not fits:
        raise ModelLoadError(
            f"{what}: expected an output {name!r} of numbers [batch, {axis}], "
            f"got {output.wire_shape() if output else 'none'}"
        )


def check_pair(contract: Contract | None, signatures: Sequence[Signature]) -> None:
    """Check that a pair's graphs have every tensor of the contract, and that passed tensors fit."""
    decoding = contract.decoding if contract else None
    if contract is None or decoding is None:
        return
    encoder, decoder = signatures
    expected = {decoding.previous, *decoding.from_encoder}
    if decoding.lengths is not None:
        expected.add(decoding.lengths)
    if decoder.inputs.keys() != expected:
        raise ModelLoadError(
            f"decoding: expected {sorted(expected)} as the decoder's inputs, "
            f"got {sorted(decoder.inputs)}"
        )
    for name, output in decoding.from_encoder.items():
        _check_passed("from_encoder", encoder.outputs.get(output), decoder.inputs[name])
    for name, output in decoding.from_step.items():
        _check_passed("from_step", decoder.outputs.get(output), decoder.inputs[name])
    padded = [{*axis.padding, axis.lengths} for axis in contract.padded_axes.values()]
    named = {*contract.value_ranges, *contract.vocabularies}.union(*padded)
    _check_known("inputs of the pair", named, {*encoder.inputs, *decoder.inputs})
    _check_known("outputs of the pair", contract.labels, {*encoder.outputs, *decoder.outputs})
    made = (decoding.log_probabilities, decoding.attention)
    _check_known("outputs of the decoder", made, decoder.outputs)


def _check_known(what: str, named: Iterable[str | None], known: Collection[str]) -> None:
    if strays := [name for name in named if name is not None and name not in known]:
        raise ModelLoadError(f"contract: expected {what}, {sorted(known)}, got {sorted(strays)}")


def _check_passed(key: str, output: TensorSpec | None, taken: TensorSpec) -> None:
    """Check that an output can be passed as an input; sizes count only if both are fixed."""
    fits = output is not None and (
        output.datatype == taken.datatype
        and len(output.axes) == len(taken.axes)
        and all(
            given == wanted or not (isinstance(given, int) and isinstance(wanted, int))
            for given, wanted in zip(output.axes, taken.axes, strict=True)
        )
    )
    if not fits:
        got = "none" if output is None else f"{output.datatype} {list(output.axes)}"
        raise ModelLoadError(
            f"decoding: {key}: expected an output for {taken.name!r}, "
            f"{taken.datatype} {list(taken.axes)}, got {got}"
        )
