"""Settings that do not go together."""

import pytest

from weir.training.errors import RecipeError
from weir.training.recipe import Setting
from weir.training.recipes import make_recipe


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "row-digits",
            {"dev": "/a"},
            "dev goes with tokens: row-digits reads the rows of pictures",
        ),
        ("row-digits", {"test": "/a"}, "test goes with tokens"),
        ("row-digits", {"column": "xpos"}, "column goes with tokens"),
        ("tagger", {"encoder": {"pool": "mean"}}, "pool goes with sequence-classification"),
        ("stress", {"encoder": {"cell": "cnn"}}, "encoder.cell: .*'rnn', 'gru', 'lstm' or 'tdnn'"),
        ("stress", {"tokens": {"size": 0}}, "tokens.size: "),
        ("stress", {"most_rows": 1}, "most_rows: "),
        ("stress", {"image": {"height": 9}}, "stress takes no image, .* of recipes for images"),
        (
            "lenet5",
            {"dev": "/a"},
            "lenet5 takes no dev, .* of recipes for sequences and pairs, got '/a'",
        ),
    ],
    ids=["dev", "test", "column", "pool", "cell", "nested", "rows", "image", "sequence"],
)
def test_a_setting_that_would_do_nothing_is_refused(
    name: str, changes: dict[str, Setting], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(name, None, **changes)
