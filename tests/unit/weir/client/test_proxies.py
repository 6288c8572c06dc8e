import os
import socket
import subprocess
import sys
from collections.abc import Mapping

import pytest

from weir import AsyncClient, Client
from weir.client import proxies
from weir.client.errors import Unreachable, UsageError

PROXY = {"http_proxy": "http://ann:secret@proxy:3128"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("target", ["http://host:8001", "https://host:8001/", "grpc://host:8001"])
def test_url_as_target_is_refused_with_the_target_it_means(kind: type[Client], target: str) -> None:
    with pytest.raises(UsageError, match=r"expected HOST:PORT such as host:8001, got '(ht|gr)"):
        kind(target)


@pytest.mark.parametrize(
    ("target", "environment", "expected"),
    [
        pytest.param("host:1", {}, "", id="none"),
        pytest.param("host:1", PROXY, "the proxy proxy:3128 (http_proxy)", id="without password"),
        pytest.param(
            "dns:///host:1",
            {**PROXY, "grpc_proxy": "http://first:1"},
            "the proxy http://first:1 (grpc_proxy)",
            id="gRPC's own first",
        ),
        pytest.param("a.lan:1", {**PROXY, "no_proxy": "x, .lan"}, "", id="exempt"),
        pytest.param(
            "a.lan:1",
            {**PROXY, "no_proxy": ".lan", "no_grpc_proxy": "x"},
            "the proxy proxy:3128 (http_proxy)",
            id="gRPC's own exemptions first",
        ),
        pytest.param("127.0.0.1:1", PROXY, "", id="loopback"),
        pytest.param("unix:/run/weir.sock", PROXY, "", id="socket"),
    ],
)
def test_proxy_of_a_target_is_that_of_grpc(
    target: str, environment: Mapping[str, str], expected: str
) -> None:
    assert proxies.find(target, environment) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:8001", True),
        ("127.8.9.1:8001", True),
        ("localhost:8001", True),
        ("[::1]:8001", True),
        ("ipv4:127.0.0.1:8001", True),
        ("dns:///localhost:8001", True),
        ("10.0.0.1:8001", False),
        ("localhost.lan:8001", False),
        ("[::2]:8001", False),
    ],
)
def test_loopback_targets_are_found(target: str, *, expected: bool) -> None:
    assert proxies.is_loopback(target) is expected


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


CALL = """
import sys, weir
with weir.Client(sys.argv[1], timeout_s=20) as client:
    try:
        client.models()
    except weir.WeirError as error:
        print(type(error).__name__, error)
"""


def outcome_of_call(target: str, proxy: str) -> str:
    """The outcome of a call in a process of its own: gRPC core reads the environment."""
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    run = subprocess.run(
        [sys.executable, "-c", CALL, target],
        env={**environment, "http_proxy": proxy},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return run.stdout


def test_unreachable_proxy_is_named() -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"

    outcome = outcome_of_call("weir.invalid:8001", proxy)

    assert outcome.startswith(f"{Unreachable.__name__} no server answers at 127.0.0.1:")
    assert f"through the proxy {proxy} (http_proxy); no_proxy=HOST avoids it" in outcome


def test_loopback_is_called_without_the_proxy() -> None:
    target = f"127.0.0.1:{closed_port()}"

    outcome = outcome_of_call(target, f"http://127.0.0.1:{closed_port()}")

    assert outcome.strip() == f"{Unreachable.__name__} no server answers at {target}"
