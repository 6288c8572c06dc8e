"""`python -m weir.server`, and what `weir serve` calls: one flag for every setting."""

import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from weir.server import config
from weir.server.config import Settings
from weir.server.errors import StartError
from weir.server.telemetry import log

# The first is an argument; the second has the flag --model-setting.
_NO_FLAG = ("models_dir", "models")


def main(arguments: Sequence[str] | None = None, program: str = "python -m weir.server") -> None:
    """Serve until a signal arrives."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(help="Serve a model repository, an ONNX file or a bundle over gRPC, with metrics.")(
        _command()
    )
    app(args=arguments, prog_name=program)


def _run(**given: Any) -> None:
    flags = {name: value for name, value in given.items() if value is not None}
    path, model_settings = flags.pop("config", None), flags.pop("model_setting", ())
    try:
        settings = config.load(flags, os.environ, path, model_settings)
        log.configure(settings.log_format, settings.log_level)
        inherited = dict(os.environ)
        # gRPC core reads this when it is first imported. By default core polls with its own threads
        # and hands each event to ours: a quarter of a call of LeNet-5 (docs/performance.md).
        os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
        # Core quotes what clients send (GOAWAY's text, as it is), and writes a line for each header
        # that it refuses: any client could forge lines, and fill a disk. With TLS these clients
        # have passed a handshake, and only core tells of one that failed.
        if settings.tls_cert is None:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        # Imported late, also so that --help and a wrong flag are answered at once.
        from weir.server.app import serve  # noqa: PLC0415

        serve(settings, inherited)
    except StartError as error:
        sys.stderr.write("".join(f"weir: {line}\n" for line in str(error).splitlines()))
        raise typer.Exit(2) from None


def _command() -> Any:
    """`_run` with a signature made of the settings' names, types, defaults and descriptions."""

    def command(**given: Any) -> None:
        _run(**given)

    models_dir = typer.Argument(
        metavar="MODELS", help=Settings.model_fields["models_dir"].description
    )
    config_file = typer.Option(help="A TOML file of settings; WEIR_CONFIG names one too.")
    model_setting = typer.Option(
        metavar="NAME.SETTING=VALUE",
        help="A setting of one model, such as lenet5.instances=2; may be repeated.",
    )
    parameters = [
        _parameter("models_dir", Path | None, models_dir),
        _parameter("config", Path | None, config_file),
        _parameter("model_setting", list[str] | None, model_setting),
    ]
    for name, field in Settings.model_fields.items():
        if name in _NO_FLAG:
            continue
        flag = f"--{name.replace('_', '-')}"
        option = typer.Option(
            f"{flag}/--no-{flag.removeprefix('--')}" if config.is_switch(name) else flag,
            help=field.description,
            show_default=config.default_of(name),
            metavar=_metavar(field.annotation),
        )
        parameters.append(_parameter(name, _plain(field.annotation), option))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _parameter(name: str, kind: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, info]
    )


def _metavar(annotation: Any) -> str | None:
    if _is_choice(annotation):
        return "|".join(get_args(annotation))
    return "INTEGER|auto" if any(map(_is_choice, get_args(annotation))) else None


def _is_choice(annotation: Any) -> bool:
    return get_origin(annotation) is Literal


def _plain(annotation: Any) -> Any:
    """The type of a flag; `Settings` checks bounds and choices, as for all other sources."""
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    # A list is separated by commas.
    is_text = any(map(_is_choice, (annotation, *kinds))) or get_origin(annotation) is tuple
    kind = str if is_text else kinds[0]
    return (get_args(kind)[0] if get_origin(kind) is Annotated else kind) | None


if __name__ == "__main__":
    main()
