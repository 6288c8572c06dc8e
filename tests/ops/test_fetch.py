"""`weir fetch` with KServe's storage library: local files, a web server and an S3 server."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from tests.helpers import onnx_models
from tests.integration.harness import running
from weir.client.client import Client

pytestmark = pytest.mark.ops

pytest.importorskip("kserve_storage", reason="installed by make test-ops")

MODELS = {"lenet/1/model.onnx": b"lenet, first" * 100, "lenet/2/model.onnx": b"second" * 100}
WEIR = Path(sys.executable).with_name("weir")
ONE = b"one" * 100
COMMIT = "c" * 40
LIMIT_S = 120


@dataclass
class Web:
    """Answers GET and HEAD; `bucket` is one of S3 and of Google Cloud, `o/name` one of the hub."""

    files: Mapping[str, bytes]
    # Set: answers wait for it after their first bytes.
    is_slow: bool = False
    port: int = 0
    has_begun: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)
    declared: int | None = None
    # Set: every answer leads there.
    location: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def web(served: Web) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            self._answer(*_answer(served.files, self.path))

        def _answer(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(302 if served.location else status)
            if served.location:
                self.send_header("Location", served.location)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(served.declared or len(content)))
            self.send_header("ETag", '"0"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(content[:10])
            self.wfile.flush()
            served.has_begun.set()
            if served.is_slow:
                served.may_end.wait(LIMIT_S)
            self.wfile.write(content[10:])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        served.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            served.may_end.set()
            server.shutdown()
            thread.join()


def _answer(files: Mapping[str, bytes], address: str) -> tuple[int, bytes, str]:
    """Status, body and content type."""
    parts = urlsplit(address)
    path = unquote(parts.path).strip("/")
    prefix = parse_qs(parts.query).get("prefix", [""])[0]
    names = [name for name in sorted(files) if name.startswith(prefix)]
    if path == "bucket":
        return 200, _s3_listing(files, names), "text/xml"
    listings = {
        "storage/v1/b/bucket/o": {"items": [{"name": name} for name in names]},
        "api/models/o/name/revision/main": {"id": "o/name", "sha": COMMIT, "siblings": []},
        f"api/models/o/name/tree/{COMMIT}": [
            {"type": "file", "path": name, "size": len(files[name]), "oid": "0"} for name in names
        ],
    }
    if path in listings:
        return 200, json.dumps(listings[path]).encode(), "application/json"
    for start in ("bucket/", "download/storage/v1/b/bucket/o/", f"o/name/resolve/{COMMIT}/"):
        path = path.removeprefix(start)
    if path not in files:
        return 404, b"", "text/plain"
    kinds = {"zip": "application/zip", "gz": "application/gzip"}
    kind = kinds.get(path.rpartition(".")[2], "application/octet-stream")
    return 200, files[path], kind


def _s3_listing(files: Mapping[str, bytes], names: list[str]) -> bytes:
    entries = "".join(
        f"<Contents><Key>{escape(name)}</Key><Size>{len(files[name])}</Size>"
        '<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"0"</ETag></Contents>'
        for name in names
    )
    text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    return text.encode()


@pytest.fixture
def storage() -> Iterator[Web]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        for name, content in MODELS.items():
            written.writestr(name, content)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in MODELS.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    files = {
        **{f"models/{name}": content for name, content in MODELS.items()},
        "models-old/lenet/9/model.onnx": b"old",
        "one/model.onnx": ONE,
        "models.zip": archive.getvalue(),
        "models.tar.gz": packed.getvalue(),
        "broken.zip": b"no archive at all",
    }
    with web(Web(files)) as served:
        yield served


def environment(served: Web | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    kept["NO_PROXY"] = "127.0.0.1"
    if served is None:
        return kept
    return kept | {
        "AWS_ENDPOINT_URL": served.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": served.url,
        "HF_ENDPOINT": served.url,
        "HF_HUB_DISABLE_XET": "1",
    }


def fetch(*words: object, served: Web | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [WEIR, "fetch", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(served),
        timeout=LIMIT_S,
    )


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def local(tmp_path: Path) -> Path:
    for name, data in MODELS.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return tmp_path / "source"


@pytest.mark.parametrize("scheme", ["file://", ""], ids=["file", "path"])
def test_local_folder_is_copied(scheme: str, tmp_path: Path) -> None:
    source = local(tmp_path)

    done = fetch(f"{scheme}{source}", "--to", tmp_path / "models")

    assert (done.returncode, done.stderr) == (0, "")
    assert content(tmp_path / "models") == MODELS
    assert not any(path.is_symlink() for path in (tmp_path / "models").rglob("*"))
    assert done.stdout.startswith(f"{tmp_path}/models: lenet (2 files, 0.0 MB) from ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "source"]


@pytest.mark.parametrize("name", ["models.zip", "models.tar.gz"])
def test_archive_of_a_web_server_is_unpacked(name: str, storage: Web, tmp_path: Path) -> None:
    done = fetch(f"{storage.url}/{name}", "--to", tmp_path / "models")

    assert (done.returncode, done.stderr) == (0, "")
    assert content(tmp_path / "models") == MODELS


def test_file_of_a_web_server_lies_in_the_folder(storage: Web, tmp_path: Path) -> None:
    done = fetch(f"{storage.url}/one/model.onnx", "--to", tmp_path / "lenet" / "1")

    assert (done.returncode, done.stderr) == (0, "")
    assert content(tmp_path) == {"lenet/1/model.onnx": ONE}


@pytest.mark.parametrize("uri", ["s3://bucket/models", "s3://bucket/models/", "gs://bucket/models"])
def test_folder_of_a_bucket_is_copied_without_its_neighbours(
    uri: str, storage: Web, tmp_path: Path
) -> None:
    done = fetch(uri, "--to", tmp_path / "models", served=storage)

    assert (done.returncode, done.stderr) == (0, "")
    assert content(tmp_path / "models") == MODELS


def test_file_of_a_bucket_is_copied(storage: Web, tmp_path: Path) -> None:
    done = fetch("s3://bucket/one/model.onnx", "--to", tmp_path / "one", served=storage)

    assert (done.returncode, done.stderr) == (0, "")
    assert content(tmp_path / "one") == {"model.onnx": ONE}


def test_model_of_the_hub_is_copied(storage: Web, tmp_path: Path) -> None:
    storage.files = {"model.onnx": ONE, "onnx/small.onnx": ONE * 2}

    done = fetch("hf://o/name", "--to", tmp_path / "name" / "1", served=storage)

    assert done.returncode == 0, done.stderr
    assert content(tmp_path) == {f"name/1/{name}": data for name, data in storage.files.items()}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("{url}/missing.onnx", "not found"),
        ("{url}/broken.zip", "not valid"),
        ("http://user:secret@127.0.0.1:{port}/missing.onnx?signature=secret", "not found"),
        ("s3://bucket/missing", "No model found"),
        ("file:///missing", "does not exist"),
        ("missing", "Cannot recognize storage type"),
        ("http://127.0.0.1:1/model.onnx", "Failed to connect"),
    ],
    ids=["file", "archive", "credentials", "bucket", "path", "scheme", "host"],
)
def test_failure_is_one_line_and_leaves_nothing(
    uri: str, message: str, storage: Web, tmp_path: Path
) -> None:
    address = uri.format(url=storage.url, port=storage.port)

    done = fetch(address, "--to", tmp_path / "models", served=storage)

    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("weir: ") and message in line and "secret" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("/one/model.onnx?signature=secret", "Exceeded 30 redirects"),
        ("ftp://user:secret@host/model.onnx?signature=secret", "'ftp://host/model.onnx'"),
        ("http://user:secret@127.0.0.1:1/model.onnx?signature=secret", "Failed to connect"),
        ("ftp://host/signature=secret", "'ftp://host/...'"),
    ],
    ids=["loop", "scheme", "host", "own query"],
)
def test_failed_redirection_shows_no_credentials(
    location: str, message: str, storage: Web, tmp_path: Path
) -> None:
    storage.location = location
    address = f"http://user:secret@127.0.0.1:{storage.port}/one/model.onnx?signature=secret"

    done = fetch(address, "--to", tmp_path / "models")

    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert message in line and "secret" not in line
    assert list(tmp_path.iterdir()) == []


def test_answer_that_ends_early_is_a_failure(storage: Web, tmp_path: Path) -> None:
    storage.declared = 1000

    done = fetch(f"{storage.url}/one/model.onnx", "--to", tmp_path / "models")

    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_folder_that_exists_is_replaced_only_on_request(tmp_path: Path) -> None:
    source, target = local(tmp_path), tmp_path / "models"
    (target / "old").mkdir(parents=True)
    (target / "old" / "file").touch()

    refused = fetch(source, "--to", target)
    kept = content(target)
    replaced = fetch(source, "--to", target, "--replace")

    assert refused.returncode == 2 and "--replace" in refused.stderr
    assert kept == {"old/file": b""}
    assert replaced.returncode == 0
    assert content(target) == MODELS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["models", "source"]


def test_failed_replacement_keeps_what_is_there(storage: Web, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "file").touch()

    done = fetch(f"{storage.url}/missing.zip", "--to", tmp_path / "models", "--replace")

    assert done.returncode == 1
    assert content(tmp_path) == {"models/file": b""}


@contextmanager
def fetching(served: Web, target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A fetch whose first bytes have come."""
    command = [str(WEIR), "fetch", f"{served.url}/one/model.onnx", "--to", str(target)]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert served.has_begun.wait(LIMIT_S)
            yield process
        finally:
            served.may_end.set()
            process.kill()


