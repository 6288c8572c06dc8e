"""Time-delay neural network (TDNN): convolutions over time, without a loop over steps.

A. Waibel, T. Hanazawa, G. Hinton, K. Shikano, K. Lang, "Phoneme Recognition Using Time-Delay Neural
Networks", IEEE Transactions on Acoustics, Speech, and Signal Processing 37(3), 1989.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from weir.training.errors import ModelError
from weir.training.models.masking import Encoded, real_steps, state_at_end, without_padding


class TDNN(nn.Module):
    """Layers of dilated convolutions; the receptive field grows with the layer.

    Takes a sequence (B, T, F) of float32 and lengths (B,) of int64, each from 1 to T. Returns
    `Encoded`. A state depends on `sum(dilations) * (kernel - 1) / 2` steps on each side.

    Deviations: ReLU in place of the logistic function; delays on both sides in place of the past
    only; dilation that grows with the layer (Peddinti et al., 2015) in place of adjacent delays;
    residual connections except in the first layer (He et al., 2016); dropout.

    Args:
        inputs: F.
        dilations: distance between the delays of each layer, in steps.
        kernel: delays per layer; odd, so the sides are symmetric.
        dropout: share of each layer's output set to 0 in training.
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
                f"tdnn: expected an odd kernel and at least one dilation, "
                f"got {kernel} and {list(dilations)}"
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
        states = without_padding(sequence, lengths).transpose(1, 2)  # (B, F, T)
        real = real_steps(lengths, sequence.shape[1])[:, None].to(states.dtype)  # (B, 1, T)
        for number, layer in enumerate(self.layers):
            output = self.dropout(functional.relu(layer(states)))  # (B, width, T)
            # A convolution writes into the padding; without masking the next one would read it.
            # With a product of this layout in place of `where`, a run takes 0.85 of the time.
            states = (states + output if number else output) * real
        states = states.transpose(1, 2)  # (B, T, width)
        return Encoded(states, state_at_end(states, lengths))
