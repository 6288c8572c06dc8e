"""The way from an encoder-decoder to a published bundle of two graphs.

Three gates: each graph against its half of the network, as any graph; each row alone against the row in a
batch, attention included; and the two together against the whole: the same tokens, for real inputs.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from weir.bundle import golden, reader, writer
from weir.bundle.contract import Contract, Parity
from weir.bundle.decoding import Decoding
from weir.bundle.golden import Golden
from weir.bundle.writer import lines_of, vocabulary_file
from weir.export import runtime, samples
from weir.export.errors import ExportError, ParityError
from weir.export.publishing import (
    GOLDEN_ROWS,
    Published,
    check_arguments,
    evaluating,
    export_exact,
    recorded_versions,
)
from weir.export.runs.text import LENGTHS, TIME, TOKENS
from weir.export.seq2seq.graphs import (
    CONTEXT,
    KEYS,
    MEMORY,
    PREVIOUS,
    STATE,
    EncoderGraph,
    decode,
    decoder_graph,
    limits_of,
    special_tokens,
)
from weir.export.seq2seq.spec import PairSpec
from weir.export.spec import ExportCandidate
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.seq2seq.search import Hypothesis, greedy, stepper_of

MOST_SEQUENCES = 200
"""Example inputs that are answered by network and graphs, token for token."""
OUTPUT_TOKENS, OUTPUT_LENGTHS = "output_tokens", "output_lengths"

_ROWS = 50
_EXAMPLE_STEPS = 3


def publish_pair(
    module: EncoderDecoder,
    example_inputs: Mapping[str, Tensor],
    contract: PairSpec,
    *,
    to: Path | str,
    name: str,
    version: int | None = None,
) -> Published:
    """Export an encoder-decoder as two graphs, and publish them if they answer as it does.

    Args:
        module: on the CPU; it is exported in eval mode, and left in the mode it was in.
        example_inputs: `tokens` (B, T) and `lengths` (B,) of real sources. The first 200 are also
            answered as a whole.
        contract: what neither network nor graphs can say.
        to: the model repository.
        name: the model's name.
        version: its number, the next free one by default.

    Raises:
        ExportError: the arguments do not fit, torch cannot export, or (ParityError) the graphs
            compute something else.
        BundleError: the name is not valid, or the version exists.
    """
    models = Path(to)
    writer.check_target(models, name, version)
    _check_inputs(example_inputs)
    decoding = contract.decoding(module)
    examples = {TOKENS: example_inputs[TOKENS], LENGTHS: example_inputs[LENGTHS]}
    with evaluating(module):
        encoder = _encoder(module, examples, contract)
        decoder = _decoder(module, examples, contract, decoding)
        compared = _compare_answers(module, encoder.model, decoder.model, examples, contract)
        whole = _record(module, examples, contract)
    files = {
        reader.ENCODER: encoder.model,
        reader.DECODER: decoder.model,
        golden.FILE_NAME: golden.encode(whole),
        golden.file_of("encoder"): golden.encode(encoder.golden),
        golden.file_of("decoder"): golden.encode(decoder.golden),
        **{vocabulary_file(key): lines_of(texts) for key, texts in _vocabularies(contract).items()},
    }
    if contract.tokenisation and contract.tokenisation.model and contract.subwords:
        files[contract.tokenisation.model] = contract.subwords
    measured = _joined(encoder.parity, decoder.parity, compared)
    said = _contract(module, contract, decoding, measured)
    path = writer.write(files, said, models, name, version)
    return Published(
        path=path,
        version=int(path.name),
        parity=measured,
        size_bytes=sum(map(len, files.values())),
    )


def _check_inputs(inputs: Mapping[str, Tensor]) -> None:
    if set(inputs) != {TOKENS, LENGTHS}:
        raise ExportError(f"example inputs: expected tokens and lengths, got {sorted(inputs)}")


def _encoder(
    network: EncoderDecoder, examples: Mapping[str, Tensor], pair: PairSpec
) -> ExportCandidate:
    spec = pair.encoder(network)
    check_arguments(network, examples, spec)
    return export_exact(EncoderGraph(network).eval(), examples, spec)


def _decoder(
    network: EncoderDecoder, examples: Mapping[str, Tensor], pair: PairSpec, decoding: Decoding
) -> ExportCandidate:
    spec = pair.decoder(network)
    return export_exact(
        decoder_graph(network).eval(), _step_examples(network, examples, decoding.begin), spec
    )


@torch.no_grad()
def _step_examples(
    network: EncoderDecoder, examples: Mapping[str, Tensor], begin: int
) -> dict[str, Tensor]:
    """Inputs of one step, as decoding the examples greedily comes by them: rows in turn at each step."""
    lengths = examples[LENGTHS]
    memory = network.encode(examples[TOKENS], lengths)
    previous, state = torch.full_like(lengths, begin), memory.state
    chosen_previous, chosen_state = previous, state
    for number in range(1, _EXAMPLE_STEPS):
        made = network.step(previous, state, memory, lengths)
        previous, state = made.log_probabilities.argmax(dim=1), made.state
        is_here = torch.arange(len(lengths)) % _EXAMPLE_STEPS == number
        chosen_previous = torch.where(is_here, previous, chosen_previous)
        chosen_state = torch.where(is_here[:, None], state, chosen_state)
    step = {PREVIOUS: chosen_previous, STATE: chosen_state}
    if memory.states is not None and memory.keys is not None:
        return {**step, MEMORY: memory.states, KEYS: memory.keys, LENGTHS: lengths}
    if memory.context is not None:
        step[CONTEXT] = memory.context
    return step


def _compare_answers(
    network: EncoderDecoder,
    encoder: bytes,
    decoder: bytes,
    examples: Mapping[str, Tensor],
    pair: PairSpec,
) -> int:
    """How many examples network and graphs answered with the same tokens: all that were tried.

    Raises:
        ParityError: they answered one differently.
    """
    spec, decoding = pair.encoder(network), pair.decoding(network)
    sessions = runtime.open_session(encoder), runtime.open_session(decoder)
    count = min(MOST_SEQUENCES, len(examples[LENGTHS]))
    for first in range(0, count, _ROWS):
        batch = samples.take(examples, spec, first, min(_ROWS, count - first))
        expected = _answers(network, batch, decoding)
        actual = decode(*sessions, decoding, batch)
        for row, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
            if (wanted.tokens, wanted.is_complete) != (got.tokens, got.is_complete):
                raise ParityError(
                    f"example {first + row}: PyTorch answers {list(wanted.tokens)}, "
                    f"ONNX Runtime {list(got.tokens)}; nothing was published"
                )
    return count


def _answers(
    network: EncoderDecoder, inputs: Mapping[str, Tensor], decoding: Decoding
) -> list[Hypothesis]:
    lengths = inputs[LENGTHS]
    with torch.no_grad():
        memory = network.encode(inputs[TOKENS], lengths)
    step = stepper_of(network, memory, lengths)
    return greedy(step, memory.state, limits_of(decoding, lengths), special_tokens(decoding))


def _record(network: EncoderDecoder, examples: Mapping[str, Tensor], pair: PairSpec) -> Golden:
    """A few sources, and what PyTorch answers: tokens filled up with padding, and how many there are."""
    inputs = samples.spread(examples, pair.encoder(network), GOLDEN_ROWS)
    answers = [each.tokens for each in _answers(network, inputs, pair.decoding(network))]
    tokens = torch.full((len(answers), max(map(len, answers))), pair.padding)
    for row, answer in enumerate(answers):
        tokens[row, : len(answer)] = torch.tensor(answer, dtype=torch.int64)
    counts = torch.tensor([len(answer) for answer in answers])
    return Golden(
        inputs={name: tensor.numpy() for name, tensor in inputs.items()},
        outputs={OUTPUT_TOKENS: tokens.numpy(), OUTPUT_LENGTHS: counts.numpy()},
    )


def _joined(encoder: Parity, decoder: Parity, sequences: int) -> Parity:
    """The worse of both graphs, and how many sequences came out alike."""
    return encoder.model_copy(
        update={
            "max_absolute": max(encoder.max_absolute, decoder.max_absolute),
            "max_relative": max(encoder.max_relative, decoder.max_relative),
            "rows": encoder.rows + decoder.rows,
            "sequences": sequences,
        }
    )


def _vocabularies(pair: PairSpec) -> dict[str, list[str]]:
    texts = {TOKENS: pair.source_vocabulary, PREVIOUS: pair.target_vocabulary}
    return {name: list(entries) for name, entries in texts.items() if entries}


def _contract(
    network: EncoderDecoder, pair: PairSpec, decoding: Decoding, measured: Parity
) -> Contract:
    try:
        return Contract(
            task="sequence-to-sequence",
            architecture=pair.architecture,
            padded_axes={TIME: pair.time(network)},
            value_ranges={
                **pair.encoder(network).value_ranges,
                **pair.decoder(network).value_ranges,
            },
            vocabularies={name: vocabulary_file(name) for name in _vocabularies(pair)},
            tokenisation=pair.tokenisation,
            decoding=decoding,
            batching=pair.batching,
            tolerance=pair.tolerance,
            parity=measured,
            training=pair.training,
            versions=recorded_versions(),
            commit=pair.commit,
        )
    except ValidationError as error:
        raise ExportError(str(error.errors(include_url=False)[0]["msg"])) from error
