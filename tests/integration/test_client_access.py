"""Each verb and both clients against a server with mutual TLS and tokens, over both transports."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import weir
from tests.helpers import onnx_models, text_models
from tests.helpers.certificates import Authority, Certificate
from tests.integration.harness import ANSWER_S, Server, running
from tests.ops.world import publish
from weir.cli import main

# Tokens of the tests only.
TOKENS = {
    "all": "all-kinds-of-calls",
    "reader": "reads-and-infers",
    "narrow": "affine-and-no-other",
}
TOKENS_FILE = f"""
[tokens.all]
token = "{TOKENS["all"]}"
calls = ["infer", "read", "control"]
[tokens.reader]
token = "{TOKENS["reader"]}"
[tokens.narrow]
token = "{TOKENS["narrow"]}"
models = ["affine"]
"""
# The server's certificate has this name, and no address.
NAME = "weir.example"
VERBS = {
    "infer": ("infer", "affine", "--input", "[[1, 2, 3, 4]]"),
    "classify": ("classify", "{picture}", "--model", "colours"),
    "classify-text": ("classify-text", "the cat", "--model", "classifier"),
    "tag": ("tag", "the cat sat", "--model", "tagger"),
    "generate": ("generate", "abc", "--model", "speller"),
    "forecast": ("forecast", "{series}", "--model", "forecaster"),
    "bench": ("bench", "affine", "--requests", "20", "--warmup", "0s", "-c", "2"),
    "models": ("models",),
    "models label": ("models", "label", "affine", "next=1"),
    "models reload": ("models", "reload", "affine"),
    "models unload": ("models", "unload", "tagger"),
    "models load": ("models", "load", "tagger"),
    "rollback": ("rollback", "several"),
    "health": ("health", "--verbose"),
}
CONTROL = ("models label", "models reload", "models unload", "models load", "rollback")


@dataclass(frozen=True)
class Site:
    """A server with mutual TLS and tokens, and the client's files."""

    server: Server
    authority: Authority
    client: Certificate
    folder: Path

    def token(self, name: str) -> Path:
        """The file of a token."""
        return self.folder / name

    def options(self, token: str = "all") -> list[str]:  # noqa: S107
        """The options of a verb."""
        return [
            *("--target", self.server.target, "--server-name", NAME),
            *("--ca", str(self.authority.ca)),
            *("--cert", str(self.client.cert), "--key", str(self.client.key)),
            *(("--token-file", str(self.token(token))) if token else ()),
        ]

    def tls(self) -> weir.Tls:
        """The argument of a client."""
        return weir.Tls(self.authority.ca, self.client.cert, self.client.key, NAME)


