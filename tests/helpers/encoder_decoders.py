"""Small encoder-decoders, for the tests of training and export."""

import torch
from torch import Tensor

from weir.training.models.seq2seq import EncoderDecoder

SOURCE = ["<pad>", "<unk>", "<s>", "</s>", *"abcdefgh"]
TARGET = ["<pad>", "<unk>", "<s>", "</s>", *"ABCDEFGHIJ"]


def network(**changes: object) -> EncoderDecoder:
    """In eval mode, with weights large enough for answers to differ."""
    torch.manual_seed(0)
    settings: dict[str, object] = {"word_size": 6, "hidden": 5, **changes}
    made = EncoderDecoder(
        source_words=len(SOURCE),
        target_words=len(TARGET),
        **settings,  # type: ignore[arg-type]
    ).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(2.0)
    return made


def sources(rows: int = 12, *, steps: int = 9) -> tuple[Tensor, Tensor]:
    """Tokens of rows of 1 to `steps`, with garbage beyond each row's end, and lengths."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.arange(rows) * 5 % steps + 1
    lengths[0] = steps
    return torch.randint(1, len(SOURCE), (rows, steps), generator=generator), lengths
