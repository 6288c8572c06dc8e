"""Auxiliary classifiers: answers from the middle of a network, which exist in training only.

A network that has them returns `WithAuxiliary` in training mode, and its logits alone otherwise. Built
without them, it passes over their weights: a finished run's, and those in torchvision's layout.
"""

from typing import NamedTuple

from torch import Tensor, nn


class WithAuxiliary(NamedTuple):
    """What a network with auxiliary classifiers returns in training: logits (B, classes) of each."""

    logits: Tensor
    auxiliary: tuple[Tensor, ...]


def drop_auxiliary_weights(
    network: nn.Module, state: dict[str, Tensor], _prefix: str, *_others: object
) -> None:
    """A load_state_dict pre-hook: weights of auxiliary classifiers the network does not have are no error."""
    heads = {name for name, _ in network.named_children() if name.lower().startswith("aux")}
    for name in list(state):
        head = name.partition(".")[0]
        if head.lower().startswith("aux") and head not in heads:
            del state[name]
