"""Small models of every kind, two of them broken, and a load that moves every metric."""

from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import numpy as np

import weir
from tests.helpers import onnx_models, pairs, text_models
from weir.bundle import writer
from weir.bundle.contract import Batching, Contract, Preprocessing, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode

SETTINGS = """
# Waits for rows that never arrive: its queue fills up and its requests miss their deadline.
[models.patient]
max_batch_rows = 3
max_queue_rows = 2
max_queue_delay_s = 86400
"""

_EXACTLY = Tolerance(absolute=0.0, relative=0.0)
_LENGTHS = ("cat", "the cat sat", "the the the", "sat the cat the cat")


def publish(models: Path) -> None:
    """Write a model repository: six models that load, `broken` and `mismatch`."""
    for name in ("affine", "patient"):
        onnx_models.write_plain(models, name, onnx_models.affine())
    graph = onnx_models.colours()
    files = {"model.onnx": graph, GOLDEN: encode(onnx_models.recorded(graph)), "labels.txt": _RGB}
    writer.write(files, _COLOURS, models, "colours")
    text_models.write_tagger(models)
    text_models.write_classifier(models)
    files = {
        "encoder.onnx": pairs.encoder(),
        "decoder.onnx": pairs.decoder(),
        "golden.npz": encode(pairs.WHOLE_GOLDEN),
        "golden.encoder.npz": encode(pairs.ENCODER_GOLDEN),
        "golden.decoder.npz": encode(pairs.DECODER_GOLDEN),
        **pairs.VOCABULARIES,
    }
    writer.write(files, pairs.speaking(pairs.CONTRACT), models, "speller")
    data = bytearray((_affine(models, "broken", offset=1) / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (models / "broken" / "1" / "model.onnx").write_bytes(data)
    _affine(models, "mismatch", offset=3)


_RGB = b"red\ngreen\nblue\n"
_COLOURS = Contract(
    task="image-classification",
    architecture="colours",
    labels={"probabilities": "labels.txt"},
    preprocessing=Preprocessing(
        input="image", height=8, width=8, channels=3, resize="stretch", output="probabilities"
    ),
    tolerance=_EXACTLY,
)


def _affine(models: Path, name: str, offset: int) -> Path:
    """Write a bundle of `y = 2x + 1` whose recorded outputs are `2x + offset`."""
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    files = {
        "model.onnx": onnx_models.affine(),
        GOLDEN: encode(Golden({"x": x}, {"y": 2 * x + offset})),
    }
    contract = Contract(
        task="other", architecture="affine", batching=Batching(max_rows=8), tolerance=_EXACTLY
    )
    return writer.write(files, contract, models, name)


def load(target: str) -> None:
    """Send a few hundred valid requests, and every kind of failing one."""
    with weir.Client(target) as client:
        for _ in range(20):
            _valid(client)
        _failing(client)
        _overloading(client)


def _valid(client: weir.Client) -> None:
    answers: list[Future[weir.Answer]] = [
        client.submit("affine", {"x": np.ones((rows, 4), np.float32)}) for rows in (1, 2, 5)
    ]
    client.classify("colours", [np.zeros((8, 8, 3), np.uint8)])
    for text in _LENGTHS:
        client.tag("tagger", [text])
    client.tag("tagger", list(_LENGTHS))
    client.classify_text("classifier", ["the cat"])
    client.generate("speller", "abc").result()
    client.generate("speller", "a").result()
    for answer in answers:
        answer.result()


def _failing(client: weir.Client) -> None:
    x = {"x": np.ones((1, 4), np.float32)}
    with suppress(weir.InvalidArgument):
        client.infer("affine", {"y": x["x"]})
    with suppress(weir.InvalidArgument):
        client.tag("tagger", [""])
    for model in ("unknown", "missing"):
        with suppress(weir.NotFound):
            client.infer(model, x)
    for model in ("broken", "mismatch"):
        with suppress(weir.Unavailable):
            client.infer(model, x)
    client.submit("patient", x).cancel()
    with client.generate("speller", "abcdeabcde") as generation:
        generation.cancel()


def _overloading(client: weir.Client) -> None:
    """One request misses its deadline; the others find the queue full."""
    x = {"x": np.ones((2, 4), np.float32)}
    for answer in [client.submit("patient", x, timeout_s=0.5) for _ in range(4)]:
        with suppress(weir.ResourceExhausted, weir.DeadlineExceeded):
            answer.result()
