"""`weir health`: the health of a server or of a model."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from weir.cli.error_hints import connect
from weir.cli.options import ServerOptions, Timeout, takes_server
from weir.client import defaults
from weir.client.errors import CallError, NotFound, Unavailable, Unimplemented, UsageError

if TYPE_CHECKING:
    from weir.client.client import Client

_UNKNOWN = "SERVICE_UNKNOWN"
_UNREACHABLE = "UNREACHABLE"
_FAILED = "FAILED"
_INDENT = " " * 11


@takes_server
def health(
    *,
    service: Annotated[str, typer.Option(help="A model's name; by default the server.")] = "",
    watch: Annotated[
        bool, typer.Option("--watch", help="Print each change until the server stops.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Also print versions, usable cores, transport and metrics address, and each "
            "version of a model that is not ready, with its reason.",
        ),
    ] = False,
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
) -> None:
    """Print the health of a server or a model; with several addresses, of each.

    Exit code 0 if it serves, 3 if not or if the server is unreachable, 1 if the model is unknown
    or the call is refused.
    """
    from weir.client.balancing import addresses_of

    if verbose and watch:
        raise UsageError("--verbose, --watch: expected one of them")
    addresses = addresses_of(server.target)
    if len(addresses) > 1:
        if verbose or watch:
            raise UsageError("--verbose, --watch: expected one server (--target HOST:PORT)")
        raise typer.Exit(_each(server, addresses, service, timeout))
    with connect(server, timeout) as client:
        status = ""
        for status in _statuses(client, service, watch=watch):
            typer.echo(status)
        if verbose and not status.startswith(_UNREACHABLE):
            for line in (*_server(client), *_models(client, service)):
                typer.echo(line)
        if status == "NOT_SERVING" and not service and not watch:
            sys.stderr.write(_reason(client))
    raise typer.Exit(_exit_code(status))


def _each(server: ServerOptions, addresses: Sequence[str], service: str, timeout_s: float) -> int:
    """Print the health at each address; the exit code of the worst."""
    code = 0
    for address in addresses:
        try:
            with connect(replace(server, target=address), timeout_s) as client:
                (status,) = _statuses(client, service, watch=False)
        except CallError as error:
            status = f"{_FAILED}: {error}"
        typer.echo(f"{address}  {status}")
        code = max(code, _exit_code(status))
    return code


def _exit_code(status: str) -> int:
    if status == "SERVING":
        return 0
    return 1 if status.startswith((_UNKNOWN, _FAILED)) else 3


def _reason(client: "Client") -> str:
    """Why a server does not serve, as a line; empty if its models do not say it."""
    try:
        states = {each.state for model in client.models() for each in model.versions}
    except CallError:
        return ""
    if "READY" in states:
        # It is stopping.
        return ""
    if not states:
        return "weir: the server has no model\n"
    what = "the models are loading" if "LOADING" in states else "no model is ready"
    return f"weir: {what}: see `weir models`\n"


def _statuses(client: "Client", service: str, *, watch: bool) -> Iterator[str]:
    try:
        yield from client.watch(service) if watch else [client.health(service)]
    except NotFound:
        yield _UNKNOWN
    except Unavailable as error:
        yield f"{_UNREACHABLE}: {error}"


def _server(client: "Client") -> Iterator[str]:
    """Versions and choices of the server; name and version of one that is not Weir."""
    from weir.cli.model_table import ago

    try:
        info = client.server_info()
    except Unimplemented:
        metadata = client.server_metadata()
        yield f"server     {metadata.name} {metadata.version}".rstrip()
        return
    started = ago(info.started, datetime.now(UTC))
    yield f"server     weir {info.version}, process {info.process_id}, started {started}"
    if info.usable_cores:
        port = "may be shared" if info.shares_port else "not shared"
        yield f"machine    usable cores: {info.usable_cores}; gRPC port: {port}"
    yield f"transport  {info.transport}, grpcio {info.grpcio}"
    if info.transport_problem:
        yield f"{_INDENT}slower than completion-queue: {info.transport_problem}"
    yield f"runtime    ONNX Runtime {info.onnxruntime}, provider {info.provider}"
    yield f"metrics    {info.metrics_address}"


def _models(client: "Client", name: str) -> Iterator[str]:
    """How many models are ready, and the versions that are not; of all models, or of one."""
    from weir.cli import model_table

    try:
        rows = model_table.from_models(client.models())
    except Unimplemented:
        rows = model_table.from_index(client.index())
    rows = [row for row in rows if row.version and name in ("", row.name)]
    ready = {row.name for row in rows if row.state == "READY"}
    yield f"models     {len(ready)} of {len({row.name for row in rows})} ready"
    for row in rows:
        if row.state != "READY":
            reason = f": {row.reason}" if row.reason else ""
            yield f"{_INDENT}{row.name} version {row.version}: {row.state}{reason}"
