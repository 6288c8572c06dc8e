"""The networks of a real server's models, by a real gateway: layers, kernels, feature maps."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from tests.helpers import image_files, image_networks, onnx_models, pairs
from tests.helpers.gateway import gateway, gateway_process
from tests.helpers.waiting import wait_until
from tests.integration.conftest import write_picture_bundle
from tests.integration.harness import ANSWER_S, running
from weir.bundle import golden, writer
from weir.bundle.contract import Contract, Preprocessing, Tolerance
from weir.bundle.version_labels import write_labels
from weir.server.preprocessing import images

pytestmark = pytest.mark.timeout(300)

Array = NDArray[Any]
Bytes = NDArray[np.uint8]

TOKENS = {name: f"secret-of-{name}-0123456789" for name in ("reader", "other", "inferrer")}
TOKENS_FILE = f"""
[tokens.reader]
token = "{TOKENS["reader"]}"
calls = ["read"]

[tokens.other]
token = "{TOKENS["other"]}"
models = ["affine"]
calls = ["read", "infer"]

[tokens.inferrer]
token = "{TOKENS["inferrer"]}"
calls = ["infer"]
"""


@dataclass(frozen=True)
class Answer:
    code: int
    content: Any

    @property
    def error(self) -> tuple[int, str, str]:
        """Code, status and text of an error."""
        return self.code, self.content["status"], self.content["error"]


def call(address: str, path: str, picture: bytes | None = None, token: str = "") -> Answer:
    """One request, whose path is sent as it is; with a picture it is a POST."""
    connection = HTTPConnection(address, timeout=4 * ANSWER_S)
    with closing(connection):
        connection.putrequest("GET" if picture is None else "POST", path)
        if token:
            connection.putheader("Authorization", f"Bearer {token}")
        if picture is not None:
            connection.putheader("Content-Length", str(len(picture)))
        connection.endheaders(picture)
        response = connection.getresponse()
        return Answer(response.status, json.loads(response.read()))


def values(text: str, *shape: int) -> Bytes:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


def small_network(channels: int) -> bytes:
    """A picture of 8 x 8 x 3, a convolution, and how light its maps are."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        g (uint8[batch, 8, 8, 3] image) => (float[batch, {channels}] probabilities) {{
            moved = Transpose<perm = [0, 3, 1, 2]>(image)
            light = Cast<to = 1>(moved)
            maps = Conv(light, kernels)
            mean = GlobalAveragePool(maps)
            probabilities = Flatten(mean)
        }}"""
    )
    weights = np.random.default_rng(channels).normal(size=(channels, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "kernels"))
    return model.SerializeToString()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks") / "models"
    image_networks.write_lenet5(root, "lenet5")
    for channels in (4, 5):
        write_picture_bundle(root, "labelled", small_network(channels), "probabilities")
    write_labels(root / "labelled", {"stable": 1, "canary": 2})
    write_picture_bundle(root, "colours", onnx_models.colours(), "probabilities")
    onnx_models.write_plain(root, "affine", onnx_models.affine())
    onnx_models.write_plain(root, "plain", small_network(6), version=7)
    files = {
        "encoder.onnx": pairs.encoder(),
        "decoder.onnx": pairs.decoder(),
        "golden.npz": golden.encode(pairs.WHOLE_GOLDEN),
        "golden.encoder.npz": golden.encode(pairs.ENCODER_GOLDEN),
        "golden.decoder.npz": golden.encode(pairs.DECODER_GOLDEN),
    }
    writer.write(files, pairs.CONTRACT, root, "pair", None)
    secret = root.parent / "secret" / "1"
    secret.mkdir(parents=True)
    (secret / "model.onnx").write_bytes(small_network(7))
    return root


@pytest.fixture(scope="module")
def target(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(models, tmp_path_factory.mktemp("log") / "log") as server:
        yield server.target


@pytest.fixture(scope="module")
def address(target: str, models: Path) -> Iterator[str]:
    with gateway(target, "--models", str(models)) as found:
        yield found


def digit() -> tuple[bytes, Array]:
    """A picture file of a digit's size, and its pixels (28, 28, 1)."""
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    file = image_files.encode_pixels(pixels)
    return file, pixels[..., np.newaxis]


