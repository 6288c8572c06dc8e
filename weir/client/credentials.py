"""Credentials of a client: TLS of its channel, and the bearer token of its calls.

A token is sent as `authorization: Bearer TOKEN`, and never in plaintext to another machine unless
the caller says so with `tls=False`.
"""

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from weir.client.errors import UsageError

StrPath: TypeAlias = str | os.PathLike[str]

AUTHORIZATION = "authorization"
_TOKEN = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of a client; the files are PEM and are read when the client is made.

    Attributes:
        ca: certificates of the authorities that may sign the server's certificate; by default the
            public ones that gRPC brings along.
        cert: the client's certificate and its chain, for a server with mutual TLS.
        key: the private key of `cert`, without a passphrase.
        server_name: the name that the server's certificate must have; by default the host of the
            target.
    """

    ca: StrPath | None = None
    cert: StrPath | None = None
    key: StrPath | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise UsageError(f"{given}: expected {missing} with it")


class TokenFile:
    """A token in a file, read again when the file changes; UsageError if there is none at first.

    A later failure keeps the last token: a file that is being replaced may be absent or empty for
    a moment. Threads need no lock: each assigns a whole header.
    """

    def __init__(self, path: StrPath) -> None:
        self._path = Path(path)
        try:
            self._state = self._stat()
            self._header = self._read()
        except OSError as error:
            raise UsageError(f"token_file: {path}: {error.strerror or error}") from error

    def header(self) -> tuple[str, str]:
        """The token as request metadata."""
        # One `stat` a call: the first call after a rotation has the new token.
        try:
            state = self._stat()
            if state != self._state:
                self._header = self._read()
                self._state = state
        except (OSError, UsageError):
            pass
        return self._header

    def _stat(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> tuple[str, str]:
        text = self._path.read_text("ascii", errors="replace")
        return authorization(text.strip(), f"token_file: {self._path}")


def authorization(token: str, what: str) -> tuple[str, str]:
    """The request metadata of a token; UsageError, which names `what`, if it cannot be sent."""
    if not _TOKEN.fullmatch(token):
        # The message must not show the token.
        raise UsageError(f"{what}: expected one token of printable ASCII without spaces")
    return AUTHORIZATION, f"Bearer {token}"


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """gRPC's credentials; UsageError for a file that holds no such PEM."""
    ca = None if tls.ca is None else _read_pem("ca", tls.ca)
    if tls.cert is None or tls.key is None:
        cert = key = None
    else:
        cert, key = _read_pem("cert", tls.cert), _read_pem("key", tls.key)
    # gRPC reports a bad file at the first call only, as "Failed to create security handshaker".
    _check_pem(tls, ca)
    return grpc.ssl_channel_credentials(ca, key, cert)


def with_token(
    credentials: grpc.ChannelCredentials, token: tuple[str, str] | TokenFile
) -> grpc.ChannelCredentials:
    """Credentials that send a token with each call, and with gRPC's own health checks.

    Args:
        credentials: of the channel.
        token: as request metadata, or its file.
    """
    sender = grpc.metadata_call_credentials(_TokenPlugin(token))
    return grpc.composite_channel_credentials(credentials, sender)


class _TokenPlugin(grpc.AuthMetadataPlugin):
    def __init__(self, token: tuple[str, str] | TokenFile) -> None:
        self._token = token

    def __call__(
        self,
        context: grpc.AuthMetadataContext,  # noqa: ARG002 - gRPC's interface
        callback: grpc.AuthMetadataPluginCallback,
    ) -> None:
        token = self._token
        callback((token.header() if isinstance(token, TokenFile) else token,), None)


def _read_pem(argument: str, path: StrPath) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{argument}: {path}: {error.strerror or error}") from error


def _check_pem(tls: Tls, ca: bytes | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca is not None:
            context.load_verify_locations(cadata=ca.decode("ascii", errors="replace"))
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"ca: {tls.ca}: expected certificates in PEM ({_reason(error)})"
        ) from error
    if tls.cert is None or tls.key is None:
        return
    try:
        # Without an empty passphrase OpenSSL asks for one on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"cert, key: {tls.cert}, {tls.key}: expected a certificate and its private key in PEM, "
            f"without a passphrase ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """OpenSSL's reason in words, such as `key values mismatch`."""
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if reason else str(error)
