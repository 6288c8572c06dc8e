"""A gateway that cannot start says why in one line, and ends with exit code 2."""

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers.certificates import Authority

LIMIT_S = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    authority = Authority(folder / "authority")
    own, other = authority.issue("own"), authority.issue("other")
    text = folder / "text.pem"
    text.write_text("no certificate")
    return {"cert": own.cert, "key": own.key, "other": other.key, "text": text, "folder": folder}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--tls-cert", "{cert}"), "tls_cert, tls_key: expected both or none, got one"),
        (
            ("--tls-cert", "{folder}/no-such", "--tls-key", "{key}"),
            "--tls-cert {folder}/no-such: No such file or directory",
        ),
        (
            ("--tls-cert", "{cert}", "--tls-key", "{folder}"),
            "--tls-key {folder}: Is a directory",
        ),
        (
            ("--tls-cert", "{cert}", "--tls-key", "{other}"),
            "--tls-cert {cert}, --tls-key {other}: expected PEM files with a certificate",
        ),
        (
            ("--tls-cert", "{text}", "--tls-key", "{key}"),
            "--tls-cert {text}, --tls-key {key}: expected PEM files with a certificate",
        ),
        (("--host", "0.0.0.0"), "host 0.0.0.0 is beyond loopback: expected --tls-cert and"),  # noqa: S104 - refused
        (("--cors-origin", "app.example"), "cors_origin: expected an origin such as"),
        (("--models", "{folder}/no-such"), "--models: expected a folder or a file, got no such"),
        (("--metrics-url", "here:8002"), "metrics_url: expected http"),
    ],
)
def test_wrong_setting_is_one_line(
    files: Mapping[str, Path], options: tuple[str, ...], reason: str
) -> None:
    require_refusal(reason.format(**files), *(option.format(**files) for option in options))


def test_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        require_refusal(
            f"cannot listen on 127.0.0.1:{port}: Address already in use", "--port", str(port)
        )


def require_refusal(reason: str, *options: str) -> None:
    command = [sys.executable, "-m", "weir", "gateway", "--port", "0", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    [line] = ended.stderr.splitlines()

    assert ended.returncode == 2
    assert line.startswith(f"weir: {reason}")
    assert ended.stdout == ""
