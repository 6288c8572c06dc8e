"""Recipes: what may be changed, and what is refused with which words."""

import pytest

from training.data import DATA_SETS
from training.errors import RecipeError
from training.models import MODELS
from training.recipes import RECIPES, Recipe, Setting, change_recipe, make_recipe


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("data", [*DATA_SETS, "/my/pictures"])
def test_every_recipe_is_valid_for_every_data_set_and_survives_json(name: str, data: str) -> None:
    recipe = make_recipe(name, data)

    assert recipe.architecture in MODELS
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_nested_change_keeps_the_other_settings() -> None:
    before = make_recipe("lenet5", "mnist")

    after = change_recipe(before, optimizer={"learning_rate": 0.5})

    assert after.optimizer.learning_rate == 0.5
    assert after.optimizer.weight_decay == before.optimizer.weight_decay
    assert after.augmentation == before.augmentation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1, got 0"),
        ({"optimizer": {"learning_rate": -1.0}}, "optimizer.learning_rate: .* got -1.0"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted, got 'red'"),
        ({"optimizer": {"kind": "adam"}}, "optimizer.kind: Input should be 'adamw' or 'sgd'"),
        ({"optimizer": {"learning_rate": float("nan")}}, "finite number"),
        ({"loss": "map-1998", "label_smoothing": 0.1}, "label_smoothing must be 0"),
        ({"image": {"short_side": 27}}, "short_side must be at least 28, got 27"),
    ],
    ids=["bound", "nested", "unknown", "choice", "nan", "pair", "crop"],
)
def test_a_bad_setting_is_named(changes: dict[str, Setting], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe("lenet5", "digits", **changes)


def test_an_unknown_recipe_is_answered_with_the_known() -> None:
    known = "unknown recipe 'lenet'; there are alexnet, .*, lenet5, lenet5-1998"
    with pytest.raises(RecipeError, match=known):
        make_recipe("lenet")
