import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from weir.bundle import writer
from weir.bundle.contract import Contract, parse
from weir.bundle.errors import BrokenBundle, BundleError, InvalidName, VersionExists
from weir.bundle.reader import read
from weir.bundle.repository import versions
from weir.bundle.writer import write

Publish = Callable[..., Path]


def spawned() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))


def test_version_numbers_go_up(publish: Publish) -> None:
    assert [publish().name for _ in range(3)] == ["1", "2", "3"]


def test_next_number_follows_the_highest(
    tmp_path: Path, files: dict[str, bytes], contract: Contract
) -> None:
    write(files, contract, tmp_path, "scale", 7)

    assert write(files, contract, tmp_path, "scale").name == "8"


def test_a_taken_number_is_passed_over(publish: Publish, directory: Path) -> None:
    (directory.parent / "2").write_text("no version, but in the way")

    assert publish().name == "3"


def test_contract_lists_every_file(directory: Path, files: dict[str, bytes]) -> None:
    contract = parse((directory / "model.json").read_bytes())

    assert set(contract.files) == set(files)
    assert read(directory).contract == contract


def test_existing_version_is_left_as_it_was(
    directory: Path, tmp_path: Path, files: dict[str, bytes], contract: Contract
) -> None:
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    with pytest.raises(VersionExists, match="scale/1"):
        write({**files, "labels.txt": b"new\n"}, contract, tmp_path / "models", "scale", 1)

    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert [path.name for path in directory.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("occupied", ["empty-directory", "file", "dangling-link"])
def test_anything_with_that_number_counts_as_existing(
    tmp_path: Path, files: dict[str, bytes], contract: Contract, occupied: str
) -> None:
    target = tmp_path / "scale" / "1"
    target.parent.mkdir()
    match occupied:
        case "empty-directory":
            target.mkdir()
        case "file":
            target.touch()
        case _:
            target.symlink_to("nowhere")

    with pytest.raises(VersionExists):
        write(files, contract, tmp_path, "scale", 1)


@pytest.mark.parametrize(
    "pool", [lambda: ThreadPoolExecutor(8), spawned], ids=["threads", "processes"]
)
def test_concurrent_writers_each_get_their_number(
    pool: Callable[[], Executor], tmp_path: Path, files: dict[str, bytes], contract: Contract
) -> None:
    with pool() as executor:
        results = [executor.submit(write, files, contract, tmp_path, "m") for _ in range(24)]
        numbers = sorted(int(result.result().name) for result in results)

    assert numbers == list(range(1, 25))
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == sorted(map(str, numbers))
    for number in numbers:
        read(tmp_path / "m" / str(number))


def test_concurrent_writers_of_one_version_have_one_winner(
    tmp_path: Path, files: dict[str, bytes], contract: Contract
) -> None:
    def attempt(number: int) -> bool:
        labels = f"{number}\n".encode()
        try:
            write({**files, "labels.txt": labels}, contract, tmp_path, "m", 1)
        except VersionExists:
            return False
        return True

    with ThreadPoolExecutor(8) as executor:
        won = list(executor.map(attempt, range(16)))

    assert won.count(True) == 1
    assert read(tmp_path / "m" / "1").labels("logits") == [str(won.index(True))]


def test_half_written_version_is_never_visible(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step before the rename: no version is listed, and what is there is hidden."""
    seen = []

    def fsync(_descriptor: int) -> None:
        names = [path.name for path in (tmp_path / "models" / "scale").iterdir()]
        seen.append((versions(tmp_path / "models" / "scale"), all(n[0] == "." for n in names)))

    monkeypatch.setattr(os, "fsync", fsync)
    publish()

    *before, after = seen
    assert len(before) == 5 and set(map(str, before)) == {"([], True)"}
    assert after == ([1], False)


def test_contract_is_written_last(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def fsync(_descriptor: int) -> None:
        contracts = (tmp_path / "models" / "scale").glob(".*/model.json")
        counts.extend(len(list(path.parent.iterdir())) for path in contracts)

    monkeypatch.setattr(os, "fsync", fsync)
    publish()

    assert counts == [4, 4]


def test_failure_leaves_nothing_behind(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space"):
        publish()
    assert list((tmp_path / "models" / "scale").iterdir()) == []


def test_other_users_may_read_it(directory: Path) -> None:
    assert directory.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("changed", "fields", "message"),
    [
        ({"model.onnx": b"\x3a\x05ab"}, {}, "malformed"),
        ({"../escape": b""}, {}, "escape"),
        ({"model.json": b"{}"}, {}, r"model\.json"),
        ({}, {"labels": {"logits": "absent.txt"}}, r"absent\.txt"),
        ({"labels.txt": b"\xff"}, {}, "UTF-8"),
    ],
    ids=["malformed-model", "path", "contract", "absent-labels", "labels-not-text"],
)
def test_what_a_reader_would_refuse_is_not_published(
    publish: Publish,
    tmp_path: Path,
    changed: dict[str, bytes],
    fields: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(BrokenBundle, match=message):
        publish(changed, **fields)

    assert versions(tmp_path / "models" / "scale") == []
    assert not (tmp_path / "models" / "escape").exists()


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "-x", "ä", "x" * 129])
def test_invalid_names(
    tmp_path: Path, files: dict[str, bytes], contract: Contract, name: str
) -> None:
    with pytest.raises(InvalidName):
        write(files, contract, tmp_path, name)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [0, -1, 10**18])
def test_invalid_versions(
    tmp_path: Path, files: dict[str, bytes], contract: Contract, version: int
) -> None:
    with pytest.raises(BundleError, match="version"):
        write(files, contract, tmp_path, "scale", version)


def test_a_file_in_the_models_place(
    tmp_path: Path, files: dict[str, bytes], contract: Contract
) -> None:
    (tmp_path / "scale").touch()

    with pytest.raises(InvalidName, match="expected a directory"):
        writer.write(files, contract, tmp_path, "scale")
