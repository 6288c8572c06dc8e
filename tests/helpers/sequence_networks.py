"""Tiny networks over rows of unequal length, for the tests of export and server.

`tokens` is (B, T), `characters` (B, T, C) with 0 for padding, `lengths` (B,).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
from weir.export.spec import ExportSpec

WORDS = ["<pad>", "<unknown>", *(f"word{number}" for number in range(18))]
LETTERS = ["<pad>", "<unknown>", *"abcdefgh"]
CLASSES = ["red", "green", "blue"]

TOKEN_AXES = {"tokens": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
LETTER_AXES = {**TOKEN_AXES, "characters": {0: "batch", 1: "time", 2: "letters"}}
TIME = PaddedAxis(maximum=24, lengths="lengths", padding={"tokens": 0})


class Scores(NamedTuple):
    """logits (B, classes) and their softmax."""

    logits: Tensor
    probabilities: Tensor


class Tags(NamedTuple):
    """logits (B, T, tags) and the greatest's place, (B, T)."""

    logits: Tensor
    tag_ids: Tensor


def mask_of(lengths: Tensor, steps: int) -> Tensor:
    """(B, T, 1), 1 where a row has a token."""
    return (torch.arange(steps)[None] < lengths[:, None]).unsqueeze(-1).to(torch.float32)


class Mean(nn.Module):
    """The mean of the tokens' embeddings, classified."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(WORDS), 6)
        self.fc = nn.Linear(6, len(CLASSES))

    def forward(self, tokens: Tensor, lengths: Tensor) -> Scores:
        mask = mask_of(lengths, tokens.shape[1])  # (B, T, 1)
        logits = self.fc((self.embed(tokens) * mask).sum(dim=1) / mask.sum(dim=1))
        return Scores(logits, torch.softmax(logits, dim=-1))


class Forgetful(Mean):
    """The same, but padding counts."""

    def forward(self, tokens: Tensor, lengths: Tensor) -> Scores:
        return super().forward(tokens, torch.full_like(lengths, tokens.shape[1]))


class Tagger(nn.Module):
    """A convolution over tokens and the sums of their letters; padding is masked."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(WORDS), 6)
        self.spell = nn.Embedding(len(LETTERS), 6, padding_idx=0)
        self.convolve = nn.Conv1d(6, 8, 3, padding=1)
        self.fc = nn.Linear(8, len(CLASSES))

    def forward(self, tokens: Tensor, characters: Tensor, lengths: Tensor) -> Tags:
        words = self.embed(tokens) + self.spell(characters).sum(dim=2)  # (B, T, 6)
        words = words * mask_of(lengths, tokens.shape[1])
        logits = self.fc(self.convolve(words.transpose(1, 2)).relu().transpose(1, 2))
        return Tags(logits, logits.argmax(dim=-1))


class Recurrent(nn.Module):
    """A recurrent layer, packed in PyTorch and one node in the graph, then tags for every step."""

    def __init__(self, kind: str = "LSTM") -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Embedding(len(WORDS), 8)
        layers: dict[str, Any] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
        self.layer = layers[kind](8, 16)
        self.fc = nn.Linear(16, len(CLASSES))
        # PyTorch's gates are input, forget, cell, output; or reset, update, new.
        order = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}[kind]
        weights = [_ordered(weight.detach(), order) for weight in self.layer.parameters()]
        self.register_buffer("input_weight", weights[0][None])
        self.register_buffer("state_weight", weights[1][None])
        self.register_buffer("bias", torch.cat(weights[2:])[None])

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tags:
        words = self.embed(tokens).transpose(0, 1)  # (T, B, 8)
        if torch.onnx.is_in_onnx_export():
            states = self._as_node(words, lengths)
        else:
            packed = pack_padded_sequence(words, lengths, enforce_sorted=False)
            states = pad_packed_sequence(self.layer(packed)[0], total_length=len(words))[0]
        logits = self.fc(states.transpose(0, 1))  # (B, T, classes)
        return Tags(logits, logits.argmax(dim=-1))

    def _as_node(self, words: Tensor, lengths: Tensor) -> Tensor:
        steps, rows, size = words.shape[0], words.shape[1], 16
        shapes: list[Sequence[int]] = [(steps, 1, rows, size), (1, rows, size)]
        shapes += [(1, rows, size)] if self.kind == "LSTM" else []
        attributes: dict[str, Any] = {"hidden_size": size, "direction": "forward"}
        if self.kind == "GRU":
            attributes["linear_before_reset"] = 1
        states = torch.onnx.ops.symbolic_multi_out(
            self.kind,
            (
                words,
                self.get_buffer("input_weight"),
                self.get_buffer("state_weight"),
                self.get_buffer("bias"),
                lengths.to(torch.int32),
            ),
            attributes,
            dtypes=[words.dtype] * len(shapes),
            shapes=shapes,
            version=14,
        )[0]
        return states.reshape(steps, rows, size)


def _ordered(weight: Tensor, order: Sequence[int]) -> Tensor:
    gates = weight.chunk(len(order))
    return torch.cat([gates[gate] for gate in order])


def examples(rows: int = 12, *, has_letters: bool = False) -> dict[str, Tensor]:
    """Rows of 1 to 9 tokens, filled up with 0."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.arange(rows) * 5 % 9 + 1
    tokens = torch.randint(1, len(WORDS), (rows, int(lengths.max())), generator=generator)
    is_real = torch.arange(tokens.shape[1]) < lengths[:, None]  # (B, T)
    given = {"tokens": tokens * is_real, "lengths": lengths}
    if has_letters:
        letters = torch.randint(1, len(LETTERS), (*tokens.shape, 5), generator=generator)
        ends = torch.randint(1, 6, (*tokens.shape, 1), generator=generator)
        given["characters"] = letters * is_real.unsqueeze(-1) * (torch.arange(5) < ends)
    return given


def class_spec(**changes: Any) -> ExportSpec:
    """For `Mean`."""
    fields: dict[str, Any] = {
        "task": "sequence-classification",
        "architecture": "mean",
        "outputs": Scores._fields,
        "axes": TOKEN_AXES,
        "padded_axes": {"time": TIME},
        "labels": dict.fromkeys(Scores._fields, CLASSES),
        "vocabularies": {"tokens": WORDS},
        "tokenisation": Tokenisation(rule="words", lower=True, unknown=1),
    }
    return ExportSpec(**{**fields, **changes})


def tag_spec(**changes: Any) -> ExportSpec:
    """For `Tagger`, or with `TOKEN_AXES` and `TIME` alone for `Recurrent`."""
    time = PaddedAxis(maximum=24, lengths="lengths", padding={"tokens": 0, "characters": 0})
    fields: dict[str, Any] = {
        "task": "tagging",
        "architecture": "tagger",
        "outputs": Tags._fields,
        "axes": LETTER_AXES,
        "padded_axes": {
            "time": time,
            "letters": PaddedAxis(maximum=8, padding={"characters": 0}),
        },
        "labels": {"logits": CLASSES},
        "vocabularies": {"tokens": WORDS, "characters": LETTERS},
    }
    return ExportSpec(**{**fields, **changes})


def recurrent_spec(**changes: Any) -> ExportSpec:
    """For `Recurrent`."""
    return tag_spec(
        **{
            "architecture": "recurrent",
            "axes": TOKEN_AXES,
            "padded_axes": {"time": TIME},
            "vocabularies": {},
            "value_ranges": {"tokens": ValueRange(maximum=len(WORDS) - 1)},
            **changes,
        }
    )
