"""Encoder-decoders for benchmarks: bundles of finished runs, and their test sources."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weir.export.runs.publishing import publish_run
from weir.training.run_directory import part_of, read_record
from weir.training.seq2seq.experiment import load_sides, load_test
from weir.training.seq2seq.packed import encode
from weir.training.seq2seq.recipes import Seq2SeqRecipe


def make_bundle(run: Path, models: Path) -> str:
    """Publish a run under its own name if it is absent; returns the name."""
    if not (models / run.name).exists():
        publish_run(run, to=models, name=run.name)
    return run.name


def sources(run: Path) -> list[NDArray[np.int64]]:
    """The distinct test sources that are not longer than the training limit."""
    record = read_record(run)
    most = part_of(record, Seq2SeqRecipe).source.most_tokens
    rows = encode(load_test(record).sources, load_sides(run).source, run.name)
    return [np.array(row, np.int64) for row in rows if len(row) <= most]
