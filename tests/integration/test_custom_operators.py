"""Graphs with operators of onnxruntime-extensions: texts in, answers out, by a flag."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers import bert
from tests.integration.harness import ANSWER_S, Array, Client, Server, running, tensor
from weir import Client as Caller

pytestmark = pytest.mark.skipif(
    find_spec("onnxruntime_extensions") is None, reason="onnxruntime-extensions is not installed"
)

FLAGS = ("--custom-operators", "onnxruntime-extensions")
WEIGHTS = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)


def text_classifier() -> bytes:
    """`text` STRING [1] → `ids` INT64 [T] of BERT's tokenizer, and `scores`, their mean weights."""
    entries = sorted(
        bert.trained_tokenizer().get_vocab().items(), key=lambda entry_and_id: entry_and_id[1]
    )
    vocabulary = "".join(f"{entry}\n" for entry, _ in entries)
    nodes = [
        helper.make_node(
            "BertTokenizer",
            ["text"],
            ["ids", "types", "mask"],
            domain="ai.onnx.contrib",
            vocab_file=vocabulary,
            do_lower_case=1,
            strip_accents=1,
        ),
        helper.make_node("Gather", ["weights", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "first"], ["scores"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("text", TensorProto.STRING, [1])],
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [3]),
        ],
        [
            numpy_helper.from_array(WEIGHTS, "weights"),
            numpy_helper.from_array(np.array([0]), "first"),
        ],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.contrib", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def publish(models: Path, name: str) -> None:
    version = models / name / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(text_classifier())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("extensions") / "models"


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    publish(models, "classifier")
    explicit = ("--model-control", "explicit")
    with running(models, models.parent / "server.log", *FLAGS, *explicit) as started:
        yield started


def answers(server: Server, name: str, text: str) -> dict[str, Array]:
    with Client(server.target) as client:
        return dict(client.infer(name, tensor("text", np.array([text.encode()], object))))


@pytest.mark.parametrize("text", bert.TEXTS)
def test_text_is_tokenized_and_scored_by_the_graph(server: Server, text: str) -> None:
    found = answers(server, "classifier", text)

    ids = bert.trained_tokenizer().encode(text).ids
    assert found["ids"].tolist() == ids
    np.testing.assert_allclose(found["scores"], WEIGHTS[ids].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_version_that_is_loaded_later_has_the_operators_in_its_sandbox_too(
    server: Server, models: Path
) -> None:
    publish(models, "later")

    with Caller(server.target, timeout_s=ANSWER_S) as caller:
        caller.load("later")

    assert len(answers(server, "later", "Why ?")["ids"]) == 4


def test_server_without_the_library_names_the_flag(tmp_path: Path) -> None:
    publish(tmp_path / "models", "classifier")

    with running(tmp_path / "models", tmp_path / "server.log", ready=False) as server:
        server.wait_for_log(
            "operator BertTokenizer of ai.onnx.contrib: expected a server with "
            "--custom-operators onnxruntime-extensions, got one without"
        )