def test_layers_of_lenet5_are_the_published_ones_and_add_up(address: str) -> None:
    answer = call(address, "/page/models/lenet5/network")

    assert answer.code == 200
    assert (answer.content["model"], answer.content["version"]) == ("lenet5", "1")
    (graph,) = answer.content["graphs"]
    # LeCun et al. (1998), section II.B, in today's form: C1 has 156 parameters and 122,304
    # connections; 61,706 and 423,038 in all, without pooling.
    first = graph["layers"][0]
    assert first == {
        "name": "network.c1",
        "kind": "Conv",
        "output": [6, 28, 28],
        "parameters": 156,
        "connections": 122_304,
        "sharing": 784,
    }
    for key, total in (("parameters", 61_706), ("connections", 423_038)):
        assert graph[key] == sum(layer[key] for layer in graph["layers"]) == total
    assert graph["sharing"] == pytest.approx(423_038 / 61_706, abs=0.05)
    assert graph["uncounted"]["MaxPool"] == 2
    # The two poolings have 6 x 14 x 14 and 16 x 5 x 5 outputs, of 4 inputs each.
    pooling = 4 * (6 * 14 * 14 + 16 * 5 * 5)
    assert answer.content["trained"] == {"parameters": 61_706, "connections": 423_038 + pooling}


def test_an_encoder_decoder_has_two_graphs(address: str) -> None:
    whole = call(address, "/page/models/pair/network").content
    encoder = call(address, "/page/models/pair.encoder/network").content

    assert [graph["name"] for graph in whole["graphs"]] == ["encoder", "decoder"]
    assert [graph["name"] for graph in encoder["graphs"]] == ["encoder"]
    assert whole["trained"] is None


def test_kernels_are_the_weights(address: str) -> None:
    expected = image_networks.lenet5().network.get_parameter("c1.weight").detach().numpy()

    found = call(address, "/page/models/lenet5/kernels").content["convolution"]

    assert (found["layer"], found["shape"]) == ("network.c1", [6, 1, 5, 5])
    assert found["minimum"] == pytest.approx(expected.min())
    assert found["maximum"] == pytest.approx(expected.max())
    shown = values(found["values"], *found["shown"], 5, 5) / 127.5 - 1
    np.testing.assert_allclose(shown * found["largest"], expected, atol=found["largest"] / 255)


@pytest.mark.parametrize("name", ["affine", "colours", "pair"])
def test_a_model_without_convolutions_has_no_kernels(address: str, name: str) -> None:
    answer = call(address, f"/page/models/{name}/kernels")

    assert (answer.code, answer.content["convolution"]) == (200, None)


def test_feature_maps_are_what_torch_computes(address: str) -> None:
    file, pixels = digit()
    network, graph, _ = image_networks.lenet5()
    outputs: list[torch.Tensor] = []
    handle = network.get_submodule("s2").register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output[0])
    )
    with torch.no_grad():
        graph(torch.from_numpy(pixels[np.newaxis]))
    handle.remove()

    answer = call(address, "/page/models/lenet5/feature-maps", file)

    assert answer.code == 200
    picture = answer.content["picture"]
    np.testing.assert_array_equal(values(picture["values"], *picture["shape"]), pixels)
    blocks = answer.content["blocks"]
    assert [(block["layer"], block["operator"]) for block in blocks] == [
        ("network.c1", "Relu"),
        ("", "MaxPool"),
        ("network.c3", "Relu"),
        ("", "MaxPool"),
    ]
    assert [block["shape"] for block in blocks] == [
        [6, 28, 28],
        [6, 14, 14],
        [16, 10, 10],
        [16, 5, 5],
    ]
    (expected,) = outputs
    ranges = np.array(blocks[1]["ranges"])[:, :, np.newaxis, np.newaxis]
    low, span = ranges[:, 0], ranges[:, 1] - ranges[:, 0]
    shown = values(blocks[1]["values"], *blocks[1]["shown"]) / 255 * span + low
    np.testing.assert_allclose(shown, expected.numpy(), atol=float(span.max()) / 255)


def test_a_photograph_is_cut_as_the_server_does(address: str, models: Path) -> None:
    file = image_files.encode_pixels(
        np.random.default_rng(2).integers(0, 256, (40, 30, 3), np.uint8)
    )
    contract = json.loads((models / "labelled" / "1" / "model.json").read_text())
    expected = images.read_encoded(file, Preprocessing.model_validate(contract["preprocessing"]))

    picture = call(address, "/page/models/labelled/feature-maps", file).content["picture"]

    np.testing.assert_array_equal(values(picture["values"], *picture["shape"]), expected)