@pytest.fixture(scope="module")
def site(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    authority = Authority(folder / "authority")
    own, client = authority.issue(NAME), authority.issue("client")
    models = folder / "models"
    publish(models)
    text_models.write_forecaster(models)
    for version in ("1", "2", "3"):
        (models / "several" / version).mkdir(parents=True)
        (models / "several" / version / "model.onnx").write_bytes(onnx_models.affine())
    for name, token in TOKENS.items():
        (folder / name).write_text(f"{token}\n")
    (folder / "tokens.toml").write_text(TOKENS_FILE)
    flags = [
        *("--transport", transport, "--model-control", "explicit"),
        *("--tls-cert", str(own.cert), "--tls-key", str(own.key)),
        *("--tls-client-ca", str(authority.ca), "--tokens-file", str(folder / "tokens.toml")),
    ]
    with running(models, folder / "log", *flags, ready=False) as server:
        found = Site(server, authority, client, folder)
        with weir.Client(server.target, tls=found.tls(), token_file=folder / "all") as ready:
            ready.wait_ready(timeout_s=2 * ANSWER_S)
        yield found


@dataclass(frozen=True)
class Outcome:
    """The result of a command: exit code and both output streams."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a verb in this process."""
    # A verb sets it for its process, which here is that of all tests.
    monkeypatch.setenv("GRPC_VERBOSITY", "ERROR")
    picture, series = tmp_path / "red.png", tmp_path / "sales.csv"
    Image.new("RGB", (8, 8), "red").save(picture)
    series.write_text("sales,price\n1,2\n3,4\n5,6\n")

    def run(verb: str, *options: str) -> Outcome:
        words = [word.format(picture=picture, series=series) for word in VERBS[verb]]
        with pytest.raises(SystemExit) as ended:
            main.main([*words, *options])
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_let_in_with_its_certificate_and_token(
    site: Site, run: Run, verb: str
) -> None:
    done = run(verb, *site.options())

    assert (done.code, done.err) == (0, ""), done.out


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_without_a_token_says_how_to_give_one(site: Site, run: Run, verb: str) -> None:
    done = run(verb, *site.options(token=""))

    assert done.code == 1 and done.out == ""
    assert done.err.startswith("weir: authorization: expected ")
    assert done.err.endswith(": give a token that the server knows with --token-file\n")


@pytest.mark.parametrize("verb", CONTROL)
def test_a_token_without_control_calls_changes_no_model(site: Site, run: Run, verb: str) -> None:
    done = run(verb, *site.options("reader"))

    assert done.code == 1 and done.out == ""
    assert "control" in done.err


def test_a_token_of_one_model_gets_no_other(site: Site, run: Run) -> None:
    own = run("infer", *site.options("narrow"))
    other = run("tag", *site.options("narrow"))

    assert own.code == 0
    assert other.code == 1 and "tagger" in other.err
    assert other.err.endswith(": give another token with --token-file\n")


def test_the_commands_take_all_of_it_from_the_environment(site: Site) -> None:
    environment = {
        "WEIR_TARGET": site.server.target,
        "WEIR_TLS": "true",
        "WEIR_CA": site.authority.ca,
        "WEIR_CERT": site.client.cert,
        "WEIR_KEY": site.client.key,
        "WEIR_SERVER_NAME": NAME,
        "WEIR_TOKEN_FILE": site.token("reader"),
    }

    # The health check of the image.
    done = subprocess.run(
        [sys.executable, "-m", "weir", "health", "--timeout", "20"],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * ANSWER_S,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "SERVING\n", "")


def test_a_client_that_stays_follows_its_token_file(site: Site, tmp_path: Path) -> None:
    file, rows = tmp_path / "token", np.ones((1, 4), np.float32)
    file.write_text("not-known-to-the-server")

    with weir.Client(site.server.target, tls=site.tls(), token_file=file) as client:
        with pytest.raises(weir.Unauthenticated):
            client.infer("affine", rows)
        file.write_text(TOKENS["reader"])
        assert client.infer("affine", rows)["y"].tolist() == [[3.0] * 4]
        assert len(list(client.stream("affine", [{"x": rows}] * 3))) == 3
        assert client.generate("speller", "abc").result().hypotheses


def test_the_asyncio_client_is_let_in_too(site: Site) -> None:
    async def call() -> tuple[list[float], int]:
        rows = np.ones((1, 4), np.float32)
        async with weir.AsyncClient(
            site.server.target, tls=site.tls(), token_file=site.token("reader")
        ) as client:
            answer = await client.infer("affine", {"x": rows})
            streamed = [each async for each in client.stream("affine", [{"x": rows}] * 3)]
            return answer["y"][0].tolist(), len(streamed)

    assert asyncio.run(call()) == ([3.0] * 4, 3)


def test_a_failed_handshake_names_the_option(site: Site, run: Run) -> None:
    target = ("--target", site.server.target)
    ca = ("--ca", str(site.authority.ca))

    plaintext = run("models", *target)
    stranger = run("models", *target, "--tls")
    other_name = run("models", *target, *ca)
    no_certificate = run("models", *target, *ca, "--server-name", NAME)

    assert [plaintext.code, stranger.code, other_name.code, no_certificate.code] == [3] * 4
    assert plaintext.err.endswith("it may expect TLS (--tls)\n")
    assert stranger.err.endswith(": give its authority (--ca)\n")
    assert other_name.err.endswith(": give the name that it has (--server-name)\n")
    assert no_certificate.err.endswith("of an authority that it trusts (--cert, --key)\n")
