import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import weir
from tests.helpers.certificates import Authority, Certificate
from tests.unit.weir.secure_server import server_credentials, serving
from weir.client import credentials
from weir.client.credentials import TokenFile

Call: TypeAlias = Callable[..., Any]
TOKEN = "0123456789abcdef"  # noqa: S105


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another authority."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Certificate:
    """The server's certificate."""
    return authority.issue("127.0.0.1", "localhost")


def models_blocking(target: str, **arguments: Any) -> list[str]:
    with weir.Client(target, timeout_s=20, **arguments) as client:
        return [model.name for model in client.models()]


def models_async(target: str, **arguments: Any) -> list[str]:
    async def call() -> list[str]:
        async with weir.AsyncClient(target, timeout_s=20, **arguments) as client:
            return [model.name for model in await client.models()]

    return asyncio.run(call())


@pytest.fixture(params=[models_blocking, models_async], ids=["blocking", "async"])
def models(request: pytest.FixtureRequest) -> Call:
    """A call of either client; its arguments are those of the client."""
    call: Call = request.param
    return call


def test_tls_with_the_servers_authority(models: Call, authority: Authority, own: Any) -> None:
    with serving(server_credentials(own)) as server:
        assert "good" in models(server.target, tls=weir.Tls(ca=authority.ca))


def test_mutual_tls_with_a_certificate(models: Call, authority: Authority, own: Any) -> None:
    client = authority.issue("client")
    tls = weir.Tls(authority.ca, client.cert, client.key)

    with serving(server_credentials(own, authority.ca)) as server:
        assert "good" in models(server.target, tls=tls)


def test_a_certificate_of_another_name_is_accepted_under_its_name(
    models: Call, authority: Authority
) -> None:
    named = authority.issue("weir.example")
    tls = weir.Tls(authority.ca, server_name="weir.example")

    with serving(server_credentials(named)) as server:
        assert "good" in models(server.target, tls=tls)


def test_plaintext_to_a_tls_port_names_the_option(models: Call, own: Any) -> None:
    with (
        serving(server_credentials(own)) as server,
        pytest.raises(weir.HandshakeFailed) as failed,
    ):
        models(server.target)

    assert str(failed.value) == (
        f"the server at {server.target} closed the plaintext connection: it may expect TLS (--tls)"
    )


def test_tls_to_a_plaintext_port_says_so(models: Call) -> None:
    with serving() as server, pytest.raises(weir.HandshakeFailed) as failed:
        models(server.target, tls=True)

    assert str(failed.value) == f"the server at {server.target} speaks no TLS (--tls)"


@pytest.mark.parametrize("is_given", [False, True], ids=["public authorities", "another one"])
def test_a_certificate_of_an_unknown_authority_names_the_option(
    models: Call, own: Any, stranger: Authority, *, is_given: bool
) -> None:
    tls = weir.Tls(stranger.ca) if is_given else True

    with (
        serving(server_credentials(own)) as server,
        pytest.raises(weir.HandshakeFailed) as failed,
    ):
        models(server.target, tls=tls)

    assert str(failed.value) == (
        f"the certificate of the server at {server.target} is rejected (unable to get local issuer "
        "certificate): give its authority (--ca)"
    )


def test_a_certificate_for_another_name_names_the_option(
    models: Call, authority: Authority
) -> None:
    named = authority.issue("weir.example")

    with (
        serving(server_credentials(named)) as server,
        pytest.raises(weir.HandshakeFailed) as failed,
    ):
        models(server.target, tls=weir.Tls(authority.ca))

    assert str(failed.value) == (
        f"the certificate of the server at {server.target} has another name than the target: give "
        "the name that it has (--server-name)"
    )


def test_an_expired_certificate_is_told_as_such(models: Call, authority: Authority) -> None:
    expired = authority.issue("127.0.0.1", valid_s=-60, file="expired")

    with (
        serving(server_credentials(expired)) as server,
        pytest.raises(weir.HandshakeFailed) as failed,
    ):
        models(server.target, tls=weir.Tls(authority.ca))

    assert str(failed.value) == (
        f"the certificate of the server at {server.target} is rejected (certificate has expired)"
    )


@pytest.mark.parametrize("is_given", [False, True], ids=["none", "of another authority"])
def test_mutual_tls_without_a_known_certificate_names_the_options(
    models: Call, authority: Authority, stranger: Authority, own: Any, *, is_given: bool
) -> None:
    other = stranger.issue("client")
    tls = weir.Tls(authority.ca, *((other.cert, other.key) if is_given else ()))

    with (
        serving(server_credentials(own, authority.ca)) as server,
        pytest.raises(weir.HandshakeFailed) as failed,
    ):
        models(server.target, tls=tls)

    assert "closed the connection during the TLS handshake" in str(failed.value)
    assert "(--cert, --key)" in str(failed.value)


def test_a_handshake_that_fails_is_not_ready(own: Any) -> None:
    with serving(server_credentials(own)) as server, weir.Client(server.target) as client:
        assert not client.is_ready()


