"""The options that let a verb in: on every verb that calls a server, and each of them works."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.helpers.certificates import Authority
from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer
from tests.unit.weir.secure_server import server_credentials, serving
from weir.cli import launch, main

TOKEN = "0123456789abcdef"  # noqa: S105
OPTIONS = {
    "--target", "--tls", "--ca", "--cert", "--key", "--server-name", "--token-file", "--header",
}  # fmt: skip
# `serve` and the others start a program; `inspect` reads a bundle. `gateway` calls with the tokens
# of its own callers; its options are tested in `tests/integration/test_gateway_access.py`.
WITHOUT_SERVER = {*launch.PROGRAMS, "fetch", "gateway", "inspect"}
# By verb, a command line that succeeds on the fake server.
COMMANDS = {
    "infer": ("infer", "echo", "--input", "[[1, 2]]"),
    "classify": ("classify", "{picture}", "--model", "threes"),
    "classify-text": ("classify-text", "a text", "--model", "moods"),
    "tag": ("tag", "a text", "--model", "shouts"),
    "generate": ("generate", "abc", "--model", "reverse"),
    "forecast": ("forecast", "{series}", "--model", "rising"),
    "evaluate": ("evaluate", "threes", "--data", "digits"),
    "rollback": ("rollback", "good"),
    "health": ("health",),
    "bench": ("bench", "echo", "--requests", "4", "--warmup", "0s", "-c", "2"),
    "models": ("models",),
    "models load": ("models", "load", "good"),
    "models unload": ("models", "unload", "good"),
    "models reload": ("models", "reload", "good"),
    "models label": ("models", "label", "good", "stable=2"),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def access(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | str]:
    """The options that `locked` needs, without their dashes."""
    client = authority.issue("client")
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text(TOKEN)
    return {
        "ca": authority.ca,
        "cert": client.cert,
        "key": client.key,
        "server-name": "weir.example",
        "token-file": token,
    }


@pytest.fixture
def locked(authority: Authority) -> Iterator[FakeServer]:
    """A server with mutual TLS, another name than its address, and a token."""
    own = authority.issue("weir.example")
    with serving(server_credentials(own, authority.ca), {TOKEN}) as fake:
        yield fake


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    picture, series = tmp_path / "a.png", tmp_path / "sales.csv"
    picture.write_bytes(b"four")
    series.write_text("sales\n1\n2\n")
    return {"picture": str(picture), "series": str(series)}


def arguments(access: dict[str, Path | str], *but: str) -> list[str]:
    return [
        part
        for option, value in access.items()
        if option not in but
        for part in (f"--{option}", str(value))
    ]


def verbs(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with its path; a group counts if it runs by itself."""
    children = getattr(command, "commands", {})
    if path and (not children or command.invoke_without_command):
        yield " ".join(path), command
    for name, child in children.items():
        yield from verbs(child, (*path, name))


ALL = dict(verbs(typer.main.get_command(main._app())))


def test_every_verb_that_calls_a_server_is_tested_here() -> None:
    assert set(ALL) == set(COMMANDS) | WITHOUT_SERVER


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_has_each_option(verb: str) -> None:
    assert {option for each in ALL[verb].params for option in each.opts} >= OPTIONS


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_is_let_in_by_its_options_and_not_without_the_token(
    weir: Weir, locked: FakeServer, access: dict[str, Path | str], files: dict[str, str], verb: str
) -> None:
    command = [part.format(**files) for part in COMMANDS[verb]]

    let_in = weir(*command, "--target", locked.target, *arguments(access))
    without_token = weir(
        *command, "--target", locked.target, *arguments(access, "token-file"), "--tls"
    )

    assert let_in.code == 0, let_in.err
    assert without_token.code == 1
    assert without_token.err.splitlines()[-1] == (
        "weir: authorization: expected a known bearer token: give a token that the server knows "
        "with --token-file"
    )


