"""A server on the provider: reload, lack of memory, and the answers of an encoder-decoder."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.helpers import onnx_models, pairs
from tests.integration.harness import Client, Server, failure, request, running, tensor
from weir.bundle import writer
from weir.bundle.golden import encode

X = np.arange(8, dtype=np.float32).reshape(2, 4)
POLL = ("--model-control", "poll", "--poll-interval-s", "0.05")
TOO_LARGE = 40_000
"""Cubed and in bytes more than any memory, and any address space, has."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("served") / "models"
    onnx_models.write_plain(models, "line", onnx_models.affine(slope=2.0))
    # Without it, a plain version that appears while the server runs may be half a version.
    (models / "line" / "config.pbtxt").write_text("max_batch_size: 8")
    onnx_models.write_plain(models, "cube", onnx_models.cube())
    files = {
        "encoder.onnx": pairs.encoder(),
        "decoder.onnx": pairs.decoder(),
        "golden.npz": encode(pairs.WHOLE_GOLDEN),
        "golden.encoder.npz": encode(pairs.ENCODER_GOLDEN),
        "golden.decoder.npz": encode(pairs.DECODER_GOLDEN),
    }
    writer.write(files, pairs.CONTRACT, models, "pair")
    return models


@pytest.fixture(scope="module")
def server(provider: str, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("logs") / "log"
    with running(root, log, "--provider", provider, *POLL) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


def test_every_model_is_on_the_provider(server: Server, provider: str) -> None:
    on_it = server.metric("weir_model_provider", provider=provider)

    assert on_it == server.metric("weir_model_provider") == 5
    assert "models loaded ready=5 failed=0" in server.log()


def test_encoder_decoder_answers_its_golden_sources(client: Client) -> None:
    inputs = [tensor(name, array) for name, array in pairs.WHOLE_GOLDEN.inputs.items()]

    answers = client.infer("pair", *inputs)

    for name, expected in pairs.WHOLE_GOLDEN.outputs.items():
        np.testing.assert_array_equal(answers[name], expected)


def test_lack_of_memory_is_resource_exhausted_and_harms_no_other(client: Client) -> None:
    large = tensor("x", np.ones((1, TOO_LARGE), np.float32))

    error = failure(client.send(request("cube", large)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.details()
    for model, expected in (("cube", [3, 7]), ("line", 2 * X + 1)):
        np.testing.assert_array_equal(client.infer(model, tensor("x", X))["y"], expected)


def test_reload_serves_the_new_version_on_the_provider(
    client: Client, server: Server, root: Path, provider: str
) -> None:
    before = client.infer("line", tensor("x", X))["y"]

    onnx_models.write_plain(root, "line", onnx_models.affine(slope=3.0), version=2)
    server.wait_for_metric(1, "weir_model_provider", model="line", version="2", provider=provider)
    server.wait_for_log("version unloaded model=line version=1")

    np.testing.assert_array_equal(before, 2 * X + 1)
    np.testing.assert_array_equal(client.infer("line", tensor("x", X))["y"], 3 * X + 1)
