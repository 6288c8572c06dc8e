"""Where in a recipe an option goes."""

from pathlib import Path

import pytest

from weir.training.changes import changes_of, names_in, require_heeded
from weir.training.errors import RecipeError
from weir.training.recipes import RECIPES, change_recipe, make_recipe


@pytest.mark.parametrize(
    ("recipe", "group"),
    [("question", "encoder"), ("pronounce", "coder"), ("narx", "network"), ("lenet5", "encoder")],
)
def test_the_shape_of_a_network_goes_to_the_group_that_describes_it(
    recipe: str, group: str
) -> None:
    assert changes_of(recipe, {"hidden": 8, "layers": None}) == {group: {"hidden": 8}}


def test_what_is_left_out_changes_nothing() -> None:
    for name in RECIPES:
        recipe = make_recipe(name)
        assert change_recipe(recipe, **changes_of(name, {"seed": None, "lags": None})) == recipe


def test_each_setting_goes_to_its_group_and_files_are_named_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    changes = changes_of(
        "pronounce",
        {"seed": 3, "attends": False, "cell": "lstm", "beam_width": 2, "dev": Path("a.tsv")},
    )

    assert changes == {
        "seed": 3,
        "coder": {"attends": False, "cell": "lstm"},
        "search": {"beam_width": 2},
        "dev": str(tmp_path / "a.tsv"),
    }


def test_columns_stand_between_commas() -> None:
    assert names_in("a, b c,d") == ("a", "b c", "d") and names_in(None) is None


def test_units_are_refused_where_a_network_has_none() -> None:
    changes = changes_of("ar", {"hidden": 8})

    with pytest.raises(RecipeError, match="--hidden goes with networks of hidden units, got it f"):
        require_heeded(change_recipe(make_recipe("ar"), **changes), changes)


def test_a_column_is_heeded_if_any_of_the_files_is_conllu() -> None:
    recipe = make_recipe("tagger", "rows.txt", dev="dev.conllu.gz")

    require_heeded(recipe, {"column": "xpos"})
