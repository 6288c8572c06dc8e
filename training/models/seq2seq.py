"""Encoder-decoder: maps a sequence to another sequence of any length.

`encode` and `step` become the two graphs of an export; `forward` is for training.
"""

import torch
from torch import Tensor, nn

from weir.training.models.decoder import Decoder, DecoderCell, Memory, Step
from weir.training.models.embeddings import small_embedding
from weir.training.models.recurrent import Recurrent


class EncoderDecoder(nn.Module):
    """A recurrent encoder, and a decoder that attends to its states (Bahdanau et al., 2015).

    Without attention the decoder reads the encoder's last state at every step (Cho et al., 2014). A
    decoder that reads it once, as in Sutskever et al., 2014, is the special case of an ignored
    context.

    Deviation: the first decoder state is a tanh layer of the final encoder states in both
    directions; in Bahdanau et al. of the backward direction only. The first c of an LSTM is
    computed the same way.

    Args:
        source_words: size of the source vocabulary, padding (0) included.
        target_words: V, size of the target vocabulary, padding (0) included.
        hidden: of a state, per direction of the encoder, and in the decoder.
        dropout: see `Recurrent` and `Decoder`; also on the source's embeddings.
    """

    def __init__(
        self,
        *,
        source_words: int,
        target_words: int,
        cell: DecoderCell = "gru",
        word_size: int = 256,
        hidden: int = 256,
        layers: int = 1,
        decoder_layers: int = 1,
        bidirectional: bool = True,
        attends: bool = True,
        dropout: float = 0.0,
        is_tied: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = small_embedding(source_words, word_size)
        self.dropout = nn.Dropout(dropout)
        self.encoder = Recurrent(
            cell, word_size, hidden, layers=layers, bidirectional=bidirectional, dropout=dropout
        )
        self.decoder = Decoder(
            cell,
            words=target_words,
            word_size=word_size,
            context_size=self.encoder.width,
            hidden=hidden,
            layers=decoder_layers,
            attention_size=hidden if attends else None,
            readout_size=word_size,
            dropout=dropout,
            is_tied=is_tied,
        )
        self.first = nn.Linear(self.encoder.width, self.decoder.cells.state_size)

    @property
    def attends(self) -> bool:
        """Whether the decoder has attention."""
        return self.decoder.attention is not None

    def encode(self, tokens: Tensor, lengths: Tensor) -> Memory:
        """The memory of tokens (B, T) with lengths (B,), both int64."""
        vectors = self.dropout(self.embedding(tokens))  # (B, T, E)
        states, last = self.encoder(vectors, lengths)  # (B, T, W), (B, W)
        state = torch.tanh(self.first(last))  # (B, S)
        if self.decoder.attention is None:
            return Memory(None, None, state, context=last)
        return Memory(states, self.decoder.attention.keys(states), state, context=None)

    def step(self, previous: Tensor, state: Tensor, memory: Memory, lengths: Tensor) -> Step:
        """One decoder step of each row, after tokens `previous` (B,), from states (B, S)."""
        return self.decoder.step(previous, state, memory, lengths)

    def forward(
        self, tokens: Tensor, lengths: Tensor, previous: Tensor, forced: Tensor | None = None
    ) -> Tensor:
        """Logits (B, U, V) of the tokens after `previous` (B, U).

        Args:
            tokens: (B, T), the source.
            lengths: (B,), of the source.
            previous: (B, U), the target after the begin token.
            forced: (B, U) bool, True where a step reads `previous`, see `Decoder.readouts`; None:
                all.
        """
        memory = self.encode(tokens, lengths)
        readouts = self.decoder.readouts(previous, memory, lengths, forced)  # (B, U, R)
        logits: Tensor = self.decoder.output(readouts)  # (B, U, V)
        return logits
