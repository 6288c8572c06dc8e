"""From options of the command line to settings of a recipe: which place each goes to."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from training.recipe import Setting
from training.seq2seq.cookbook import RECIPES as PAIR_RECIPES
from training.series.cookbook import RECIPES as SERIES_RECIPES

Option: TypeAlias = str | int | float | bool | Path | tuple[str, ...] | None

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


def names_in(columns: str | None) -> tuple[str, ...] | None:
    """The names between commas."""
    return None if columns is None else tuple(name.strip() for name in columns.split(","))


def _network_of(recipe: str) -> str:
    if recipe in SERIES_RECIPES:
        return "network"
    return "coder" if recipe in PAIR_RECIPES else "encoder"
