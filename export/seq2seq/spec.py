"""Export specification of an encoder-decoder, which becomes two graphs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from weir.bundle.contract import Batching, Provenance, Tolerance
from weir.bundle.decoding import Decoding, Detokenisation
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.export.errors import ExportError
from weir.export.seq2seq.graphs import (
    ATTENTION,
    ATTENTION_DECODER_AXES,
    CONTEXT,
    CONTEXT_DECODER_AXES,
    ENCODER_AXES,
    KEYS,
    LENGTHS,
    LOG_PROBABILITIES,
    MEMORY,
    NEXT_STATE,
    PREVIOUS,
    STATE,
    TIME,
    TOKENS,
    AttentionEncoderOutputs,
    ContextEncoderOutputs,
)
from weir.export.spec import ExportSpec
from weir.training.data.vocabulary import BEGIN, END, PAD
from weir.training.models.seq2seq import EncoderDecoder


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSpec:
    """Specification of an encoder-decoder's export.

    Attributes:
        architecture: a short name of the network.
        maximum_source_steps: the limit of a source's tokens.
        maximum_steps: the limit of an output's steps, including the end token.
        steps_per_token: also limits an output to `extra_steps` plus this number for each source
            token; None: no such limit.
        extra_steps: see `steps_per_token`.
        padding: the padding id of both sides.
        begin: the decoder's first token.
        end: its last token.
        source_vocabulary: an entry for each id; empty: the server takes ids only.
        target_vocabulary: an entry for each id; empty: the server returns ids only.
        tokenisation: the conversion of a text into a source.
        subwords: the sentencepiece model, if `tokenisation` names one.
        detokenisation: the conversion of an output into a text.
        batching: limits of the server's batches.
        tolerance: as in `ExportSpec`, ten times as wide. Attention on one place magnifies small
            differences of its scores (2.6e-5 in the state of the trained `pronounce`). The outputs
            are compared by their tokens besides.
        examples: a description of the example inputs, for the record.
        training: the origin of the weights.
        commit: of the training code.
    """

    architecture: str
    maximum_source_steps: int = 512
    maximum_steps: int
    steps_per_token: float | None = None
    extra_steps: int = 0
    padding: int = PAD
    begin: int = BEGIN
    end: int = END
    source_vocabulary: Sequence[str] = ()
    target_vocabulary: Sequence[str] = ()
    tokenisation: Tokenisation | None = None
    subwords: bytes | None = None
    detokenisation: Detokenisation | None = None
    batching: Batching = field(default_factory=Batching)
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(absolute=1e-4, relative=1e-4))
    examples: str = "given by the caller"
    training: Provenance | None = None
    commit: str | None = None

    def __post_init__(self) -> None:
        model = self.tokenisation.model if self.tokenisation else None
        if (model is None) != (self.subwords is None):
            expected = "a subword model" if model else "no model without the rule subwords"
            raise ExportError(f"subwords: expected {expected}, got {'none' if model else 'one'}")

    def encoder(self, network: EncoderDecoder) -> ExportSpec:
        """The specification of the encoder's graph."""
        _check_vocabulary(TOKENS, self.source_vocabulary, network.embedding.num_embeddings)
        return ExportSpec(
            architecture=self.architecture,
            outputs=(AttentionEncoderOutputs if network.attends else ContextEncoderOutputs)._fields,
            axes=ENCODER_AXES,
            padded_axes={TIME: self._time_axis({TOKENS: self.padding})},
            value_ranges={TOKENS: ValueRange(maximum=network.embedding.num_embeddings - 1)},
            vocabularies={TOKENS: self.source_vocabulary} if self.source_vocabulary else {},
            tokenisation=self.tokenisation,
            tokenizer=self.subwords,
            tolerance=self.tolerance,
            examples=self.examples,
        )

    def decoder(self, network: EncoderDecoder) -> ExportSpec:
        """The specification of the decoder's graph."""
        words = network.decoder.embedding.num_embeddings
        _check_vocabulary(PREVIOUS, self.target_vocabulary, words)
        return ExportSpec(
            architecture=self.architecture,
            outputs=[LOG_PROBABILITIES, NEXT_STATE, *([ATTENTION] if network.attends else [])],
            axes=ATTENTION_DECODER_AXES if network.attends else CONTEXT_DECODER_AXES,
            padded_axes={TIME: self._time_axis({MEMORY: 0, KEYS: 0})} if network.attends else {},
            value_ranges={PREVIOUS: ValueRange(maximum=words - 1)},
            vocabularies={PREVIOUS: self.target_vocabulary} if self.target_vocabulary else {},
            tolerance=self.tolerance,
            examples=self.examples,
        )

    def decoding(self, network: EncoderDecoder) -> Decoding:
        """The contract's `decoding`, which connects both graphs; ExportError for contradictions."""
        kept = [MEMORY, KEYS] if network.attends else [CONTEXT]
        try:
            return Decoding(
                previous=PREVIOUS,
                log_probabilities=LOG_PROBABILITIES,
                lengths=LENGTHS if network.attends else None,
                attention=ATTENTION if network.attends else None,
                from_encoder={name: name for name in (STATE, *kept)},
                from_step={STATE: NEXT_STATE},
                padding=self.padding,
                begin=self.begin,
                end=self.end,
                maximum_steps=self.maximum_steps,
                steps_per_token=self.steps_per_token,
                extra_steps=self.extra_steps,
                detokenisation=self.detokenisation,
            )
        except ValueError as error:
            raise ExportError(f"decoding: {error}") from error

    def time_axis(self, network: EncoderDecoder) -> PaddedAxis:
        """The padded axis of both graphs."""
        attended = {MEMORY: 0, KEYS: 0} if network.attends else {}
        return self._time_axis({TOKENS: self.padding, **attended})

    def _time_axis(self, padding: dict[str, int]) -> PaddedAxis:
        return PaddedAxis(maximum=self.maximum_source_steps, lengths=LENGTHS, padding=padding)


def _check_vocabulary(name: str, entries: Sequence[str], words: int) -> None:
    if entries and len(entries) != words:
        raise ExportError(
            f"vocabularies: {name}: expected {words} entries, one for each embedding, "
            f"got {len(entries)}"
        )
