"""Publish a network of your own: any module with any training.

    python examples/own_network.py models/

Export compares the graph with PyTorch first; `weir serve models/` then serves it.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from weir.export import ExportSpec, publish


class Distance(nn.Module):
    """A network with two inputs and two outputs: is a vector near another one?"""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 4)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Compare left (B, 8) with right (B, 8)."""
        gap = self.project(left) - self.project(right)  # (B, 4)
        distance = gap.square().sum(dim=1, keepdim=True)  # (B, 1)
        return distance, torch.cat([distance - 1, 1 - distance], dim=1)


def main(models: Path) -> None:
    """Publish the network into the model repository `models`."""
    torch.manual_seed(0)
    network = Distance()  # train it here, or load its weights
    published = publish(
        network,
        {"left": torch.randn(16, 8), "right": torch.randn(16, 8)},
        ExportSpec(
            architecture="distance",
            outputs=["distance", "logits"],
            # Every axis that varies, by input and position; see own_sequences.py for more.
            axes={"left": {0: "batch"}, "right": {0: "batch"}},
            labels={"logits": ["far", "near"]},
        ),
        to=models,
        name="distance",
    )
    print(f"{published.path}: within {published.parity.max_absolute:.1e} of PyTorch")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
