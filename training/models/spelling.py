"""Character-level word vectors: a convolution over the letters of a word.

C. dos Santos, B. Zadrozny, "Learning Character-level Representations for Part-of-Speech Tagging",
ICML 2014, section 2.2; X. Ma, E. Hovy, "End-to-end Sequence Labeling via Bi-directional
LSTM-CNNs-CRF", ACL 2016, section 2.1.
"""

from torch import Tensor, nn
from torch.nn import functional

SMALL = 0.1
"""Standard deviation of fresh embeddings; torch's 1.0 is too large for the following layers."""


class Spelling(nn.Module):
    """A vector for each word from its letters, so unknown words have one too.

    Takes letters (B, T, L) of int64, 0 beyond a word's end. Returns (B, T, width), 0 for words
    without letters. More padding in L changes no result.

    Deviation: ReLU before the maximum; the papers have none.

    Args:
        characters: number of letters, padding (0) included.
        character_size: of a letter's embedding.
        width: of a word's vector.
    """

    def __init__(self, characters: int, character_size: int, width: int) -> None:
        super().__init__()
        self.embedding = small_embedding(characters, character_size)
        self.convolution = nn.Conv1d(character_size, width, kernel_size=3, padding=1)

    def forward(self, characters: Tensor) -> Tensor:
        """Vectors (B, T, width) of letters (B, T, L)."""
        rows, steps, _ = characters.shape
        letters = characters.flatten(0, 1)  # (B·T, L)
        is_padding = (letters == 0)[:, None, :]  # (B·T, 1, L)
        # The embedding of padding is 0, as is the padding of the convolution.
        embedded = self.embedding(letters).transpose(1, 2)  # (B·T, E, L)
        seen = functional.relu(self.convolution(embedded))  # (B·T, width, L)
        # No value is below 0, so masked places never win, and a word without letters gets 0.
        spelled = seen.masked_fill(is_padding, 0.0).amax(dim=2)  # (B·T, width)
        return spelled.reshape(rows, steps, -1)  # (B, T, width)


def small_embedding(entries: int, size: int) -> nn.Embedding:
    """An embedding with small initial values; entry 0, the padding, is always 0."""
    embedding = nn.Embedding(entries, size, padding_idx=0)
    nn.init.normal_(embedding.weight, std=SMALL)
    nn.init.zeros_(embedding.weight[0].detach())
    return embedding
