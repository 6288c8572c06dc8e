"""An Envoy process with the configuration of `deploy/envoy`, in front of servers on one port."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.helpers.certificates import Certificate
from tests.helpers.dns_server import DnsServer
from tests.helpers.ports import free_port
from tests.helpers.waiting import wait_until
from tests.integration.harness import samples

CONFIG = Path(__file__).parents[2] / "deploy" / "envoy"
PROGRAM = Path(sys.executable).parent / "envoy"
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Envoy:
    """A running Envoy.

    Attributes:
        target: where clients connect, `host:port`.
        metrics: its port for Prometheus, `host:port`.
        admin: its admin interface, `host:port`.
        log: its log and its access log.
    """

    target: str
    metrics: str
    admin: str
    log: Path

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page of the metrics port."""
        with closing(HTTPConnection(self.metrics, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels; 0 without one."""
        _, text = self.page("/stats/prometheus")
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(
            value
            for (sample, carried), value in samples("\n".join(lines) + "\n").items()
            if sample == name and set(labels.items()) <= carried
        )

    def healthy_servers(self) -> float:
        """How many servers get calls."""
        return self.metric("envoy_cluster_membership_healthy", envoy_cluster_name="weir")


def write_config(folder: Path, certificate: Certificate, changes: Mapping[str, str]) -> Path:
    """The deployed configuration, with other lines; every change must be found once."""
    files = {
        "certificate.yaml": {
            "/etc/weir/server/server.pem": str(certificate.cert),
            "/etc/weir/server/server.key": str(certificate.key),
            "{path: /etc/weir/server}": f"{{path: {certificate.cert.parent}}}",
        },
        "envoy.yaml": {"/etc/envoy/certificate.yaml": f"{folder}/certificate.yaml", **changes},
    }
    for name, replacements in files.items():
        text = (CONFIG / name).read_text("utf-8")
        for old, new in replacements.items():
            assert text.count(old) == 1, f"{name}: expected {old!r} once"
            text = text.replace(old, new)
        (folder / name).write_text(text, "utf-8")
    return folder / "envoy.yaml"


@contextmanager
def envoy(
    folder: Path,
    certificate: Certificate,
    servers: DnsServer,
    server_port: int,
    changes: Mapping[str, str] | None = None,
) -> Iterator[Envoy]:
    """Start Envoy and yield once it listens; kill it at the end.

    Args:
        folder: new; for its configuration and its log.
        certificate: in a folder of its own.
        servers: resolves the name `servers`.
        server_port: of all servers.
        changes: of the configuration besides, old text to new text.
    """
    folder.mkdir()
    ports = {name: free_port() for name in ("listen_port", "metrics_port", "admin_port")}
    deployed = {"listen_port": 8443, "metrics_port": 9902, "admin_port": 9901}
    addresses = {f"&{name} {port}": f"&{name} {ports[name]}" for name, port in deployed.items()} | {
        "&server_port 8001": f"&server_port {server_port}"
    }
    config = write_config(folder, certificate, addresses | dict(changes or {}))
    resolver = {
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [
                    {"socket_address": {"address": "127.0.0.1", "port_value": servers.port}}
                ],
                "dns_resolver_options": {"no_default_search_domain": True},
            },
        }
    }
    command = [
        str(PROGRAM),
        *("--config-path", str(config)),
        *("--config-yaml", json.dumps(resolver)),
        *("--concurrency", "2"),
        *("--log-level", "warning"),
        "--disable-hot-restart",
    ]
    log = folder / "envoy.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    found = Envoy(
        target=f"localhost:{ports['listen_port']}",
        metrics=f"127.0.0.1:{ports['metrics_port']}",
        admin=f"127.0.0.1:{ports['admin_port']}",
        log=log,
    )
    try:
        wait_until(lambda: process.poll() is not None or _listens(found), f"see {log}")
        assert process.poll() is None, log.read_text()
        yield found
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()


def _listens(found: Envoy) -> bool:
    try:
        return found.page("/stats/prometheus")[0] == 200
    except OSError:
        return False
