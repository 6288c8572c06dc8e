"""`weir gateway`: HTTP in front of gRPC servers."""

import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from weir.cli.error_hints import requires
from weir.client import defaults
from weir.client.errors import UsageError

_listen = {"rich_help_panel": "Where it listens"}
_server = {"rich_help_panel": "The servers"}


def gateway(
    *,
    target: Annotated[
        str,
        typer.Option(
            envvar="WEIR_TARGET",
            metavar="HOST:PORT",
            help="The servers' addresses; calls are balanced over HOST:PORT,HOST:PORT and over the "
            "addresses of dns:///HOST:PORT.",
            **_server,
        ),
    ] = defaults.TARGET,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            help="Use TLS to the servers; --ca, --cert, --key and --server-name imply it. --no-tls "
            "sends callers' tokens also in plaintext to another machine.",
            show_default=False,
            **_server,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Authorities that may sign the servers' certificates.", **_server
        ),
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The gateway's certificate for servers with mutual TLS.", **_server
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The private key of --cert.", **_server)
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The name in the servers' certificates.", **_server),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            help="Timeout of a request without the header X-Request-Timeout.",
            **_server,
        ),
    ] = defaults.TIMEOUT_S,
    advertised_target: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The servers' address for other clients, which the page shows and puts into its "
            "commands to copy; by default --target.",
            **_server,
        ),
    ] = None,
    metrics_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The servers' /metrics, for the page; by default where the server says.",
            **_server,
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="What the servers serve, for the networks on the page: a repository, a bundle or "
            "an ONNX file on this machine.",
            **_server,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.", **_listen)] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses one.", **_listen)
    ] = 8000,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Certificate chain in PEM; with --tls-key the gateway speaks HTTPS.",
            **_listen,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The private key of --tls-cert.", **_listen),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Authorities of client certificates, which are required then.",
            **_listen,
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Allow a host beyond loopback without TLS.", **_listen),
    ] = False,
    share_port: Annotated[
        bool,
        typer.Option(
            "--share-port", help="Let other processes listen on the same port.", **_listen
        ),
    ] = False,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Serve the page at /.", **_listen)
    ] = True,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="An origin whose pages may call the gateway, such as https://app.example; may be "
            "repeated.",
            **_listen,
        ),
    ] = None,
    max_body_bytes: Annotated[
        int,
        typer.Option(min=1024, help="Largest body of a request, after decompression.", **_listen),
    ] = defaults.MAX_MESSAGE_BYTES,
    grace: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Time of open requests to finish at a stop.", **_listen
        ),
    ] = 10.0,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Format of a log line.")
    ] = "text",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        typer.Option(help="Minimum level of a logged event."),
    ] = "info",
) -> None:
    """Serve HTTP in front of gRPC servers: the Open Inference Protocol, tasks, and a page.

    A caller's token and trace context are passed on to the servers, and the servers check them.
    """
    # gRPC core reads both when it is first imported. It would print failed handshakes too. By
    # default it polls with threads of its own, which take a third more of the time of a call.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")
    with requires("gateway"):
        from weir.client.credentials import Tls
        from weir.gateway.serve import serve
        from weir.gateway.settings import GatewaySettings
    given = (ca, cert, key, server_name)
    settings = GatewaySettings(
        target=target,
        tls=tls if tls is False or given == (None,) * len(given) else Tls(*given),
        host=host,
        port=port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        insecure=insecure,
        share_port=share_port,
        timeout_s=timeout,
        max_body_bytes=max_body_bytes,
        grace_s=grace,
        models_dir=models,
        advertised_target=advertised_target,
        metrics_url=metrics_url,
        serves_page=page,
        cors_origins=tuple(cors_origin or ()),
    )
    if models is not None and not models.exists():
        raise UsageError(f"--models: expected a folder or a file, got no such path: {models}")
    _log(log_format, log_level)
    serve(settings)


def _log(form: str, level: str) -> None:
    """Write the log to stderr, in the form of the server's: the two may share it."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # Its lines of lifecycle repeat the gateway's, and a client can cause a line of warning at will.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import json

        fields = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)