def test_killed_fetch_leaves_no_model_and_the_next_one_cleans_up(
    storage: Web, tmp_path: Path
) -> None:
    storage.is_slow = True
    target = tmp_path / "models"

    with fetching(storage, target) as process:
        partial = tmp_path / ".models.fetching" / "files" / "model.onnx"
        end_s = time.monotonic() + LIMIT_S
        while not partial.exists() and time.monotonic() < end_s:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
        assert partial.exists() and not target.exists()
    storage.is_slow = False
    done = fetch(f"{storage.url}/one/model.onnx", "--to", target)

    assert (done.returncode, done.stderr) == (0, "")
    assert content(tmp_path) == {"models/model.onnx": ONE}


def test_two_fetches_to_one_folder_do_not_mix(storage: Web, tmp_path: Path) -> None:
    storage.is_slow = True

    with fetching(storage, tmp_path / "models") as first:
        second = fetch(f"{storage.url}/models.zip", "--to", tmp_path / "models")
        storage.may_end.set()
        first.communicate(timeout=LIMIT_S)

    assert second.returncode == 1 and "another fetch" in second.stderr
    assert first.returncode == 0
    assert content(tmp_path) == {"models/model.onnx": ONE}


def test_fetched_repository_is_served(tmp_path: Path) -> None:
    source = tmp_path / "source"
    onnx_models.write_plain(source, "affine", onnx_models.affine())

    done = fetch(source, "--to", tmp_path / "models")

    assert done.returncode == 0, done.stderr
    with (
        running(tmp_path / "models", tmp_path / "server.log") as server,
        Client(server.target) as client,
    ):
        client.wait_ready()
        assert [model.name for model in client.models()] == ["affine"]
