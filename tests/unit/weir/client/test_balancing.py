"""Clients of several servers. The servers run in this process, on the public `grpc.server`."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

import weir
from tests.helpers.certificates import Authority
from tests.unit.weir.secure_server import listening, server_credentials
from weir.client import balancing
from weir.client.connection import CallContext
from weir.protocol import inference_pb2 as pb
from weir.protocol import tasks_pb2 as tasks_pb

NAME = "weir.test"
TOKEN = "s3cret"  # noqa: S105 - of a test
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
WAIT_S = 20.0


@dataclass
class Replica:
    """A server of the model `who`, which answers with its own number."""

    number: int
    target: str = ""
    health: HealthServicer = field(default_factory=HealthServicer)
    failures: list[grpc.StatusCode] = field(default_factory=list)
    """Statuses of the next calls, instead of answers."""
    failures_begin_after: int = 0
    pushback_ms: str = ""
    arrived_s: list[float] = field(default_factory=list)
    health_headers: list[dict[str, str | bytes]] = field(default_factory=list)

    def infer(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        self.arrived_s.append(time.monotonic())
        if self.failures:
            if self.pushback_ms:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", self.pushback_ms),))
            context.abort(self.failures.pop(0), "not now")
        response = pb.ModelInferResponse(model_name="who")
        response.outputs.add(name="y", datatype="INT64", shape=[1])
        response.raw_output_contents.append(np.array([self.number]).tobytes())
        return response.SerializeToString()

    def generate(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Two tokens and the result; fails after as many tokens as `failures_begin_after`."""
        for number in range(2):
            if self.failures and number == self.failures_begin_after:
                context.abort(self.failures.pop(0), "not now")
            token = tasks_pb.GenerateResponse.Token(token=f"{number}", text=f"{number}")
            yield tasks_pb.GenerateResponse(token=token).SerializeToString()
        result = tasks_pb.GenerateResponse.Result(model_name="who")
        result.hypotheses.add(text="01")
        yield tasks_pb.GenerateResponse(result=result).SerializeToString()

    def stream(self, bodies: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for body in bodies:
            if self.failures:
                context.abort(self.failures.pop(0), "not now")
            answer = pb.ModelInferResponse.FromString(self.infer(body, context))
            answer.id = pb.ModelInferRequest.FromString(body).id
            yield pb.ModelStreamInferResponse(infer_response=answer).SerializeToString()


class _Seen(grpc.ServerInterceptor):
    """Notes the headers of health checks, and refuses calls without the token."""

    def __init__(self, replica: Replica, token: str) -> None:
        self._replica = replica
        self._token = token

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        headers = dict(handler_call_details.invocation_metadata)
        if method.endswith("/Watch"):
            self._replica.health_headers.append(headers)
        if self._token and headers.get("authorization") != f"Bearer {self._token}":

            def refuse(_: object, context: grpc.ServicerContext) -> None:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

            if method.endswith("/Watch"):
                return grpc.unary_stream_rpc_method_handler(refuse)
            return grpc.unary_unary_rpc_method_handler(refuse)
        return continuation(handler_call_details)


Serve = Callable[..., list[Replica]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts replicas that serve until the end of the test."""
    with ExitStack() as stack:

        def start(
            count: int, token: str = "", credentials: grpc.ServerCredentials | None = None
        ) -> list[Replica]:
            return [
                stack.enter_context(serving(Replica(number), token, credentials))
                for number in range(count)
            ]

        yield start


@contextmanager
def serving(
    replica: Replica, token: str = "", credentials: grpc.ServerCredentials | None = None
) -> Iterator[Replica]:
    replica.health.set("", SERVING)
    handlers = [
        grpc.method_handlers_generic_handler(
            "inference.GRPCInferenceService",
            {
                "ModelInfer": grpc.unary_unary_rpc_method_handler(replica.infer),
                "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(replica.stream),
            },
        ),
        grpc.method_handlers_generic_handler(
            "weir.v1.Tasks", {"Generate": grpc.unary_stream_rpc_method_handler(replica.generate)}
        ),
    ]
    with ThreadPoolExecutor(16) as pool:
        server = grpc.server(
            pool,
            handlers=handlers,
            interceptors=[_Seen(replica, token)],
            options=[("grpc.max_receive_message_length", -1)],
        )
        health_pb2_grpc.add_HealthServicer_to_server(replica.health, server)
        with listening(server, credentials) as replica.target:
            yield replica
            replica.health.enter_graceful_shutdown()


def targets(replicas: Sequence[Replica]) -> list[str]:
    return [replica.target for replica in replicas]


def ask(client: weir.Client, size: int = 1) -> int:
    return int(client.infer("who", {"x": np.zeros(size, np.uint8)})["y"][0])


def wait_for(client: weir.Client, numbers: set[int]) -> None:
    """Call until just these servers answer, each as often as the others."""
    end_s = time.monotonic() + WAIT_S
    while {ask(client) for _ in range(3 * len(numbers))} != numbers:
        assert time.monotonic() < end_s


# Targets


@pytest.mark.parametrize(
    ("servers", "uri", "addresses"),
    [
        ("host:1", "host:1", ("host:1",)),
        (["host:1"], "host:1", ("host:1",)),
        ("unix:/run/weir.sock", "unix:/run/weir.sock", ("unix:/run/weir.sock",)),
        ("ipv4:10.0.0.1:1", "ipv4:10.0.0.1:1", ("ipv4:10.0.0.1:1",)),
    ],
)
def test_one_address_is_called_as_it_is(
    servers: balancing.Servers, uri: str, addresses: tuple[str, ...]
) -> None:
    target = balancing.parse(servers)

    assert (target.uri, target.addresses, target.is_balanced) == (uri, addresses, False)
    assert {name for name, _ in CallContext(servers).channel_options(1000)} == {
        "grpc.use_local_subchannel_pool",
        "grpc.enable_http_proxy",
        "grpc.max_send_message_length",
        "grpc.max_receive_message_length",
    }


@pytest.mark.parametrize(
    ("servers", "uri"),
    [
        ("127.0.0.1:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (" 127.0.0.1:1 , 127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (["127.0.0.1:1", "127.0.0.2:2"], "ipv4:127.0.0.1:1,127.0.0.2:2"),
        (("127.0.0.1:1", "127.0.0.2:2"), "ipv4:127.0.0.1:1,127.0.0.2:2"),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", "ipv4:127.0.0.1:1,127.0.0.2:2"),
        ("ipv6:[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("[::1]:1,127.0.0.2:2", "ipv6:[::1]:1,[::ffff:127.0.0.2]:2"),
    ],
)
def test_list_is_balanced(servers: balancing.Servers, uri: str) -> None:
    target = balancing.parse(servers)

    assert target.uri == uri and target.is_balanced and len(target.addresses) == 2


@pytest.mark.parametrize("text", ["dns:///weir:8001", "dns:weir:8001", "dns://10.0.0.1/weir:8001"])
def test_name_that_grpc_resolves_is_balanced(text: str) -> None:
    target = balancing.parse(text)

    assert (target.uri, target.is_balanced, target.is_list) == (text, True, False)


def test_names_in_a_list_are_resolved_when_the_client_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {"a": ["10.0.0.1", "10.0.0.2"], "b": ["10.0.0.3"], "host-ipv4": ["10.0.0.4"]}

    def getaddrinfo(host: str, port: str, **_: object) -> list[object]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, 1, 6, "", (found, int(port))) for found in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    assert balancing.parse("a:1,b:2").uri == "ipv4:10.0.0.1:1,10.0.0.2:1,10.0.0.3:2"
    assert balancing.parse("host-ipv4:1,b:2").uri == "ipv4:10.0.0.4:1,10.0.0.3:2"
    with pytest.raises(weir.Unreachable, match="no server answers at c:3: Name or service"):
        weir.Client(["a:1", "c:3"])


@pytest.mark.parametrize("kind", [weir.Client, weir.AsyncClient])
@pytest.mark.parametrize(
    "servers",
    [
        "a:1,",
        "a:1,b",
        ["a:1", "dns:///b:2"],
        ["a:1", "b:http"],
        "a:1,b:65536",
        [],
        "a:1,unix:/b",
        ["a:1", ""],
    ],
)
def test_list_of_anything_else_is_refused(
    kind: type[weir.Client], servers: balancing.Servers
) -> None:
    with pytest.raises(weir.UsageError, match="expected HOST:PORT of each server"):
        kind(servers)


@pytest.mark.parametrize(
    ("servers", "is_local"),
    [
        (["127.0.0.1:1", "127.0.0.2:1"], True),
        (["127.0.0.1:1", "10.0.0.1:1"], False),
        ("dns:///localhost:1", True),
        ("dns://127.0.0.1:53/weir:1", False),
    ],
)
def test_token_goes_in_plaintext_to_this_machine_only(
    servers: balancing.Servers, *, is_local: bool
) -> None:
    if is_local:
        weir.Client(servers, token=TOKEN).close()
        return
    with pytest.raises(weir.UsageError, match="expected TLS"):
        weir.Client(servers, token=TOKEN)


# Calls


def test_calls_go_to_all_servers_in_turn(serve: Serve) -> None:
    replicas = serve(3)

    with weir.Client(targets(replicas)) as client:
        wait_for(client, {0, 1, 2})
        answers = [ask(client) for _ in range(30)]

    assert [answers.count(number) for number in range(3)] == [10, 10, 10]


def test_asyncio_client_balances_too(serve: Serve) -> None:
    replicas = serve(2)

    async def answers() -> set[int]:
        async with weir.AsyncClient(targets(replicas)) as client:
            found: set[int] = set()
            end_s = time.monotonic() + WAIT_S
            while found != {0, 1}:
                assert time.monotonic() < end_s
                answer = await client.infer("who", {"x": np.zeros(1, np.uint8)})
                found.add(int(answer["y"][0]))
            return found

    assert asyncio.run(answers()) == {0, 1}


def test_server_that_does_not_serve_gets_no_call(serve: Serve) -> None:
    replicas = serve(3)
    with weir.Client(targets(replicas)) as client:
        wait_for(client, {0, 1, 2})

        replicas[1].health.set("", NOT_SERVING)
        wait_for(client, {0, 2})
        before = len(replicas[1].arrived_s)
        for _ in range(20):
            ask(client)
        left = len(replicas[1].arrived_s)
        replicas[1].health.set("", SERVING)
        wait_for(client, {0, 1, 2})

    assert left == before


def test_one_server_is_called_whatever_its_health_is(serve: Serve) -> None:
    (replica,) = serve(1)
    replica.health.set("", NOT_SERVING)

    with weir.Client(replica.target) as client:
        assert ask(client) == 0
        assert client.health() == "NOT_SERVING"
    assert not replica.health_headers


def test_call_that_is_unavailable_is_sent_again(serve: Serve) -> None:
    replicas = serve(2)
    with weir.Client(targets(replicas)) as client:
        wait_for(client, {0, 1})
        for replica in replicas:
            replica.failures = [grpc.StatusCode.UNAVAILABLE] * 2

        assert ask(client) in {0, 1}

    assert [replica.failures for replica in replicas] == [[], []]


def test_one_server_gets_no_call_twice(serve: Serve) -> None:
    (replica,) = serve(1)
    replica.failures = [grpc.StatusCode.UNAVAILABLE]

    with weir.Client(replica.target) as client, pytest.raises(weir.Unavailable, match="not now"):
        ask(client)

    assert len(replica.arrived_s) == 1


@pytest.mark.parametrize("status", ["RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN"])
def test_call_with_another_status_is_not_sent_again(serve: Serve, status: str) -> None:
    replicas = serve(2)
    with weir.Client(targets(replicas)) as client:
        wait_for(client, {0, 1})
        for replica in replicas:
            replica.failures = [grpc.StatusCode[status]]

        with pytest.raises(weir.CallError, match="not now"):
            ask(client)

    assert sum(len(replica.failures) for replica in replicas) == 1


def test_pause_that_the_server_asks_for_is_kept(serve: Serve) -> None:
    (replica,) = serve(1)
    replica.failures, replica.pushback_ms = [grpc.StatusCode.UNAVAILABLE], "700"

    with weir.Client(f"dns:///{replica.target}") as client:
        assert ask(client) == 0

    first_s, second_s = replica.arrived_s
    assert second_s - first_s >= 0.69


def test_server_that_forbids_a_retry_gets_none(serve: Serve) -> None:
    (replica,) = serve(1)
    replica.failures, replica.pushback_ms = [grpc.StatusCode.UNAVAILABLE], "-1"

    with (
        weir.Client(f"dns:///{replica.target}") as client,
        pytest.raises(weir.Unavailable, match="not now"),
    ):
        ask(client)

    assert len(replica.arrived_s) == 1


@pytest.mark.parametrize("size", [300_000, 20_000_000])
def test_large_call_is_sent_again_too(serve: Serve, size: int) -> None:
    (replica,) = serve(1)
    replica.failures = [grpc.StatusCode.UNAVAILABLE]

    with weir.Client(f"dns:///{replica.target}") as client:
        assert ask(client, size) == 0

    assert len(replica.arrived_s) == 2


def test_answer_that_has_not_begun_is_asked_for_again(serve: Serve) -> None:
    (replica,) = serve(1)
    replica.failures = [grpc.StatusCode.UNAVAILABLE]

    with weir.Client(f"dns:///{replica.target}") as client:
        tokens = [token.text for token in client.generate("who", "text")]

    assert tokens == ["0", "1"] and not replica.failures


def test_answer_that_breaks_in_the_middle_is_an_error(serve: Serve) -> None:
    (replica,) = serve(1)
    replica.failures, replica.failures_begin_after = [grpc.StatusCode.UNAVAILABLE] * 2, 1
    tokens: list[str] = []

    with (
        weir.Client(f"dns:///{replica.target}") as client,
        pytest.raises(weir.Unavailable, match="not now"),
    ):
        tokens.extend(token.text for token in client.generate("who", "text"))

    assert tokens == ["0"] and len(replica.failures) == 1


def test_stream_that_has_no_answer_yet_is_sent_again(serve: Serve) -> None:
    (replica,) = serve(1)
    requests = [{"x": np.zeros(1, np.uint8)}] * 3

    async def stream_async() -> int:
        async with weir.AsyncClient(f"dns:///{replica.target}") as client:
            return len([answer async for answer in client.stream("who", requests)])

    with weir.Client(f"dns:///{replica.target}") as client:
        replica.failures = [grpc.StatusCode.UNAVAILABLE]
        answers = len(list(client.stream("who", requests)))
    replica.failures = [grpc.StatusCode.UNAVAILABLE]
    answers_async = asyncio.run(stream_async())

    assert (answers, answers_async) == (3, 3) and not replica.failures


# TLS and tokens


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def test_token_goes_with_the_health_checks_under_tls(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    replicas = serve(2, TOKEN, server_credentials(authority.issue(NAME)))
    file = tmp_path / "token"
    file.write_text(TOKEN)
    tls = weir.Tls(authority.ca, server_name=NAME)

    given: list[dict[str, Any]] = [{"token": TOKEN}, {"token_file": file}]
    for token in given:
        with weir.Client(targets(replicas), tls=tls, **token) as client:
            wait_for(client, {0, 1})
            replicas[0].health.set("", NOT_SERVING)
            wait_for(client, {1})
            replicas[0].health.set("", SERVING)

    sent = {h.get("authorization") for replica in replicas for h in replica.health_headers}
    assert sent == {f"Bearer {TOKEN}"}


def test_plaintext_with_a_token_has_no_health_checks(serve: Serve) -> None:
    replicas = serve(2, TOKEN)

    given: list[dict[str, Any]] = [
        {"token": TOKEN},
        {"metadata": {"authorization": f"Bearer {TOKEN}"}},
    ]
    for token in given:
        with weir.Client(targets(replicas), **token) as client:
            wait_for(client, {0, 1})

    assert not any(replica.health_headers for replica in replicas)


def test_health_checks_that_need_a_token_are_named(serve: Serve) -> None:
    replicas = serve(2, TOKEN)

    with (
        weir.Client(targets(replicas)) as client,
        pytest.raises(weir.Unavailable, match=r"health check .* may expect a token"),
    ):
        ask(client)


def test_certificates_of_servers_of_one_host_have_its_name(
    serve: Serve, authority: Authority
) -> None:
    replicas = serve(2, "", server_credentials(authority.issue("127.0.0.1")))

    with weir.Client(targets(replicas), tls=weir.Tls(authority.ca)) as client:
        wait_for(client, {0, 1})


def test_certificate_of_another_name_is_rejected(serve: Serve, authority: Authority) -> None:
    replicas = serve(2, "", server_credentials(authority.issue(NAME)))

    with (
        weir.Client(targets(replicas), tls=weir.Tls(authority.ca)) as client,
        pytest.raises(weir.HandshakeFailed, match="another name than the target"),
    ):
        ask(client)


@pytest.mark.parametrize(
    "given", [{"tls": True}, {"credentials": grpc.ssl_channel_credentials()}], ids=["tls", "own"]
)
def test_servers_of_several_hosts_need_the_name_of_their_certificates(
    given: dict[str, Any],
) -> None:
    with pytest.raises(
        weir.UsageError, match=r"--server-name, or tls=Tls.*127\.0\.0\.1, 127\.0\.0\.2"
    ):
        weir.Client(["127.0.0.1:1", "127.0.0.2:1"], **given)


# Errors


def test_servers_that_do_not_answer_are_named() -> None:
    with (
        weir.Client(["127.0.0.1:1", "127.0.0.1:2"]) as client,
        pytest.raises(weir.Unreachable, match=r"at 127\.0\.0\.1:1, 127\.0\.0\.1:2$"),
    ):
        client.models()


def test_servers_that_do_not_serve_are_named(serve: Serve) -> None:
    replicas = serve(2)
    for replica in replicas:
        replica.health.set("", NOT_SERVING)
    names = ", ".join(targets(replicas))

    with (
        weir.Client(targets(replicas)) as client,
        pytest.raises(weir.Unavailable, match=f"no server of {names} is serving"),
    ):
        client.models()


@pytest.mark.parametrize("target", ["127.0.0.1:1,127.0.0.1:2", "dns:///weir:1"])
def test_change_of_state_needs_one_server(target: str) -> None:
    async def change_async() -> None:
        async with weir.AsyncClient(target) as client:
            with pytest.raises(weir.UsageError, match="load: expected one server"):
                await client.load("m")
            with pytest.raises(weir.UsageError, match="unload: expected one server"):
                await client.unload("m")
            with pytest.raises(weir.UsageError, match="set_label: expected one server"):
                await client.set_label("m", "stable", 1)

    with weir.Client(target) as client:
        with pytest.raises(weir.UsageError, match="load: expected one server"):
            client.load("m")
        with pytest.raises(weir.UsageError, match="unload: expected one server"):
            client.unload("m")
        with pytest.raises(weir.UsageError, match="set_label: expected one server"):
            client.set_label("m", "stable", 1)
    asyncio.run(change_async())
