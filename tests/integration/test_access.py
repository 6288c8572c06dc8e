"""Who may call: TLS, client certificates and bearer tokens, over both transports."""

import fcntl
import hashlib
import importlib
import os
import pkgutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2

import weir.protocol
from tests.helpers import onnx_models
from tests.helpers.certificates import Authority, Certificate
from tests.integration.harness import (
    ANSWER_S,
    SERVICE,
    Server,
    arrays,
    command,
    request,
    running,
    samples,
    tensor,
)
from tests.integration.triton_client import as_input, error_of
from weir import Client
from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2

pytestmark = pytest.mark.timeout(180)

OK, DENIED, UNKNOWN = "OK", "PERMISSION_DENIED", "UNAUTHENTICATED"
REFUSALS = {DENIED, UNKNOWN}
INFER, INDEX = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/RepositoryIndex"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
NO_TOKEN = "authorization: expected one known bearer token"  # noqa: S105 - a message

NAMES = ("everything", "reader", "inferrer", "controller", "own", "hashed")
TOKENS = {name: f"secret-of-{name}-0123456789" for name in NAMES}
ROW = np.full((1, 4), 3.25, np.float32)


def tokens_file() -> str:
    """Tokens of each kind of call, one of one model, and one that is stored as a hash."""
    hashed = hashlib.sha256(TOKENS["hashed"].encode()).hexdigest()
    return f"""
[tokens.everything]
token = "{TOKENS["everything"]}"
calls = ["infer", "read", "control"]

[tokens.reader]
token = "{TOKENS["reader"]}"
calls = ["read"]

[tokens.inferrer]
token = "{TOKENS["inferrer"]}"
calls = ["infer"]

[tokens.controller]
token = "{TOKENS["controller"]}"
calls = ["control"]

[tokens.own]
token = "{TOKENS["own"]}"
models = ["affine", "no-such-*"]
calls = ["infer", "read", "control"]

[tokens.hashed]
token = "sha256:{hashed}"
"""


@dataclass(frozen=True)
class Guarded:
    """A server with TLS, and the files that its clients need."""

    server: Server
    authority: Authority
    certificate: Certificate
    tokens: Path

    @property
    def target(self) -> str:
        """Its address, by the name in its certificate."""
        return self.server.target.replace("127.0.0.1", "localhost")


