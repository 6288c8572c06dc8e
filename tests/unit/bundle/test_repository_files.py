import os
from pathlib import Path

import pytest

from weir.bundle import reader, repository_files, versions
from weir.bundle.errors import BrokenBundle
from weir.bundle.reader import read
from weir.bundle.repository_files import LinkRoots, read_file

FILES = ("model.json", "model.onnx", "golden.npz", "labels.txt")


@pytest.fixture
def root(directory: Path) -> Path:
    """The repository of the small bundle."""
    return directory.parent.parent


@pytest.fixture
def links(root: Path) -> LinkRoots:
    return LinkRoots((root,))


def as_config_map(directory: Path, number: int = 1) -> None:
    """Put the files where Kubernetes puts those of a ConfigMap: below a link that is replaced."""
    data = directory / f"..2026_11_{number:02}"
    data.mkdir()
    for name in FILES:
        if number == 1:
            (directory / name).rename(data / name)
            (directory / name).symlink_to(Path("..data") / name)
        else:
            (data / name).write_bytes((directory / name).read_bytes())
    (directory / "..data_tmp").symlink_to(data.name)
    (directory / "..data_tmp").rename(directory / "..data")


def as_snapshot(directory: Path, blobs: Path) -> None:
    """Put the files where Hugging Face's cache has them: below the names of their hashes."""
    blobs.mkdir()
    for number, name in enumerate(FILES):
        (directory / name).rename(blobs / f"{number}")
        (directory / name).symlink_to(os.path.relpath(blobs / f"{number}", directory))


def test_config_map_is_read(directory: Path, links: LinkRoots) -> None:
    as_config_map(directory)

    assert read(directory, links).contract.architecture == "scale"


def test_config_map_needs_followed_links(directory: Path) -> None:
    as_config_map(directory)

    with pytest.raises(BrokenBundle, match="got a link, which weir serve --follow-links follows"):
        read(directory)


def test_snapshot_is_read(directory: Path, root: Path, tmp_path: Path) -> None:
    as_snapshot(directory, tmp_path / "blobs")

    found = read(directory, LinkRoots((root, tmp_path / "blobs")))

    assert found.contract.architecture == "scale"


def test_link_out_of_the_roots_is_refused(
    directory: Path, root: Path, tmp_path: Path, links: LinkRoots
) -> None:
    as_snapshot(directory, tmp_path / "blobs")

    with pytest.raises(BrokenBundle, match="expected a link into the repository or a link root"):
        read(directory, links)
    # A root is a directory, not the beginning of its name.
    with pytest.raises(BrokenBundle, match="leads elsewhere"):
        read(directory, LinkRoots((root, tmp_path / "blob")))


@pytest.mark.parametrize("part", ["version", "model"])
def test_linked_directory_is_read_if_links_are_followed(
    part: str, directory: Path, root: Path, links: LinkRoots
) -> None:
    moved = directory if part == "version" else directory.parent
    moved.rename(root / "..target")
    moved.symlink_to(root / "..target")

    assert read(directory, links).contract.architecture == "scale"
    with pytest.raises(BrokenBundle, match="expected a directory, got a link"):
        read(directory)


def test_directory_outside_is_refused(directory: Path, tmp_path: Path, links: LinkRoots) -> None:
    directory.rename(tmp_path / "outside")
    directory.symlink_to(tmp_path / "outside")

    with pytest.raises(BrokenBundle, match="leads elsewhere"):
        read(directory, links)


@pytest.mark.parametrize("target", ["nowhere", "model.onnx"], ids=["dangling", "loop"])
def test_link_that_leads_nowhere_is_refused(target: str, directory: Path, links: LinkRoots) -> None:
    (directory / "model.onnx").unlink()
    (directory / "model.onnx").symlink_to(target)

    with pytest.raises(BrokenBundle, match=r"model\.onnx: expected a path that leads somewhere"):
        read(directory, links)


def test_link_to_a_pipe_does_not_block(directory: Path, root: Path, links: LinkRoots) -> None:
    os.mkfifo(root / "pipe")
    (directory / "labels.txt").unlink()
    (directory / "labels.txt").symlink_to(root / "pipe")

    with pytest.raises(BrokenBundle, match=r"labels\.txt: .* got a special file"):
        read(directory, links)


def test_target_whose_directory_becomes_a_link_is_refused(
    root: Path, tmp_path: Path, links: LinkRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "inside").mkdir()
    (root / "inside" / "file").write_bytes(b"right")
    (root / "link").symlink_to("inside/file")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"wrong")
    resolve = LinkRoots.resolve

    def resolve_and_replace(roots: LinkRoots, path: Path) -> tuple[Path, Path]:
        found = resolve(roots, path)
        (root / "inside").rename(root / "before")
        (root / "inside").symlink_to(tmp_path / "outside")
        return found

    assert read_file(root / "link", links=links) == b"right"
    monkeypatch.setattr(LinkRoots, "resolve", resolve_and_replace)
    with pytest.raises(BrokenBundle, match="link: expected a regular file, got an error"):
        read_file(root / "link", links=links)


def test_links_that_change_as_a_version_is_read_are_refused(
    directory: Path, links: LinkRoots, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_config_map(directory)
    swaps = [2]

    def read_and_swap(path: Path, limit_bytes: int, links: LinkRoots) -> bytes:
        data = read_file(path, limit_bytes, links)
        if path.name == "golden.npz" and swaps:
            as_config_map(directory, swaps.pop())
        return data

    monkeypatch.setattr(reader, "read_file", read_and_swap)
    with pytest.raises(BrokenBundle, match="1: expected links that stay, one changed meanwhile"):
        read(directory, links)
    assert read(directory, links).contract.architecture == "scale"


@pytest.mark.parametrize("linked", ["file", "directory"])
def test_linked_file_beside_the_versions_is_read(
    linked: str, directory: Path, root: Path, links: LinkRoots
) -> None:
    model = directory.parent
    (root / "policy").write_text('policy = "all"')
    (model / "versions.toml").symlink_to("../policy")
    if linked == "directory":
        model.rename(root / "..target")
        model.symlink_to("..target")

    assert versions.read(model, links).policy == versions.VersionPolicy()
    assert reader.read_model_file(model, "versions.toml", 100, links) == b'policy = "all"'


def test_memory_that_is_not_there_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status_of = os.fstat

    def status_of_an_enormous_file(descriptor: int) -> os.stat_result:
        status = list(status_of(descriptor))
        status[6] = 1 << 62
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", status_of_an_enormous_file)

    with pytest.raises(BrokenBundle, match=r"model\.onnx: .* needs more memory than there is"):
        repository_files.read_file(directory / "model.onnx", 1 << 63)
