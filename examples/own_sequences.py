"""Publish a network of your own for rows of unequal length: a class for a text of any length.

    python examples/own_sequences.py models/

`weir serve models/` then pads requests of unequal length into one batch, and each gets the answer
that it gets alone. Export verifies that first.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from weir.export import ExportSpec, PaddedAxis, ValueRange, publish
from weir.training.models.recurrent import Recurrent

WORDS, STEPS = 1000, 40
PADDING = 0


class Classifier(nn.Module):
    """A class for a row of tokens, by an LSTM in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 32, padding_idx=PADDING)
        # `Recurrent` stops at the length of each row, in PyTorch and in the graph, which
        # pack_padded_sequence does in PyTorch only. `from_torch` copies the weights of your layer.
        lstm = nn.LSTM(32, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.recurrent = Recurrent.from_torch(lstm)
        self.output = nn.Linear(self.recurrent.width, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Classify tokens (B, T) with lengths (B,); returns logits (B, 3)."""
        encoded = self.recurrent(self.embedding(tokens), lengths)
        logits: Tensor = self.output(encoded.last)
        return logits


def main(models: Path) -> None:
    """Publish the network into the model repository `models`."""
    torch.manual_seed(0)
    network = Classifier()  # train it here, or load its weights
    lengths = torch.randint(1, STEPS + 1, (16,))
    lengths[0] = STEPS
    tokens = torch.randint(1, WORDS, (16, STEPS))
    tokens[torch.arange(STEPS) >= lengths[:, None]] = PADDING
    published = publish(
        network,
        {"tokens": tokens, "lengths": lengths},
        ExportSpec(
            architecture="classifier",
            outputs=["logits"],
            # Every axis that varies, by input and position; all others keep the examples' size.
            axes={"tokens": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
            # Rows of one batch may differ along `time`. Clients may leave `lengths` out.
            padded_axes={
                "time": PaddedAxis(maximum=512, lengths="lengths", padding={"tokens": PADDING})
            },
            value_ranges={"tokens": ValueRange(maximum=WORDS - 1)},
            labels={"logits": ["no", "maybe", "yes"]},
        ),
        to=models,
        name="classifier",
    )
    print(f"{published.path}: within {published.parity.max_absolute:.1e} of PyTorch")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
