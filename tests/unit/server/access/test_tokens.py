"""The tokens file."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from weir.server.access.file_watcher import FileWatcher
from weir.server.access.tokens import Token, TokensFile
from weir.server.errors import ConfigError

SECRET = "correct-horse-battery"  # noqa: S105 - of the tests
OTHER = "staple-staple-staple"
HASHED = "sha256:" + hashlib.sha256(OTHER.encode()).hexdigest()

Load = Callable[[str], TokensFile]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


@pytest.fixture
def watcher() -> FileWatcher:
    return FileWatcher()


@pytest.fixture
def load(file: Path, watcher: FileWatcher) -> Load:
    def load(text: str) -> TokensFile:
        file.write_text(text)
        file.chmod(0o600)
        return TokensFile(file, watcher)

    return load


def found(tokens: TokensFile, *values: str) -> Token | None:
    return tokens.find(tuple(("authorization", value) for value in values))


def test_tokens_are_found_in_plain_text_and_as_hashes(load: Load) -> None:
    tokens = load(f'[tokens.a]\ntoken = "{SECRET}"\n[tokens.b]\ntoken = "{HASHED}"')

    first, second = found(tokens, f"Bearer {SECRET}"), found(tokens, f"Bearer {OTHER}")

    assert first and second
    assert (first.name, second.name) == ("a", "b")
    assert first.kinds == {"health", "infer", "read"}
    assert first.may_use("any") and first.may_use("")


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="no header"),
        pytest.param([SECRET], id="no scheme"),
        pytest.param([f"Basic {SECRET}"], id="another scheme"),
        pytest.param(["Bearer"], id="no token"),
        pytest.param(["Bearer "], id="empty token"),
        pytest.param([f"Bearer {SECRET.upper()}"], id="token in another case"),
        pytest.param([f"Bearer {SECRET}x"], id="longer"),
        pytest.param([f"Bearer {SECRET[:-1]}"], id="shorter"),
        pytest.param([f"Bearer {HASHED}"], id="the hash itself"),
        pytest.param([f"Bearer {SECRET}", f"Bearer {SECRET}"], id="two headers"),
    ],
)
def test_anything_else_is_no_token(load: Load, values: list[str]) -> None:
    tokens = load(f'[tokens.a]\ntoken = "{SECRET}"\n[tokens.b]\ntoken = "{HASHED}"')

    assert found(tokens, *values) is None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_scheme_is_compared_without_case(load: Load, scheme: str) -> None:
    assert found(load(f'[tokens.a]\ntoken = "{SECRET}"'), f"{scheme} {SECRET}")


def test_binary_metadata_is_no_token(load: Load) -> None:
    tokens = load(f'[tokens.a]\ntoken = "{SECRET}"')

    assert tokens.find((("authorization", f"Bearer {SECRET}".encode()),)) is None
    assert tokens.find((("authorization-bin", f"Bearer {SECRET}"),)) is None


def test_models_are_names_and_patterns(load: Load) -> None:
    token = found(
        load(f'[tokens.a]\ntoken = "{SECRET}"\nmodels = ["lenet5", "text-*"]\ncalls = ["read"]'),
        f"Bearer {SECRET}",
    )

    assert token and token.kinds == {"health", "read"}
    names = ("lenet5", "text-", "text-en", "lenet", "lenet50", "xlenet5", "Lenet5", "", "a/text-")
    assert [name for name in names if token.may_use(name)] == ["lenet5", "text-", "text-en"]
    assert not token.may_use("text-" + "x" * 10_000_000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "tokens: Field required", id="empty"),
        pytest.param("[tokens]", "tokens: Dictionary should have at least 1 item", id="no token"),
        pytest.param("[tokens.a]", "tokens.a.token: Field required", id="entry without token"),
        pytest.param(f"[tokens.a]\ntoken = {SECRET}", "expected TOML", id="no TOML"),
        pytest.param(f'[tokens.a]\ntoken = "{SECRET}', "expected TOML", id="cut short"),
        pytest.param('[tokens.a]\ntoken = "short-s3cret"', "tokens.a.token: .*16 to", id="short"),
        pytest.param('[tokens.a]\ntoken = "s3cret with some spaces"', "16 to", id="spaces"),
        pytest.param('[tokens.a]\ntoken = "sha256:s3cret"', "64 hexadecimal", id="no hash"),
        pytest.param(
            f'[tokens.a]\ntoken = "{SECRET}"\ncalls = ["s3cret"]',
            r"tokens.a.calls.0: expected 'infer', 'read' or 'control'",
            id="unknown kind",
        ),
        pytest.param(
            f'[tokens.a]\ntoken = "{SECRET}"\nmodel = "s3cret"',
            "tokens.a.model: ",
            id="unknown key",
        ),
        pytest.param(f'[tokens."a b"]\ntoken = "{SECRET}"', "expected a name of", id="name"),
        pytest.param(
            f'[tokens.a]\ntoken = "{OTHER}"\n[tokens.b]\ntoken = "{HASHED}"',
            "tokens.b: expected a token of its own, got that of tokens.a",
            id="one token twice",
        ),
    ],
)
def test_malformed_file_is_refused_without_showing_a_token(
    load: Load, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        load(text)

    secrets = (SECRET, OTHER, HASHED[7:], "s3cret")
    assert not [secret for secret in secrets if secret in str(caught.value)]


def test_file_that_is_missing_or_too_large_is_refused(file: Path, watcher: FileWatcher) -> None:
    with pytest.raises(ConfigError, match=r"tokens_file: .*tokens.toml: No such file"):
        TokensFile(file, watcher)
    file.write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigError, match="expected at most 1048576 bytes"):
        TokensFile(file, watcher)


def test_change_is_used_at_its_second_look(load: Load, file: Path, watcher: FileWatcher) -> None:
    tokens = load(f'[tokens.a]\ntoken = "{SECRET}"')
    old = found(tokens, f"Bearer {SECRET}")
    assert old
    file.write_text(f'[tokens.a]\ntoken = "{HASHED}"\ncalls = ["infer"]')

    watcher.look()
    assert tokens.renewed(old) is old and not found(tokens, f"Bearer {OTHER}")
    watcher.look()

    assert tokens.renewed(old) is None and not found(tokens, f"Bearer {SECRET}")
    new = found(tokens, f"Bearer {OTHER}")
    assert new and new.kinds == {"health", "infer"}


@pytest.mark.parametrize("broken", ["token = ", None], ids=["malformed", "deleted"])
def test_broken_change_keeps_the_tokens_and_warns_once(
    load: Load,
    file: Path,
    watcher: FileWatcher,
    broken: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = f'[tokens.a]\ntoken = "{SECRET}"'
    tokens = load(good)
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)

    for _ in range(4):
        watcher.look()

    assert found(tokens, f"Bearer {SECRET}")
    (warning,) = caplog.records
    assert warning.getMessage().startswith("credentials not reloaded, the former stay in use")
    file.write_text(f'{good}\n[tokens.b]\ntoken = "{HASHED}"')
    watcher.look()
    watcher.look()
    assert found(tokens, f"Bearer {OTHER}")


@pytest.mark.parametrize(
    ("mode", "token", "warnings"),
    [(0o600, SECRET, 0), (0o640, SECRET, 0), (0o644, SECRET, 1), (0o644, HASHED, 0)],
)
def test_plain_tokens_that_every_user_can_read_are_a_warning(
    file: Path, mode: int, token: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(f'[tokens.a]\ntoken = "{token}"')
    file.chmod(mode)

    TokensFile(file, FileWatcher())

    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == warnings
    assert SECRET not in caplog.text
