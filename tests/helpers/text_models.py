"""Bundles of tiny graphs over texts and series whose answers are known beforehand.

tagger       the tag of a token is its id, plus those of its letters, modulo 3
classifier   the probability of a class is the share of tokens of an id: 4, 5 or 6
forecaster   the last values of both columns, added, and then the first of its own
seasonal     the twelve values before, with an interval of a tenth around them
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from weir.bundle import writer
from weir.bundle.contract import Batching, Contract, PredictionInterval, Series, Tolerance
from weir.bundle.golden import Golden, encode
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "the", "cat", "sat"]
LETTERS = ["<pad>", "<unk>", "<s>", "</s>", *"thecas"]
TAGS = ["DET", "NOUN", "VERB"]
CLASSES = ["article", "animal", "deed"]
CERTAIN = float(np.exp(2) / (np.exp(2) + 2))
"""The probability of the tagger's tag: its logit is 2, that of the others 0."""

_TAGGER = """tagger (
        int64[batch, time] tokens, int64[batch, time, letters] characters, int64[batch] lengths
    )
    => (float[batch, time, 3] logits)
<int64 three = {3}, float[2] values = {0, 2}, int64[1] last = {2}>
{
    sums = ReduceSum <keepdims = 0> (characters, last)
    both = Add(tokens, sums)
    tags = Mod(both, three)
    logits = OneHot(tags, three, values)
}"""
_CLASSIFIER = """classifier (int64[batch, time] tokens, int64[batch] lengths)
    => (float[batch, 3] probabilities)
<int64 seven = {7}, float[2] values = {0, 1}, int64[1] middle = {1}, int64[1] from = {4},
    int64[1] to = {7}, int64[1] tall = {1}>
{
    each = OneHot(tokens, seven, values)
    counts = ReduceSum <keepdims = 0> (each, middle)
    chosen = Slice(counts, from, to, tall)
    column = Unsqueeze(lengths, tall)
    sizes = Cast <to = 1> (column)
    probabilities = Div(chosen, sizes)
}"""
_FORECASTER = """forecaster (float[batch, 3, 2] history) => (float[batch, 2] forecast)
<int64 first = {0}, int64 end = {2}, int64[1] across = {1}>
{
    latest = Gather <axis = 1> (history, end)
    sum = ReduceSum <keepdims = 1> (latest, across)
    oldest = Gather <axis = 1> (history, first)
    own = Gather <axis = 1> (oldest, first)
    column = Unsqueeze(own, across)
    forecast = Concat <axis = 1> (sum, column)
}"""

_SEASONAL = """seasonal (float[batch, 24, 1] history) => (float[batch, 12] forecast)
<int64[1] from = {12}, int64[1] to = {24}, int64[1] axis = {1}, int64[1] last = {2}>
{
    season = Slice(history, from, to, axis)
    forecast = Squeeze(season, last)
}"""

_COMMON: dict[str, Any] = {
    "architecture": "made up",
    "batching": Batching(max_rows=4),
    "tolerance": Tolerance(absolute=1e-6, relative=1e-6),
}
SERIES = Series(target="sales", exogenous=["price"], lags=3, horizon=2)


def write_tagger(models: Path, name: str = "tagger", **changes: Any) -> Path:
    """Words in any case, letters as they are written, at most 6 of both."""
    inputs = {
        "tokens": np.array([[4, 5], [6, 0]]),
        "characters": np.array([[[4], [5]], [[6], [0]]]),
        "lengths": np.array([2, 1]),
    }
    padding = {"tokens": 0, "characters": 0}
    own: dict[str, Any] = {
        "task": "tagging",
        "labels": {"logits": TAGS},
        "padded_axes": {
            "time": PaddedAxis(maximum=6, lengths="lengths", padding=padding),
            "letters": PaddedAxis(maximum=6, padding={"characters": 0}),
        },
        "tokenisation": Tokenisation(rule="words", lower=True, unknown=1, characters="characters"),
    }
    return _write(models, name, _TAGGER, inputs, **{**own, **changes})


def write_classifier(models: Path, name: str = "classifier", **changes: Any) -> Path:
    """What white space separates, at most 6 tokens."""
    inputs = {"tokens": np.array([[4, 5], [6, 0]]), "lengths": np.array([2, 1])}
    own: dict[str, Any] = {
        "task": "sequence-classification",
        "labels": {"probabilities": CLASSES},
        "padded_axes": {"time": PaddedAxis(maximum=6, lengths="lengths", padding={"tokens": 0})},
        "tokenisation": Tokenisation(rule="spaces", unknown=1),
    }
    return _write(models, name, _CLASSIFIER, inputs, **{**own, **changes})


def write_forecaster(models: Path, name: str = "forecaster", **changes: Any) -> Path:
    """Sales from the last three of them and of the price."""
    inputs = {"history": np.arange(6, dtype=np.float32).reshape(1, 3, 2)}
    own: dict[str, Any] = {"task": "forecasting", "series": SERIES}
    return _write(models, name, _FORECASTER, inputs, **{**own, **changes})


def write_seasonal(models: Path, name: str = "seasonal", target: str = "passengers") -> Path:
    """The next year of a series with a value a month."""
    interval = PredictionInterval(level=0.8, lower=[-0.1] * 12, upper=[0.1] * 12, is_relative=True)
    series = Series(target=target, lags=24, horizon=12, season=12, interval=interval)
    inputs = {"history": np.arange(24, dtype=np.float32).reshape(1, 24, 1)}
    return _write(models, name, _SEASONAL, inputs, task="forecasting", series=series)


def _write(models: Path, name: str, graph: str, inputs: dict[str, Any], **own: Any) -> Path:
    """A bundle with vocabularies of its inputs, unless told of others."""
    model = _parsed(graph)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, inputs), strict=True))
    files = {"model.onnx": model, "golden.npz": encode(Golden(inputs, outputs))}
    labels: dict[str, list[str]] = own.pop("labels", {})
    for lines in labels.values():
        files["labels.txt"] = _lines(lines)
    texts = {"tokens": WORDS, "characters": LETTERS}
    vocabularies = {key: lines for key, lines in texts.items() if key in inputs}
    files |= {f"{key}.txt": _lines(lines) for key, lines in vocabularies.items()}
    said: dict[str, Any] = {
        **_COMMON,
        "labels": dict.fromkeys(labels, "labels.txt"),
        "vocabularies": {key: f"{key}.txt" for key in vocabularies},
        "value_ranges": {
            key: ValueRange(maximum=len(lines) - 1) for key, lines in vocabularies.items()
        },
    }
    return writer.write(files, Contract(**{**said, **own}), models, name)


def _lines(entries: list[str]) -> bytes:
    return "".join(f"{entry}\n" for entry in entries).encode()


def _parsed(graph: str) -> bytes:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{graph}')
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
