"""Rows of unequal length in one batch: the lengths end each row, whatever its padding holds."""

import functools
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from weir.export.graph import convert
from weir.export.spec import ExportSpec
from weir.server.runtime.session import Session
from weir.training.models.recurrent import Cell, Recurrent

SPEC = ExportSpec(
    architecture="recurrent",
    outputs=["states", "last"],
    axes={"sequence": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
)
TOLERANCE = 1e-5
"""Sums of at most some hundred float32 products of size 1, in another order."""
LENGTHS = [3, 9, 1, 6, 9]
STEPS = 12
"""More than the longest row, so that every row has padding."""

every_cell = pytest.mark.parametrize("cell", get_args(Cell))


@functools.cache
def network(cell: Cell) -> tuple[Recurrent, bytes]:
    """Two layers in both directions, and their graph."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Recurrent(cell, 5, 32, layers=2, bidirectional=True).eval()
        return made, convert(made, rows(0.0), SPEC)


def rows(padding: float) -> dict[str, Tensor]:
    """The same rows with other padding."""
    sequence = torch.randn(len(LENGTHS), STEPS, 5, generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(LENGTHS):
        sequence[row, length:] = padding
    return {"sequence": sequence, "lengths": torch.tensor(LENGTHS)}


def run(cell: Cell, provider: str, inputs: dict[str, Tensor]) -> dict[str, np.ndarray]:
    session = Session(network(cell)[1], provider=provider, threads=1, has_few_shapes=False)
    return session.run({name: each.numpy() for name, each in inputs.items()})


@every_cell
def test_states_are_those_of_packed_torch(cell: Cell, provider: str) -> None:
    outputs = run(cell, provider, rows(1000.0))

    with torch.inference_mode():
        expected = network(cell)[0](**rows(0.0))
    for name in ("states", "last"):
        wanted = getattr(expected, name).numpy()
        np.testing.assert_allclose(outputs[name], wanted, atol=TOLERANCE, rtol=0)
    for row, length in enumerate(LENGTHS):
        assert not outputs["states"][row, length:].any()


@every_cell
@pytest.mark.parametrize("garbage", [1000.0, float("nan")], ids=["large", "NaN"])
def test_padding_changes_nothing(cell: Cell, garbage: float, provider: str) -> None:
    clean, filled = run(cell, provider, rows(0.0)), run(cell, provider, rows(garbage))

    for name, expected in clean.items():
        np.testing.assert_allclose(filled[name], expected, atol=TOLERANCE, rtol=0)


@every_cell
def test_row_has_the_states_that_it_has_alone(cell: Cell, provider: str) -> None:
    inputs = rows(1000.0)
    together = run(cell, provider, inputs)

    for row, length in enumerate(LENGTHS):
        one = {
            "sequence": inputs["sequence"][row : row + 1, :length],
            "lengths": inputs["lengths"][row : row + 1],
        }
        alone = run(cell, provider, one)
        np.testing.assert_allclose(
            together["states"][row, :length], alone["states"][0], atol=TOLERANCE, rtol=0
        )
        np.testing.assert_allclose(together["last"][row], alone["last"][0], atol=TOLERANCE, rtol=0)
