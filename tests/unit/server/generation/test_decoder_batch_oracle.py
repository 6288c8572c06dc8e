"""Rows in slots against training's search over the same graphs."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.unit.server.generation import oracle, toys
from tests.unit.server.generation.toys import Toy, run_out
from weir.server.generation.decoder_batch import Row
from weir.server.generation.sampling_parameters import SearchParameters
from weir.training.models.decoder import Step
from weir.training.seq2seq import search as training
from weir.training.seq2seq.search import Hypothesis

SOURCES = ([5, 8, 4], [6], [7, 7, 5, 4, 8, 6], [8, 8], [4, 5, 6, 7, 8])


def answer_of_training(row: Row, width: int) -> list[Hypothesis]:
    """The hypotheses of training's search for one row; a width of 1 is greedy search."""
    toy, source = Toy(), row.inputs["tokens"]
    lengths = np.array([row.length])
    encoded = toy.encode({"tokens": source[None], "lengths": lengths})

    def step(previous: Tensor, state: Tensor, rows: Tensor) -> Step:
        count = len(rows)
        made = toy.decode(
            {
                "previous": previous.numpy(),
                "state": state.numpy(),
                "memory": np.repeat(encoded["memory"], count, axis=0),
                "lengths": np.repeat(lengths, count),
            }
        )
        names = ("log_probabilities", "next_state", "attention")
        return Step(*(torch.from_numpy(made[name]) for name in names))

    state, limits = torch.from_numpy(encoded["state"]), torch.tensor([row.limit])
    if width == 1:
        return training.greedy(step, state, limits)
    (found,) = training.beam(step, state, limits, width=width, best=width)
    return found


@pytest.mark.parametrize("widths", [[1], [2], [5], [3, 1, 4, 2, 1]], ids=str)
def test_rows_decoded_together_get_the_answers_of_training(widths: Sequence[int]) -> None:
    rows = [
        toys.row(source, SearchParameters(width=width, n_best=width))
        for source, width in zip(SOURCES, list(widths) * 5, strict=False)
    ]
    generation = Toy().generation(7)

    generation.add(generation.encode(rows))
    run_out(generation)

    wanted = [answer_of_training(row, row.search.width) for row in rows]
    oracle.assert_same([row.hypotheses for row in rows], wanted)
