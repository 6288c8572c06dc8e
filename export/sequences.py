"""A trained network of sequences as it is served: logits, and what they say."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

TOKENS, CHARACTERS, FRAMES, LENGTHS = "tokens", "characters", "frames", "lengths"
LOGITS = "logits"
TIME, LETTERS = "time", "letters"
"""The axes along which rows differ in length."""


class Classified(NamedTuple):
    """logits (B, classes), and their softmax."""

    logits: Tensor
    probabilities: Tensor


class Tagged(NamedTuple):
    """logits (B, T, classes), and the class of the greatest at each step (B, T)."""

    logits: Tensor
    tag_ids: Tensor


class WordOutputs(nn.Module):
    """A classifier or a tagger of words."""

    def __init__(self, network: nn.Module, *, is_tagging: bool) -> None:
        super().__init__()
        self.network = network
        self.is_tagging = is_tagging

    def forward(
        self, tokens: Tensor, lengths: Tensor, characters: Tensor | None = None
    ) -> Classified | Tagged:
        """Answer tokens (B, T), lengths (B,) and, where the network reads them, letters (B, T, L)."""
        logits = self.network(tokens, lengths, characters)
        return _answer(logits, is_tagging=self.is_tagging)


class FrameOutputs(nn.Module):
    """A classifier of frames."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor, lengths: Tensor) -> Classified | Tagged:
        """Answer frames (B, T, features) of uint8 and lengths (B,)."""
        return _answer(self.network(frames, lengths), is_tagging=False)


def _answer(logits: Tensor, *, is_tagging: bool) -> Classified | Tagged:
    if is_tagging:
        return Tagged(logits, logits.argmax(dim=-1))
    return Classified(logits, torch.softmax(logits, dim=-1))
