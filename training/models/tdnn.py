"""A time-delay neural network: convolutions over time, which share weights over time without a loop.

A. Waibel, T. Hanazawa, G. Hinton, K. Shikano, K. Lang, "Phoneme Recognition Using Time-Delay Neural
Networks", IEEE Transactions on Acoustics, Speech, and Signal Processing 37(3), 1989.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from weir.training.errors import ModelError
from weir.training.models.masking import Encoded, state_at_end, without_padding


class TDNN(nn.Module):
    """Layers that see a few steps each; the higher the layer, the more of the sequence.

    Takes a sequence (B, T, F) of float32 and lengths (B,) of int64, each from 1 to T. Returns `Encoded`. A
    state sees `sum(dilations) * (kernel - 1) / 2` steps to each side.

    Deviations: ReLU in place of the logistic function; delays to both sides in place of the past only; steps
    between the delays that grow with the layer (dilation, as in Peddinti et al., 2015), where the paper has
    adjacent ones; each layer but the first adds its input to its output (He et al., 2016); dropout.

    Args:
        inputs: F.
        width: of a state.
        dilations: the distance between the delays of each layer, in steps.
        kernel: delays a layer; odd, so that they lie evenly to both sides.
        dropout: the share of each layer's output set to 0 in training.

    Raises:
        ModelError: an even kernel, or no layers.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        dilations: Sequence[int] = (1, 2, 4),
        kernel: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or not dilations:
            raise ModelError(
                f"expected an odd kernel and at least one dilation, got {kernel} and {list(dilations)}"
            )
        self.width = width
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            nn.Conv1d(
                width if number else inputs,
                width,
                kernel,
                dilation=dilation,
                padding=dilation * (kernel // 2),
            )
            for number, dilation in enumerate(dilations)
        )

    def forward(self, sequence: Tensor, lengths: Tensor) -> Encoded:
        """States (B, T, width) and last (B, width) of a sequence (B, T, F) with lengths (B,)."""
        states = without_padding(sequence, lengths)
        for number, layer in enumerate(self.layers):
            delayed = layer(states.transpose(1, 2)).transpose(1, 2)  # (B, T, width)
            output = self.dropout(functional.relu(delayed))
            # A convolution writes into the padding, and the next one would read it back.
            states = without_padding(states + output if number else output, lengths)
        return Encoded(states, state_at_end(states, lengths))
