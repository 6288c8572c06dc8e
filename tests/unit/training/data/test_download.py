"""Search and download of files, with a server on the loopback."""

import gzip
import hashlib
import logging
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from weir.training.data.download import DataFolders, RemoteFile, locate
from weir.training.errors import DataError, DownloadError

CONTENT = b"sixteen bytes..."
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name it has
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a server that offers `good` and `wrong`, a byte apart, and `long`."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "good").write_bytes(CONTENT)
    (folder / "wrong").write_bytes(b"X" + CONTENT[1:])
    (folder / "long").write_bytes(CONTENT * 1000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, name="site")
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def remote(url: str) -> RemoteFile:
    return RemoteFile(url, len(CONTENT), DIGEST)


def test_a_missing_file_is_downloaded_announced_and_kept(
    site: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = DataFolders(None, tmp_path / "cache")

    with caplog.at_level(logging.WARNING):
        first = locate("set", remote(f"{site}/good"), folders)
    second = locate("set", RemoteFile("http://127.0.0.1:1/good", len(CONTENT), DIGEST), folders)

    assert first == second == tmp_path / "cache" / "set" / "good"
    assert first.read_bytes() == CONTENT
    assert f"{site}/good" in caplog.text


@pytest.mark.parametrize("name", ["wrong", "long", "absent"])
def test_a_download_that_is_not_the_file_leaves_nothing(
    site: str, tmp_path: Path, name: str
) -> None:
    folders = DataFolders(None, tmp_path / "cache")

    with pytest.raises(DownloadError, match=f"{site}/{name}"):
        locate("set", remote(f"{site}/{name}"), folders)

    assert list((tmp_path / "cache" / "set").iterdir()) == []


def test_no_server_is_a_download_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="could not be fetched"):
        locate("set", remote("http://127.0.0.1:1/good"), DataFolders(None, tmp_path))


def test_plain_http_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="expected an https address"):
        locate("set", remote("http://example.invalid/good"), DataFolders(None, tmp_path))


def test_the_named_folder_comes_before_the_cache(tmp_path: Path) -> None:
    for place in ("named", "cache"):
        (tmp_path / place / "set").mkdir(parents=True)
        (tmp_path / place / "set" / "good").write_bytes(CONTENT)

    found = locate("set", remote("x://y/good"), DataFolders(tmp_path / "named", tmp_path / "cache"))

    assert found == tmp_path / "named" / "set" / "good"


def test_a_file_with_another_checksum_is_an_error_and_ends_the_search(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "good").write_bytes(b"other")

    with pytest.raises(DataError, match=f"expected SHA-256 {DIGEST}, got"):
        locate("set", remote("x://y/good"), DataFolders(tmp_path, tmp_path / "cache"))


def test_a_gzipped_file_is_verified_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    packed = tmp_path / "set" / "good.gz"
    folders = DataFolders(tmp_path, tmp_path / "cache")

    packed.write_bytes(gzip.compress(CONTENT, 1))
    assert locate("set", remote("x://y/good"), folders) == packed

    packed.write_bytes(gzip.compress(b"other"))
    with pytest.raises(DataError, match=f"expected SHA-256 {DIGEST}, got"):
        locate("set", remote("x://y/good"), folders)

    packed.write_bytes(CONTENT)
    with pytest.raises(DataError, match=r"good\.gz: expected a gzip file, got"):
        locate("set", remote("x://y/good"), folders)


def test_the_environment_names_the_places(tmp_path: Path) -> None:
    both = {"WEIR_DATA": str(tmp_path), "XDG_CACHE_HOME": "/c", "LOCALAPPDATA": "/c"}

    assert DataFolders.from_environment(both).folder == tmp_path
    assert DataFolders.from_environment({}).folder is None
    with pytest.raises(DataError, match="WEIR_DATA: expected a folder, got none at /no/such"):
        DataFolders.from_environment({"WEIR_DATA": "/no/such"})
