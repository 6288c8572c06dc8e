"""Settings page: `python -m tools.settings_page` prints docs/settings.md."""

import sys
from collections.abc import Iterator

from weir.server.config import (
    ModelSettings,
    ProviderOptions,
    Settings,
    default_of,
    is_switch,
)

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

They have the same sources, in the same order:

- a flag, which may be repeated: `--model-setting lenet5.instances=2`, and
  `--model-setting lenet5.provider_options.device_id=1`
- an environment variable: `WEIR_MODELS__LENET5__INSTANCES=2`, and
  `WEIR_MODELS__LENET5__PROVIDER_OPTIONS__DEVICE_ID=1`
- a table of the TOML file: `[models.lenet5]`, and `[models.lenet5.provider_options]`;
  a name with a dot stands in quotes: `[models."fast.net"]`

In a variable, the name of the model may have any case, and has `_` for `-` and `.`.
If the name stands for two models of the repository, the server does not start.
A setting that none of them gives is the general setting of the same name.

| setting | meaning |
|---|---|"""

_OPTIONS = """
## Provider options

ONNX Runtime's options of the provider `cuda`; on the CPU they have no effect.

| option | meaning |
|---|---|"""

NOT_FLAGS = ("models_dir", "models")
"""Settings without a flag: the argument MODELS, and the tables of single models."""


def page() -> str:
    """The text of the page."""
    return "\n".join(
        [_HEAD, *_settings(), _PER_MODEL, *_model_settings(), _OPTIONS, *_options(), ""]
    )


def _settings() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name not in NOT_FLAGS:
            flag = name.replace("_", "-")
            flags = f"`--{flag}`, `--no-{flag}`" if is_switch(name) else f"`--{flag}`"
            yield f"| {flags} | `WEIR_{name.upper()}` | {default_of(name)} | {field.description} |"


def _model_settings() -> Iterator[str]:
    for name, field in ModelSettings.model_fields.items():
        general = f"See `--{name.replace('_', '-')}`."
        yield f"| `{name}` | {field.description or general} |"


def _options() -> Iterator[str]:
    for name, field in ProviderOptions.model_fields.items():
        yield f"| `{name}` | {field.description} |"


if __name__ == "__main__":
    sys.stdout.write(page())
