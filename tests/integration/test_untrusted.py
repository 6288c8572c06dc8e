"""Rows E of the catalogue of faults: untrusted model files, given to a real server.

Rule of every row: the model fails with a reason that names the file or value, and no path of the
machine. The others are served, and the log has one line about it and no traceback.
"""

import random
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.helpers import onnx_models
from tests.integration import bad_models
from tests.integration.bad_models import BAD, Bad
from tests.integration.harness import Client, Server, running, tensor
from weir.protocol import inference_pb2 as pb

X = np.array([[0, 1, 2, 3]], np.float32)
GOOD = tensor("x", X)


def index(client: Client) -> dict[str, pb.RepositoryIndexResponse.ModelIndex]:
    response = client.ask(
        "RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse
    )
    return {entry.name: entry for entry in response.models}


def expect_right_answer(client: Client) -> None:
    for model in ("good", "good_plain"):
        np.testing.assert_array_equal(client.infer(model, GOOD)["y"], 2 * X + 1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("untrusted") / "models"
    root.mkdir()
    bad_models.publish(root, "good")
    onnx_models.write_plain(root, "good_plain", onnx_models.affine())
    bad_models.write_all(root)
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with running(root, root.parent / "log") as server:
        yield server
        assert server.process.poll() is None, f"the server died:\n{server.log()}"
        assert "Traceback" not in server.log()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client
        expect_right_answer(client)


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.row}-{bad.name}" for bad in BAD])
def test_bad_model_fails_with_a_reason(
    client: Client, server: Server, root: Path, bad: Bad
) -> None:
    entry = index(client)[bad.name]

    assert entry.state == "UNAVAILABLE"
    assert bad.says in entry.reason
    assert str(root.parent) not in entry.reason
    assert all(line.isprintable() for line in entry.reason.split("\n"))
    assert len(entry.reason) < 2100
    lines = [line for line in server.log().splitlines() if f" model={bad.name} " in line]
    (failure,) = [line for line in lines if " INFO " not in line]
    assert "version load failed" in failure


@pytest.mark.parametrize("row", ["E08"])
def test_no_memory_is_taken_for_what_a_file_only_claims(server: Server, row: str) -> None:
    """2^50 bytes of weights, and labels of two gigabytes that take no room on the disk."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("this system does not say how much memory a process took")

    (peak_kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())

    assert int(peak_kib) < 1_000_000


def write_damaged(root: Path, graphs: Mapping[str, bytes], flips: int) -> None:
    """Each graph as a plain model, cut off at each 64th byte, and with single bits flipped."""
    chance = random.Random(7)
    for name, graph in graphs.items():
        for size in range(0, len(graph), 64):
            onnx_models.write_plain(root, f"{name}_cut_{size}", graph[:size])
        for place in chance.sample(range(8 * len(graph)), flips):
            damaged = bytearray(graph)
            damaged[place // 8] ^= 1 << place % 8
            onnx_models.write_plain(root, f"{name}_bit_{place}", bytes(damaged))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("damaged") / "models"
    root.mkdir()
    bad_models.publish(root, "good")
    onnx_models.write_plain(root, "good_plain", onnx_models.affine())
    graphs = {"fingerprint": onnx_models.fingerprint(1), "colours": onnx_models.colours()}
    write_damaged(root, graphs, flips=300)
    with running(root, root.parent / "log") as server:
        yield server


@pytest.mark.parametrize("row", ["E01", "E02", "E14"])
def test_plain_models_cut_short_or_damaged_leave_the_server_whole(
    damaged: Server, row: str
) -> None:
    """A plain model has no hash: a flipped bit in its weights may be served, and nothing else."""
    with Client(damaged.target) as client:
        entries = index(client)
        expect_right_answer(client)

    assert len(entries) > 600
    for name, entry in entries.items():
        is_whole = entry.state == "READY" and not entry.reason
        assert is_whole or (entry.state == "UNAVAILABLE" and entry.reason), name
        assert "_cut_" not in name or entry.state == "UNAVAILABLE", name
        assert "internal error" not in entry.reason, name
    assert "Traceback" not in damaged.log()


@pytest.mark.parametrize("row", ["E12"])
def test_models_whose_files_are_deleted_are_served_from_memory(tmp_path: Path, row: str) -> None:
    root = tmp_path / "models"
    root.mkdir()
    bad_models.publish(root, "good")
    onnx_models.write_plain(root, "good_plain", onnx_models.affine())

    with running(root, tmp_path / "log") as server, Client(server.target) as client:
        expect_right_answer(client)
        shutil.rmtree(root)
        for _ in range(100):
            expect_right_answer(client)
        states = {entry.name: entry.state for entry in index(client).values()}

    assert states == {"good": "READY", "good_plain": "READY"}
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("row", ["E13"])
def test_directories_that_are_no_versions_are_ignored(tmp_path: Path, row: str) -> None:
    root = tmp_path / "models"
    root.mkdir()
    bad_models.publish(root, "good")
    onnx_models.write_plain(root, "good_plain", onnx_models.affine())
    for name in ("01", "abc", "-1", "1 ", "9" * 19, "2\nmodel ready"):
        shutil.copytree(root / "good_plain" / "1", root / "good_plain" / name)

    with running(root, tmp_path / "log") as server, Client(server.target) as client:
        expect_right_answer(client)
        versions = [(entry.name, entry.version) for entry in index(client).values()]

    assert versions == [("good", "1"), ("good_plain", "1")]
    assert all(" weir" not in line or line[:4].isdigit() for line in server.log().splitlines())


@pytest.mark.parametrize("row", ["E14"])
def test_names_that_would_forge_a_line_are_served_and_forge_none(tmp_path: Path, row: str) -> None:
    name = 'x"} 1\nweir_forged_total 1\n2026-01-01 INFO forged: model ready \x1b[31m'
    value = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], ["y"], name=name)], name, [value], [output]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    model.doc_string = name
    model.metadata_props.add(key=name, value=name)
    root = tmp_path / "models"
    root.mkdir()
    onnx_models.write_plain(root, "forger", model.SerializeToString())

    with running(root, tmp_path / "log") as server, Client(server.target) as client:
        np.testing.assert_array_equal(client.infer("forger", tensor(name, X))["y"], X)
        error = client.send(pb.ModelInferRequest(model_name="forger")).exception()
        page, log = server.metrics_text(), server.log()

    assert error.details().isprintable()
    assert "forged" not in page
    assert not any(line.startswith("2026-01-01 INFO forged") for line in log.splitlines())
    assert "\x1b" not in log