@pytest.mark.parametrize(
    ("name", "picture", "expected"),
    [
        ("lenet5", b"no picture", (400, "INVALID_ARGUMENT", "expected JPEG or PNG")),
        ("lenet5", image_files.PNG[:60], (400, "INVALID_ARGUMENT", "PNG is damaged or cut short")),
        ("lenet5", b"", (400, "INVALID_ARGUMENT", "expected a PNG or a JPEG, got nothing")),
        ("affine", image_files.PNG, (400, "FAILED_PRECONDITION", "takes no pictures")),
        ("plain", image_files.PNG, (400, "FAILED_PRECONDITION", "takes no pictures")),
        ("pair", image_files.PNG, (400, "FAILED_PRECONDITION", "takes no pictures")),
        ("no-such", image_files.PNG, (404, "NOT_FOUND", "unknown model 'no-such'")),
    ],
    ids=["text", "cut short", "empty", "plain", "plain network", "pair", "unknown"],
)
def test_a_picture_that_cannot_be_shown_is_an_error(
    address: str, name: str, picture: bytes, expected: tuple[int, str, str]
) -> None:
    answer = call(address, f"/page/models/{name}/feature-maps", picture)

    assert answer.error[:2] == expected[:2]
    assert expected[2] in answer.error[2]


def test_a_model_without_blocks_has_no_maps(address: str) -> None:
    answer = call(address, "/page/models/colours/feature-maps", image_files.PNG)

    assert (answer.code, answer.content["blocks"]) == (200, [])


def test_a_plain_model_is_shown(address: str) -> None:
    answer = call(address, "/page/models/plain/kernels")

    assert answer.content["version"] == "7"
    assert answer.content["convolution"]["shape"] == [6, 3, 3, 3]


@pytest.mark.parametrize(
    ("query", "version", "kernels"),
    [
        ("", "1", 4),
        ("?version=2", "2", 5),
        ("?version=canary", "2", 5),
        ("?version=stable", "1", 4),
    ],
)
def test_the_version_that_answers_is_shown(
    address: str, query: str, version: str, kernels: int
) -> None:
    answer = call(address, f"/page/models/labelled/kernels{query}")

    assert answer.content["version"] == version
    assert answer.content["convolution"]["shape"][0] == kernels


@pytest.mark.parametrize("version", ["3", "no-such", "-1", "%20", "1%2f..%2f2"])
def test_a_version_that_is_not_served_is_an_error(address: str, version: str) -> None:
    answer = call(address, f"/page/models/labelled/network?version={version}")

    assert answer.code in (400, 404)
    assert "graphs" not in answer.content


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2e%2e",
        "..%2fsecret",
        "..%2f..%2fetc",
        "%2e%2e%2fsecret",
        "..%5csecret",
        "lenet5%2f..%2f..%2fsecret",
        "/etc",
        "%2fetc",
        "secret%00",
        "models%2flenet5",
        ".",
        "%ff%fe",
    ],
)
@pytest.mark.parametrize("view", ["network", "kernels"])
def test_a_name_never_leads_outside_the_folder(address: str, name: str, view: str) -> None:
    answer = call(address, f"/page/models/{name}/{view}")

    assert answer.code in (400, 404)
    assert set(answer.content) == {"error", "status"}


