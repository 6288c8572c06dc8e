"""One model instead of a repository: an ONNX file, a bundle's directory, a model's directory."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException

from tests.helpers import onnx_models
from tests.integration.harness import Server, running
from tests.integration.test_reload import write_fingerprint


def answer(client: triton.InferenceServerClient, name: str) -> tuple[str, int]:
    """The version in the response, and the one in the model's output."""
    rows = triton.InferInput("row", [1, 2], "INT64")
    rows.set_data_from_numpy(np.array([[1, 2]]))
    result = client.infer(name, [rows])
    return result.get_response().model_version, int(result.as_numpy("version")[0])


def replace(path: Path, graph: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(graph)
    new.replace(path)


def flat(directory: Path) -> Path:
    """As a KServe storage initializer leaves it."""
    directory.mkdir(parents=True)
    (directory / "model.onnx").write_bytes(onnx_models.fingerprint(5))
    (directory / "config.pbtxt").write_text('name: "who" max_batch_size: 4')
    return directory


def config_map(directory: Path) -> Path:
    """As Kubernetes mounts files: links to a directory of links."""
    flat(directory / "..2026")
    (directory / "..data").symlink_to("..2026")
    for name in ("model.onnx", "config.pbtxt"):
        (directory / name).symlink_to(f"..data/{name}")
    return directory


def triton_layout(directory: Path) -> Path:
    onnx_models.write_plain(directory, "who", onnx_models.fingerprint(5))
    (directory / "who" / "config.pbtxt").write_text('name: "who" max_batch_size: 4')
    return directory


def bundle(directory: Path) -> Path:
    return write_fingerprint(directory, 5)


@pytest.mark.parametrize(
    ("make", "version", "flags"),
    [
        (flat, "1", ()),
        (config_map, "1", ("--follow-links",)),
        (triton_layout, "1", ()),
        (bundle, "5", ()),
    ],
    ids=["flat", "ConfigMap", "triton", "bundle"],
)
def test_directory_of_one_model_is_served_by_the_name_that_is_given(
    make: Callable[[Path], Path], version: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    path = make(tmp_path / "mnt" / "models")

    with running(path, tmp_path / "log", "--name", "flowers", *flags) as server:
        with triton.InferenceServerClient(server.target) as client:
            assert client.is_server_ready() and client.is_model_ready("flowers")
            assert answer(client, "flowers") == (version, 5)
            config = client.get_model_config("flowers").config
            assert (config.name, config.default_model_filename) == ("flowers", "model.onnx")
            assert config.max_batch_size == (4 if make is not bundle else 32)
        assert "one model served model=flowers" in server.log()


def test_file_is_followed_by_poll(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_models.fingerprint(1))
    flags = ("--model-control", "poll", "--poll-interval-s", "0.05")

    with (
        running(path, tmp_path / "log", *flags) as server,
        triton.InferenceServerClient(server.target) as client,
    ):
        assert answer(client, "net") == ("1", 1)
        replace(path, onnx_models.fingerprint(2))
        server.wait_for_log("version verified in sandbox model=net version=1")
        while answer(client, "net") != ("1", 2):
            pass
        replace(path, b"no graph")
        server.wait_for_log("version load failed model=net version=1")
        path.unlink()
        server.wait_for_log("model file is missing, the model stays loaded model=net")

        assert answer(client, "net") == ("1", 2)


def label(server: Server) -> str:
    command = [sys.executable, "-m", "weir", "models", "label", "net", "stable=1"]
    done = subprocess.run(
        [*command, "--target", server.target], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_file_is_loaded_and_unloaded_by_call(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_models.fingerprint(1))

    with (
        running(path, tmp_path / "log", "--model-control", "explicit") as server,
        triton.InferenceServerClient(server.target) as client,
    ):
        told = label(server)
        client.unload_model("net")
        assert not client.is_model_ready("net")
        replace(path, onnx_models.fingerprint(2))
        client.load_model("net")
        assert answer(client, "net") == ("1", 2)
        with pytest.raises(InferenceServerException, match="unknown model 'other'"):
            client.load_model("other")

    assert told == (
        "net: stable -> 1 (until the server stops: one version is served, "
        "without a directory of versions)\n"
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["log", "net.onnx"]
