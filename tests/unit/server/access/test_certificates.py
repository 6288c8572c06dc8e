import base64
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.helpers.certificates import Authority
from weir.server.access.certificates import Certificates, validity_of
from weir.server.access.file_watcher import FileWatcher

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
WARNING = "certificate is not valid, or not for long"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def as_pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


def element(tag: int, content: bytes) -> bytes:
    """An element of DER."""
    size = len(content)
    head = bytes([size]) if size < 0x80 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + head + content


def certificate(begins: bytes, ends: bytes, *, version: bytes = b"") -> bytes:
    """The part of a certificate up to its dates; each of them an element."""
    fields = element(2, b"\1") + 2 * element(0x30, b"") + element(0x30, begins + ends)
    return as_pem(element(0x30, element(0x30, version + fields) + element(0x30, b"")))


@pytest.mark.parametrize(
    ("begins_s", "valid_s"),
    [
        pytest.param(-2 * DAY_S, DAY_S, id="UTCTime"),
        pytest.param(-45 * YEAR_S, -40 * YEAR_S, id="UTCTime of the last century"),
        pytest.param(-2 * DAY_S, 40 * YEAR_S, id="UTCTime and GeneralizedTime"),
        pytest.param(40 * YEAR_S, 7_900 * YEAR_S, id="GeneralizedTime"),
    ],
)
def test_dates_are_those_of_the_certificate(
    authority: Authority, begins_s: float, valid_s: float
) -> None:
    pem = authority.issue("weir.example", begins_s=begins_s, valid_s=valid_s).cert.read_bytes()

    validity = validity_of(pem)

    oracle = x509.load_pem_x509_certificates(pem)[0]
    assert validity.begins_s == oracle.not_valid_before_utc.timestamp()
    assert validity.ends_s == oracle.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (element(0x17, b"491231235959Z"), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (element(0x17, b"500101000000Z"), datetime(1950, 1, 1, tzinfo=UTC)),
        (element(0x18, b"20500101000000Z"), datetime(2050, 1, 1, tzinfo=UTC)),
        # A certificate without an end (RFC 5280, section 4.1.2.5).
        (element(0x18, b"99991231235959Z"), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
    ids=["2049", "1950", "2050", "no end"],
)
@pytest.mark.parametrize("version", [b"", element(0xA0, b"\2\1\2")], ids=["v1", "v3"])
def test_both_encodings_of_a_time_are_read(ends: bytes, expected: datetime, version: bytes) -> None:
    pem = certificate(element(0x17, b"500101000000Z"), ends, version=version)

    assert validity_of(pem).ends_s == expected.timestamp()


def test_first_certificate_of_a_file_counts(authority: Authority) -> None:
    own = authority.issue("weir.example", valid_s=5 * DAY_S).cert.read_bytes()

    chain = b"subject=CN = weir.example\n" + own + authority.ca.read_bytes()

    assert validity_of(chain) == validity_of(own) != validity_of(authority.ca.read_bytes())
    for label in (b"X509 CERTIFICATE-", b"TRUSTED CERTIFICATE-"):  # OpenSSL takes them too
        assert validity_of(own.replace(b"CERTIFICATE-", label)) == validity_of(own)


@pytest.mark.parametrize("prefix", [b"#", b" ", b"former: "], ids=["comment", "space", "text"])
def test_certificate_that_openssl_skips_does_not_count(authority: Authority, prefix: bytes) -> None:
    own = authority.issue("weir.example", valid_s=5 * DAY_S).cert.read_bytes()
    skipped = b"".join(prefix + line for line in authority.ca.read_bytes().splitlines(True))

    assert validity_of(skipped + own) == validity_of(own)
    # Lines as Windows ends them.
    assert validity_of(own.replace(b"\n", b"\r\n")) == validity_of(own)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        as_pem(b""),
        as_pem(b"0"),
        as_pem(b"0\x80\0\0"),
        certificate(element(0x17, b"500101000000+0100"), element(0x17, b"500101000000Z")),
        certificate(element(0x17, b"500101000000Z"), b""),
    ],
    ids=["none", "empty", "cut off", "no length", "another zone", "one date"],
)
def test_dates_that_cannot_be_read_are_an_error(pem: bytes) -> None:
    with pytest.raises(ValueError, match="a certificate whose dates cannot be read"):
        validity_of(pem)


