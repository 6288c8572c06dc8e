"""The recipes of sequence to sequence, and invalid settings."""

from typing import Any

import pytest
from pydantic import ValidationError

from weir.training.data import PAIR_SETS
from weir.training.recipe import Setting
from weir.training.seq2seq.recipes import (
    MADE_FOR,
    QUICK,
    RECIPES,
    ForcingSettings,
    Seq2SeqRecipe,
)


def make(name: str, data: str, **changes: Setting) -> Seq2SeqRecipe:
    settings = {**RECIPES[name](data), "name": name, "data": data, **changes}
    return Seq2SeqRecipe.model_validate(settings)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_each_recipe_is_complete_for_any_data(name: str) -> None:
    for data in (*PAIR_SETS, "own.tsv"):
        recipe = make(name, data)
        assert recipe.task == "sequence-to-sequence"
        assert Seq2SeqRecipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert {*MADE_FOR[name]} <= {*PAIR_SETS, "PATH"}


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_quick_form_changes_only_settings_there_are(name: str) -> None:
    settings: dict[str, Any] = {**RECIPES[name]("x"), "name": name, "data": "x"}
    for key, value in QUICK[name].items():
        before = settings.get(key)
        settings[key] = {**before, **value} if isinstance(value, dict) else value  # type: ignore[dict-item]

    quick = Seq2SeqRecipe.model_validate(settings)

    assert quick.coder.hidden < make(name, "x").coder.hidden
    assert quick.most_rows is not None and quick.most_characters is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": {"rule": "subwords"}}, "subwords need a maximum of entries"),
        ({"source": {"rule": "bytes"}}, "rule"),
        ({"coder": {"cell": "rnn", "word_size": 4, "hidden": 4}}, "cell"),
        ({"forcing": {"start": 1.5}}, "start"),
        ({"search": {"beam_width": 0}}, "beam_width"),
        ({"test_target": "x"}, "test_target goes with test"),
        ({"beam": 3}, "beam"),
    ],
    ids=["no maximum", "rule", "cell", "share", "width", "lone targets", "unknown"],
)
def test_invalid_settings_are_refused(changes: dict[str, Setting], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make("pronounce", "x", **changes)


def test_forcing_is_linear() -> None:
    forcing = ForcingSettings(start=1.0, end=0.6)

    assert [forcing.share(done) for done in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.8, 0.6])
