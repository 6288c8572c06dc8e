from pathlib import Path
from typing import Any

import pytest

from weir.client.errors import UsageError
from weir.gateway.settings import GatewaySettings

CERTIFICATE: Any = {"tls_cert": Path("a.pem"), "tls_key": Path("a.key")}


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "null", "ftp://a", ""])
def test_what_no_browser_names_is_no_origin(origin: str) -> None:
    with pytest.raises(UsageError, match="cors_origin: expected an origin such as"):
        GatewaySettings(cors_origins=("https://a.example:8443", origin))


@pytest.mark.parametrize(
    ("settings", "uses_tls"),
    [
        (GatewaySettings(), False),
        (GatewaySettings(tls=True), True),
        (GatewaySettings(tls=False), False),
        (GatewaySettings(**CERTIFICATE), False),  # the servers' TLS is another thing
        (GatewaySettings("unix:/a/grpc"), False),
        (GatewaySettings("unix:/a/grpc", **CERTIFICATE), True),
    ],
)
def test_clients_use_the_tls_of_the_servers(settings: GatewaySettings, *, uses_tls: bool) -> None:
    assert settings.clients_use_tls is uses_tls
