"""From a recipe to its network: parameters are counted by the papers' formulas."""

import pytest
import torch

from weir.training.errors import ModelError
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe
from weir.training.run_directory import SequenceRecord
from weir.training.text.network import build_network
from weir.training.text.recipe import SequenceRecipe

WORDS = SequenceRecord(words=50, characters=20)
FRAMES = SequenceRecord(features=28, mean=0.1, std=0.3)


def of(name: str, **changes: Setting) -> SequenceRecipe:
    recipe = make_recipe(name, None, **changes)
    assert isinstance(recipe, SequenceRecipe)
    return recipe


@pytest.mark.parametrize(("cell", "gates"), [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_frames_network_has_the_cells_parameters_and_a_head(cell: str, gates: int) -> None:
    hidden = 12
    network = build_network(of("row-digits", encoder={"cell": cell, "hidden": hidden}), FRAMES, 10)

    cells = gates * hidden * (28 + hidden + 2)
    count = sum(weight.numel() for weight in network.parameters())
    assert count == cells + 10 * (hidden + 1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": 3},
        {"cell": "tdnn"},
        {"bidirectional": False},
        {"bidirectional": False, "truncate_steps": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "shape"), [("tagger", (2, 3, 7)), ("question", (2, 7))])
def test_words_network_answers_for_each_step_or_each_row(
    name: str, shape: tuple[int, ...], changes: dict[str, Setting]
) -> None:
    network = build_network(of(name, encoder={"hidden": 8, **changes}), WORDS, 7)
    tokens, letters = torch.randint(1, 50, (2, 3)), torch.randint(1, 20, (2, 3, 4))

    assert network(tokens, torch.tensor([3, 1]), letters).shape == shape


def test_tagging_of_frames_is_refused() -> None:
    recipe = of("row-digits", task="tagging")

    with pytest.raises(ModelError, match="row-digits: expected frames to classify, or tokens"):
        build_network(recipe, FRAMES, 10)
