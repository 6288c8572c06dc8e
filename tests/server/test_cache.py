import logging
import threading
from pathlib import Path

import pytest

from bundle import external_data
from bundle.errors import BrokenBundle
from server.cache import GraphCache, key
from tests import onnx_models

GRAPH = onnx_models.affine()
ENTRY = key("0" * 64, "here")


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "cache")


def keep(cache: GraphCache, graph: bytes = GRAPH) -> None:
    with cache.writing(ENTRY) as place:
        assert place is not None
        place.write_bytes(graph)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_is_kept_is_read_back(cache: GraphCache, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.read(ENTRY) is None

    keep(cache)

    assert cache.read(ENTRY) == GRAPH
    assert [path.name for path in cache.directory.iterdir()] == [ENTRY]
    assert warnings(caplog) == []


def test_entry_is_found_under_its_own_circumstances_alone() -> None:
    entries = {key("0", "a", "b"), key("0", "ab"), key("0"), key("1", "a", "b")}

    assert len(entries) == 4
    assert key("0", "a", "b") in entries


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        pytest.param("graph.onnx", b"", "its SHA-256 is another", id="emptied"),
        pytest.param("graph.onnx", GRAPH[:-1], "its SHA-256 is another", id="cut short"),
        pytest.param("graph.onnx", b"\xff" + GRAPH[1:], "its SHA-256 is another", id="a byte"),
        pytest.param("graph.sha256", b"0" * 64, "its SHA-256 is another", id="other hash"),
        pytest.param("graph.sha256", b"\xff\xff", "can't decode", id="no hash"),
        pytest.param("graph.onnx", None, "it is not complete", id="no graph"),
        pytest.param("graph.sha256", None, "it is not complete", id="no sidecar"),
    ],
)
def test_damaged_entry_is_a_warning_and_is_replaced(
    *,
    file: str,
    damage: bytes | None,
    reason: str,
    cache: GraphCache,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keep(cache)
    path = cache.directory / ENTRY / file
    path.unlink() if damage is None else path.write_bytes(damage)

    assert cache.read(ENTRY) is None

    (warning,) = warnings(caplog)
    assert warning.startswith(f"cached graph cannot be read entry={ENTRY[:12]} reason=")
    assert reason in warning
    keep(cache)
    assert cache.read(ENTRY) == GRAPH


def test_graph_that_points_outside_is_not_trusted(
    cache: GraphCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(cache)

    def refuse(model: bytes, file: str) -> None:
        raise BrokenBundle(f"{file}: external data")

    monkeypatch.setattr(external_data, "refuse", refuse)

    assert cache.read(ENTRY) is None
    assert "external data" in warnings(caplog)[0]


def test_directory_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A file in the place of the directory: root, as which tests may run, is allowed all else.
    (tmp_path / "file").write_text("")
    cache = GraphCache(tmp_path / "file" / "cache")

    with cache.writing(ENTRY) as place:
        assert place is None

    assert cache.read(ENTRY) is None
    assert all("Not a directory" in warning for warning in warnings(caplog))
    assert len(warnings(caplog)) == 2


def test_read_only_cache_is_read(cache: GraphCache, caplog: pytest.LogCaptureFixture) -> None:
    keep(cache)
    before = {path: path.stat().st_mtime_ns for path in cache.directory.rglob("*")}
    cache.directory.chmod(0o555)

    try:
        assert cache.read(ENTRY) == GRAPH
    finally:
        cache.directory.chmod(0o755)

    assert {path: path.stat().st_mtime_ns for path in cache.directory.rglob("*")} == before
    assert warnings(caplog) == []


def test_failed_writing_leaves_nothing(cache: GraphCache) -> None:
    def fail() -> None:
        with cache.writing(ENTRY) as place:
            assert place is not None
            place.write_bytes(GRAPH[:7])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with cache.writing(ENTRY):
        pass

    assert list(cache.directory.iterdir()) == []


def test_entry_that_cannot_be_finished_is_a_warning(
    cache: GraphCache, caplog: pytest.LogCaptureFixture
) -> None:
    with cache.writing(ENTRY) as place:
        assert place is not None
        place.write_bytes(GRAPH)
        place.with_suffix(".sha256").mkdir()

    assert list(cache.directory.iterdir()) == []
    (warning,) = warnings(caplog)
    assert "cannot be written" in warning


def test_two_that_write_at_once_leave_one_whole_entry(cache: GraphCache) -> None:
    both_wrote = threading.Barrier(2)

    def write() -> None:
        with cache.writing(ENTRY) as place:
            assert place is not None
            place.write_bytes(GRAPH)
            both_wrote.wait(20)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert cache.read(ENTRY) == GRAPH
    assert [path.name for path in cache.directory.iterdir()] == [ENTRY]
