"""`weir models load`, `reload` and `unload`: which models a server holds."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from weir.cli.advice import listed, models_of
from weir.cli.changing import control, each, ready, standing
from weir.cli.extras import requires
from weir.cli.options import Target, Timeout
from weir.client import defaults

if TYPE_CHECKING:
    from weir.client.client import Client
    from weir.client.results import ModelInfo

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names of models.")]


def load(
    names: Names, *, target: Target = defaults.TARGET, timeout: Timeout = defaults.LOADING_S
) -> None:
    """Bring what is on disk of models into service; versions that serve unchanged stay as they are.

    Exit code 1 if one of them could not be loaded.
    """

    def change(client: "Client", name: str) -> None:
        client.load(name, timeout_s=timeout)

    _change(names, target, "load", change)


def unload(
    names: Names, *, target: Target = defaults.TARGET, timeout: Timeout = defaults.LOADING_S
) -> None:
    """Take models out of service, once what they have been asked already is answered.

    Exit code 1 if one of them could not be unloaded.
    """

    def change(client: "Client", name: str) -> None:
        client.unload(name, timeout_s=timeout)

    _change(names, target, "unload", change)


def reload(
    names: Names, *, target: Target = defaults.TARGET, timeout: Timeout = defaults.LOADING_S
) -> None:
    """Load models anew, also versions that have not changed; the old ones answer until then.

    Exit code 1 if one of them could not be loaded.
    """

    def change(client: "Client", name: str) -> None:
        client.load(name, reload=True, timeout_s=timeout)

    _change(names, target, "reload", change)


def _change(
    names: Sequence[str], target: str, verb: str, change: "Callable[[Client, str], None]"
) -> None:
    """Change each model, and say what that did."""
    with requires("client"):
        from weir.client.client import Client
    with Client(target) as client, control():

        def ask(name: str) -> str:
            before = models_of(client).get(name)
            with listed(client, name):
                change(client, name)
            after = models_of(client).get(name)
            return f"{name}: {_told(verb, before, after) if after else f'{verb}ed'}"

        each(names, ask, f"{verb}ing", f"models could not be {verb}ed")


def _told(verb: str, before: "ModelInfo | None", after: "ModelInfo") -> str:
    """Which versions came and went between two looks at a model, and which serve now."""
    had = ready(before) if before else []
    old, new = {(one.version, one.since) for one in had}, ready(after)
    came = [one.version for one in new if (one.version, one.since) not in old]
    left = [one.version for one in had if one.version not in {one.version for one in new}]
    what = [f"{'reloaded' if verb == 'reload' else 'loaded'} {', '.join(came)}"] if came else []
    what += [f"unloaded {', '.join(left)}"] if left else []
    return f"{', '.join(what) or f'nothing to {verb}'}; {standing(after)}"
