"""TLS certificates of the gRPC port and of the metrics port, replaced without a restart.

A new certificate holds for connections that are opened after it was loaded; open ones go on.

A certificate out of its time is used, with a warning: whether it is accepted is the clients'
decision.
"""

import base64
import logging
import re
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc

from weir.server.access.file_watcher import Contents, FileWatcher
from weir.server.errors import ConfigError

logger = logging.getLogger(__name__)

_SETTING = "tls_cert, tls_key"
_CA_SETTING = "tls_client_ca"
# Or a third of the certificate's time, if that is less: cert-manager renews it at that point.
_SOON_S = 14 * 86_400.0

# The labels that OpenSSL takes for a certificate, at the start of a line.
_PEM = re.compile(
    rb"^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)^-----END", re.DOTALL | re.MULTILINE
)
_VERSION_TAG, _UTC_TIME_TAG = 0xA0, 0x17


class Certificates:
    """The server's certificate with its key, and the authorities of its clients' certificates.

    Args:
        client_ca: None: clients need no certificate.
        clock: Unix time.

    Raises:
        ConfigError: the files cannot be read, or are not what they must be.
    """

    def __init__(
        self,
        cert: Path,
        key: Path,
        client_ca: Path | None,
        watcher: FileWatcher,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._cert = cert
        self._key = key
        self._needs_client = client_ca is not None
        files = [cert, key] if client_ca is None else [cert, key, client_ca]
        setting = _SETTING if client_ca is None else f"{_SETTING}, {_CA_SETTING}"
        watcher.load(setting, files, self._load)

    @property
    def context(self) -> ssl.SSLContext:
        """The context of a new connection of the metrics port."""
        return self._context

    @property
    def ends_s(self) -> float:
        """The Unix time at which the server's certificate ends."""
        return self._validity.ends_s

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials of the gRPC port; core asks for a newer certificate at each handshake."""
        used = self._configuration

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal used
            found = self._configuration
            if found is used:
                return None
            used = found
            return found

        return grpc.dynamic_ssl_server_credentials(
            used,
            newer,  # type: ignore[arg-type]  # grpcio takes None for "no newer one"
            require_client_authentication=self._needs_client,
        )

    def _load(self, contents: Contents) -> None:
        cert, key, *authorities = contents
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # By path: this function takes no bytes. It also checks that the key belongs to the
            # certificate, which gRPC core does only at the first handshake.
            context.load_cert_chain(self._cert, self._key, password=_no_passphrase)
            is_unchanged = (self._cert.read_bytes(), self._key.read_bytes()) == (cert, key)
            validity = validity_of(cert)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{_SETTING}: expected a PEM certificate and its key, got {_reason(error)}"
            ) from None
        if not is_unchanged:
            raise ConfigError(f"{_SETTING}: the files change while they are read")
        for authority in authorities:
            try:
                context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"{_CA_SETTING}: expected PEM certificates, got {_reason(error)}"
                ) from None
            context.verify_mode = ssl.CERT_REQUIRED
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(key, cert)], root_certificates=authorities[0] if authorities else None
        )
        self._context = context
        self._validity = validity
        problem = validity.problem(self._clock())
        if problem is not None:
            logger.warning(
                "certificate is not valid, or not for long setting=tls_cert reason=%s begins=%s "
                "ends=%s file=%s",
                problem, _date(validity.begins_s), _date(validity.ends_s), self._cert,
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Validity:
    """The time in which a certificate is valid, in Unix time."""

    begins_s: float
    ends_s: float

    def problem(self, now_s: float) -> str | None:
        """Why an operator should look at the certificate; None if there is no reason."""
        if now_s < self.begins_s:
            return "not_yet_valid"
        if now_s > self.ends_s:
            return "expired"
        soon_s = min(_SOON_S, (self.ends_s - self.begins_s) / 3)
        return "ends_soon" if now_s > self.ends_s - soon_s else None


def validity_of(pem: bytes) -> Validity:
    """The validity of the first certificate of a file (RFC 5280, section 4.1).

    Python's `ssl` tells the dates of a certificate only once a handshake has verified it, which
    fails for one out of its time.

    Raises:
        ValueError: the dates are not those of RFC 5280.
    """
    try:
        (_, certificate), *_ = _elements(base64.b64decode(_PEM.findall(pem)[0]))
        (_, body), *_ = _elements(certificate)
        fields = list(_elements(body))
        # A version, which may be missing; number, algorithm and issuer; the validity.
        _, validity = fields[4 if fields[0][0] == _VERSION_TAG else 3]
        begins, ends = _elements(validity)
        return Validity(_unix_time(*begins), _unix_time(*ends))
    except (IndexError, ValueError) as error:
        raise ValueError(f"a certificate whose dates cannot be read: {error}") from None


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element of a DER sequence."""
    while der:
        tag, size, start = der[0], der[1], 2
        if size > 0x7F:
            start += size & 0x7F
            size = int.from_bytes(der[2:start], "big")
        yield tag, der[start : start + size]
        der = der[start + size :]


def _unix_time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME_TAG:
        # Two digits of the year: 1950 to 2049.
        text = ("20" if text < "50" else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()


def _no_passphrase() -> str:
    raise ValueError("a key with a passphrase")


def _reason(error: Exception) -> str:
    """What is wrong, without the place in Python's source."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()
