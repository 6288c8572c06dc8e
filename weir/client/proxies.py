"""HTTP proxies of a channel.

gRPC takes its proxy from the environment, and names no proxy in its errors.
"""

import os
import re
from collections.abc import Mapping

# In the order in which gRPC core reads them.
_PROXY = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY = ("no_grpc_proxy", "no_proxy")
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|\[::1\]|::1")
_SCHEME = re.compile(r"(dns|ipv4|ipv6):(//[^/]*/|/*)", re.IGNORECASE)


def is_loopback(target: str) -> bool:
    """Whether a target is an address of this machine."""
    return bool(_LOOPBACK.fullmatch(_host(target)))


def find(target: str, environment: Mapping[str, str] = os.environ) -> str:
    """The proxy that gRPC uses for a target, such as `the proxy a:3128 (http_proxy)`, or ""."""
    variable = next((name for name in _PROXY if environment.get(name)), None)
    direct = next((environment[name] for name in _NO_PROXY if environment.get(name)), "")
    host = _host(target)
    if (
        variable is None
        or is_loopback(target)
        or target.startswith("unix")
        or any(host.endswith(suffix.strip()) for suffix in direct.split(",") if suffix.strip())
    ):
        return ""
    # The value may hold a password.
    return f"the proxy {environment[variable].rpartition('@')[2]} ({variable})"


def _host(target: str) -> str:
    return _SCHEME.sub("", target).rpartition(":")[0]
