import contextlib
import json
import os
import random
import socket
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from weir.bundle.errors import BrokenBundle
from weir.bundle.golden import Golden
from weir.bundle.reader import read, read_without_contract

Publish = Callable[..., Path]


def test_reads_what_was_written(directory: Path, files: dict[str, bytes], golden: Golden) -> None:
    bundle = read(directory)

    assert dict(bundle.files) == files
    assert bundle.model == files["model.onnx"]
    assert bundle.contract.architecture == "scale"
    replayed = bundle.golden()
    assert replayed is not None
    np.testing.assert_array_equal(replayed.inputs["image"], golden.inputs["image"])
    np.testing.assert_array_equal(replayed.outputs["logits"], golden.outputs["logits"])


def test_labels_by_output(directory: Path) -> None:
    bundle = read(directory)

    assert bundle.labels("logits") == ["zero", "one"]
    assert bundle.labels("image") is None


@pytest.mark.parametrize(
    ("text", "labels"),
    [("", []), ("a", ["a"]), ("a\n", ["a"]), ("é\n\nb c\n", ["é", "", "b c"])],
    ids=["empty", "no-newline", "newline", "blank-line"],
)
def test_one_label_a_line(publish: Publish, text: str, labels: list[str]) -> None:
    bundle = read(publish({"labels.txt": text.encode()}))

    assert bundle.labels("logits") == labels


def test_relative_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)

    assert read(Path()).contract.architecture == "scale"


def test_files_cannot_change_after_reading(directory: Path, files: dict[str, bytes]) -> None:
    bundle = read(directory)

    (directory / "model.onnx").write_bytes(b"something else")

    assert bundle.model == files["model.onnx"]


@pytest.mark.parametrize("file", ["model.onnx", "golden.npz", "labels.txt"])
def test_single_flipped_bit_is_refused(directory: Path, file: str) -> None:
    data = bytearray((directory / file).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / file).write_bytes(data)

    with pytest.raises(BrokenBundle, match=rf"{file}: expected SHA-256 [0-9a-f]{{64}}, got"):
        read(directory)


@pytest.mark.parametrize("keep", [0, 10, -1], ids=["empty", "start", "last-byte-lost"])
def test_truncated_file_is_refused(directory: Path, keep: int) -> None:
    model = directory / "model.onnx"
    model.write_bytes(model.read_bytes()[:keep])

    with pytest.raises(BrokenBundle, match="SHA-256"):
        read(directory)


@pytest.mark.parametrize("file", ["model.onnx", "labels.txt", "model.json"])
def test_missing_file_is_refused(directory: Path, file: str) -> None:
    (directory / file).unlink()

    with pytest.raises(BrokenBundle, match=file):
        read(directory)


@pytest.mark.parametrize("name", ["weights.bin", ".hidden", "model.json~"])
def test_extra_file_is_refused(directory: Path, name: str) -> None:
    (directory / name).write_bytes(b"")

    with pytest.raises(BrokenBundle, match=f"not listed: '{name}'"):
        read(directory)


def test_subdirectory_is_refused(directory: Path) -> None:
    (directory / "more").mkdir()

    with pytest.raises(BrokenBundle, match="not listed: 'more'"):
        read(directory)


@pytest.mark.parametrize("file", ["model.onnx", "model.json"])
def test_symlink_is_refused(directory: Path, tmp_path: Path, file: str) -> None:
    (directory / file).rename(tmp_path / file)
    (directory / file).symlink_to(tmp_path / file)

    with pytest.raises(BrokenBundle, match=f"{file}: .* got a link, .*--follow-links"):
        read(directory)


@pytest.mark.parametrize("file", ["model.onnx", "model.json"])
def test_hard_link_is_a_file(directory: Path, tmp_path: Path, file: str) -> None:
    os.link(directory / file, tmp_path / "other-name")

    assert read(directory).contract.architecture == "scale"


def test_symlinked_version_is_refused(directory: Path) -> None:
    link = directory.parent / "2"
    link.symlink_to(directory)

    with pytest.raises(BrokenBundle, match="expected a directory, got a link"):
        read(link)


def test_symlinked_model_is_refused(directory: Path) -> None:
    link = directory.parent.parent / "alias"
    link.symlink_to(directory.parent)

    with pytest.raises(BrokenBundle, match="alias: expected a directory, got a link"):
        read(link / "1")


