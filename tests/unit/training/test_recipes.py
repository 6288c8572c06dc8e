"""Recipes: defaults, changes, and refused settings."""

import pytest
from pydantic import TypeAdapter

from weir.training.data import DATA_SETS, TEXT_SETS
from weir.training.errors import RecipeError
from weir.training.images import recipes as of_pictures
from weir.training.images.recipes import ImageRecipe
from weir.training.models import MODELS
from weir.training.recipe import Setting
from weir.training.recipes import AnyRecipe, change_recipe, make_recipe, quicken, require_applicable
from weir.training.text import recipes as of_sequences
from weir.training.text.recipes import SequenceRecipe

PICTURES = [(name, data) for name in of_pictures.RECIPES for data in (*DATA_SETS, "/my/pictures")]
SEQUENCES = [(name, data) for name in of_sequences.RECIPES for data in (*TEXT_SETS, "/my/text")]


@pytest.mark.parametrize(("name", "data"), [*PICTURES, *SEQUENCES])
def test_every_recipe_is_valid_for_every_data_set_and_survives_json(name: str, data: str) -> None:
    recipe = make_recipe(name, data)

    assert recipe.task != "image-classification" or recipe.architecture in MODELS
    assert TypeAdapter(AnyRecipe).validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("name", of_sequences.RECIPES)
def test_quick_form_is_smaller_in_every_way(name: str) -> None:
    whole = make_recipe(name)

    quick = quicken(whole)

    assert isinstance(whole, SequenceRecipe) and isinstance(quick, SequenceRecipe)
    assert quick.epochs < whole.epochs and quick.encoder.hidden < whole.encoder.hidden
    assert quick.most_rows is not None
    assert quick.data == whole.data


def test_recipe_without_a_quick_form_says_which_have_one() -> None:
    with pytest.raises(RecipeError, match=r"lenet5 has no quick form; row-digits, .* have one"):
        quicken(make_recipe("lenet5"))


@pytest.mark.parametrize("changes", [{"bidirectional": True}, {"cell": "tdnn"}], ids=str)
def test_truncation_needs_one_direction(changes: dict[str, Setting]) -> None:
    with pytest.raises(
        RecipeError, match="truncate_steps goes with a recurrent cell of one direction"
    ):
        make_recipe("row-digits", encoder={"truncate_steps": 5, **changes})


def test_a_nested_change_keeps_the_other_settings() -> None:
    before = make_recipe("lenet5", "mnist")

    after = change_recipe(before, optimizer={"learning_rate": 0.5})

    assert after.optimizer.learning_rate == 0.5
    assert after.optimizer.weight_decay == before.optimizer.weight_decay
    assert isinstance(before, ImageRecipe) and isinstance(after, ImageRecipe)
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


def test_convolutions_bring_their_own_depth_and_pooling() -> None:
    recipe = make_recipe("row-digits", encoder={"cell": "tdnn"})
    changed = make_recipe("row-digits", encoder={"cell": "tdnn", "layers": 2, "pool": "last"})
    tagging = make_recipe("tagger", encoder={"cell": "tdnn"})

    assert isinstance(recipe, SequenceRecipe) and isinstance(changed, SequenceRecipe)
    assert (recipe.encoder.layers, recipe.encoder.hidden, recipe.encoder.pool) == (4, 64, "mean")
    assert (changed.encoder.layers, changed.encoder.pool) == (2, "last")
    assert isinstance(tagging, SequenceRecipe) and tagging.encoder.layers == 4


def test_units_are_refused_where_a_network_has_none() -> None:
    changes: dict[str, Setting] = {"network": {"hidden": 8}}

    with pytest.raises(RecipeError, match="--hidden goes with networks of hidden units, got it f"):
        require_applicable(change_recipe(make_recipe("ar"), **changes), changes)


def test_a_column_is_heeded_if_any_of_the_files_is_conllu() -> None:
    recipe = make_recipe("tagger", "rows.txt", dev="dev.conllu.gz")

    require_applicable(recipe, {"column": "xpos"})


def test_letters_set_their_own_sizes_once() -> None:
    letters = make_recipe("question", "names.tsv", tokens={"rule": "letters"})
    changed = change_recipe(letters, epochs=7, encoder={"dropout": 0.1})

    again = change_recipe(changed, tokens={"rule": "letters"})

    assert isinstance(letters, SequenceRecipe) and letters.tokens is not None
    assert not letters.tokens.lower and not letters.tokens.spelling
    assert letters.encoder.pool == "last"
    # A resumed run is compared with the settings that it began with.
    assert again == changed and changed != letters
