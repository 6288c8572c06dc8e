"""The registry of recipes: by name, with defaults for each data set, and how they are changed."""

from collections.abc import Mapping
from typing import Annotated, TypeAlias

from pydantic import Field, ValidationError

from weir.training.data.conllu import CONLL_ENDINGS
from weir.training.errors import RecipeError
from weir.training.forecasting import recipes as forecasting
from weir.training.forecasting.recipes import SeriesRecipe
from weir.training.images import recipes as images
from weir.training.images.recipes import ImageRecipe
from weir.training.recipe import Recipe, Setting, cli_option, explain
from weir.training.seq2seq import recipes as seq2seq
from weir.training.seq2seq.recipes import Seq2SeqRecipe
from weir.training.text import recipes as text
from weir.training.text.recipes import SequenceRecipe

RECIPES = {**images.RECIPES, **text.RECIPES, **seq2seq.RECIPES, **forecasting.RECIPES}
"""By name, a function from the data set to the settings."""

MADE_FOR = {**images.MADE_FOR, **text.MADE_FOR, **seq2seq.MADE_FOR, **forecasting.MADE_FOR}
"""By name, the recipe's data sets, the default first; PATH is the user's own data."""

AnyRecipe: TypeAlias = Annotated[
    ImageRecipe | SequenceRecipe | Seq2SeqRecipe | SeriesRecipe, Field(discriminator="task")
]

KINDS: dict[str, type[AnyRecipe]] = {
    "images": ImageRecipe,
    "sequences": SequenceRecipe,
    "pairs": Seq2SeqRecipe,
    "series": SeriesRecipe,
}
"""The classes of recipes, by their kind of data."""

_CLASSES: dict[str, type[AnyRecipe]] = {
    **dict.fromkeys(images.RECIPES, ImageRecipe),
    **dict.fromkeys(text.RECIPES, SequenceRecipe),
    **dict.fromkeys(seq2seq.RECIPES, Seq2SeqRecipe),
    **dict.fromkeys(forecasting.RECIPES, SeriesRecipe),
}

_TREEBANK = "ewt"


def class_of(name: str) -> type[AnyRecipe]:
    """Return the class of a named recipe; `RecipeError` for an unknown name."""
    if name not in _CLASSES:
        raise RecipeError(f"unknown recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
    return _CLASSES[name]


def make_recipe(name: str, data: str | None = None, **changes: Setting) -> AnyRecipe:
    """Return the named recipe with its defaults for a data set.

    Args:
        data: a data set's name or the path of the user's own data; None takes the recipe's first.
        **changes: settings to replace; a mapping replaces only its own keys.

    Raises:
        RecipeError: unknown name, or an invalid setting; names field, bound and value.
    """
    kind = class_of(name)
    data = data or MADE_FOR[name][0]
    recipe = _validate(kind, {"name": name, "data": data, **RECIPES[name](data)})
    return change_recipe(recipe, **changes)


def quicken(recipe: AnyRecipe) -> AnyRecipe:
    """Return the quick form, which trains in under a minute; `RecipeError` if there is none."""
    quick = {**text.QUICK, **seq2seq.QUICK, **forecasting.QUICK}
    if recipe.name not in quick:
        raise RecipeError(f"{recipe.name} has no quick form; {', '.join(quick)} have one")
    return change_recipe(recipe, **quick[recipe.name])


def change_recipe(recipe: AnyRecipe, **changes: Setting) -> AnyRecipe:
    """Return the recipe with other settings, as `make_recipe` describes.

    A change to a convolutional encoder also sets that encoder's own depth and pooling, and a change
    to letters as tokens their own sizes.
    """
    settings = recipe.model_dump()
    tokens, before = changes.get("tokens"), settings.get("tokens")
    if isinstance(tokens, Mapping) and isinstance(recipe, SequenceRecipe):
        if before is None:
            raise RecipeError(f"--tokens goes with texts: {recipe.name} reads the rows of pictures")
        if tokens.get("rule") == "letters" != before["rule"]:
            settings = _merged(settings, text.LETTERS)
    encoder = changes.get("encoder")
    if isinstance(encoder, Mapping) and encoder.get("cell") == "tdnn":
        pool = {} if recipe.task == "tagging" else {"pool": "mean"}
        settings = _merged(settings, {"encoder": {**text.TDNN, **pool}})
    return _validate(type(recipe), _merged(settings, changes))


def _merged(settings: Mapping[str, Setting], changes: Mapping[str, Setting]) -> dict[str, Setting]:
    merged = dict(settings)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(before, value)
        else:
            merged[key] = value
    return merged


def _validate(kind: type[AnyRecipe], settings: Mapping[str, Setting]) -> AnyRecipe:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        _refuse_settings_of_other_kinds(kind, settings)
        raise RecipeError(explain(error)) from error


def _refuse_settings_of_other_kinds(kind: type[Recipe], settings: Mapping[str, Setting]) -> None:
    for name in settings:
        owners = [what for what, other in KINDS.items() if name in other.model_fields]
        if owners and name not in kind.model_fields:
            raise RecipeError(
                f"{settings['name']} takes no {name}, which is of recipes for "
                f"{' and '.join(owners)}, got {settings[name]!r}"
            )


def applies(recipe: AnyRecipe, name: str) -> bool:
    """Whether the recipe has a setting, and its data set gives it an effect."""
    field = type(recipe).model_fields.get(name)
    option = cli_option(field) if field else None
    return field is not None and (option is None or option.data_set in (None, recipe.data))


def require_applicable(recipe: AnyRecipe, changes: Mapping[str, Setting]) -> None:
    """Refuse a change that has no effect on this data set or network.

    Only new options are checked: records of runs with such settings stay readable.
    """
    for name, field in type(recipe).model_fields.items():
        option = cli_option(field)
        if name in changes and option and option.data_set not in (None, recipe.data):
            flag = option.long_flag(name)
            raise RecipeError(f"{flag} goes with {option.data_set}, got it for {recipe.data}")
    if "column" in changes and isinstance(recipe, SequenceRecipe):
        require_conllu(recipe.data, recipe.dev, recipe.test)
    network = changes.get("network")
    if isinstance(network, Mapping) and "hidden" in network and recipe.architecture == "ar":
        raise RecipeError(f"--hidden goes with networks of hidden units, got it for {recipe.name}")


def has_conllu(*data: str | None) -> bool:
    """Whether one of the data sets is CoNLL-U."""
    return any(each and (each == _TREEBANK or each.endswith(CONLL_ENDINGS)) for each in data)


def require_conllu(*data: str | None) -> None:
    """Refuse --column if none of the data sets is CoNLL-U."""
    if not has_conllu(*data):
        raise RecipeError(
            f"--column goes with CoNLL-U ({_TREEBANK}, or files that end with .conllu, .conllup or "
            f".conll), got it for {data[0]}"
        )
