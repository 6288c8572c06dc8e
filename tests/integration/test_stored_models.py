"""Models whose files are not simply there: external data, links, hard links; a real server."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.helpers import stored_models
from tests.helpers.stored_models import DATA, ConfigMap, scale, split, write_split
from tests.integration.harness import ANSWER_S, Client, Server, running, tensor
from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.writer import write

X = np.arange(3 * stored_models.WIDTH, dtype=np.float32).reshape(3, -1)
POLL = ("--model-control", "poll", "--poll-interval-s", "0.05")

Start = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Start:
    return lambda *flags, **options: running(root, tmp_path / "log", *flags, **options)


def slope(client: Client, model: str) -> float:
    """The slope that a model has; all its answers must have the same."""
    answers = client.infer(model, tensor("x", X))["y"]
    (found,) = set((answers[X > 0] / X[X > 0]).tolist())
    return float(found)


def wait_for_slope(server: Server, client: Client, model: str, expected: float) -> None:
    end_s = time.monotonic() + ANSWER_S
    while slope(client, model) != expected:
        assert time.monotonic() < end_s, f"expected slope {expected}:\n{server.log()}"
        time.sleep(0.02)


def publish(root: Path, name: str, number: float) -> Path:
    contract = Contract(
        task="other", architecture="scale", tolerance=Tolerance(absolute=0, relative=0)
    )
    golden = encode(Golden({"x": X}, {"y": np.float32(number) * X}))
    return write({**split(scale(number)), GOLDEN: golden}, contract, root, name)


def test_weights_beside_the_graph_are_served(root: Path, start: Start) -> None:
    plain = write_split(root, "plain")
    (root / "hard_links" / "1").mkdir(parents=True)
    for name in ("model.onnx", DATA):
        os.link(plain / name, root / "hard_links" / "1" / name)
    (root / "triton" / "3").mkdir(parents=True)
    for file, data in split(scale(4.0)).items():
        name = "net.onnx" if file == "model.onnx" else file
        (root / "triton" / "3" / name).write_bytes(data)
    (root / "triton" / "config.pbtxt").write_text(
        'max_batch_size: 8 default_model_filename: "net.onnx"'
    )
    publish(root, "bundle", 8.0)
    (write_split(root, "missing") / DATA).unlink()
    short = write_split(root, "short") / DATA
    short.write_bytes(short.read_bytes()[:-1])

    with start() as server, Client(server.target) as client:
        assert slope(client, "plain") == slope(client, "hard_links") == 2.0
        assert slope(client, "triton") == 4.0
        assert slope(client, "bundle") == 8.0
        log = server.log()

    assert f"model=missing version=1 reason={DATA}: expected a regular file" in log
    assert f"bytes in '{DATA}', got 16912: is the file complete?" in log


def test_changed_weights_are_a_changed_version(root: Path, start: Start) -> None:
    (root / "plain").mkdir()
    (root / "plain" / "config.pbtxt").write_text("max_batch_size: 8")
    directory = write_split(root, "other").rename(root / "plain" / "1")
    publish(root, "bundle", 8.0)

    with start(*POLL) as server, Client(server.target) as client:
        assert slope(client, "plain") == 2.0
        (directory / "next").write_bytes(split(scale(3.0))[DATA])
        (directory / "next").rename(directory / DATA)
        wait_for_slope(server, client, "plain", 3.0)
        # In the load sandbox, too: a second version, its weights one byte wrong.
        second = publish(root, "bundle", 16.0)
        wait_for_slope(server, client, "bundle", 16.0)
        data = bytearray((second / DATA).read_bytes())
        data[0] ^= 1
        (second / DATA).write_bytes(data)
        server.wait_for_log(f"model=bundle version=2 reason={DATA}: expected SHA-256")
        assert slope(client, "bundle") == 16.0


@pytest.fixture
def mounted(root: Path) -> ConfigMap:
    return ConfigMap(root / "mounted" / "1")


def test_config_map_is_served_and_its_swap_is_a_change(
    root: Path, mounted: ConfigMap, start: Start
) -> None:
    mounted.put(split(scale(2.0)))
    whole = ConfigMap(root)
    whole.put({"whole/config.pbtxt": b"max_batch_size: 8", **below("whole/1", split(scale(4.0)))})
    (root / "mounted" / "config.pbtxt").write_text("max_batch_size: 8")

    with start("--follow-links", *POLL) as server, Client(server.target) as client:
        assert (slope(client, "mounted"), slope(client, "whole")) == (2.0, 4.0)
        mounted.put(split(scale(3.0)))
        whole.put(
            {"whole/config.pbtxt": b"max_batch_size: 8", **below("whole/1", split(scale(5.0)))}
        )
        wait_for_slope(server, client, "mounted", 3.0)
        wait_for_slope(server, client, "whole", 5.0)


def below(directory: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{directory}/{name}": data for name, data in files.items()}


def test_links_are_refused_by_default(root: Path, mounted: ConfigMap, start: Start) -> None:
    mounted.put(split(scale(2.0)))

    with start(ready=False) as server:
        server.wait_for_log("models loaded ready=0 failed=1")
        assert "got a link, which weir serve --follow-links follows" in server.log()


def test_snapshot_of_the_hub_is_served(root: Path, tmp_path: Path, start: Start) -> None:
    cache = tmp_path / "hub"
    snapshot = stored_models.write_snapshot(cache, below("onnx", split(scale(2.0))))
    (root / "net").mkdir()
    (root / "net" / "1").symlink_to(snapshot / "onnx")
    (root / "stray" / "1").mkdir(parents=True)
    (root / "stray" / "1" / "model.onnx").symlink_to("/etc/passwd")

    flags = ("--follow-links", "--link-roots", f"{tmp_path / 'none'},{cache}")
    with start(*flags) as server, Client(server.target) as client:
        assert slope(client, "net") == 2.0
        log = server.log()

    assert "model=stray version=1 reason=model.onnx: expected a link into the repository" in log
    assert "passwd" not in log


def test_link_that_the_command_names_is_followed(tmp_path: Path) -> None:
    snapshot = stored_models.write_snapshot(tmp_path / "hub", split(scale(2.0)))

    with (
        running(snapshot / "model.onnx", tmp_path / "log", "--name", "net") as server,
        Client(server.target) as client,
    ):
        assert slope(client, "net") == 2.0


def test_links_beside_one_file_are_followed(tmp_path: Path) -> None:
    directory = write_split(tmp_path, "net")
    (directory / DATA).rename(directory / "renamed")
    (directory / DATA).symlink_to("renamed")

    with (
        running(directory / "model.onnx", tmp_path / "log", "--follow-links") as server,
        Client(server.target) as client,
    ):
        assert slope(client, "net") == 2.0


def test_external_parts_are_what_the_test_means() -> None:
    model = onnx.ModelProto.FromString(split(scale(2.0))["model.onnx"])
    branch = model.graph.node[2].attribute[0].g

    assert len(model.graph.initializer) == 3
    for weight in (*model.graph.initializer, *branch.initializer):
        assert weight.data_location == onnx.TensorProto.EXTERNAL and not weight.raw_data
