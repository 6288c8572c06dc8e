"""Attention: a weight for each source step, and the weighted mean of the encoder states."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Attended(NamedTuple):
    """Context (B, W), and weights (B, T), 0 beyond a row's length."""

    context: Tensor
    weights: Tensor


class AdditiveAttention(nn.Module):
    """Additive attention (Bahdanau et al., 2015, section 3.1 and appendix A.1.2).

        energy of step j = v · tanh(W query + U state_j + b)

    The weights are the softmax of the energies over a row's real steps.

    Deviation: a bias b. The keys U state + b are computed once per sentence, as the paper advises.

    Args:
        query_size: Q, of the decoder's state.
        state_size: W, of the encoder's states.
    """

    def __init__(self, query_size: int, state_size: int, size: int) -> None:
        super().__init__()
        self.of_query = nn.Linear(query_size, size, bias=False)
        self.of_state = nn.Linear(state_size, size)
        self.energy = nn.Linear(size, 1, bias=False)
        nn.init.zeros_(self.of_state.bias)

    def keys(self, states: Tensor) -> Tensor:
        """Keys (B, T, A) of states (B, T, W): the energies without the query's part."""
        keys: Tensor = self.of_state(states)  # (B, T, A)
        return keys

    def forward(self, query: Tensor, keys: Tensor, states: Tensor, real: Tensor) -> Attended:
        """Attend to the real steps of each row.

        Args:
            query: (B, Q), the decoder's state.
            keys: (B, T, A), of `keys`.
            states: (B, T, W), finite beyond a row's length too.
            real: (B, T) bool, True where a step is real; at least one in a row.

        Returns:
            Context and weights; a row's weights sum to 1, and are exactly 0 where a step is not
            real.
        """
        seen = torch.tanh(keys + self.of_query(query)[:, None])  # (B, T, A)
        energies = self.energy(seen).squeeze(2)  # (B, T)
        weights = torch.softmax(energies.masked_fill(~real, -torch.inf), dim=1)  # (B, T)
        context = torch.bmm(weights[:, None], states).squeeze(1)  # (B, W)
        return Attended(context, weights)
