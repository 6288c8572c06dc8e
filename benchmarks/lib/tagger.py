"""Tagger for benchmarks, with random weights, and the test sentences.

A BiLSTM of 256 units per direction over words of 100 numbers, with the 17 tags of UD English-EWT
and without letters. The speed does not depend on the weights.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from weir.bundle.sequences import PaddedAxis, ValueRange
from weir.export.publishing import publish
from weir.export.runs.text import LENGTHS, TIME, TOKENS, TaggerOutputs, WordGraph
from weir.export.spec import ExportSpec
from weir.training.data import load_text
from weir.training.data.vocabulary import PAD, Vocabulary
from weir.training.models.sequences import build_text_network

NAME = "tagger"
DATA, HIDDEN, WORD_SIZE = "ewt", 256, 100
_MAXIMUM_LENGTH = 512
_EXAMPLES = 64


def sentences() -> list[NDArray[np.int64]]:
    """The test set as id rows of the training set's vocabulary."""
    vocabulary = _vocabulary()
    rows = load_text(DATA, "test").rows
    return [np.array(vocabulary.encode(token.lower() for token in row), np.int64) for row in rows]


def make_bundle(models: Path) -> None:
    """Publish the tagger if it is absent."""
    if (models / NAME).exists():
        return
    torch.manual_seed(0)
    words, classes = len(_vocabulary()), len(load_text(DATA, "train").classes)
    network = build_text_network(
        "lstm",
        pool=None,
        words=words,
        classes=classes,
        word_size=WORD_SIZE,
        hidden=HIDDEN,
        bidirectional=True,
    ).eval()
    rows = [torch.from_numpy(row) for row in sentences()[:_EXAMPLES]]
    examples = {
        TOKENS: torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
        LENGTHS: torch.tensor([len(row) for row in rows]),
    }
    publish(WordGraph(network, is_tagging=True), examples, _spec(words), to=models, name=NAME)


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
