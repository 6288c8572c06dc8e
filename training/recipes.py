"""The recipes by name, with their defaults for each data set, and how a caller changes them."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import Field, ValidationError

from training.errors import RecipeError
from training.pictures import cookbook as of_pictures
from training.pictures.recipe import PictureRecipe
from training.recipe import Recipe, Setting, explain
from training.sequences import cookbook as of_sequences
from training.sequences.recipe import TASKS as SEQUENCE_TASKS
from training.sequences.recipe import SequenceRecipe

RECIPES = {**of_pictures.RECIPES, **of_sequences.RECIPES}
"""By name, a function of the data set that gives the settings."""

AnyRecipe: TypeAlias = Annotated[PictureRecipe | SequenceRecipe, Field(discriminator="task")]


def make_recipe(
    name: str, data: str | None = None, **changes: Setting
) -> PictureRecipe | SequenceRecipe:
    """The named recipe with its defaults for a data set.

    Args:
        name: a key of `RECIPES`.
        data: a data set's name, or the path of your own; none takes the recipe's first.
        **changes: top-level settings put in place of the defaults; a mapping changes only its keys.

    Raises:
        RecipeError: unknown name, or a setting out of its range; names field, bound and value.
    """
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
    data = data or default_data(name)
    recipe = _validate({"name": name, "data": data, **RECIPES[name](data)})
    return change_recipe(recipe, **changes)


def quicken(recipe: PictureRecipe | SequenceRecipe) -> PictureRecipe | SequenceRecipe:
    """The recipe's form for tests and demonstrations, under a minute long.

    Raises:
        RecipeError: it has none.
    """
    quick = of_sequences.QUICK
    if recipe.name not in quick:
        raise RecipeError(f"{recipe.name} has no quick form; {', '.join(quick)} have one")
    return change_recipe(recipe, **quick[recipe.name])


def default_data(name: str) -> str:
    """The data set a recipe takes where none is named."""
    return of_sequences.DEFAULT_DATA.get(name, of_pictures.DEFAULT_DATA)


def change_recipe(
    recipe: PictureRecipe | SequenceRecipe, **changes: Setting
) -> PictureRecipe | SequenceRecipe:
    """The recipe with other settings, under the rules of `make_recipe`.

    An encoder of convolutions in place of a recurrent one brings its own depth and pooling along.
    """
    settings = recipe.model_dump()
    encoder = changes.get("encoder")
    if isinstance(encoder, Mapping) and encoder.get("cell") == "tdnn":
        pool = {} if recipe.task == "tagging" else {"pool": "mean"}
        settings = _merged(settings, {"encoder": {**of_sequences.TDNN, **pool}})
    return _validate(_merged(settings, changes))


def _merged(settings: Mapping[str, Setting], changes: Mapping[str, Setting]) -> dict[str, Setting]:
    merged = dict(settings)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(before, value)
        else:
            merged[key] = value
    return merged


def _validate(settings: Mapping[str, Setting]) -> PictureRecipe | SequenceRecipe:
    kind = SequenceRecipe if settings.get("task") in SEQUENCE_TASKS else PictureRecipe
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        _refuse_others(kind, settings)
        raise RecipeError(explain(error)) from error


def _refuse_others(kind: type[Recipe], settings: Mapping[str, Setting]) -> None:
    """Say so where a recipe is given a setting of the other kind."""
    for other, what in ((PictureRecipe, "pictures"), (SequenceRecipe, "sequences")):
        for name in settings:
            if name not in kind.model_fields and name in other.model_fields:
                raise RecipeError(
                    f"{settings['name']} takes no {name}, which is of recipes for {what}, got {settings[name]!r}"
                )
