"""The page that describes every setting."""

from pathlib import Path

from tools.settings_page import NOT_FLAGS, page
from weir.server.config import ModelSettings, ProviderOptions, Settings

FILE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_page_is_what_the_code_declares() -> None:
    assert FILE.read_text("utf-8") == page(), "docs/settings.md is stale: run 'make settings-page'"


def test_every_setting_has_a_complete_line() -> None:
    general, of_a_model = page().split("## Settings of one model")

    lines = [line for line in general.splitlines() if line.startswith("| `")]
    names = [name for name in Settings.model_fields if name not in NOT_FLAGS]
    assert [line.split("`")[1] for line in lines] == ["--" + n.replace("_", "-") for n in names]
    assert {line.count("|") for line in lines} == {5}
    assert not any("None" in line or "|  |" in line for line in lines)
    of_a_model, options = of_a_model.split("## Provider options")
    for text, fields in (
        (of_a_model, ModelSettings.model_fields),
        (options, ProviderOptions.model_fields),
    ):
        lines = [line for line in text.splitlines() if line.startswith("| `")]
        assert [line.split("`")[1] for line in lines] == list(fields)
        assert not any("None" in line or "|  |" in line for line in lines)
