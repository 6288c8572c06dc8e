"""Bearer tokens: the tokens file, and the token that a client presents.

    [tokens.dashboard]                      # the name in the log
    token = "sha256:9f86d08…"               # or the token itself
    models = ["lenet5", "text-*"]           # names and patterns; default: all models
    calls = ["infer", "read"]               # of infer, read, control; default: infer and read

No message of this module contains a token or its hash.
"""

import hashlib
import hmac
import logging
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from weir.server.access.file_watcher import Contents, FileWatcher
from weir.server.access.method_kinds import Kind
from weir.server.errors import ConfigError
from weir.server.transport.base import Metadata

logger = logging.getLogger(__name__)

_SETTING = "tokens_file"
_HEADER = "authorization"
_SCHEME = "bearer"
_HASHED = "sha256:"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
# Visible ASCII, as a header can carry it. Shorter ones can be guessed.
_TOKEN = re.compile(r"[!-~]{16,1024}")
_MAX_NAME_CHARACTERS = 256
_MAX_HEADERS = 4096


@dataclass(frozen=True, slots=True)
class Token:
    """An entry of the tokens file.

    Attributes:
        models: matches the names of its models; None: all models.
    """

    name: str
    digest: bytes
    kinds: frozenset[Kind]
    models: re.Pattern[str] | None

    def may_use(self, model: str) -> bool:
        """Whether the model of this name is one of the token's."""
        if self.models is None:
            return True
        # A client may send a name of megabytes.
        return len(model) <= _MAX_NAME_CHARACTERS and self.models.fullmatch(model) is not None


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    token: str
    models: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = ("*",)
    calls: tuple[Literal["infer", "read", "control"], ...] = ("infer", "read")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: Annotated[dict[str, _Entry], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class _Tokens:
    """The tokens of one state of the file.

    Attributes:
        by_key: by the keyed hash of their digests.
        by_header: the presented ones, by the keyed hash of the header; it saves a hash.
    """

    by_name: Mapping[str, Token] = field(default_factory=dict)
    by_key: Mapping[bytes, Token] = field(default_factory=dict)
    by_header: dict[bytes, Token] = field(default_factory=dict)


class TokensFile:
    """The tokens of a file; replaced when it changes.

    Raises:
        ConfigError: the file cannot be read, or is malformed.
    """

    def __init__(self, path: Path, watcher: FileWatcher) -> None:
        self._path = path
        # A token is found by a hash under this key, which no client knows. The time of a look-up
        # therefore says nothing about how much of a token was right, and does not depend on the
        # number of tokens.
        self._keyed = hashlib.blake2b(digest_size=32, key=os.urandom(32))
        self._tokens = _Tokens()
        watcher.load(_SETTING, [path], self._load)

    def find(self, metadata: Metadata) -> Token | None:
        """The token that a call presents; None without exactly one that is known."""
        values = [value for key, value in metadata if key == _HEADER]
        return self.find_value(values[0]) if len(values) == 1 else None

    def find_value(self, value: str | bytes) -> Token | None:
        """The token of an `authorization` header; the scheme is compared without case."""
        if not isinstance(value, str):
            return None
        tokens, header = self._tokens, self._hashed(value.encode())
        token = tokens.by_header.get(header)
        if token is None:
            scheme, _, presented = value.partition(" ")
            if scheme.lower() != _SCHEME:
                return None
            token = self._by_digest(hashlib.sha256(presented.strip(" ").encode()).digest())
            # Bounded: a known token may be presented with any number of spaces.
            if token is not None and len(tokens.by_header) < _MAX_HEADERS:
                tokens.by_header[header] = token
        return token

    def renewed(self, token: Token) -> Token | None:
        """The entry of the same token in the file as it is now; None if it was removed."""
        if self._tokens.by_name.get(token.name) is token:
            return token
        return self._by_digest(token.digest)

    def _by_digest(self, digest: bytes) -> Token | None:
        token = self._tokens.by_key.get(self._hashed(digest))
        return token if token and hmac.compare_digest(token.digest, digest) else None

    def _hashed(self, secret: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(secret)
        return keyed.digest()

    def _load(self, contents: Contents) -> None:
        entries = _parsed(contents[0])
        by_key: dict[bytes, Token] = {}
        for name, entry in entries.items():
            token = _token(name, entry)
            other = by_key.setdefault(self._hashed(token.digest), token)
            if other is not token:
                raise ConfigError(
                    f"{_SETTING}: tokens.{name}: expected a token of its own, got that of "
                    f"tokens.{other.name}"
                )
        self._tokens = _Tokens({token.name: token for token in by_key.values()}, by_key)
        if any(not entry.token.startswith(_HASHED) for entry in entries.values()):
            self._check_permissions()

    def _check_permissions(self) -> None:
        """Warn if other users can read tokens."""
        try:
            mode = self._path.stat().st_mode
        except OSError:
            return
        if mode & stat.S_IROTH:
            logger.warning(
                "tokens are readable for every user setting=%s mode=%s fix=%s",
                _SETTING, oct(stat.S_IMODE(mode)), "chmod o-r, or sha256: hashes in the file",
            )  # fmt: skip


def _parsed(content: bytes) -> dict[str, _Entry]:
    """The entries of a file; an error names the place, never a value."""
    try:
        return _File.model_validate(tomllib.loads(content.decode("utf-8"))).tokens
    except UnicodeDecodeError:
        raise ConfigError(f"{_SETTING}: expected UTF-8, got other bytes") from None
    except tomllib.TOMLDecodeError as error:
        # The message may quote the file; its end is the place.
        found = re.search(r"\(at [\w ,]+\)$", str(error))
        raise ConfigError(
            f"{_SETTING}: expected TOML, got an error{f' {found[0]}' if found else ''}"
        ) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        text = first["msg"].replace("Input should be ", "expected ")
        raise ConfigError(f"{_SETTING}: {place}: {text}") from None


def _token(name: str, entry: _Entry) -> Token:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{_SETTING}: tokens.{name[:64]!r}: expected a name of letters, digits, '_', '-', '.'"
        )
    hashed = entry.token.removeprefix(_HASHED)
    if hashed != entry.token:
        if not _HASH.fullmatch(hashed):
            raise ConfigError(
                f"{_SETTING}: tokens.{name}.token: expected 64 hexadecimal digits after sha256:, "
                f"got {len(hashed)} characters"
            )
        digest = bytes.fromhex(hashed)
    elif _TOKEN.fullmatch(entry.token):
        digest = hashlib.sha256(entry.token.encode()).digest()
    else:
        raise ConfigError(
            f"{_SETTING}: tokens.{name}.token: expected 16 to 1024 visible ASCII characters "
            f"without spaces, got {len(entry.token)} characters"
        )
    is_limited = "*" not in entry.models
    return Token(
        name=name,
        digest=digest,
        kinds=frozenset[Kind](("health", *entry.calls)),
        models=re.compile("|".join(map(translate, entry.models))) if is_limited else None,
    )