class Wire:
    """A channel; `code` and `reply` are one call each, of any method."""

    def __init__(
        self,
        target: str,
        authority: Authority | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        key, cert = (
            (certificate.key.read_bytes(), certificate.cert.read_bytes())
            if certificate
            else (None, None)
        )
        self.channel = (
            grpc.secure_channel(
                target, grpc.ssl_channel_credentials(authority.ca.read_bytes(), key, cert)
            )
            if authority
            else grpc.insecure_channel(target)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def reply(
        self,
        method: str,
        payload: bytes = b"",
        token: str | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
        timeout_s: float = ANSWER_S,
    ) -> bytes:
        """The first message of the answer; every method is called as a stream."""
        if token is not None:
            metadata = (*metadata, ("authorization", f"Bearer {token}"))
        method_of: Any = self.channel.stream_stream(method)
        call = method_of(iter([payload]), metadata=metadata, timeout=timeout_s)
        try:
            return bytes(next(call, b""))
        finally:
            call.cancel()

    def code(self, method: str, *arguments: Any, **named: Any) -> str:
        """The status of a call; OK once it is answered."""
        return self.outcome(method, *arguments, **named)[0]

    def outcome(self, method: str, *arguments: Any, **named: Any) -> tuple[str, str]:
        """Status and details of a call."""
        try:
            self.reply(method, *arguments, **named)
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        return OK, ""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guarded") / "models"
    for name in ("affine", "other"):
        onnx_models.write_plain(root, name, onnx_models.affine())
    return root


@pytest.fixture(scope="module", params=["completion-queue", "grpc-server"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def guarded(
    transport: str, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    """A server with TLS and tokens, and everything else at its default."""
    folder = tmp_path_factory.mktemp(transport)
    with serve(
        folder, repository, "--transport", transport, "--model-control", "explicit"
    ) as found:
        yield found
        assert "Traceback" not in found.server.log()


@contextmanager
def serve(
    folder: Path, repository: Path, *flags: str, has_tokens: bool = True
) -> Iterator[Guarded]:
    """A server with a certificate and the tokens file."""
    authority = Authority(folder / "authority")
    certificate = authority.issue("localhost", "127.0.0.1", file="server")
    tokens = folder / "tokens.toml"
    replace(tokens, tokens_file())
    given = ["--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key)]
    given += ["--tokens-file", str(tokens)] if has_tokens else []
    with running(repository, folder / "log", *given, *flags, ready=False) as server:
        server.wait_for_log("server ready")
        yield Guarded(server, authority, certificate, tokens)


@pytest.fixture(scope="module")
def wire(guarded: Guarded) -> Iterator[Wire]:
    with Wire(guarded.target, guarded.authority) as found:
        yield found


def methods() -> dict[str, MethodDescriptor]:
    """Every method of Weir's services, by full name."""
    files: list[Any] = [
        importlib.import_module(f"weir.protocol.{module.name}")
        for module in pkgutil.iter_modules(weir.protocol.__path__)
        if module.name.endswith("_pb2")
    ]
    return {
        f"/{service.full_name}/{method.name}": method
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def naming(method: MethodDescriptor, model: str) -> bytes | None:
    """The smallest message for a method that names a model; None if its message names none."""
    fields = method.input_type.fields_by_name
    named = [name for name in ("model_name", "name") if name in fields]
    if not named:
        return None
    return GetMessageClass(method.input_type)(**{named[0]: model}).SerializeToString()


METHODS = methods()
HEALTH = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
OF_A_MODEL = sorted(name for name, method in METHODS.items() if naming(method, "x") is not None)
AS_STATUS = (("triton_grpc_error", "true"),)


def test_call_without_a_token_is_refused_whatever_its_method(wire: Wire) -> None:
    every = (*METHODS, *HEALTH, REFLECTION, "/weir.v1.Nothing/There", "/")

    outcomes = {method: wire.outcome(method) for method in every}

    assert len(METHODS) > 18
    assert set(outcomes.values()) == {(UNKNOWN, NO_TOKEN)}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("Bearer " + "x" * 20, id="unknown token"),
        pytest.param("Bearer " + TOKENS["everything"].upper(), id="token in another case"),
        pytest.param(TOKENS["everything"], id="no scheme"),
        pytest.param("Basic " + TOKENS["everything"], id="another scheme"),
        pytest.param("Bearer", id="scheme alone"),
    ],
)
def test_wrong_token_is_refused_without_a_hint(wire: Wire, value: str) -> None:
    outcome = wire.outcome(INDEX, metadata=(("authorization", value),))

    assert outcome == (UNKNOWN, NO_TOKEN)


def test_scheme_has_any_case_and_a_token_may_be_stored_as_its_hash(wire: Wire) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        value = f"{scheme} {TOKENS['hashed']}"
        assert wire.code(INDEX, metadata=(("authorization", value),)) == OK


def test_each_kind_of_token_makes_its_calls_only(wire: Wire) -> None:
    def allowed(token: str) -> set[str]:
        calls = (*METHODS, *HEALTH)
        codes = {method: wire.code(method, token=TOKENS[token]) for method in calls}
        return {method.rpartition("/")[2] for method, code in codes.items() if code != DENIED}

    health = {"Check", "Watch", "ServerLive", "ServerReady"}
    tasks = {"Classify", "ClassifyText", "Forecast", "Generate", "Tag"}
    assert allowed("inferrer") == {*health, *tasks, "ModelInfer", "ModelStreamInfer"}
    assert allowed("controller") == {
        *health, "RepositoryModelLoad", "RepositoryModelUnload", "SetLabel",
    }  # fmt: skip
    assert allowed("reader") == {
        *health, "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics",
        "RepositoryIndex", "ListModels", "GetServerInfo",
    }  # fmt: skip


@pytest.mark.parametrize("method", OF_A_MODEL)
def test_token_is_refused_each_call_for_a_model_that_is_not_its_own(
    wire: Wire, method: str
) -> None:
    def code(token: str, model: str) -> str:
        payload = naming(METHODS[method], model)
        return wire.code(method, payload, token=TOKENS[token], metadata=AS_STATUS)

    assert code("own", "other") == code("own", "unknown") == code("own", "affine/") == DENIED
    assert code("own", "no-such-model") not in REFUSALS
    assert code("everything", "unknown") not in REFUSALS


def test_every_request_of_a_stream_is_checked(wire: Wire) -> None:
    method: Any = wire.channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    models = ("affine", "other", "affine", "unknown")
    messages = [
        request(model, tensor("x", ROW), id=str(number)).SerializeToString()
        for number, model in enumerate(models)
    ]
    metadata = (("authorization", f"Bearer {TOKENS['own']}"),)

    answers = list(method(iter(messages), metadata=metadata, timeout=ANSWER_S))

    codes = {
        answer.infer_response.id: answer.infer_response.parameters["grpc_status"].string_param
        for answer in answers
    }
    assert codes == {"0": "", "1": DENIED, "2": "", "3": DENIED}


def test_lists_show_a_tokens_models_only(wire: Wire) -> None:
    def seen(token: str) -> list[list[str]]:
        secret = TOKENS[token]
        index = pb.RepositoryIndexResponse.FromString(wire.reply(INDEX, token=secret))
        listed = wire.reply("/weir.v1.Models/ListModels", token=secret)
        statistics = wire.reply(f"/{SERVICE}/ModelStatistics", token=secret)
        return [
            [model.name for model in index.models],
            [model.name for model in models_pb2.ListModelsResponse.FromString(listed).models],
            [model.name for model in pb.ModelStatisticsResponse.FromString(statistics).model_stats],
        ]

    assert seen("own") == [["affine"]] * 3
    assert seen("everything") == [["affine", "other"]] * 3


def test_reflection_is_off_where_tokens_are_on(wire: Wire) -> None:
    assert wire.code(REFLECTION, token=TOKENS["everything"]) == "UNIMPLEMENTED"


def test_reflection_that_is_switched_on_needs_a_token_that_reads(
    repository: Path, transport: str, tmp_path: Path
) -> None:
    flags = ("--transport", transport, "--reflection", "--open-health")
    with (
        serve(tmp_path, repository, *flags) as guarded,
        Wire(guarded.target, guarded.authority) as wire,
    ):
        # As grpcurl does: list the services, then fetch the file of each symbol.
        payload = reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString()
        listed = wire.reply(REFLECTION, payload, token=TOKENS["reader"])
        services = reflection_pb2.ServerReflectionResponse.FromString(listed)
        names = {each.name for each in services.list_services_response.service}
        found = [
            wire.reply(
                REFLECTION,
                reflection_pb2.ServerReflectionRequest(
                    file_containing_symbol=name
                ).SerializeToString(),
                token=TOKENS["reader"],
            )
            for name in names
        ]

        assert SERVICE in names and len(names) == 5
        for reply in found:
            response = reflection_pb2.ServerReflectionResponse.FromString(reply)
            assert response.HasField("file_descriptor_response")
        assert wire.code(REFLECTION, payload, token=TOKENS["inferrer"]) == DENIED
        assert wire.code(REFLECTION, payload) == UNKNOWN
        # Kubernetes and load balancers cannot send a token.
        health = ("ServerLive", "ServerReady")
        assert {wire.code(method) for method in HEALTH} == {OK}
        assert {wire.code(f"/{SERVICE}/{method}") for method in health} == {OK}
        assert wire.code(INDEX) == UNKNOWN


def test_refusals_are_logged_without_token_or_payload(guarded: Guarded, wire: Wire) -> None:
    unknown = "not-a-known-token-4711"
    value = np.full((1, 4), 1234.5, np.float32)
    payload = request("other", tensor("x", value), id="id-of-4712").SerializeToString()
    time.sleep(1.1)  # the limit of lines is by the second
    server = guarded.server
    before = len(server.log())

    details = [
        wire.outcome(INDEX, token=unknown),
        wire.outcome(INFER, payload, token=TOKENS["own"]),
        wire.outcome(f"/{SERVICE}/RepositoryModelLoad", token=TOKENS["reader"]),
    ]

    until(lambda: "reason=kind token=reader" in server.log()[before:], "no line of the last one")
    lines = [line for line in server.log()[before:].splitlines() if "call refused" in line]
    index, infer, load = (
        [line for line in lines if f"method=/{SERVICE}/{name}" in line][-1]
        for name in ("RepositoryIndex", "ModelInfer", "RepositoryModelLoad")
    )
    assert "reason=token " in index
    assert "reason=model token=own " in infer and "model=other" in infer
    assert "reason=kind token=reader " in load
    assert [code for code, _ in details] == [UNKNOWN, DENIED, DENIED]
    shown = server.log() + repr(details)
    for secret in (unknown, *TOKENS.values(), "1234.5", "id-of-4712", repr(value.tobytes())):
        assert secret not in shown
    for _, text in details:
        assert str(guarded.tokens.parent) not in text and str(guarded.authority.ca) not in text


def test_refusals_fill_the_log_slowly(guarded: Guarded, wire: Wire) -> None:
    before = guarded.server.log().count("call refused")
    began_s = time.monotonic()

    for _ in range(300):
        assert wire.code(INDEX) == UNKNOWN

    wait_s = time.monotonic() - began_s
    lines = guarded.server.log().count("call refused") - before
    assert lines <= 10 * (wait_s + 2)
    time.sleep(1.1)  # the limit is by the second
    assert wire.code(INDEX) == UNKNOWN
    guarded.server.wait_for_log("suppressed=")


def scrape(
    guarded: Guarded, token: str | None, certificate: Certificate | None = None
) -> tuple[int, str]:
    """Status and body of `/metrics`."""
    context = ssl.create_default_context(cafile=str(guarded.authority.ca))
    if certificate is not None:
        context.load_cert_chain(certificate.cert, certificate.key)
    port = int(guarded.server.metrics.rpartition(":")[2])
    connection = HTTPSConnection("localhost", port, timeout=ANSWER_S, context=context)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_metrics_need_a_token_that_reads_all_models(guarded: Guarded) -> None:
    statuses = {name: scrape(guarded, secret)[0] for name, secret in TOKENS.items()}

    refused = 401, "weir: unauthorized\n"
    assert scrape(guarded, TOKENS["own"]) == (403, "weir: forbidden\n")
    assert scrape(guarded, None) == scrape(guarded, "x" * 20) == refused
    assert statuses == {
        "everything": 200, "reader": 200, "hashed": 200,
        "inferrer": 403, "controller": 403, "own": 403,
    }  # fmt: skip
    assert "grpc_server_started_total" in scrape(guarded, TOKENS["reader"])[1]


def test_silent_handshakes_keep_no_scrape_waiting(guarded: Guarded) -> None:
    port = int(guarded.server.metrics.rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port), ANSWER_S) for _ in range(10)]
    try:
        assert scrape(guarded, TOKENS["reader"])[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_plaintext_and_another_authority_fail_the_handshake(
    guarded: Guarded, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    with Wire(guarded.server.target) as plaintext:
        assert plaintext.code(INDEX, token=TOKENS["everything"]) == "UNAVAILABLE"
    with Wire(guarded.target, stranger) as other:
        code, details = other.outcome(INDEX, token=TOKENS["everything"])
        assert code == "UNAVAILABLE" and "CERTIFICATE_VERIFY_FAILED" in details
    guarded.server.wait_for_log("Handshake failed")


def test_stock_clients_send_certificates_and_tokens(guarded: Guarded) -> None:
    headers = {"authorization": f"Bearer {TOKENS['own']}"}
    tls = {"ssl": True, "root_certificates": str(guarded.authority.ca)}
    with triton.InferenceServerClient(guarded.target, **tls) as client:
        result = client.infer("affine", [as_input("x", ROW)], headers=headers)
        assert result.as_numpy("y").tolist() == (2 * ROW + 1).tolist()
        assert client.get_model_metadata("affine", headers=headers).name == "affine"
        denied = error_of(lambda: client.infer("other", [as_input("x", ROW)], headers=headers))
        assert denied == [f"StatusCode.{DENIED}", "the token may not use model 'other'"]
        unknown = error_of(lambda: client.infer("affine", [as_input("x", ROW)]))
        assert unknown == [f"StatusCode.{UNKNOWN}", NO_TOKEN]
    with Client(guarded.target, tls=weir_tls(guarded), token=TOKENS["own"]) as own:
        assert own.infer("affine", {"x": ROW})["y"].tolist() == (2 * ROW + 1).tolist()


def weir_tls(guarded: Guarded) -> weir.Tls:
    """What Weir's client needs to trust the server."""
    return weir.Tls(ca=guarded.authority.ca)


def test_access_log_names_the_token(repository: Path, transport: str, tmp_path: Path) -> None:
    flags = ("--transport", transport, "--access-log-sample-rate", "1")
    with (
        serve(tmp_path, repository, *flags) as guarded,
        Wire(guarded.target, guarded.authority) as wire,
    ):
        payload = request("affine", tensor("x", ROW)).SerializeToString()
        codes = [wire.code(INFER, payload, token=TOKENS[name]) for name in ("own", "inferrer")]
        # A recorded call is checked like any other.
        other = request("other", tensor("x", ROW)).SerializeToString()
        codes.append(wire.code(INFER, other, token=TOKENS["own"]))

        assert codes == [OK, OK, DENIED]
        for text in ("status=OK", "token=own", "token=inferrer", "status=PERMISSION_DENIED"):
            guarded.server.wait_for_log(text)


def test_mutual_tls_refuses_clients_without_a_valid_certificate(
    repository: Path, transport: str, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger").issue("client.example")
    clients = Authority(tmp_path / "clients")
    good = clients.issue("client.example")
    expired = clients.issue("late.example", valid_s=-3600.0)
    flags = ("--transport", transport, "--tls-client-ca", str(clients.ca))
    with serve(tmp_path, repository, *flags, has_tokens=False) as guarded:
        codes = {}
        for name, certificate in (
            ("good", good), ("none", None), ("expired", expired), ("stranger", stranger),
        ):  # fmt: skip
            with Wire(guarded.target, guarded.authority, certificate) as wire:
                codes[name] = wire.code(INDEX)
        with Wire(guarded.server.target) as plaintext:
            codes["plaintext"] = plaintext.code(INDEX)

        refused = ("none", "expired", "stranger", "plaintext")
        assert codes == {"good": OK, **dict.fromkeys(refused, "UNAVAILABLE")}
        guarded.server.wait_for_log("PEER_DID_NOT_RETURN_A_CERTIFICATE")
        guarded.server.wait_for_log("certificate has expired")
        assert scrape(guarded, None, good)[0] == 200
        for certificate in (None, expired, stranger):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                scrape(guarded, None, certificate)


def served_certificate(address: str) -> str:
    """The certificate that a port shows, in PEM."""
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=ANSWER_S)


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    end_s = time.monotonic() + ANSWER_S
    while not holds():
        assert time.monotonic() < end_s, what
        time.sleep(0.05)


def test_certificates_and_tokens_are_replaced_under_load(
    repository: Path, transport: str, tmp_path: Path
) -> None:
    with serve(tmp_path, repository, "--transport", transport) as guarded:
        server, authority = guarded.server, guarded.authority
        first = served_certificate(server.target)
        payload = request("affine", tensor("x", ROW)).SerializeToString()
        new_token = "the-next-secret-0123456789"  # noqa: S105 - of the tests
        stop, token = threading.Event(), [TOKENS["everything"]]
        failures: list[tuple[str, str]] = []
        calls = {False: 0, True: 0}

        def keep_calling(*, reconnects: bool) -> None:
            while not stop.is_set():
                with Wire(guarded.target, authority) as wire:
                    while not stop.is_set():
                        outcome = wire.outcome(INFER, payload, token=token[0])
                        failures.extend([outcome] if outcome[0] != OK else [])
                        calls[reconnects] += 1
                        if reconnects:
                            break

        def wait_for_calls(count: int) -> None:
            before = calls.copy()
            until(
                lambda: all(calls[each] >= before[each] + count for each in calls),
                "the calls stand still",
            )

        threads = [
            threading.Thread(target=keep_calling, kwargs={"reconnects": reconnects})
            for reconnects in (False, True)
        ]
        for thread in threads:
            thread.start()
        try:
            # A pair whose key does not belong to the certificate, as a half renewed one; and both
            # tokens for a while.
            stranger = authority.issue("localhost", "127.0.0.1", file="another")
            old_key = guarded.certificate.key.read_bytes()
            guarded.certificate.key.write_bytes(stranger.key.read_bytes())
            replace(guarded.tokens, tokens_file() + f'\n[tokens.next]\ntoken = "{new_token}"\n')
            server.wait_for_log("credentials not reloaded, the former stay in use")
            assert served_certificate(server.target) == first
            guarded.certificate.key.write_bytes(old_key)
            with Wire(guarded.target, authority) as wire:
                until(lambda: wire.code(INDEX, token=new_token) == OK, "the new token is unknown")
            token[0] = new_token
            wait_for_calls(2)  # the first may have begun with the old token

            # A new certificate, and the new token alone.
            authority.issue("localhost", "127.0.0.1", file="server")
            replace(guarded.tokens, f'[tokens.next]\ntoken = "{new_token}"\n')
            second = guarded.certificate.cert.read_text()
            for address in (server.target, server.metrics):
                until(
                    lambda address=address: served_certificate(address) in second,  # type: ignore[misc]
                    "the new certificate is not served",
                )
            with Wire(guarded.target, authority) as wire:
                until(
                    lambda: wire.code(INDEX, token=TOKENS["everything"]) == UNKNOWN,
                    "the old token is still known",
                )
                # A broken file keeps the tokens.
                replace(guarded.tokens, '[tokens.next]\ntoken = "')
                server.wait_for_log("tokens_file: expected TOML")
                assert wire.code(INDEX, token=new_token) == OK
            wait_for_calls(2)
        finally:
            stop.set()
            for thread in threads:
                thread.join(2 * ANSWER_S)

        assert not failures and not any(thread.is_alive() for thread in threads)
        for secret in (new_token, *TOKENS.values()):
            assert secret not in server.log()


def test_server_with_an_expired_certificate_starts_and_tells_its_end(
    repository: Path, transport: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    made = authority.issue("localhost", valid_s=-3600.0, file="server")
    flags = ("--tls-cert", str(made.cert), "--tls-key", str(made.key), "--transport", transport)
    with running(repository, tmp_path / "log", *flags, ready=False) as server:
        server.wait_for_log("certificate is not valid, or not for long")
        assert "reason=expired" in server.log()
        assert days_left(server) == pytest.approx(-1 / 24, abs=0.5 / 24)

        authority.issue("localhost", valid_s=90 * 86_400.0, file="server")
        until(lambda: days_left(server) > 0, "the new certificate is not in the metrics")

        assert days_left(server) == pytest.approx(90, abs=0.5)
        with Wire(server.target.replace("127.0.0.1", "localhost"), authority) as wire:
            assert wire.code(INDEX) == OK
        assert server.log().count("certificate is not valid, or not for long") == 1


def days_left(server: Server) -> float:
    """Days until the end of the server's certificate, from `/metrics`."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _, port = server.metrics.rpartition(":")
    connection = HTTPSConnection(host, int(port), timeout=ANSWER_S, context=context)
    try:
        connection.request("GET", "/metrics")
        page = samples(connection.getresponse().read().decode())
    finally:
        connection.close()
    ends_s = page["weir_tls_certificate_expiry_timestamp_seconds", frozenset()]
    return (ends_s - time.time()) / 86_400.0


def replace(path: Path, text: str) -> None:
    """Replace a file at once."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)


def test_open_stream_ends_with_its_token(repository: Path, transport: str, tmp_path: Path) -> None:
    with (
        serve(tmp_path, repository, "--transport", transport) as guarded,
        Wire(guarded.target, guarded.authority) as wire,
    ):
        go_on = threading.Event()
        message = request("affine", tensor("x", ROW)).SerializeToString()

        def messages() -> Iterator[bytes]:
            yield message
            assert go_on.wait(ANSWER_S)
            yield message

        method: Any = wire.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        metadata = (("authorization", f"Bearer {TOKENS['own']}"),)
        call = method(messages(), metadata=metadata, timeout=ANSWER_S)
        assert arrays(next(call).infer_response)["y"].tolist() == (2 * ROW + 1).tolist()

        replace(guarded.tokens, f'[tokens.reader]\ntoken = "{TOKENS["reader"]}"\n')
        until(lambda: wire.code(INDEX, token=TOKENS["own"]) == UNKNOWN, "the token is still known")
        go_on.set()

        answer = next(call)
        assert answer.error_message == NO_TOKEN


@pytest.mark.skipif(not hasattr(fcntl, "F_SETPIPE_SZ"), reason="pipes of Linux")
def test_failed_handshakes_delay_no_other_if_the_log_is_not_read(
    repository: Path, transport: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost", file="server")
    flags = ("--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key))
    unread, log = os.pipe()
    # Some 20 lines of gRPC core fill it.
    fcntl.fcntl(log, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        command(repository, "--transport", transport, *flags),
        stdout=subprocess.PIPE, stderr=log, text=True,
    )  # fmt: skip
    server = Server(process, tmp_path / "none")
    try:
        target = server.target.replace("127.0.0.1", "localhost")
        port = int(server.target.rpartition(":")[2])
        with Wire(target, authority) as wire:
            assert wire.code(f"/{SERVICE}/ServerLive") == OK
            for _ in range(60):
                with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    # Ends when core closes the connection, after it has logged why.
                    with suppress(ConnectionError):
                        while connection.recv(1024):
                            pass
            with Wire(target, authority) as another:
                assert another.code(f"/{SERVICE}/ServerLive") == OK
    finally:
        server.kill()
        os.close(unread)
        os.close(log)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((), id="nothing"),
        pytest.param(("tls",), id="TLS without tokens"),
        pytest.param(("tokens",), id="tokens without TLS"),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "weir.example"])  # noqa: S104 - refused
def test_bind_beyond_loopback_is_refused_without_tls_and_tokens(
    repository: Path, tmp_path: Path, host: str, flags: tuple[str, ...]
) -> None:
    certificate = Authority(tmp_path).issue("localhost")
    (tmp_path / "tokens.toml").write_text(tokens_file())
    given = {
        "tls": ("--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key)),
        "tokens": ("--tokens-file", str(tmp_path / "tokens.toml")),
    }
    arguments = [part for flag in flags for part in given[flag]]

    ended = subprocess.run(
        command(repository, "--host", host, *arguments),
        capture_output=True, text=True, timeout=ANSWER_S, check=False,
    )  # fmt: skip

    assert ended.returncode == 2
    assert f"host {host} is beyond loopback" in ended.stderr
    for way in ("tls_cert", "tokens_file", "--insecure", "127.0.0.1"):
        assert way in ended.stderr


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"cert": b"no PEM"}, "tls_cert, tls_key: expected a PEM certificate", id="cert"
        ),
        pytest.param({"key": None}, "server.key: No such file or directory", id="no key"),
        pytest.param({"ca": b"no PEM"}, "tls_client_ca: expected PEM certificates", id="CA"),
        pytest.param({"tokens": b"[tokens]"}, "tokens_file: tokens: ", id="tokens"),
    ],
)
def test_credentials_that_cannot_be_used_end_the_start(
    repository: Path, tmp_path: Path, files: dict[str, bytes | None], expected: str
) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost", file="server")
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(tokens_file())
    paths = {
        "cert": certificate.cert, "key": certificate.key, "ca": authority.ca, "tokens": tokens,
    }  # fmt: skip
    for name, content in files.items():
        paths[name].unlink() if content is None else paths[name].write_bytes(content)

    ended = subprocess.run(
        command(
            repository, "--tls-cert", str(paths["cert"]), "--tls-key", str(paths["key"]),
            "--tls-client-ca", str(paths["ca"]), "--tokens-file", str(tokens),
        ),
        capture_output=True, text=True, timeout=ANSWER_S, check=False,
    )  # fmt: skip

    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert expected in ended.stderr