@pytest.mark.parametrize(
    ("begins_s", "valid_s", "reason"),
    [
        (-2 * DAY_S, -60.0, "expired"),
        (60 * DAY_S, 90 * DAY_S, "not_yet_valid"),
        (-60 * DAY_S, 13 * DAY_S, "ends_soon"),
    ],
    ids=["expired", "not yet valid", "ends soon"],
)
def test_certificate_out_of_its_time_is_used_with_one_warning(
    authority: Authority,
    caplog: pytest.LogCaptureFixture,
    begins_s: float,
    valid_s: float,
    reason: str,
) -> None:
    good = authority.issue("weir.example", valid_s=15 * DAY_S, file="server")
    watcher = FileWatcher()
    certificates = Certificates(good.cert, good.key, None, watcher)
    first = certificates.context
    assert not warnings(caplog)

    authority.issue("weir.example", begins_s=begins_s, valid_s=valid_s, file="server")
    for _ in range(4):
        watcher.look()

    (line,) = warnings(caplog)
    validity = validity_of(good.cert.read_bytes())
    ends = datetime.fromtimestamp(validity.ends_s, UTC).isoformat()
    begins = datetime.fromtimestamp(validity.begins_s, UTC).isoformat()
    assert line == (
        f"{WARNING} setting=tls_cert reason={reason} begins={begins} ends={ends} file={good.cert}"
    )
    assert certificates.context is not first
    assert certificates.ends_s == validity.ends_s
    assert abs(datetime.fromisoformat(ends) - datetime.now(UTC) - timedelta(seconds=valid_s)) < (
        timedelta(minutes=10)
    )

    Certificates(good.cert, good.key, None, FileWatcher())
    assert warnings(caplog) == [line, line]


@pytest.mark.parametrize(
    ("begins_s", "soon_s"),
    [(-60 * DAY_S, 14 * DAY_S), (-3 * DAY_S, 11 * DAY_S)],
    ids=["90 days", "33 days"],
)
def test_time_of_the_warning_is_that_of_the_load(
    authority: Authority, caplog: pytest.LogCaptureFixture, begins_s: float, soon_s: float
) -> None:
    made = authority.issue("weir.example", begins_s=begins_s, valid_s=30 * DAY_S)
    ends_s = validity_of(made.cert.read_bytes()).ends_s

    def load(now_s: float) -> list[str]:
        caplog.clear()
        Certificates(made.cert, made.key, None, FileWatcher(), clock=lambda: now_s)
        return [line.split("reason=")[1].split()[0] for line in warnings(caplog)]

    assert load(ends_s - soon_s) == []
    assert load(ends_s - soon_s + 1) == ["ends_soon"]
    assert load(ends_s) == ["ends_soon"]
    assert load(ends_s + 1) == ["expired"]


def test_change_that_cannot_be_used_keeps_the_end_of_the_former(authority: Authority) -> None:
    made = authority.issue("weir.example", valid_s=30 * DAY_S, file="server")
    watcher = FileWatcher()
    certificates = Certificates(made.cert, made.key, None, watcher)
    ends_s = certificates.ends_s
    other = authority.issue("weir.example", valid_s=60 * DAY_S, file="other")

    made.cert.write_bytes(other.cert.read_bytes())  # with the former key
    for _ in range(3):
        watcher.look()
    assert certificates.ends_s == ends_s

    made.key.write_bytes(other.key.read_bytes())
    for _ in range(3):
        watcher.look()
    assert certificates.ends_s == validity_of(other.cert.read_bytes()).ends_s > ends_s