def test_the_load_generators_processes_are_let_in(
    weir: Weir, locked: FakeServer, access: dict[str, Path | str]
) -> None:
    order = ("bench", "echo", "--requests", 4, "--warmup", "0s", "-c", 2, "--processes", 2)

    done = weir(*order, "--json", "-", "--target", locked.target, *arguments(access))

    assert done.code == 0, done.err
    assert '"answered": 4' in done.out and str(access["token-file"]) in done.out
    assert TOKEN not in done.out


def test_the_environment_gives_the_same(
    weir: Weir,
    locked: FakeServer,
    access: dict[str, Path | str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEIR_TARGET", locked.target)
    monkeypatch.setenv("WEIR_TLS", "true")
    for option, value in access.items():
        monkeypatch.setenv(f"WEIR_{option.replace('-', '_').upper()}", str(value))
    monkeypatch.setenv("WEIR_HEADER", "x-tenant: blue\nx-trace:7:8")

    done = weir("infer", "echo", "--input", "[[1, 2]]")

    assert done.code == 0, done.err
    seen = locked.metadata
    assert (seen["x-tenant"], seen["x-trace"]) == ("blue", "7:8")
    assert seen["authorization"] == f"Bearer {TOKEN}"


def test_headers_are_sent(weir: Weir, fake: FakeServer) -> None:
    headers = ("--header", "x-tenant: blue", "--header", "x-trace:7")

    done = weir("infer", "echo", "--input", "[[1, 2]]", *headers, "--target", fake.target)

    assert done.code == 0, done.err
    assert (fake.metadata["x-tenant"], fake.metadata["x-trace"]) == ("blue", "7")


@pytest.mark.parametrize("text", ["x-tenant", ":blue", "X-Tenant:blue", "x tenant:blue"])
def test_what_is_no_header_is_refused(weir: Weir, nobody: str, text: str) -> None:
    done = weir("models", "--header", text, "--target", nobody)

    assert (done.code, done.err) == (
        2,
        f"weir: --header: expected NAME:VALUE with a name in lower case, got {text!r}\n",
    )


def test_a_token_is_never_an_argument(weir: Weir, nobody: str) -> None:
    done = weir("models", "--header", f"authorization: Bearer {TOKEN}", "--target", nobody)

    assert (done.code, done.err) == (
        2,
        "weir: --header: expected --token-file for an authorization\n",
    )


def test_a_token_in_plaintext_to_another_machine_needs_a_word(
    weir: Weir, access: dict[str, Path | str]
) -> None:
    order = ("models", "--target", "weir.invalid:1", "--token-file", access["token-file"])

    refused = weir(*order)
    sent = weir(*order, "--no-tls")

    assert refused.code == 2 and "--no-tls" in refused.err and TOKEN not in refused.err
    assert sent.code == 3 and "no server answers" in sent.err


def test_no_tls_on_the_command_line_goes_before_the_environment(
    weir: Weir, fake: FakeServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIR_TLS", "true")
    monkeypatch.setenv("WEIR_CA", str(authority.ca))

    assert weir("health", "--target", fake.target).code == 3
    assert weir("health", "--target", fake.target, "--no-tls").code == 0


def test_a_handshake_that_fails_is_reported_without_advice_to_start_a_server(
    weir: Weir, locked: FakeServer
) -> None:
    listed = weir("models", "--target", locked.target)
    loaded = weir("models", "load", "good", "flop", "--target", locked.target)

    told = (
        f"weir: the server at {locked.target} closed the plaintext connection: it may expect TLS "
        "(--tls)\n"
    )
    assert (listed.code, listed.err) == (loaded.code, loaded.err) == (3, told)


def test_the_process_prints_a_failed_handshake_in_one_line(locked: FakeServer) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}

    done = subprocess.run(
        [sys.executable, "-m", "weir", "models", "--tls", "--target", locked.target],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[4],
    )

    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1 and "give its authority (--ca)" in done.stderr
