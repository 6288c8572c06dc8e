"""Files of torch's exporter, imported by `weir import` and served with their own answers."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import tritonclient.grpc as triton
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn

import weir
from tests.helpers import bert
from tests.integration.harness import (
    ANSWER_S,
    Array,
    Client,
    Server,
    failure,
    request,
    running,
    tensor,
)
from tests.integration.triton_client import as_input
from weir.export.onnx_import.__main__ import main

# What torch's exporter warns of is between torch and Python.
pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-5
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 16
DYNAMIC = torch.export.Dim.DYNAMIC


class Convolutional(nn.Module):
    """Logits (B, 3) of pictures (B, 3, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(3, 8, 3)
        self.normalise = nn.BatchNorm2d(8)
        self.project = nn.Linear(8, 3)

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = self.normalise(self.convolve(pixel_values)).relu().mean((2, 3))
        logits: Tensor = self.project(features)
        return logits


class Recurrent(nn.Module):
    """Logits (B, 4) at the last step of each row, and states (B, T, 6) of all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.recur = nn.GRU(8, 6, batch_first=True)
        self.project = nn.Linear(6, 4)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        states, _ = self.recur(self.embed(tokens))
        last = (lengths - 1)[:, None, None].expand(-1, 1, 6)
        return self.project(states.gather(1, last).squeeze(1)), states


def rows(count: int) -> Array:
    generator = np.random.default_rng(count)
    return generator.normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as `torch.onnx.export` writes them by default: the weights beside the graph."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    torch.onnx.export(
        Convolutional().eval(),
        (torch.zeros(2, 3, SIDE, SIDE),),
        folder / "pictures.onnx",
        input_names=["pixel_values"],
        output_names=["logits"],
        dynamic_shapes=({0: DYNAMIC},),
        verbose=False,
    )
    torch.onnx.export(
        Recurrent().eval(),
        (torch.zeros(3, 7, dtype=torch.int64), torch.tensor([7, 5, 2])),
        folder / "tokens.onnx",
        input_names=["tokens", "lengths"],
        output_names=["logits", "states"],
        dynamic_shapes=({0: DYNAMIC, 1: DYNAMIC}, {0: DYNAMIC}),
        verbose=False,
    )
    (folder / "texts").mkdir()
    torch.onnx.export(
        bert.random_bert(bert.write_tokenizer(folder / "texts" / "tokenizer.json")),
        # One tensor in three places would be one input to torch.
        tuple(torch.ones(2, 9, dtype=torch.int64) for _ in range(3)),
        folder / "texts" / "model.onnx",
        input_names=["input_ids", "attention_mask", "token_type_ids"],
        output_names=["logits"],
        dynamic_shapes=({0: DYNAMIC, 1: DYNAMIC},) * 3,
        verbose=False,
    )
    assert (folder / "pictures.onnx.data").exists()
    (folder / "classes.txt").write_text("cat\ndog\nowl\n")
    np.savez(folder / "rows.npz", pixel_values=rows(96))
    return folder


@pytest.fixture(scope="module")
def models(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    commands: list[list[object]] = [
        ["pictures.onnx", "--name", "tensors"],
        [
            "pictures.onnx", "--image", "pixel_values", "--mean", ",".join(map(str, MEAN)),
            "--std", ",".join(map(str, STD)), "--labels", files / "classes.txt",
        ],
        [
            "pictures.onnx", "--name", "int8", "--precision", "int8",
            "--calibration", files / "rows.npz", "--max-accuracy-drop", 10,
        ],
        ["tokens.onnx", "--lengths", "lengths"],
        ["texts/model.onnx", "--tokenizer", files / "texts" / "tokenizer.json"],
    ]  # fmt: skip
    for file, *options in commands:
        assert main([str(files / str(file)), "--to", str(models), *map(str, options)]) == 0
    return models


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(models, tmp_path_factory.mktemp("log") / "log") as server:
        yield server


def own_answer(file: Path, **inputs: Any) -> list[Any]:
    """The answer of the file itself, without anything of ours."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def test_stock_client_gets_the_answer_of_the_file(server: Server, files: Path) -> None:
    with triton.InferenceServerClient(server.target) as client:
        answer = client.infer("tensors", [as_input("pixel_values", rows(5))])

    (expected,) = own_answer(files / "pictures.onnx", pixel_values=rows(5))
    np.testing.assert_allclose(answer.as_numpy("logits"), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_integers_give_nearly_the_answer_of_the_file(server: Server, files: Path) -> None:
    with Client(server.target) as client:
        answer = client.infer("int8", tensor("pixel_values", rows(5)))

    (expected,) = own_answer(files / "pictures.onnx", pixel_values=rows(5))
    gap = np.abs(answer["logits"] - expected).max()
    assert 0 < gap < 0.1 * np.ptp(expected)


def test_rows_of_other_lengths_share_a_batch(server: Server, files: Path) -> None:
    generator = np.random.default_rng(1)
    sequences = [generator.integers(0, 50, (1, length)) for length in (9, 1, 4, 17)]

    with Client(server.target) as client:
        calls = [
            client.infer("tokens", tensor("tokens", row), tensor("lengths", np.array([row.size])))
            for row in sequences
        ]
        widest = np.zeros((4, 17), np.int64)
        for number, row in enumerate(sequences):
            widest[number, : row.size] = row[0]
        lengths = np.array([row.size for row in sequences])
        together = client.infer("tokens", tensor("tokens", widest), tensor("lengths", lengths))

    for number, (row, answer) in enumerate(zip(sequences, calls, strict=True)):
        logits, states = own_answer(files / "tokens.onnx", tokens=row, lengths=np.array([row.size]))
        for got in (answer["logits"], together["logits"][number : number + 1]):
            np.testing.assert_allclose(got, logits, rtol=TOLERANCE, atol=TOLERANCE)
        assert answer["states"].shape == states.shape
        np.testing.assert_allclose(answer["states"], states, rtol=TOLERANCE, atol=TOLERANCE)


def test_pictures_are_classified_as_the_file_does(server: Server, files: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (24, 20, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")

    with Client(server.target) as client:
        response = client.classify("pictures", encoded.getvalue(), top_k=3).result()

    resized = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    values = ((resized / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    (logits,) = own_answer(files / "pictures.onnx", pixel_values=values)
    probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum()
    classes = response.results[0].classes
    assert [each.index for each in classes] == np.argsort(-logits[0]).tolist()
    assert [each.label for each in classes] == [
        ("cat", "dog", "owl")[each.index] for each in classes
    ]
    np.testing.assert_allclose(
        [each.probability for each in classes],
        probabilities[[each.index for each in classes]],
        rtol=1e-4,
    )


def test_texts_are_classified_as_the_file_does(server: Server, files: Path) -> None:
    with weir.Client(server.target, timeout_s=ANSWER_S) as client:
        answers = client.classify_text("texts", bert.TEXTS)

    tokenizer = Tokenizer.from_file(str(files / "texts" / "tokenizer.json"))
    for text, answer in zip(bert.TEXTS, answers, strict=True):
        encoded = tokenizer.encode(text)
        (logits,) = own_answer(
            files / "texts" / "model.onnx",
            input_ids=np.array([encoded.ids]),
            attention_mask=np.array([encoded.attention_mask]),
            token_type_ids=np.array([encoded.type_ids]),
        )
        scores = np.exp(logits[0]) / np.exp(logits[0]).sum()
        got = [each.score for each in sorted(answer.classes, key=lambda each: each.index)]
        np.testing.assert_allclose(got, scores, atol=TOLERANCE)


def test_value_beyond_the_table_is_refused_before_it_runs(server: Server) -> None:
    with Client(server.target) as client:
        failed = failure(client.send(request("tokens", tensor("tokens", np.array([[50]])))))

    assert "expected values from 0 to 49, got 50" in str(failed.details())
