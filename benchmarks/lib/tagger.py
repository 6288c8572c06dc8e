"""Tagger for benchmarks, with random weights or of a finished run, and the test sentences.

The random one is a BiLSTM of 256 units per direction over words of 100 numbers, with the 17 tags of
UD English-EWT and without letters. The speed does not depend on the weights, the accuracy does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.bundle.reader import read
from weir.bundle.sequences import PaddedAxis, ValueRange
from weir.export.accuracy import NO_ANSWER
from weir.export.int8 import CALIBRATION_ROWS, StaticInt8
from weir.export.publishing import publish
from weir.export.runs.publishing import publish_run
from weir.export.runs.text import (
    CHARACTERS,
    LENGTHS,
    LOGITS,
    TIME,
    TOKENS,
    TaggerOutputs,
    WordGraph,
)
from weir.export.spec import ExportSpec
from weir.training.data import SequenceSplit, load_text
from weir.training.data.vocabulary import PAD, Vocabulary
from weir.training.models.sequences import build_text_network
from weir.training.run_directory import read_record
from weir.training.text.experiment import load_test

NAME = "tagger"
DATA, HIDDEN, WORD_SIZE = "ewt", 256, 100
_MAXIMUM_LENGTH = 512
_EXAMPLES = 64

Request = dict[str, NDArray[Any]]


def sentences(split: SequenceSplit = "test") -> list[NDArray[np.int64]]:
    """A split as id rows of the training set's vocabulary."""
    vocabulary = _vocabulary()
    rows = load_text(DATA, split).rows
    return [np.array(vocabulary.encode(token.lower() for token in row), np.int64) for row in rows]


def requests(run: Path | None) -> list[Request]:
    """The test sentences, one a request, as the network of a run or the random one reads them."""
    if run is None:
        return [{TOKENS: each[np.newaxis], LENGTHS: np.array([len(each)])} for each in sentences()]
    packed = load_test(run, read_record(run))
    found = []
    for row in range(len(packed)):
        inputs = packed.take(torch.tensor([row])).inputs
        names = (TOKENS, LENGTHS, CHARACTERS)[: len(inputs)]
        found.append({name: each.numpy() for name, each in zip(names, inputs, strict=True)})
    return found


def make_bundle(
    models: Path, precision: Literal["fp32", "int8"] = "fp32", run: Path | None = None
) -> None:
    """Publish the tagger if it is absent."""
    if (models / NAME).exists():
        return
    if run is not None:
        publish_run(run, to=models, name=NAME, precision=precision)
        return
    words = len(_vocabulary())
    test = _padded(sentences())
    publish(
        WordGraph(_random_network(words), is_tagging=True),
        {name: rows[:_EXAMPLES] for name, rows in test.items()},
        _spec(words),
        to=models,
        name=NAME,
        precision="fp32" if precision == "fp32" else _int8(test),
    )


def accuracies(models: Path) -> str | None:
    """The recorded accuracy of an INT8 bundle and of its FP32 graph; None for random weights."""
    contract = read(models / NAME / "1").contract
    cost = contract.quantisation
    if cost is None or contract.training is None:
        return None
    return f"FP32 {cost.before:.2%}, INT8 {cost.after:.2%} on {cost.test_rows:,} {cost.test}"


def _random_network(words: int) -> nn.Module:
    torch.manual_seed(0)
    return build_text_network(
        "lstm",
        pool=None,
        words=words,
        classes=len(load_text(DATA, "train").classes),
        word_size=WORD_SIZE,
        hidden=HIDDEN,
        bidirectional=True,
    ).eval()


def _int8(test: dict[str, Tensor]) -> StaticInt8:
    calibration = _padded(sentences("train")[:CALIBRATION_ROWS])
    lengths = test[LENGTHS].numpy()
    return StaticInt8(
        calibration={name: rows.numpy() for name, rows in calibration.items()},
        calibration_from=f"training rows of {DATA}",
        test={name: rows.numpy() for name, rows in test.items()},
        test_from=f"test rows of {DATA}",
        # Random weights have no right answers, so no accuracy can be lost.
        answers=np.where(np.arange(lengths.max()) < lengths[:, np.newaxis], 0, NO_ANSWER),
        output=LOGITS,
        max_drop=100.0,
    )


def _padded(rows: Sequence[NDArray[np.int64]]) -> dict[str, Tensor]:
    tensors = [torch.from_numpy(row) for row in rows]
    return {
        TOKENS: torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True),
        LENGTHS: torch.tensor([len(row) for row in rows]),
    }


def _vocabulary() -> Vocabulary:
    rows = load_text(DATA, "train").rows
    return Vocabulary.build(((token.lower() for token in row) for row in rows), minimum_count=2)


def _spec(words: int) -> ExportSpec:
    time = PaddedAxis(maximum=_MAXIMUM_LENGTH, lengths=LENGTHS, padding={TOKENS: PAD})
    return ExportSpec(
        task="tagging",
        architecture="tagger",
        outputs=TaggerOutputs._fields,
        axes={TOKENS: {0: "batch", 1: TIME}, LENGTHS: {0: "batch"}},
        padded_axes={TIME: time},
        value_ranges={TOKENS: ValueRange(maximum=words - 1)},
    )
