"""Publication of an encoder-decoder as two graphs.

Three comparisons with PyTorch precede it:

- each graph with its half of the network;
- each row alone with the same row in a batch, including attention;
- for real inputs, the tokens that both graphs decode together.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from weir.bundle import golden, reader, writer
from weir.bundle.contract import Contract
from weir.bundle.decoding import Decoding
from weir.bundle.golden import Golden
from weir.bundle.writer import lines_of, vocabulary_file
from weir.export import runtime, samples
from weir.export.errors import ExportError, ParityError
from weir.export.publishing import (
    GOLDEN_ROWS,
    Published,
    advise,
    evaluating,
    export_exact,
    recorded_versions,
)
from weir.export.seq2seq.graphs import (
    CONTEXT,
    KEYS,
    LENGTHS,
    MEMORY,
    PREVIOUS,
    STATE,
    TIME,
    TOKENS,
    AttentionDecoderGraph,
    ContextDecoderGraph,
    EncoderGraph,
    decode,
    limits_of,
    special_tokens,
)
from weir.export.seq2seq.spec import PairSpec
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.seq2seq.search import Hypothesis, greedy, stepper_of

MOST_SEQUENCES = 200
"""The limit of example inputs that are decoded and compared token by token."""
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
    """Export an encoder-decoder as two graphs, and publish them if they agree with it.

    Args:
        module: on the CPU; it is exported in eval mode and keeps the mode it has.
        example_inputs: `tokens` (B, T) and `lengths` (B,) of real sources. The first 200 are also
            decoded by both graphs together.
        contract: the facts that neither network nor graphs contain.
        to: the model repository.
        name: the model's name.
        version: its number; by default the next free one.

    Raises:
        ExportError: the arguments do not fit, or torch cannot export; ParityError: the graphs'
            outputs differ.
        BundleError: the name is invalid, or the version exists.
    """
    writer.check_target(Path(to), name, version)
    if set(example_inputs) != {TOKENS, LENGTHS}:
        raise ExportError(
            f"example inputs: expected tokens and lengths, got {sorted(example_inputs)}"
        )
    decoding = contract.decoding(module)
    vocabularies = {TOKENS: contract.source_vocabulary, PREVIOUS: contract.target_vocabulary}
    # Before the exports, which take long: the specification may contradict itself.
    try:
        written = Contract(
            task="sequence-to-sequence",
            architecture=contract.architecture,
            padded_axes={TIME: contract.time_axis(module)},
            value_ranges={
                **contract.encoder(module).value_ranges,
                **contract.decoder(module).value_ranges,
            },
            vocabularies={
                key: vocabulary_file(key) for key, texts in vocabularies.items() if texts
            },
            tokenisation=contract.tokenisation,
            decoding=decoding,
            batching=contract.batching,
            tolerance=contract.tolerance,
            training=contract.training,
            versions=recorded_versions(),
            commit=contract.commit,
        )
    except ValidationError as error:
        raise ExportError(str(error.errors(include_url=False)[0]["msg"])) from error
    examples = {TOKENS: example_inputs[TOKENS], LENGTHS: example_inputs[LENGTHS]}
    decoder_class = AttentionDecoderGraph if module.attends else ContextDecoderGraph
    with evaluating(module):
        encoder = export_exact(EncoderGraph(module).eval(), examples, contract.encoder(module))
        decoder = export_exact(
            decoder_class(module).eval(),
            _step_examples(module, examples, decoding.begin),
            contract.decoder(module),
        )
        if encoder.external_data or decoder.external_data:
            raise ExportError("expected two graphs of less than 2 GiB each, got a larger one")
        sequences = _compare_tokens(module, encoder.model, decoder.model, examples, contract)
        whole = _record(module, examples, contract)
    files = {
        reader.ENCODER: encoder.model,
        reader.DECODER: decoder.model,
        golden.FILE_NAME: golden.encode(whole),
        golden.file_of("encoder"): golden.encode(encoder.golden),
        golden.file_of("decoder"): golden.encode(decoder.golden),
        **{vocabulary_file(key): lines_of(texts) for key, texts in vocabularies.items() if texts},
    }
    if contract.tokenisation and contract.tokenisation.model and contract.subwords:
        files[contract.tokenisation.model] = contract.subwords
    parity = encoder.parity.model_copy(
        update={
            "max_absolute": max(encoder.parity.max_absolute, decoder.parity.max_absolute),
            "max_relative": max(encoder.parity.max_relative, decoder.parity.max_relative),
            "rows": encoder.parity.rows + decoder.parity.rows,
            "sequences": sequences,
        }
    )
    written = written.model_copy(update={"parity": parity})
    path = writer.write(files, written, Path(to), name, version)
    return Published(
        path=path,
        version=int(path.name),
        parity=parity,
        size_bytes=sum(map(len, files.values())),
        advice=advise(path),
    )


@torch.no_grad()
def _step_examples(
    network: EncoderDecoder, examples: Mapping[str, Tensor], begin: int
) -> dict[str, Tensor]:
    """Inputs of decoder steps that occur when the examples are decoded greedily.

    Row r is taken from step r modulo `_EXAMPLE_STEPS`.
    """
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


def _compare_tokens(
    network: EncoderDecoder,
    encoder: bytes,
    decoder: bytes,
    examples: Mapping[str, Tensor],
    pair: PairSpec,
) -> int:
    """Number of examples decoded by network and graphs; ParityError if the tokens of one differ."""
    spec, decoding = pair.encoder(network), pair.decoding(network)
    sessions = runtime.open_session(encoder), runtime.open_session(decoder)
    count = min(MOST_SEQUENCES, len(examples[LENGTHS]))
    for first in range(0, count, _ROWS):
        batch = samples.take(examples, spec, first, min(_ROWS, count - first))
        expected = _decode_with_network(network, batch, decoding)
        actual = decode(*sessions, decoding, batch)
        for row, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
            if (wanted.tokens, wanted.is_complete) != (got.tokens, got.is_complete):
                raise ParityError(
                    f"example {first + row}: PyTorch decodes {list(wanted.tokens)}, "
                    f"ONNX Runtime {list(got.tokens)}; nothing was published"
                )
    return count


def _decode_with_network(
    network: EncoderDecoder, inputs: Mapping[str, Tensor], decoding: Decoding
) -> list[Hypothesis]:
    lengths = inputs[LENGTHS]
    with torch.no_grad():
        memory = network.encode(inputs[TOKENS], lengths)
    step = stepper_of(network, memory, lengths)
    return greedy(step, memory.state, limits_of(decoding, lengths), special_tokens(decoding))


def _record(network: EncoderDecoder, examples: Mapping[str, Tensor], pair: PairSpec) -> Golden:
    """A few sources with PyTorch's tokens, padded, and their numbers."""
    inputs = samples.spread(examples, pair.encoder(network), GOLDEN_ROWS)
    decoded = [
        each.tokens for each in _decode_with_network(network, inputs, pair.decoding(network))
    ]
    tokens = torch.full((len(decoded), max(map(len, decoded))), pair.padding)
    for row, own in enumerate(decoded):
        tokens[row, : len(own)] = torch.tensor(own, dtype=torch.int64)
    return Golden(
        inputs={name: tensor.numpy() for name, tensor in inputs.items()},
        outputs={
            OUTPUT_TOKENS: tokens.numpy(),
            OUTPUT_LENGTHS: torch.tensor([len(own) for own in decoded]).numpy(),
        },
    )
