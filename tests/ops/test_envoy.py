"""`deploy/envoy`: real servers behind a real Envoy that runs the deployed file.

Other than in a deployment are only ports, paths, and a DNS server that knows the servers.
"""

import queue
import re
import signal
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.helpers import onnx_models
from tests.helpers.certificates import Authority, Certificate
from tests.helpers.dns_server import DnsServer
from tests.helpers.http2_client import (
    ConnectionEnded,
    Http2Client,
    grpc_headers,
    indexed,
    literals,
    reference,
)
from tests.helpers.load import Load
from tests.helpers.ports import free_port
from tests.helpers.waiting import wait_until
from tests.integration.harness import (
    ANSWER_S,
    FOR_EVER,
    GOOD,
    SERVICE,
    Client,
    Server,
    X,
    arrays,
    burn,
    drain,
    expect_right_answer,
    failure,
    request,
    running,
    tensor,
)
from tests.ops.proxy import PROGRAM, Envoy, envoy, write_config

pytestmark = [pytest.mark.ops, pytest.mark.timeout(180)]

LIVE = f"/{SERVICE}/ServerLive"
IN_FLIGHT = 32
ENOUGH = 500
"""Answers of a part of a drill: each caller has been answered several times."""
TOKEN = "secret-of-the-shop-0123456789"  # noqa: S105 - of a test


class SecureClient(Client):
    """A client of Envoy. It sends nothing again, so that a test sees what Envoy lets through."""

    def __init__(self, target: str, authority: Authority, **options: int) -> None:
        super().__init__(target)
        self.channel.close()
        limits = {
            "enable_retries": 0,
            "use_local_subchannel_pool": 1,
            "max_receive_message_length": -1,
            "max_send_message_length": -1,
            **options,
        }
        self.channel = grpc.secure_channel(
            target,
            grpc.ssl_channel_credentials(authority.ca.read_bytes()),
            [(f"grpc.{name}", value) for name, value in limits.items()],
        )


@dataclass
class Fleet:
    """Servers of the same models on one port of several addresses, and their name.

    Attributes:
        flags: of each server besides its address.
    """

    models: Path
    folder: Path
    names: DnsServer
    authority: Authority
    certificate: Certificate
    flags: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)

    @contextmanager
    def server(self, number: int, name: str = "") -> Iterator[Server]:
        """A ready server; it has its address in the DNS from before its start."""
        address = f"127.0.0.{number}"
        if address not in self.names.addresses:
            self.names.addresses = [*self.names.addresses, address]
        flags = ("--host", address, "--port", str(self.port), *self.flags)
        log = self.folder / f"server-{number}{name}.log"
        with running(self.models, log, *flags, ready=False) as server:
            server.wait_for_log("server ready")
            yield server

    @contextmanager
    def proxy(
        self, changes: Mapping[str, str] | None = None, name: str = "envoy"
    ) -> Iterator[Envoy]:
        """Envoy in front of the servers."""
        with envoy(self.folder / name, self.certificate, self.names, self.port, changes) as found:
            yield found

    def client(self, proxy: Envoy, **options: int) -> SecureClient:
        """A client that knows the authority of Envoy's certificate."""
        return SecureClient(proxy.target, self.authority, **options)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    onnx_models.write_plain(root, "affine", onnx_models.affine())
    onnx_models.write_plain(root, "wide", onnx_models.affine("width"))
    onnx_models.write_plain(root, "burner", onnx_models.burner())
    onnx_models.write_plain(root, "patient", onnx_models.affine())
    onnx_models.write_plain(root, "pair", onnx_models.affine("width"))
    # Its load fails: requests for it are UNAVAILABLE, on every server.
    onnx_models.write_plain(root, "broken", b"no graph")
    return root


@contextmanager
def fleet_of(models: Path, folder: Path, *flags: str) -> Iterator[Fleet]:
    authority = Authority(folder / "authority")
    (folder / "certificate").mkdir()
    issued = authority.issue("localhost", file="server")
    certificate = Certificate(
        issued.cert.rename(folder / "certificate" / "server.pem"),
        issued.key.rename(folder / "certificate" / "server.key"),
    )
    with DnsServer("servers") as names:
        yield Fleet(models, folder, names, authority, certificate, flags)


@pytest.fixture
def fleet(models: Path, tmp_path: Path) -> Iterator[Fleet]:
    """Without a server yet."""
    with fleet_of(models, tmp_path) as found:
        yield found


