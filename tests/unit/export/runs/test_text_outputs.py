"""What is served beside the logits."""

import torch
from torch import Tensor, nn

from weir.export.runs.text import ClassifierOutputs, FrameGraph, TaggerOutputs, WordGraph


class Summed(nn.Module):
    """Logits (B, T, 3) that tell which arguments came."""

    def forward(self, tokens: Tensor, lengths: Tensor, characters: Tensor | None = None) -> Tensor:
        spelt = torch.zeros_like(tokens) if characters is None else characters.sum(dim=-1)
        return torch.stack([tokens, spelt, lengths[:, None].expand_as(tokens)], dim=-1).float()


class Flat(nn.Module):
    """Logits (B, features) of frames."""

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        logits: Tensor = frames.float().sum(dim=1) / lengths[:, None]
        return logits


TOKENS, LENGTHS = torch.tensor([[5, 1], [1, 0]]), torch.tensor([2, 1])


def test_tags_are_the_classes_of_the_greatest_logits() -> None:
    answer = WordGraph(Summed(), is_tagging=True)(TOKENS, LENGTHS, torch.ones(2, 2, 4).long())

    assert isinstance(answer, TaggerOutputs)
    assert answer.tag_ids.tolist() == [[0, 1], [1, 1]]
    assert torch.equal(answer.tag_ids, answer.logits.argmax(dim=-1))


def test_letters_may_be_left_out() -> None:
    answer = WordGraph(Summed(), is_tagging=True)(TOKENS, LENGTHS)

    assert not answer.logits[:, :, 1].any()


def test_probabilities_are_positive_sum_to_one_and_keep_the_order() -> None:
    frames = torch.randint(0, 9, (4, 3, 5), dtype=torch.uint8)

    answer = FrameGraph(Flat())(frames, torch.tensor([3, 3, 3, 3]))

    assert isinstance(answer, ClassifierOutputs)
    torch.testing.assert_close(answer.probabilities.sum(dim=1), torch.ones(4))
    ratios = torch.log(answer.probabilities[:, 1:] / answer.probabilities[:, :1])
    torch.testing.assert_close(ratios, answer.logits[:, 1:] - answer.logits[:, :1])