def test_named_pipe_does_not_block(directory: Path) -> None:
    (directory / "model.onnx").unlink()
    os.mkfifo(directory / "model.onnx")

    with pytest.raises(BrokenBundle, match="got a special file"):
        read(directory)


def test_directory_in_place_of_a_file_is_refused(directory: Path) -> None:
    (directory / "model.onnx").unlink()
    (directory / "model.onnx").mkdir()

    with pytest.raises(BrokenBundle, match="got a directory"):
        read(directory)


def test_enormous_file_is_refused_unread(directory: Path) -> None:
    os.truncate(directory / "labels.txt", 1 << 40)

    with pytest.raises(BrokenBundle, match="expected at most"):
        read(directory)


def test_no_directory() -> None:
    with pytest.raises(BrokenBundle, match="expected a directory"):
        read(Path("/nowhere/at/all"))


def test_half_copied_bundle_is_refused(directory: Path, tmp_path: Path) -> None:
    """In whatever order the files arrive: complete, or refused."""
    partial = tmp_path / "partial" / "1"
    partial.mkdir(parents=True)
    names = ["labels.txt", "model.json", "golden.npz", "model.onnx"]

    for name in names:
        with pytest.raises(BrokenBundle):
            read(partial)
        (partial / name).write_bytes((directory / name).read_bytes())

    assert read(partial).contract.architecture == "scale"


def test_contract_that_lists_no_model_is_refused(directory: Path) -> None:
    (directory / "model.onnx").unlink()
    text = json.loads((directory / "model.json").read_text())
    del text["files"]["model.onnx"]
    (directory / "model.json").write_text(json.dumps(text))

    with pytest.raises(BrokenBundle, match=r"expected model\.onnx among them"):
        read(directory)


def test_labels_that_are_not_listed_are_refused(directory: Path) -> None:
    text = json.loads((directory / "model.json").read_text())
    text["labels"]["logits"] = "other.txt"
    (directory / "model.json").write_text(json.dumps(text))

    with pytest.raises(BrokenBundle, match=r"labels\.logits: .* got 'other\.txt'"):
        read(directory)


def external(onnx_model: onnx.ModelProto, location: str = "weights.bin") -> bytes:
    """The small model with its weight in another file."""
    weight = onnx_model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return onnx_model.SerializeToString()


WEIGHTS = np.array([2, 3], np.float32).tobytes()


def weight_of(model: bytes) -> list[float]:
    (weight,) = onnx.ModelProto.FromString(model).graph.initializer
    values: list[float] = onnx.numpy_helper.to_array(weight).tolist()
    return values


def test_external_data_is_listed_and_hashed(publish: Publish, onnx_model: onnx.ModelProto) -> None:
    directory = publish({"model.onnx": external(onnx_model), "weights.bin": WEIGHTS})

    assert weight_of(read(directory).model) == [2, 3]
    (directory / "weights.bin").write_bytes(WEIGHTS[::-1])
    with pytest.raises(BrokenBundle, match=r"weights\.bin: expected SHA-256"):
        read(directory)


def test_external_data_that_is_not_listed_is_refused(
    publish: Publish, onnx_model: onnx.ModelProto
) -> None:
    with pytest.raises(BrokenBundle, match=r"external data 'weights\.bin': expected a listed file"):
        publish({"model.onnx": external(onnx_model)})


def test_external_data_in_the_contract_is_refused(
    publish: Publish, onnx_model: onnx.ModelProto
) -> None:
    with pytest.raises(BrokenBundle, match=r"external data 'model\.json': expected a listed file"):
        publish({"model.onnx": external(onnx_model, "model.json")})


def test_plain_model(tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "model.onnx").write_bytes(files["model.onnx"])

    assert read_without_contract(tmp_path).model == files["model.onnx"]


def test_plain_model_is_no_link(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "model.onnx").symlink_to(directory / "model.onnx")

    with pytest.raises(BrokenBundle, match="got a link"):
        read_without_contract(tmp_path)


def test_plain_model_with_external_data_is_read(
    tmp_path: Path, onnx_model: onnx.ModelProto
) -> None:
    (tmp_path / "model.onnx").write_bytes(external(onnx_model))
    (tmp_path / "weights.bin").write_bytes(WEIGHTS)

    assert weight_of(read_without_contract(tmp_path).model) == [2, 3]