SETTINGS = """
# Waits for a ninth row, for as long as it takes.
[models.patient]
max_batch_rows = 9
max_queue_rows = 8
max_queue_delay_s = 86400

# Waits for a second row.
[models.pair]
max_batch_rows = 2
max_queue_delay_s = 86400
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with `SETTINGS`."""
    file = tmp_path_factory.mktemp("settings") / "weir.toml"
    file.write_text(SETTINGS)
    return file


@dataclass(frozen=True)
class Site:
    """Two servers behind Envoy."""

    fleet: Fleet
    proxy: Envoy
    servers: tuple[Server, Server]

    def client(self, **options: int) -> SecureClient:
        """A client of this Envoy."""
        return self.fleet.client(self.proxy, **options)

    def seen(self, method: str) -> float:
        """How many calls of a method have reached a server."""
        return sum(
            server.metric("grpc_server_started_total", grpc_method=method)
            for server in self.servers
        )

    def answers(self, model: str) -> Counter[str]:
        """Requests of a model by status, on both servers."""
        found: Counter[str] = Counter()
        for server in self.servers:
            counts = server.counts(model)
            found.update({name: int(counts[name]) for name in counts if name.isupper()})
        return +found

    def retries(self) -> float:
        """How often Envoy has sent a call again."""
        return self.proxy.metric("envoy_cluster_upstream_rq_retry", envoy_cluster_name="weir")


