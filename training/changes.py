"""From options of the command line to settings of a recipe: which place each goes to."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from weir.training.data.lines import CONLLU_ENDINGS
from weir.training.errors import RecipeError
from weir.training.forecasting.recipes import RECIPES as SERIES_RECIPES
from weir.training.recipe import Setting
from weir.training.recipes import AnyRecipe
from weir.training.seq2seq.recipes import RECIPES as PAIR_RECIPES
from weir.training.text.recipe import SequenceRecipe

Option: TypeAlias = "Setting | Path"

GROUPS = {
    "optimizer": ("learning_rate",),
    "image": ("height", "width", "channels", "short_side"),
    "encoder": ("pool", "truncate_steps"),
    "network": ("lags", "exogenous_lags"),
    "coder": ("attends",),
    "search": ("beam_width",),
}
"""The settings that are not at the top, by their group; a recipe without the group refuses them."""
OF_ANY_NETWORK = ("cell", "hidden", "layers")
"""Those that go to whatever group describes the recipe's network."""


OF_ONE_SET = {
    "stress": ("--with-stress", "cmudict-pronounce"),
    "source_language": ("--source-language", "multi30k"),
    "target_language": ("--target-language", "multi30k"),
}
"""By setting, its option and the one data set that it means something to."""
TREEBANK = "ewt"


def changes_of(recipe: str, options: Mapping[str, Option]) -> dict[str, Setting]:
    """What the caller changes in a recipe.

    Args:
        recipe: its name.
        options: by the setting's name; none is what they left out.
    """
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    group_of |= dict.fromkeys(OF_ANY_NETWORK, _network_of(recipe))
    top: dict[str, Setting] = {}
    nested: dict[str, dict[str, Setting]] = {}
    for name, value in options.items():
        if value is None:
            continue
        place = nested.setdefault(group_of[name], {}) if name in group_of else top
        # In full, so that the run can be read from anywhere.
        place[name] = str(value.resolve()) if isinstance(value, Path) else value
    return {**top, **nested}


def require_heeded(recipe: AnyRecipe, changes: Mapping[str, Setting]) -> None:
    """Refuse a change that the data, or the network, would pass over.

    Asked of an order only: the records of runs that passed something over can still be read.

    Raises:
        RecipeError: names the option, what it goes with, and what came.
    """
    for name, (option, wanted) in OF_ONE_SET.items():
        if name in changes and recipe.data != wanted:
            raise RecipeError(f"{option} goes with {wanted}, got it for {recipe.data}")
    if "column" in changes and isinstance(recipe, SequenceRecipe):
        require_conllu(recipe.data, recipe.dev, recipe.test)
    network = changes.get("network")
    if isinstance(network, Mapping) and "hidden" in network and recipe.architecture == "ar":
        raise RecipeError(f"--hidden goes with networks of hidden units, got it for {recipe.name}")


def require_conllu(*data: str | None) -> None:
    """Refuse --column where none of the data has columns; under the same condition."""
    if not any(each and (each == TREEBANK or each.endswith(CONLLU_ENDINGS)) for each in data):
        raise RecipeError(
            f"--column goes with CoNLL-U ({TREEBANK}, or files that end with {' or '.join(CONLLU_ENDINGS)}), "
            f"got it for {data[0]}"
        )


def names_in(columns: str | None) -> tuple[str, ...] | None:
    """The names between commas."""
    return None if columns is None else tuple(name.strip() for name in columns.split(","))


def schedule_of(shares: tuple[float, float] | None) -> dict[str, Setting] | None:
    """Settings of teacher forcing from its shares at the run's start and end."""
    return None if shares is None else {"start": shares[0], "end": shares[1]}


def _network_of(recipe: str) -> str:
    if recipe in SERIES_RECIPES:
        return "network"
    return "coder" if recipe in PAIR_RECIPES else "encoder"