@pytest.fixture(scope="module")
def guarded(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway of a server with tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens = folder / "tokens.toml"
    tokens.touch(mode=0o600)
    tokens.write_text(TOKENS_FILE)
    flags = ("--tokens-file", str(tokens), "--insecure")
    with running(models, folder / "log", *flags, ready=False) as server:
        server.wait_for_log("server ready")
        with gateway(server.target, "--models", str(models)) as found:
            yield found


@pytest.mark.parametrize(
    ("holder", "code"),
    [("", 401), ("wrong", 401), ("other", 403), ("inferrer", 403), ("reader", 200)],
)
@pytest.mark.parametrize("view", ["network", "kernels", "feature-maps"])
def test_tokens_protect_the_files(guarded: str, view: str, holder: str, code: int) -> None:
    picture = digit()[0] if view == "feature-maps" else None
    if holder == "other":
        assert call(guarded, "/page/models/affine/network", token=TOKENS["other"]).code == 200

    answer = call(guarded, f"/page/models/lenet5/{view}", picture, TOKENS.get(holder, holder))

    assert answer.code == code
    assert ("error" in answer.content) == (code != 200)


@pytest.mark.parametrize("view", ["network", "kernels", "feature-maps"])
def test_without_a_folder_the_error_says_how_to_give_it(target: str, view: str) -> None:
    picture = digit()[0] if view == "feature-maps" else None
    with gateway(target) as address:
        answer = call(address, f"/page/models/lenet5/{view}", picture)

    assert answer.error[:2] == (501, "UNIMPLEMENTED")
    assert "--models PATH" in answer.error[2]


def test_without_the_page_there_are_no_networks(target: str, models: Path) -> None:
    with gateway(target, "--models", str(models), "--no-page") as address:
        assert call(address, "/page/models/lenet5/network").code == 404


@pytest.mark.parametrize(
    ("source", "name", "flags"),
    [
        ("labelled", "labelled", ()),
        ("labelled/2", "labelled", ()),
        ("labelled/2", "mine", ("--name", "mine")),
        ("plain/7/model.onnx", "plain", ()),
        ("alone.onnx", "alone", ()),
        ("alone.onnx", "mine", ("--name", "mine")),
    ],
    ids=["model", "bundle", "named bundle", "file", "other file", "named file"],
)
def test_what_a_server_serves_is_shown(
    models: Path, tmp_path: Path, source: str, name: str, flags: tuple[str, ...]
) -> None:
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "models" / "alone.onnx").write_bytes(small_network(6))
    served = tmp_path / "models" / source
    with (
        running(served, tmp_path / "log", *flags) as server,
        gateway(server.target, "--models", str(served)) as address,
    ):
        answer = call(address, f"/page/models/{name}/kernels")

    assert answer.code == 200, answer.content
    assert answer.content["convolution"]["shape"][1:] == [3, 3, 3]


def test_files_that_are_not_the_servers_are_not_shown(target: str, tmp_path: Path) -> None:
    onnx_models.write_plain(tmp_path, "lenet5", small_network(4))
    with gateway(target, "--models", str(tmp_path)) as address:
        other = call(address, "/page/models/lenet5/network")
        absent = call(address, "/page/models/affine/network")

    assert other.error[:2] == (400, "FAILED_PRECONDITION")
    assert "not those that the server serves" in other.error[2]
    assert absent.error[:2] == (404, "NOT_FOUND")
    for answer in (other, absent):
        assert str(tmp_path) not in answer.error[2]


def test_a_broken_bundle_is_an_error_without_the_operators_path(
    models: Path, target: str, tmp_path: Path
) -> None:
    copied = tmp_path / "models"
    shutil.copytree(models, copied)
    (copied / "lenet5" / "1" / "labels.txt").write_text("changed\n")
    with gateway(target, "--models", str(copied)) as address:
        answer = call(address, "/page/models/lenet5/network")

    assert answer.error[:2] == (400, "FAILED_PRECONDITION")
    assert "labels.txt: expected SHA-256" in answer.error[2]
    assert str(tmp_path) not in answer.error[2]


def test_changed_files_are_read_again(models: Path, target: str, tmp_path: Path) -> None:
    copied = tmp_path / "models"
    shutil.copytree(models / "plain", copied / "plain")
    with gateway(target, "--models", str(copied)) as address:
        before = call(address, "/page/models/plain/kernels").content["convolution"]
        replaced = copied / "plain" / "7" / "model.onnx"
        replaced.unlink()
        replaced.write_bytes(small_network(8))
        after = call(address, "/page/models/plain/kernels").content["convolution"]

    assert (before["shape"][0], after["shape"][0]) == (6, 8)


def test_an_inspection_that_is_asked_for_again_starts_no_process(target: str, models: Path) -> None:
    with gateway_process(target, "--models", str(models)) as (address, process):
        first = call(address, "/page/models/plain/network")
        started = children_started(process.pid)
        with ThreadPoolExecutor(4) as pool:
            again = list(pool.map(lambda _: call(address, "/page/models/plain/network"), range(8)))

        assert all(each == first for each in again)
        assert children_started(process.pid) == started


