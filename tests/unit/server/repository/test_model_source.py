"""What a path of the operator's is: a repository, or one model."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import onnx_models
from weir.server.errors import ConfigError
from weir.server.repository.model_source import ModelRepository, SingleModel, open_source

Publish = Callable[..., Path]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_directory_of_models_is_a_repository(publish: Publish, models: Path) -> None:
    publish("affine")

    assert open_source(models) == ModelRepository(models)


@pytest.mark.parametrize(
    "files",
    [
        [],
        ["README.md"],
        ["a.onnx", "b.onnx"],
        ["notes/a.onnx"],
        ["a.onnx", "b/model.onnx"],
    ],
)
def test_directory_that_may_be_anything_is_a_repository(tmp_path: Path, files: list[str]) -> None:
    touch(*(tmp_path / file for file in files))

    assert open_source(tmp_path) == ModelRepository(tmp_path)


def test_model_named_by_a_number_lies_in_a_repository(models: Path) -> None:
    onnx_models.write_plain(models, "7", onnx_models.affine())

    assert open_source(models) == ModelRepository(models)


def test_stray_file_beside_models_makes_no_single_model(publish: Publish, models: Path) -> None:
    publish("affine")
    touch(models / "model.onnx")

    assert open_source(models) == ModelRepository(models)


@pytest.mark.parametrize(
    ("file", "name", "version"),
    [
        ("resnet.onnx", "resnet", 1),
        ("flowers/model.onnx", "flowers", 1),
        ("flowers/7/model.onnx", "flowers", 7),
        ("flowers/7/resnet.onnx", "resnet", 1),
    ],
)
def test_file_is_one_model_named_by_itself_or_by_its_directory(
    tmp_path: Path, file: str, name: str, version: int
) -> None:
    touch(tmp_path / file)

    assert open_source(tmp_path / file) == SingleModel(name, tmp_path / file, version)
    assert open_source(tmp_path / file, "mine") == SingleModel("mine", tmp_path / file, version)


@pytest.mark.parametrize(
    ("files", "given"),
    [
        (["model.onnx", "model.onnx.data"], "model.onnx"),
        (["model.onnx", "config.pbtxt", "labels.txt"], "model.onnx"),
        (["resnet.onnx"], "resnet.onnx"),
        (["model.onnx", "other.onnx"], "model.onnx"),
    ],
)
def test_directory_of_one_graph_is_that_graph(tmp_path: Path, files: list[str], given: str) -> None:
    touch(*(tmp_path / "flowers" / file for file in files))

    assert open_source(tmp_path / "flowers") == open_source(tmp_path / "flowers" / given)


def test_bundle_is_named_by_its_model(publish: Publish) -> None:
    publish("affine")
    directory = publish("affine")

    expected = SingleModel("affine", directory, 2)
    assert open_source(directory) == open_source(directory / "model.onnx") == expected


def test_pair_is_given_by_its_directory(publish_pair: Publish) -> None:
    directory = publish_pair("pair")

    assert open_source(directory) == SingleModel("pair", directory, 1)
    for file in ("encoder.onnx", "model.json"):
        with pytest.raises(ConfigError, match=f"the file '{file}' of a bundle: give its directory"):
            open_source(directory / file)


def test_directory_of_a_model_is_that_model(publish: Publish, models: Path) -> None:
    publish("affine")
    (models / "affine" / "notes").mkdir()

    assert open_source(models / "affine") == SingleModel("affine", models / "affine")
    assert open_source(models / "affine", "mine") == SingleModel("mine", models / "affine")


def test_repository_of_one_model_can_be_renamed(publish: Publish, models: Path) -> None:
    publish("affine")

    assert open_source(models, "mine") == SingleModel("mine", models / "affine")

    publish("other")
    with pytest.raises(ConfigError, match="one model to serve as 'mine', got affine, other in"):
        open_source(models, "mine")


def test_link_to_the_directory_is_followed(tmp_path: Path) -> None:
    touch(tmp_path / "flowers" / "model.onnx")
    (tmp_path / "link").symlink_to("flowers")

    expected = SingleModel("flowers", tmp_path / "flowers" / "model.onnx", 1)
    assert open_source(tmp_path / "link" / "model.onnx") == open_source(tmp_path / "link")
    assert open_source(tmp_path / "link") == expected


@pytest.mark.parametrize(
    ("file", "got"),
    [
        ("net.pt", "the file 'net.pt': export it to ONNX first"),
        ("notes.txt", "the file 'notes.txt'"),
    ],
)
def test_file_of_another_kind_is_refused(tmp_path: Path, file: str, got: str) -> None:
    touch(tmp_path / file)

    with pytest.raises(ConfigError) as refused:
        open_source(tmp_path / file)

    assert str(refused.value) == (
        f"MODELS: expected a model repository, an ONNX file or a bundle, got {got}"
    )


@pytest.mark.parametrize("file", ["mein netz.onnx", "größe.onnx", "-x.onnx"])
def test_file_that_gives_no_name_needs_one(tmp_path: Path, file: str) -> None:
    touch(tmp_path / file)

    with pytest.raises(ConfigError, match=r"model name: expected .*: give another with --name"):
        open_source(tmp_path / file)
    assert open_source(tmp_path / file, "mine") == SingleModel("mine", tmp_path / file, 1)
    with pytest.raises(ConfigError, match=r"model name: expected .*, got 'a b'$"):
        open_source(tmp_path / file, "a b")
