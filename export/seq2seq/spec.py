"""What an exporter must be told about an encoder-decoder, because the network itself cannot say it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from weir.bundle.contract import Batching, Provenance, Tolerance
from weir.bundle.decoding import Decoding, Detokenisation
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.export.errors import ExportError
from weir.export.runs.text import LENGTHS, TIME, TOKENS
from weir.export.seq2seq.graphs import (
    ATTENTION,
    ATTENTION_DECODER_AXES,
    CONTEXT,
    CONTEXT_DECODER_AXES,
    ENCODER_AXES,
    KEYS,
    LOG_PROBABILITIES,
    MEMORY,
    NEXT_STATE,
    PREVIOUS,
    STATE,
    AttentionEncoderOutputs,
    ContextEncoderOutputs,
)
from weir.export.spec import ExportSpec
from weir.training.data.vocabulary import BEGIN, END, PAD
from weir.training.models.seq2seq import EncoderDecoder


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSpec:
    """The engineer's half of the contract of an encoder-decoder.

    Attributes:
        architecture: what the network is, in a word.
        maximum_source_steps: the most tokens of one source.
        maximum_steps: the most steps of one answer, its end among them.
        steps_per_token: if given, an answer also makes at most `extra_steps` and so many for each
            token of its source.
        extra_steps: see there.
        padding: the id that fills up, of both sides.
        begin: the decoder's first token.
        end: its last.
        source_vocabulary: an entry for each id; none: the server takes ids only.
        target_vocabulary: likewise; none: it answers with ids only.
        tokenisation: how the server makes a source of a text.
        subwords: the sentencepiece model that cuts it, where `tokenisation` names one.
        detokenisation: how it makes a text of an answer.
        batching: limits for the server.
        tolerance: as of `ExportSpec`, but ten times as wide: attention that has learnt to look at one place
            magnifies what its scores differ by (2.6e-5 in the state of the trained `pronounce`). That the
            answers are the same is held by their tokens.
        examples: what the example inputs are, for the record.
        training: where the weights come from.
        commit: of the code that made them.
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
            expected = "a model of subwords" if model else "no model without the rule subwords"
            raise ExportError(f"subwords: expected {expected}, got {'none' if model else 'one'}")

    def encoder(self, network: EncoderDecoder) -> ExportSpec:
        """What is to be said of the encoder's graph."""
        _check_vocabulary(TOKENS, self.source_vocabulary, network.embedding.num_embeddings)
        return ExportSpec(
            architecture=self.architecture,
            outputs=(AttentionEncoderOutputs if network.attends else ContextEncoderOutputs)._fields,
            axes=ENCODER_AXES,
            padded_axes={TIME: self._time({TOKENS: self.padding})},
            value_ranges={TOKENS: ValueRange(maximum=network.embedding.num_embeddings - 1)},
            vocabularies={TOKENS: self.source_vocabulary} if self.source_vocabulary else {},
            tokenisation=self.tokenisation,
            tolerance=self.tolerance,
            examples=self.examples,
        )

    def decoder(self, network: EncoderDecoder) -> ExportSpec:
        """What is to be said of the decoder's."""
        words = network.decoder.embedding.num_embeddings
        _check_vocabulary(PREVIOUS, self.target_vocabulary, words)
        return ExportSpec(
            architecture=self.architecture,
            outputs=[LOG_PROBABILITIES, NEXT_STATE, *([ATTENTION] if network.attends else [])],
            axes=ATTENTION_DECODER_AXES if network.attends else CONTEXT_DECODER_AXES,
            padded_axes={TIME: self._time({MEMORY: 0, KEYS: 0})} if network.attends else {},
            value_ranges={PREVIOUS: ValueRange(maximum=words - 1)},
            vocabularies={PREVIOUS: self.target_vocabulary} if self.target_vocabulary else {},
            tolerance=self.tolerance,
            examples=self.examples,
        )

    def decoding(self, network: EncoderDecoder) -> Decoding:
        """How the graphs work together.

        Raises:
            ExportError: what is said contradicts itself.
        """
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

    def time(self, network: EncoderDecoder) -> PaddedAxis:
        """The padded axis of both graphs."""
        attended = {MEMORY: 0, KEYS: 0} if network.attends else {}
        return self._time({TOKENS: self.padding, **attended})

    def _time(self, padding: dict[str, int]) -> PaddedAxis:
        return PaddedAxis(maximum=self.maximum_source_steps, lengths=LENGTHS, padding=padding)


def _check_vocabulary(name: str, entries: Sequence[str], words: int) -> None:
    if entries and len(entries) != words:
        raise ExportError(
            f"vocabularies: {name}: expected {words} entries, as the network embeds, "
            f"got {len(entries)}"
        )