@pytest.fixture(scope="module")
def site(models: Path, settings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with (
        fleet_of(models, folder, "--config", str(settings)) as fleet,
        fleet.server(1) as first,
        fleet.server(2) as second,
        fleet.proxy() as proxy,
    ):
        wait_until(lambda: proxy.healthy_servers() == 2, "the servers get no calls")
        yield Site(fleet, proxy, (first, second))
        for server in (first, second):
            assert "Traceback" not in server.log()


@contextmanager
def load_on(fleet: Fleet, proxy: Envoy) -> Iterator[Load]:
    """32 callers on four connections."""
    load = Load()
    with ExitStack() as stack:
        clients = [stack.enter_context(fleet.client(proxy)) for _ in range(4)]
        calls = [partial(expect_right_answer, clients[n % 4]) for n in range(IN_FLIGHT)]
        stack.enter_context(load.running([partial(load.repeat, call) for call in calls]))
        yield load


def wait_for_share(server: Server, rows: int = 50) -> None:
    """Return once a server that was started has answered calls."""
    wait_until(
        lambda: server.metric("weir_rows_total", model="affine") >= rows,
        f"{server.target} gets no calls",
    )


def drill(fleet: Fleet, proxy: Envoy) -> Load:
    """Stop a server, kill the other one, and drain the one that came back; all under load."""
    with fleet.server(1) as first, ExitStack() as stack:
        second = stack.enter_context(fleet.server(2))
        wait_until(lambda: proxy.healthy_servers() == 2, "the servers get no calls")
        with load_on(fleet, proxy) as load:
            for each in (first, second):
                wait_for_share(each)
            load.wait_for(ENOUGH)

            first.process.send_signal(signal.SIGTERM)
            assert first.ended() == 0
            load.wait_for(ENOUGH)
            third = stack.enter_context(fleet.server(1, "-again"))
            wait_for_share(third)

            second.process.kill()
            load.wait_for(ENOUGH)
            wait_for_share(stack.enter_context(fleet.server(2, "-again")))

            drain(third)
            load.wait_for(ENOUGH)
            wait_for_share(stack.enter_context(fleet.server(1, "-drained")))
            load.wait_for(ENOUGH)
    return load


def test_configuration_is_valid_and_names_nothing_deprecated(fleet: Fleet, tmp_path: Path) -> None:
    config = write_config(tmp_path, fleet.certificate, {})

    checked = subprocess.run(
        [PROGRAM, "--mode", "validate", "--config-path", config],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr
    assert "OK" in checked.stdout
    assert not re.findall(r".*(?:deprecat|\[warning\]).*", checked.stderr, re.IGNORECASE)


def test_unknown_field_is_found(fleet: Fleet, tmp_path: Path) -> None:
    config = write_config(tmp_path, fleet.certificate, {"num_retries: 3": "number_of_retries: 3"})

    checked = subprocess.run(
        [PROGRAM, "--mode", "validate", "--config-path", config],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode != 0
    assert "number_of_retries" in checked.stderr


def test_no_call_is_lost_when_servers_are_stopped_killed_and_drained(
    models: Path, tmp_path: Path
) -> None:
    with fleet_of(models, tmp_path, "--grace-s", "2") as fleet, fleet.proxy() as proxy:
        load = drill(fleet, proxy)

        overflows = proxy.metric("envoy_cluster_upstream_rq_retry_overflow")

    load.require_no_failure()
    assert overflows == 0


def test_servers_that_start_after_envoy_get_calls_within_seconds(fleet: Fleet) -> None:
    with fleet.proxy() as proxy, fleet.client(proxy) as client:
        # The name does not exist yet.
        error = failure(client.send(request("affine", GOOD)))
        assert error.code() is grpc.StatusCode.UNAVAILABLE

        with fleet.server(1) as first:
            ready_s = time.monotonic()
            wait_until(lambda: proxy.healthy_servers() == 1, "the first server gets no calls")
            # Name and health are looked up each second; by Envoy's defaults, health each minute.
            assert time.monotonic() - ready_s < 45
            expect_right_answer(client)
            assert first.metric("weir_rows_total", model="affine") == 1

            with fleet.server(2) as second, load_on(fleet, proxy) as load:
                wait_for_share(second)
    load.require_no_failure()


def test_server_that_is_not_serving_gets_no_call(fleet: Fleet, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    not_ready = ("--host", "127.0.0.2", "--port", str(fleet.port), "--require-models")
    with (
        fleet.server(1),
        running(empty, tmp_path / "log", *not_ready, ready=False) as second,
        fleet.proxy() as proxy,
    ):
        fleet.names.addresses.append("127.0.0.2")
        wait_until(
            lambda: proxy.metric("envoy_cluster_health_check_failure") >= 2,
            "the second server was not asked for its health",
        )

        with load_on(fleet, proxy) as load:
            load.wait_for(ENOUGH)

        load.require_no_failure()
        assert second.metric("grpc_server_started_total", grpc_method="Check") >= 2
        assert second.metric("grpc_server_started_total", grpc_method="ModelInfer") == 0


def test_large_request_is_sent_again(models: Path, settings: Path, tmp_path: Path) -> None:
    rows = np.zeros((1, 8_000_000), np.float32)
    rows[0, -1] = 3
    message = request("pair", tensor("x", rows))
    with (
        fleet_of(models, tmp_path, "--config", str(settings)) as fleet,
        fleet.server(1) as first,
        fleet.server(2) as second,
        fleet.proxy() as proxy,
        fleet.client(proxy) as client,
    ):
        wait_until(lambda: proxy.healthy_servers() == 2, "the servers get no calls")

        def waiting(server: Server) -> bool:
            return server.metric("weir_queue_rows", model="pair") == 1

        one = client.send(message)
        wait_until(lambda: waiting(first) or waiting(second), "no server has the request")
        lost, left = (first, second) if waiting(first) else (second, first)
        lost.process.kill()
        wait_until(lambda: waiting(left), "the other server has not got the request")
        two = client.send(message)

        for call in (one, two):
            np.testing.assert_array_equal(arrays(call.result())["y"], 2 * rows + 1)


# Clients of one site


def raw_client(site: Site) -> Http2Client:
    """A client of frames, over TLS, that acknowledges no settings."""
    context = ssl.create_default_context(cafile=site.fleet.authority.ca)
    context.set_alpn_protocols(["h2"])
    return Http2Client(site.proxy.target, acknowledges=False, tls=context)


def test_token_passes_to_the_server_and_only_a_known_one(models: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(f'[tokens.shop]\ntoken = "{TOKEN}"\n')
    tokens.chmod(0o600)
    message = request("affine", GOOD)
    with (
        fleet_of(models, tmp_path, "--tokens-file", str(tokens), "--open-health") as fleet,
        fleet.server(1),
        fleet.proxy() as proxy,
        fleet.client(proxy) as client,
    ):
        wait_until(lambda: proxy.healthy_servers() == 1, "the server gets no calls")

        client.send(message, metadata=[("authorization", f"Bearer {TOKEN}")]).result()
        without = failure(client.send(message))
        unknown = failure(client.send(message, metadata=[("authorization", f"Bearer {TOKEN}x")]))

    assert {error.code() for error in (without, unknown)} == {grpc.StatusCode.UNAUTHENTICATED}


def test_client_without_tls_or_with_another_authority_is_refused(
    site: Site, tmp_path: Path
) -> None:
    started = site.seen("ModelInfer")
    stranger = Authority(tmp_path)
    clients = [Client(site.proxy.target), SecureClient(site.proxy.target, stranger)]
    for client in clients:
        with client:
            error = failure(client.send(request("affine", GOOD)))
            assert error.code() is grpc.StatusCode.UNAVAILABLE

    assert site.seen("ModelInfer") == started


def test_renewed_certificate_is_used_by_new_connections(fleet: Fleet, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=fleet.authority.ca)

    def serial(proxy: Envoy) -> str:
        host, _, port = proxy.target.rpartition(":")
        with (
            socket.create_connection((host, int(port)), ANSWER_S) as connection,
            context.wrap_socket(connection, server_hostname=host) as secure,
        ):
            certificate = secure.getpeercert()
            assert certificate is not None
            return str(certificate["serialNumber"])

    with fleet.proxy() as proxy:
        before = serial(proxy)
        renewed = fleet.authority.issue("localhost", file="renewed")
        # Between the two moves key and certificate do not fit; Envoy keeps the former ones.
        renewed.key.rename(fleet.certificate.key)
        renewed.cert.rename(fleet.certificate.cert)

        wait_until(lambda: serial(proxy) != before, "the new certificate is not used")


def test_header_bomb_ends_at_envoy(site: Site) -> None:
    """The bomb of row H02 of `docs/faults.md`, which would be decoded once by a server."""
    started = site.seen("ServerLive")
    logs = [len(server.log()) for server in site.servers]
    head = literals(grpc_headers(LIVE))
    with site.client() as bystander, raw_client(site) as attacker:
        expect_right_answer(bystander)
        with pytest.raises(ConnectionEnded):  # noqa: PT012 - sending is the attack
            first = indexed("x-a", "v" * 3900)
            for _ in range(300):
                attacker.send_headers(attacker.new_stream(), head + first + reference(0) * 12_000)
                first = b""
            while True:
                attacker.next_frame()
        expect_right_answer(bystander)

    assert site.seen("ServerLive") == started
    assert [len(server.log()) for server in site.servers] == logs


@pytest.mark.parametrize(
    "metadata",
    [[("x-long", "v" * 20_000)], [(f"x-{number}", "v") for number in range(120)]],
    ids=["20-kB", "120-fields"],
)
def test_metadata_over_the_limit_is_refused_by_envoy(
    site: Site, metadata: list[tuple[str, str]]
) -> None:
    started = site.seen("ModelInfer")
    with site.client(max_metadata_size=1_000_000) as client:
        # The size of the settings is known once they have come.
        expect_right_answer(client)
        error = failure(client.send(request("affine", GOOD), metadata=metadata))
        expect_right_answer(client)

    assert error.code() is not grpc.StatusCode.OK
    assert site.seen("ModelInfer") == started + 2


def test_rapid_resets_end_their_connection(site: Site) -> None:
    with site.client() as bystander, raw_client(site) as attacker:
        with pytest.raises(ConnectionEnded):  # noqa: PT012 - sending is the attack
            for _ in range(10_000):
                attacker.reset(attacker.call(LIVE))
            while True:
                attacker.next_frame()
        expect_right_answer(bystander)

    closed = "envoy_http_downstream_rq_too_many_premature_resets"
    assert site.proxy.metric(closed, envoy_http_conn_manager_prefix="clients") >= 1


def test_calls_and_streams_last_longer_than_envoys_default_timeout(site: Site) -> None:
    send: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    message = request("affine", GOOD).SerializeToString()
    with site.client() as client:
        waiting = client.send(request("patient", GOOD))
        call = client.stream(iter(send.get, None), timeout=2 * ANSWER_S)
        for rest_s in (0.0, 16.0):
            # Envoy's default would end a call after 15 s.
            time.sleep(rest_s)
            send.put(message)
            answer = next(call)
            np.testing.assert_array_equal(arrays(answer.infer_response)["y"], 2 * X + 1)
        send.put(None)

        assert next(call, None) is None
        assert call.code() is grpc.StatusCode.OK
        assert not waiting.done()
        waiting.cancel()


def test_deadline_is_kept_and_the_request_is_run_once(site: Site) -> None:
    retries = site.retries()
    with site.client() as client:
        error = failure(client.send(burn(FOR_EVER), timeout=1.0))

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: site.answers("burner").total() > 0, "the request was not counted")
    for server in site.servers:
        server.settle()
    # Envoy ends the call at the deadline too, so the server may see that first.
    assert site.answers("burner") in ({"DEADLINE_EXCEEDED": 1}, {"CANCELLED": 1})
    assert site.retries() == retries


def test_refusal_for_load_is_passed_on_and_not_sent_again(site: Site) -> None:
    eight = request("patient", tensor("x", np.repeat(X, 8, axis=0)))
    retries = site.retries()
    # What Envoy would do for a client that it trusts.
    asked = [("x-envoy-retry-grpc-on", "resource-exhausted"), ("x-envoy-max-retries", "9")]
    with site.client() as client:
        # Each server has room for eight rows.
        waiting = [client.send(eight, metadata=asked) for _ in range(3)]
        wait_until(lambda: any(each.done() for each in waiting), "no call was refused")
        refused = [each for each in waiting if each.done()]
        error = failure(refused[0])
        for each in waiting:
            each.cancel()

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"]) >= 0
    assert site.retries() == retries


def test_status_takes_no_server_from_other_clients(site: Site) -> None:
    with site.client() as client:
        for _ in range(20):
            error = failure(client.send(request("broken", GOOD)))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        expect_right_answer(client)

    assert site.proxy.healthy_servers() == 2
    ejections = "envoy_cluster_outlier_detection_ejections_enforced_total"
    assert site.proxy.metric(ejections, envoy_cluster_name="weir") == 0


def test_large_requests_that_fill_the_memory_end_and_others_go_on(site: Site) -> None:
    resets = "envoy_envoy_overload_actions_reset_high_memory_stream_count"
    with (
        site.fleet.proxy(
            {"&max_heap_bytes 805306368": "&max_heap_bytes 209715200"}, "small"
        ) as proxy,
        site.fleet.client(proxy) as greedy,
        site.fleet.client(proxy) as other,
    ):
        wait_until(lambda: proxy.healthy_servers() == 2, "the servers get no calls")
        # Envoy keeps a request until its answer begins, and the models answer none of these: their
        # widths differ, so that no two of them make a batch.
        calls = [
            greedy.send(request("pair", tensor("x", np.zeros((1, width), np.float32))))
            for width in range(7_000_000, 7_000_012)
        ]
        wait_until(lambda: proxy.metric(resets) >= 1, "no large request was ended")
        wait_until(lambda: any(call.done() for call in calls), "no large request was ended")
        # While the memory is full, all calls are refused.
        wait_until(
            lambda: other.send(request("affine", GOOD)).exception() is None,
            "another client gets no answer",
        )
        for call in calls:
            call.cancel()


def test_calls_over_the_rate_of_a_connection_are_refused_with_a_pause(site: Site) -> None:
    changes = {"&calls_per_second 5000": "&calls_per_second 5"}
    with (
        site.fleet.proxy(changes, "slow-envoy") as proxy,
        site.fleet.client(proxy) as flood,
        site.fleet.client(proxy) as other,
    ):
        wait_until(lambda: proxy.healthy_servers() == 2, "the servers get no calls")
        calls = [flood.send(request("affine", GOOD)) for _ in range(200)]
        errors = [call.exception(2 * ANSWER_S) for call in calls]
        expect_right_answer(other)

    assert any(error is None for error in errors)
    refused = [error for error in errors if isinstance(error, grpc.Call)]
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert dict(refused[0].trailing_metadata())["grpc-retry-pushback-ms"] == "1000"


def test_largest_message_passes(site: Site) -> None:
    rows = np.zeros((1, 8_000_000), np.float32)
    rows[0, -1] = 3
    with site.client() as client:
        answer = client.send(request("wide", tensor("x", rows))).result()

    np.testing.assert_array_equal(arrays(answer)["y"], 2 * rows + 1)


@pytest.mark.parametrize("path", ["/", "/quitquitquit", "/config_dump", "/stats/prometheus/../"])
def test_metrics_port_shows_nothing_else_of_the_admin_interface(site: Site, path: str) -> None:
    assert site.proxy.page(path)[0] == 404


def test_admin_interface_listens_on_loopback(site: Site) -> None:
    port = int(site.proxy.admin.rpartition(":")[2])

    socket.create_connection(("127.0.0.1", port), ANSWER_S).close()
    # Another address of this machine, where all other ports of Envoy listen too.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.9", port), ANSWER_S)
    socket.create_connection(("127.0.0.9", int(site.proxy.metrics.rpartition(":")[2]))).close()
