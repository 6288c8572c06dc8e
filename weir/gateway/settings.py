"""Settings of a gateway, checked as a whole."""

import re
from dataclasses import dataclass
from pathlib import Path

from weir.client import defaults, proxies
from weir.client.balancing import Servers
from weir.client.credentials import Tls
from weir.client.errors import UsageError

_ORIGIN = re.compile(r"https?://[^/?#\s]+")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Where a gateway listens, which servers it calls, and its limits.

    Attributes:
        target: the servers, as of `weir.Client`.
        tls: TLS to the servers; False sends tokens in plaintext to another machine.
        host: address to listen on.
        port: port to listen on; 0 chooses a free one.
        tls_cert: certificate chain of the gateway, PEM; with it the gateway speaks HTTPS.
        tls_key: private key of `tls_cert`.
        tls_client_ca: authorities of client certificates, which are required then.
        insecure: allows a host beyond loopback without TLS.
        share_port: lets other processes listen on the same port.
        timeout_s: timeout of a call without the header X-Request-Timeout.
        max_body_bytes: largest body of a request, after decompression.
        grace_s: time of open requests to finish at a stop.
        models_dir: repository, bundle or ONNX file that the servers serve, for the page's networks.
        advertised_target: the servers' address for other clients, which the page shows; by default
            the target.
        metrics_url: /metrics of the servers, for the page; by default where a server says.
        serves_page: whether the page is served.
        cors_origins: origins whose pages may call the gateway; `*` is all.
    """

    target: Servers = defaults.TARGET
    tls: bool | Tls | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    insecure: bool = False
    share_port: bool = False
    timeout_s: float = defaults.TIMEOUT_S
    max_body_bytes: int = defaults.MAX_MESSAGE_BYTES
    grace_s: float = 10.0
    models_dir: Path | None = None
    advertised_target: str | None = None
    metrics_url: str | None = None
    serves_page: bool = True
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("tls_cert, tls_key: expected both or none, got one")
        if self.tls_client_ca and not self.tls_cert:
            raise UsageError("tls_client_ca: expected tls_cert and tls_key with it")
        is_open = self.tls_cert or self.insecure or proxies.is_loopback(self.address)
        if not is_open:
            raise UsageError(
                f"host {self.host} is beyond loopback: expected --tls-cert and --tls-key; "
                "or --insecure; or a loopback host, such as 127.0.0.1"
            )
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise UsageError(
                    f"cors_origin: expected an origin such as https://app.example, got {origin!r}"
                )
        if self.metrics_url and not self.metrics_url.startswith(("http://", "https://")):
            raise UsageError(
                f"metrics_url: expected http://… or https://…, got {self.metrics_url!r}"
            )

    @property
    def clients_use_tls(self) -> bool:
        """Whether other clients call the servers over TLS.

        Behind a unix socket is the server that started this gateway, with the same certificate.
        """
        return bool(self.tls_cert if str(self.target).startswith("unix:") else self.tls)

    @property
    def address(self) -> str:
        """Host and port to listen on."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
