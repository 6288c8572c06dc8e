"""Integer arithmetic that torch's exporter writes: what is harmless stays as it is written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.exporters.conftest import Serve
from tests.integration.harness import tensor
from weir.server.runtime.graph_guards import guard

pytestmark = [
    pytest.mark.exporters,
    # What the exporter warns of is between torch and Python.
    pytest.mark.filterwarnings("default"),
]

DYNAMIC = torch.export.Dim.DYNAMIC
SMALLEST = np.iinfo(np.int64).min


class Halves(nn.Module):
    """Arithmetic with the sizes of a tensor, and divisions of its numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 T, D) to (B, T, D)."""
        rows, steps, width = x.shape
        pairs = x.reshape(rows, steps // 2, width * 2)
        scaled = pairs / pairs.norm(dim=-1, keepdim=True) / (steps % 3 + 1)
        return torch.cat([scaled[..., :width], x.sum().expand(rows, steps // 2, 1)], dim=-1)


class Buckets(nn.Module):
    """Numbers in buckets, of a size that a client sends."""

    def forward(self, numbers: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) and () to the place in a bucket, and to a week, each (N,)."""
        return numbers % size, numbers // 7


def write(
    models: Path, module: nn.Module, args: tuple[Tensor, ...], names: list[str], axes: object
) -> bytes:
    """Export a module as the model `net`; the file's bytes."""
    file = models / "net" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    torch.onnx.export(
        module.eval(),
        args,
        file,
        input_names=names,
        dynamic_shapes=axes,  # type: ignore[arg-type]
        external_data=False,
        verbose=False,
    )
    return file.read_bytes()


def test_arithmetic_with_sizes_is_served_as_it_is_written(tmp_path: Path, serve: Serve) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 3)
    graph = write(tmp_path / "models", Halves(), (x,), ["x"], ({0: DYNAMIC, 1: 8},))

    with serve(tmp_path / "models") as client:
        (found,) = client.infer("net", tensor("x", x.numpy())).values()

    assert guard(graph).graph is graph
    np.testing.assert_allclose(found, Halves()(x).numpy(), rtol=1e-5, atol=1e-5)


def test_divisor_of_a_client_is_served_and_ends_nothing(tmp_path: Path, serve: Serve) -> None:
    numbers = np.array([-7, 7, 0, 5, 10**9 + 1])
    args = (torch.from_numpy(numbers), torch.tensor(2))
    write(tmp_path / "models", Buckets(), args, ["numbers", "size"], ({0: DYNAMIC}, {}))

    with serve(tmp_path / "models") as client:
        for size in (2, -3, -1):
            given = tensor("numbers", numbers), tensor("size", np.array(size))
            found = list(client.infer("net", *given).values())

            expected = Buckets()(args[0], torch.tensor(size))
            assert [each.tolist() for each in found] == [each.tolist() for each in expected]
        smallest = tensor("numbers", np.array([SMALLEST])), tensor("size", np.array(-1))
        assert next(iter(client.infer("net", *smallest).values())).tolist() == [0]
