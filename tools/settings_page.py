"""Settings page: `python -m tools.settings_page` prints docs/settings.md."""

import sys
from collections.abc import Iterator

from weir.server.config import ModelSettings, Settings, default_of

_HEAD = """# Settings

Settings of `weir serve`.
Sources, in order of precedence: flag, environment variable, TOML file of `--config`, default.
In the TOML file, a setting has its flag's name with underscores, such as `max_queue_rows = 2048`.
An unknown setting is an error in every source.
An empty environment variable counts as absent.
So does a variable that Kubernetes sets for a service named "weir".
`make settings-page` generates this page from the server's declarations.

| flag | environment variable | default | meaning |
|---|---|---|---|"""

_PER_MODEL = """
## Settings of one model

A table of the TOML file sets them, such as `[models.lenet5]`.
Without it, a model takes the general setting of the same name.

| setting | meaning |
|---|---|"""

NOT_FLAGS = ("models_dir", "models")
"""Settings without a flag: the argument MODELS, and the tables of single models."""


def page() -> str:
    """The text of the page."""
    return "\n".join([_HEAD, *_settings(), _PER_MODEL, *_model_settings(), ""])


def _settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name not in NOT_FLAGS:
            flag = name.replace("_", "-")
            flags = f"`--{flag}`, `--no-{flag}`" if field.annotation is bool else f"`--{flag}`"
            yield f"| {flags} | `WEIR_{name.upper()}` | {default_of(name)} | {field.description} |"


def _model_settings() -> Iterator[str]:
    for name, field in ModelSettings.model_fields.items():
        general = f"See `--{name.replace('_', '-')}`."
        yield f"| `{name}` | {field.description or general} |"


if __name__ == "__main__":
    sys.stdout.write(page())