def children_started(pid: int) -> float:
    """Ticks of the processor that a process's ended children have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[13:15]))


def write_unserved(root: Path, node: str) -> Path:
    """A repository with another graph for `labelled`, which the server does not have.

    Its picture goes through a node, from `light` to `moved`, before the convolution.
    """
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 18]>
        g (uint8[batch, 8, 8, 3] image) => (float[batch, 3, 6, 6] probabilities)
        <int64[4] sizes = {{1, 1, 20000, 20000}}, int64 most = {{9000000000000000000}},
         bool yes = {{1}}>
        {{
            light = Cast<to = 1>(image)
            {node}
            probabilities = Conv(moved, kernels)
        }}"""
    )
    kernels = np.zeros((3, 8, 1, 1), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernels, "kernels"))
    contract = Contract(
        task="image-classification",
        architecture="unserved",
        preprocessing=Preprocessing(
            input="image", height=8, width=8, channels=3, resize="stretch", output="probabilities"
        ),
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    writer.write({"model.onnx": model.SerializeToString()}, contract, root, "labelled", None)
    return root


TILES = "moved = Tile(light, sizes)"
"""77 GB of numbers for a picture."""
ENDLESS = """moved = Loop(most, yes, light) <body = b (int64 step, bool on, float[1, 8, 8, 3] h)
    => (bool on1, float[1, 8, 8, 3] h1) { on1 = Identity(on) h1 = Neg(h) }>"""


def test_a_graph_that_takes_all_memory_does_not_harm_the_gateway(
    target: str, tmp_path: Path
) -> None:
    folder = write_unserved(tmp_path, TILES)
    with gateway_process(target, "--models", str(folder)) as (address, process):
        before = memory_bytes(process.pid)
        answer = call(address, "/page/models/labelled/feature-maps", image_files.PNG)

        assert answer.error[:2] == (400, "FAILED_PRECONDITION")
        assert "does not run the graph" in answer.error[2]
        assert call(address, "/page/models/labelled/network").code == 200
        assert memory_bytes(process.pid) < before + (64 << 20)


def memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def endless_inspection(
    target: str, folder: Path, exit_code: int
) -> Iterator[tuple[socket.socket, subprocess.Popen[str], int]]:
    """A connection that waits for maps that never come, the gateway, and its child."""
    write_unserved(folder, ENDLESS)
    with gateway_process(target, "--models", str(folder), exit_code=exit_code) as (
        address,
        process,
    ):
        host, _, port = address.rpartition(":")
        head = "POST /page/models/labelled/feature-maps HTTP/1.1\r\nHost: gateway\r\n"
        length = f"Content-Length: {len(image_files.PNG)}\r\n\r\n"
        with socket.create_connection((host, int(port)), ANSWER_S) as connection:
            connection.sendall((head + length).encode() + image_files.PNG)
            wait_until(lambda: bool(children(process.pid)), "no child was started")
            yield connection, process, children(process.pid)[0]


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_an_inspection_ends_when_its_caller_leaves(target: str, tmp_path: Path) -> None:
    with endless_inspection(target, tmp_path, 0) as (connection, process, child):
        connection.close()

        wait_until(lambda: not is_alive(child), "the child still runs")
        assert process.poll() is None


def test_an_inspection_ends_with_the_gateway(target: str, tmp_path: Path) -> None:
    with endless_inspection(target, tmp_path, -signal.SIGKILL) as (_, process, child):
        process.kill()
        process.wait()

        wait_until(lambda: not is_alive(child), "the child still runs")


def test_health_is_answered_while_an_inspection_runs(target: str, tmp_path: Path) -> None:
    with endless_inspection(target, tmp_path, 0) as (connection, _, child):
        host, port = connection.getpeername()
        probe = HTTPConnection(host, port, timeout=ANSWER_S)
        with closing(probe):
            for _ in range(20):
                probe.request("GET", "/v2/health/live")
                assert probe.getresponse().read() is not None
        assert is_alive(child)
        connection.close()
        wait_until(lambda: not is_alive(child), "the child still runs")


def test_callers_beyond_those_that_may_wait_are_refused(target: str, tmp_path: Path) -> None:
    with endless_inspection(target, tmp_path, 0) as (connection, _, _):
        host, port = connection.getpeername()
        answers: list[Answer] = []
        refused = threading.Event()

        def ask() -> None:
            try:
                answers.append(call(f"{host}:{port}", "/page/models/labelled/network"))
            except OSError:
                return
            refused.set()

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(24)]
        for thread in threads:
            thread.start()
        assert refused.wait(4 * ANSWER_S)
        assert answers[0].error[:2] == (429, "RESOURCE_EXHAUSTED")
        connection.close()
        for thread in threads:
            thread.join(4 * ANSWER_S)
        assert {answer.code for answer in answers} == {200, 429}
