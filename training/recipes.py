"""The recipes by name, with their defaults for each data set, and how a caller changes them."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import Field, ValidationError

from weir.training.errors import RecipeError
from weir.training.forecasting import recipes as of_series
from weir.training.forecasting.recipe import TASK as SERIES_TASK
from weir.training.forecasting.recipe import SeriesRecipe
from weir.training.images import recipes as of_pictures
from weir.training.images.recipe import PictureRecipe
from weir.training.recipe import Recipe, Setting, explain
from weir.training.seq2seq import recipes as of_pairs
from weir.training.seq2seq.recipe import TASKS as PAIR_TASKS
from weir.training.seq2seq.recipe import Seq2SeqRecipe
from weir.training.text import recipes as of_sequences
from weir.training.text.recipe import TASKS as SEQUENCE_TASKS
from weir.training.text.recipe import SequenceRecipe

RECIPES = {
    **of_pictures.RECIPES,
    **of_sequences.RECIPES,
    **of_pairs.RECIPES,
    **of_series.RECIPES,
}
"""By name, a function of the data set that gives the settings."""

MADE_FOR = {
    **of_pictures.MADE_FOR,
    **of_sequences.MADE_FOR,
    **of_pairs.MADE_FOR,
    **of_series.MADE_FOR,
}
"""By name, the data sets a recipe is made for, its default first; PATH stands for data of yours."""

AnyRecipe: TypeAlias = Annotated[
    PictureRecipe | SequenceRecipe | Seq2SeqRecipe | SeriesRecipe, Field(discriminator="task")
]


KINDS: dict[str, type[Recipe]] = {
    "pictures": PictureRecipe,
    "sequences": SequenceRecipe,
    "pairs": Seq2SeqRecipe,
    "series": SeriesRecipe,
}
"""By what they are for."""


def make_recipe(name: str, data: str | None = None, **changes: Setting) -> AnyRecipe:
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
    data = data or MADE_FOR[name][0]
    recipe = _validate({"name": name, "data": data, **RECIPES[name](data)})
    return change_recipe(recipe, **changes)


def quicken(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe's form for tests and demonstrations, under a minute long.

    Raises:
        RecipeError: it has none.
    """
    quick = {**of_sequences.QUICK, **of_pairs.QUICK, **of_series.QUICK}
    if recipe.name not in quick:
        raise RecipeError(f"{recipe.name} has no quick form; {', '.join(quick)} have one")
    return change_recipe(recipe, **quick[recipe.name])


def change_recipe(recipe: AnyRecipe, **changes: Setting) -> AnyRecipe:
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


def _validate(settings: Mapping[str, Setting]) -> AnyRecipe:
    kind: type[AnyRecipe] = PictureRecipe
    if settings.get("task") in SEQUENCE_TASKS:
        kind = SequenceRecipe
    elif settings.get("task") in PAIR_TASKS:
        kind = Seq2SeqRecipe
    elif settings.get("task") == SERIES_TASK:
        kind = SeriesRecipe
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        _refuse_others(kind, settings)
        raise RecipeError(explain(error)) from error


def _refuse_others(kind: type[Recipe], settings: Mapping[str, Setting]) -> None:
    """Say so where a recipe is given a setting of other kinds."""
    for name in settings:
        owners = [what for what, other in KINDS.items() if name in other.model_fields]
        if owners and name not in kind.model_fields:
            raise RecipeError(
                f"{settings['name']} takes no {name}, which is of recipes for {' and '.join(owners)}, "
                f"got {settings[name]!r}"
            )