def test_missing_external_data_is_named(tmp_path: Path, onnx_model: onnx.ModelProto) -> None:
    (tmp_path / "model.onnx").write_bytes(external(onnx_model))

    with pytest.raises(BrokenBundle, match=r"weights\.bin: .* No such file"):
        read_without_contract(tmp_path)


def test_external_data_through_a_link_is_refused(
    tmp_path: Path, onnx_model: onnx.ModelProto
) -> None:
    directory = tmp_path / "models" / "scale" / "1"
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(external(onnx_model))
    (tmp_path / "elsewhere").write_bytes(WEIGHTS)
    (directory / "weights.bin").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(BrokenBundle, match=r"weights\.bin: .* got a link, .*--follow-links"):
        read_without_contract(directory)


@pytest.mark.parametrize(
    ("files", "got"),
    [([], "an empty directory"), (["b.pt", "a.txt"], "'a.txt', 'b.pt'")],
    ids=["empty", "other files"],
)
def test_plain_directory_without_a_model_is_refused(
    tmp_path: Path, files: list[str], got: str
) -> None:
    for file in files:
        (tmp_path / file).touch()

    with pytest.raises(BrokenBundle) as broken:
        read_without_contract(tmp_path)

    assert str(broken.value) == f"model.onnx: expected an ONNX file of this name, got {got}"


def test_plain_model_beside_recorded_tensors_waits_for_its_contract(
    directory: Path,
) -> None:
    (directory / "model.json").unlink()

    with pytest.raises(BrokenBundle, match=r"expected model\.json, which is written last"):
        read_without_contract(directory)


def test_file_that_grows_as_it_is_read_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status_of = os.fstat

    def status_before_more_arrives(descriptor: int) -> os.stat_result:
        status = status_of(descriptor)
        with (directory / "model.json").open("ab") as file:
            file.write(b" " * 10_000_000)
        return status

    monkeypatch.setattr(os, "fstat", status_before_more_arrives)

    with pytest.raises(BrokenBundle, match=r"model\.json: .* it changes as it is read"):
        read(directory)


@pytest.mark.parametrize("file", ["labels.txt", "model.json"])
def test_huge_text_is_refused_unread(directory: Path, file: str) -> None:
    os.truncate(directory / file, 2_000_000_000)  # Sparse: it takes no room on the disk.

    tracemalloc.start()
    with pytest.raises(BrokenBundle, match=f"{file}: expected at most 16777216 bytes"):
        read(directory)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak_bytes < 1_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [(b"a\0b\n", "got a NUL at byte 1"), (b"a\xff\n", "expected UTF-8")],
    ids=["nul", "no-utf-8"],
)
def test_labels_that_are_no_text_are_refused(publish: Publish, text: bytes, message: str) -> None:
    with pytest.raises(BrokenBundle, match=rf"labels\.txt: {message}|labels\.txt: .*{message}"):
        publish({"labels.txt": text})


def test_names_on_the_disk_are_escaped(directory: Path) -> None:
    for name in (b"\xff", b"\x1b[31m\nmodel ready", "é".encode()):
        (directory / os.fsdecode(name)).write_bytes(b"")

    with pytest.raises(BrokenBundle) as raised:
        read(directory)

    assert str(raised.value).isprintable()
    str(raised.value).encode()
    for escaped in (r"\udcff", r"\x1b[31m\nmodel ready", "é"):
        assert escaped in str(raised.value)


def test_many_unlisted_files_are_counted_not_listed(directory: Path) -> None:
    for number in range(200):
        (directory / f"extra{number:03}").write_bytes(b"")

    with pytest.raises(BrokenBundle, match=r"'extra004' and 195 more$"):
        read(directory)


def test_socket_is_refused(directory: Path) -> None:
    (directory / "labels.txt").unlink()
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(directory):
        listener.bind("labels.txt")

        with pytest.raises(BrokenBundle, match=r"labels\.txt: expected a regular file"):
            read(directory)


def test_every_flipped_bit_is_refused(directory: Path) -> None:
    """600 of them, anywhere in the graph."""
    whole = (directory / "model.onnx").read_bytes()
    for place in random.Random(7).choices(range(8 * len(whole)), k=600):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        (directory / "model.onnx").write_bytes(damaged)

        with pytest.raises(BrokenBundle, match=r"model\.onnx: expected SHA-256"):
            read(directory)
