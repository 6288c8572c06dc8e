"""Certificates for tests: an authority of their own, with its certificates as PEM files."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate and of its private key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority; its own certificate is in the file `ca`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(
        self,
        *names: str,
        begins_s: float = -2 * 86_400.0,
        valid_s: float = 86_400.0,
        file: str = "",
    ) -> Certificate:
        """A certificate for host names and addresses, valid from `begins_s` to `valid_s` from now.

        With the `file` of an earlier certificate, it replaces that one.
        """
        now = datetime.now(UTC)
        issued = self._authority.issue_cert(
            *names,
            not_before=now + timedelta(seconds=begins_s),
            not_after=now + timedelta(seconds=valid_s),
        )
        stem = file or names[0].replace(":", "_")
        made = Certificate(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        made.cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(made.key))
        return made
