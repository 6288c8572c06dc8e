"""Targets of one server and of several, and gRPC's own load balancing over several.

One address is called as it is. With several, gRPC chooses a server for each call in turn
(round robin), leaves out those whose health check does not say SERVING, and sends a call that ended
with UNAVAILABLE again. It does so by a service config; no code of Weir chooses a server.

- A call is sent again only before its answer has begun, at most four times, after the pause that
  the server asks for (`grpc-retry-pushback-ms`) or a short one. No call is sent twice at once.
- Weir's servers let a health check in without a token only with `--open-health`. In plaintext, gRPC
  sends no token with its own health checks, so there are none.
"""

import json
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from weir.client import proxies
from weir.client.errors import Unreachable, UsageError

Servers: TypeAlias = str | Sequence[str]
"""A target: `HOST:PORT`, several of them in a sequence or with commas between, or `dns:///HOST:PORT`
for every address of a name."""

Option: TypeAlias = tuple[str, str | int]
"""An option of a gRPC channel."""

_URL = re.compile(r"(https?|grpcs?)://(.*)", re.IGNORECASE)
_DNS = re.compile(r"dns:", re.IGNORECASE)
# gRPC's own list: `ipv4:HOST:PORT,HOST:PORT`.
_ADDRESSES = re.compile(r"\A\s*(ipv4|ipv6):(?=.*,)", re.IGNORECASE)
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s/:\[\]]+):(\d{1,5})")

# `getaddrinfo` takes a larger one modulo 2**16.
_MAX_PORT = 65_535

# Of gRPC core, which makes no more attempts than 5.
_RETRIES = {
    "maxAttempts": 5,
    "initialBackoff": "0.01s",
    "maxBackoff": "1s",
    "backoffMultiplier": 4,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
# A server that is back gets calls within this time; core's own bound is two minutes.
_MAX_RECONNECT_MS = 5_000
# A name is resolved again when a connection ends; core's own bound is 30 seconds.
_MIN_RESOLUTION_MS = 2_000
# Beside its message, a call has metadata.
_METADATA_BYTES = 64 * 1024
_MAX_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where the servers of a client are.

    Attributes:
        text: the target as messages name it.
        uri: the target as gRPC takes it.
        addresses: `HOST:PORT` of each server; one entry for a name that gRPC resolves.
        is_balanced: whether it may have several servers.
    """

    text: str
    uri: str
    addresses: tuple[str, ...]
    is_balanced: bool

    @property
    def is_list(self) -> bool:
        """Whether the addresses of several servers are given."""
        return len(self.addresses) > 1

    @property
    def is_loopback(self) -> bool:
        """Whether every server is an address of this machine."""
        return all(map(proxies.is_loopback, self.addresses))

    @property
    def is_local(self) -> bool:
        """Whether calls stay on this machine."""
        return self.is_loopback or self.text.startswith(("unix:", "unix-abstract:"))

    @property
    def proxy(self) -> str:
        """The proxy that gRPC uses, as `proxies.find`; it uses none for a list."""
        return "" if self.is_list else proxies.find(self.text)

    def require_one(self, what: str) -> None:
        """Raise UsageError for an action that would reach one server of several."""
        if self.is_balanced:
            raise UsageError(
                f"{what}: expected one server (HOST:PORT), since it changes only the one that "
                f"answers; got {self.text}"
            )


def parse(servers: Servers) -> Target:
    """The target of a client's argument; names in a list are resolved here.

    Raises:
        UsageError: it is no target.
        Unreachable: a name of a list has no address.
    """
    addresses = addresses_of(servers)
    if len(addresses) > 1:
        return Target(", ".join(addresses), _uri(addresses), addresses, is_balanced=True)
    text = addresses[0]
    return Target(text, text, addresses, is_balanced=bool(_DNS.match(text)))


def addresses_of(servers: Servers) -> tuple[str, ...]:
    """The servers of a target, each once; UsageError if it is no target."""
    given = [servers] if isinstance(servers, str) else list(servers)
    parts = [part.strip() for text in given for part in _ADDRESSES.sub("", text, 1).split(",")]
    for part in parts:
        if found := _URL.match(part):
            raise UsageError(
                f"target: expected HOST:PORT such as {found[2].partition('/')[0]}, got {part!r}"
            )
    # gRPC knows other forms of a single target.
    if not parts or (len(parts) > 1 and not all(map(_is_host_port, parts))):
        raise UsageError(f"target: expected HOST:PORT of each server, got {servers!r}")
    return tuple(dict.fromkeys(parts))


def certificate_name(target: Target, server_name: str | None) -> str:
    """The name that the certificates of a list must have; UsageError if it is not known."""
    hosts = dict.fromkeys(_HOST_PORT.sub(r"\1", address) for address in target.addresses)
    if server_name is None and len(hosts) > 1:
        raise UsageError(
            "tls: expected the one name that the certificates of all servers have (--server-name, "
            "or tls=Tls(server_name=…) in place of credentials), since the hosts of the target "
            f"differ: {', '.join(hosts)}"
        )
    return server_name or target.addresses[0]


def channel_options(
    target: Target, max_message_bytes: int, *, checks_health: bool, authority: str
) -> list[Option]:
    """The gRPC options of a channel.

    Args:
        target: where the servers are.
        max_message_bytes: the largest message sent or received.
        checks_health: whether the servers of a balanced target are checked.
        authority: of the calls to a list.
    """
    is_direct = target.is_list or target.is_loopback
    options: list[Option] = [
        # Without it, all channels of a process to one address share a connection. Of servers that
        # share a port, one alone would then get the calls of all clients of this process.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", int(not is_direct)),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
    ]
    if target.is_balanced:
        retried_bytes = _MAX_INT if max_message_bytes < 0 else max_message_bytes + _METADATA_BYTES
        options += [
            ("grpc.service_config", _service_config(checks_health=checks_health)),
            # A larger call is not kept, so it is not sent again; core's own limit is 256 KiB.
            ("grpc.per_rpc_retry_buffer_size", min(retried_bytes, _MAX_INT)),
            ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_MS),
            ("grpc.dns_min_time_between_resolutions_ms", _MIN_RESOLUTION_MS),
        ]
    if target.is_list:
        # Otherwise the whole list would be the authority.
        options.append(("grpc.default_authority", authority))
    return options


def _is_host_port(text: str) -> bool:
    found = _HOST_PORT.fullmatch(text)
    return found is not None and int(found[2]) <= _MAX_PORT


def _service_config(*, checks_health: bool) -> str:
    config: dict[str, object] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": [{}], "retryPolicy": _RETRIES}],
    }
    if checks_health:
        config["healthCheckConfig"] = {"serviceName": ""}
    return json.dumps(config)


def _uri(addresses: Sequence[str]) -> str:
    """The addresses as gRPC takes a list; with both families, IPv4 is mapped into IPv6."""
    found = dict.fromkeys(each for address in addresses for each in _resolve(address))
    if not any(family == socket.AF_INET6 for family, _, _ in found):
        return "ipv4:" + ",".join(f"{host}:{port}" for _, host, port in found)
    return "ipv6:" + ",".join(
        f"[{'::ffff:' if family == socket.AF_INET else ''}{host}]:{port}"
        for family, host, port in found
    )


def _resolve(address: str) -> list[tuple[int, str, int]]:
    """Every address of a host: family, address, port."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreachable(f"no server answers at {address}: {reason}") from error
    return [(family, str(place[0]), int(place[1])) for family, _, _, _, place in found]