@pytest.mark.parametrize("kind", ["token", "token_file"])
def test_a_token_opens_the_server(models: Call, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "token"
    file.write_text(f" {TOKEN}\n")
    arguments = {kind: TOKEN if kind == "token" else file}

    with serving(tokens={TOKEN}) as server:
        assert "good" in models(server.target, **arguments)
        with pytest.raises(weir.Unauthenticated, match="expected a known bearer token"):
            models(server.target)
        with pytest.raises(weir.Unauthenticated):
            models(server.target, token=TOKEN[1:])


def test_a_replaced_token_is_sent_by_the_next_call_and_stream(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")

    with (
        serving(tokens={"second"}) as server,
        weir.Client(server.target, token_file=file, timeout_s=20) as client,
    ):
        with pytest.raises(weir.Unauthenticated):
            client.models()
        (tmp_path / "new").write_text("second")
        (tmp_path / "new").replace(file)
        assert client.models()
        assert [answer["y"].tolist() for answer in client.stream("echo", [{"x": [[1, 2]]}])]
        assert client.generate("reverse", "abc").result().text == "cba"


@pytest.mark.parametrize("content", [None, "", "two words", "ß"])
def test_a_file_that_is_being_replaced_keeps_the_last_token(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    token = TokenFile(file)

    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    between = token.header()
    file.write_text("second")

    assert between == ("authorization", "Bearer first")
    assert token.header() == ("authorization", "Bearer second")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        ("", "expected one token of printable ASCII without spaces"),
        ("a b", "expected one token of printable ASCII without spaces"),
        ("grüße", "expected one token of printable ASCII without spaces"),
    ],
)
def test_a_file_without_a_token_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)

    with pytest.raises(weir.UsageError) as refused:
        weir.Client(token_file=file)

    assert str(refused.value) == f"token_file: {file}: {message}"


@pytest.mark.parametrize("kind", [weir.Client, weir.AsyncClient])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token": "a", "token_file": "b"}, "token, token_file: expected one of them, got both"),
        ({"token": "a b"}, "token: expected one token of printable ASCII without spaces"),
        (
            {"token": "a", "metadata": {"Authorization": "x"}},
            "token, metadata: expected one authorization, got two",
        ),
        (
            {"tls": True, "credentials": credentials.channel_credentials(weir.Tls())},
            "tls, credentials: expected one of them, got both",
        ),
    ],
    ids=["two tokens", "two words", "two headers", "two credentials"],
)
def test_arguments_that_contradict_each_other_are_refused(
    kind: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(weir.UsageError) as refused:
        kind("127.0.0.1:1", **arguments)

    assert str(refused.value) == message


@pytest.mark.parametrize("target", ["weir.example:8001", "10.1.2.3:8001", "unix.example:8001"])
def test_a_token_in_plaintext_to_another_machine_is_refused(target: str) -> None:
    with pytest.raises(weir.UsageError) as refused:
        weir.Client(target, token=TOKEN)

    assert str(refused.value) == (
        f"token: expected TLS (--tls) to another machine, got plaintext to {target}; "
        "tls=False (--no-tls) sends it all the same"
    )
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "tls"),
    [
        ("weir.example:8001", False),
        ("weir.example:8001", True),
        ("localhost:8001", None),
        ("unix:/run/weir.sock", None),
    ],
)
def test_a_token_is_sent_under_tls_on_this_machine_or_by_an_explicit_word(
    target: str, *, tls: bool | None
) -> None:
    weir.Client(target, token=TOKEN, tls=tls).close()


def test_half_a_certificate_is_refused() -> None:
    with pytest.raises(weir.UsageError, match=r"^cert: expected key with it$"):
        weir.Tls(cert="a")
    with pytest.raises(weir.UsageError, match=r"^key: expected cert with it$"):
        weir.Tls(key="a")


def test_files_without_pem_are_refused_when_the_client_is_made(
    authority: Authority, tmp_path: Path
) -> None:
    empty, absent = tmp_path / "empty", tmp_path / "absent"
    empty.touch()
    one, other = authority.issue("one"), authority.issue("other")

    for tls, message in (
        (weir.Tls(ca=absent), f"ca: {absent}: No such file or directory"),
        (weir.Tls(ca=empty), f"ca: {empty}: expected certificates in PEM"),
        (weir.Tls(ca=one.key), f"ca: {one.key}: expected certificates in PEM"),
        (weir.Tls(cert=one.cert, key=absent), f"key: {absent}: No such file or directory"),
        (weir.Tls(cert=one.cert, key=other.key), "without a passphrase (key values mismatch)"),
        (weir.Tls(cert=empty, key=one.key), "expected a certificate and its private key in PEM"),
    ):
        with pytest.raises(weir.UsageError) as refused:
            weir.Client(tls=tls)
        assert message in str(refused.value)


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(
    authority: Authority, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    plain = authority.issue("client", file="locked")
    key = serialization.load_pem_private_key(plain.key.read_bytes(), None)
    plain.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    with pytest.raises(weir.UsageError, match="without a passphrase"):
        weir.Client(tls=weir.Tls(cert=plain.cert, key=plain.key))
