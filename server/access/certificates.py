"""TLS certificates of the gRPC port and of the metrics port, replaced without a restart.

A new certificate holds for connections that are opened after it was loaded; open ones go on.
"""

import ssl
from pathlib import Path

import grpc

from weir.server.access.file_watcher import Contents, FileWatcher
from weir.server.errors import ConfigError

_SETTING = "tls_cert, tls_key"
_CA_SETTING = "tls_client_ca"


class Certificates:
    """The server's certificate with its key, and the authorities of its clients' certificates.

    Args:
        client_ca: None: clients need no certificate.

    Raises:
        ConfigError: the files cannot be read, or are not what they must be.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None, watcher: FileWatcher) -> None:
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


def _no_passphrase() -> str:
    raise ValueError("a key with a passphrase")


def _reason(error: Exception) -> str:
    """What is wrong, without the place in Python's source."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).replace("_", " ").lower()
