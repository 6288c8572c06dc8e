from pathlib import Path
from typing import Any

import pytest

from weir.gateway.settings import GatewaySettings

CERTIFICATE: Any = {"tls_cert": Path("a.pem"), "tls_key": Path("a.key")}


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
