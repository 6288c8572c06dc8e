"""Context managers that add to an error how to correct the command."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING

from weir.cli.options import ServerOptions
from weir.client import defaults
from weir.client.errors import CallError, InvalidArgument, MissingExtra, NotFound, Unimplemented

if TYPE_CHECKING:
    from weir.client.client import Client
    from weir.client.results import ModelInfo

_VERBS = {
    "image-classification": "classify",
    "sequence-classification": "classify-text",
    "tagging": "tag",
    "sequence-to-sequence": "generate",
    "forecasting": "forecast",
}


@contextmanager
def requires(extra: str) -> Iterator[None]:
    """Raise the failed import of a third-party package as MissingExtra with the extra's name."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "weir":
            raise
        raise MissingExtra(
            f"{package or error} is not installed: pip install 'weir[{extra}]'"
        ) from error


def connect(server: ServerOptions, timeout_s: float = defaults.TIMEOUT_S) -> "Client":
    """A client of the server of the options."""
    # gRPC core would print failed handshakes too; read when its first channel is made.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with requires("client"):
        from weir.client.client import Client
    return Client(
        server.target,
        timeout_s=timeout_s,
        metadata=server.headers(),
        tls=server.client_tls(),
        token_file=server.token_file,
    )


@contextmanager
def suggest_verb(client: "Client", model: str, verb: str) -> Iterator[None]:
    """Raise a rejected request with the right verb if the model's task has another one.

    The server's message names RPC methods, not verbs. Includes `suggest_models`.
    """
    try:
        with suggest_models(client, model):
            yield
    except InvalidArgument as error:
        known = models_by_name(client).get(model)
        task = known.task if known else ""
        if _VERBS.get(task, verb) == verb:
            raise
        raise InvalidArgument(
            f"model {model!r} is for {task}: use `weir {_VERBS[task]}`"
        ) from error


@contextmanager
def suggest_models(client: "Client", model: str) -> Iterator[None]:
    """Add the names of the server's models to the error for an unknown model."""
    try:
        yield
    except NotFound as error:
        known = models_by_name(client)
        if not known or model in known:
            raise
        names = shorten(", ".join(sorted(known)), 300, placeholder=" …")
        raise NotFound(f"{error}; there are {names}") from error


@contextmanager
def suggest_model_control(alternative: str = "") -> Iterator[None]:
    """Add the server's setting and an alternative to the error for disabled model control."""
    try:
        yield
    except Unimplemented as error:
        raise Unimplemented(
            "the server takes no control calls: start it with "
            f"`weir serve --model-control explicit`{alternative}"
        ) from error


def models_by_name(client: "Client") -> "dict[str, ModelInfo]":
    """The server's models; empty if it cannot list them."""
    try:
        return {model.name: model for model in client.models()}
    except CallError:
        return {}
