"""Files whose first axes have the names that exporters make up are batched, if that is right."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor  # type: ignore[import-untyped]
from torch import Tensor, nn

import weir
from tests.integration.harness import Client, Server, running, tensor

pytestmark = [
    pytest.mark.exporters,
    # What an exporter warns of is between its library and Python.
    pytest.mark.filterwarnings("default"),
]
skl2onnx = pytest.importorskip("skl2onnx", reason="installed by make test-exporters")
types = pytest.importorskip("skl2onnx.common.data_types")

CALLERS, CALLS = 16, 40
TOLERANCE = 1e-4
"""Between a row alone and in a batch, of values near 1: sums are added in another order."""

Array = NDArray[Any]
DYNAMIC, AUTO = torch.export.Dim.DYNAMIC, torch.export.Dim.AUTO


class OfRows(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Encoder(nn.Module):
    """A transformer's encoder of ids, with a mask, and its mean over the time."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.layers(self.embed(ids), src_key_padding_mask=mask == 0)
        weights = mask.unsqueeze(-1).float()
        mean: Tensor = (hidden * weights).sum(1) / weights.sum(1)
        return mean


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3)).eval()


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()


def export(
    root: Path, name: str, module: nn.Module, example: Sequence[Tensor], *dims: Any, **options: Any
) -> None:
    """A repository's model by `torch.onnx.export`."""
    directory = root / name / "1"
    directory.mkdir(parents=True)
    torch.onnx.export(
        module,
        tuple(example),
        directory / "model.onnx",
        dynamic_shapes=dims or None,
        verbose=False,
        **options,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    row, picture = torch.randn(2, 5), torch.randn(2, 3, 16, 16)
    ids = torch.randint(0, 50, (2, 7)), torch.ones(2, 7, dtype=torch.int64)
    export(root, "mlp", mlp(), [row], {0: DYNAMIC})
    export(root, "mlp_auto", mlp(), [row], {0: AUTO})
    export(root, "convolutions", convolutions(), [picture], {0: DYNAMIC})
    export(root, "encoder", Encoder().eval(), ids, *[{0: DYNAMIC, 1: DYNAMIC}] * 2)
    export(root, "softmax_of_rows", OfRows(lambda x: x.softmax(0)), [row], {0: DYNAMIC})
    export(root, "sum_so_far", OfRows(lambda x: x.cumsum(0)), [row], {0: AUTO})
    export(root, "centred", OfRows(lambda x: x - x.mean(0)), [row], {0: DYNAMIC})
    export(root, "traced", mlp(), [row], dynamo=False, input_names=["x"], dynamic_axes={"x": [0]})
    forest = RandomForestRegressor(10, random_state=0)
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    forest.fit(x, x[:, 0] * x[:, 1])
    converted = skl2onnx.to_onnx(
        forest, initial_types=[("x", types.FloatTensorType([None, 5]))], target_opset=18
    )
    (root / "forest" / "1").mkdir(parents=True)
    (root / "forest" / "1" / "model.onnx").write_bytes(converted.SerializeToString())
    return root


@pytest.fixture(scope="module")
def server(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--max-queue-delay-s", "0.001")
    with running(models, tmp_path_factory.mktemp("log") / "log", *flags) as server:
        yield server


def inputs_of(session: onnxruntime.InferenceSession, rows: int, seed: int) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    time = int(generator.integers(3, 6))
    inputs: dict[str, Array] = {}
    for each in session.get_inputs():
        rest = [axis if isinstance(axis, int) else time for axis in each.shape[1:]]
        if each.type == "tensor(int64)":
            inputs[each.name] = generator.integers(1, 50, (rows, *rest))
        else:
            inputs[each.name] = generator.normal(size=(rows, *rest)).astype(np.float32)
    return inputs


@pytest.mark.parametrize(
    ("name", "is_batched"),
    [
        ("mlp", True),
        ("mlp_auto", True),
        ("convolutions", True),
        ("encoder", True),
        ("traced", True),
        ("forest", True),
        ("softmax_of_rows", False),
        ("sum_so_far", False),
        ("centred", False),
    ],
)
def test_sixteen_callers_get_their_own_rows(
    models: Path, server: Server, name: str, *, is_batched: bool
) -> None:
    session = onnxruntime.InferenceSession(models / name / "1" / "model.onnx")
    first = [value.shape[0] for value in (*session.get_inputs(), *session.get_outputs())]
    assert not any("batch" in str(axis) for axis in first), first

    def ask(caller: int) -> list[str]:
        wrong = []
        with Client(server.target) as client:
            for call in range(CALLS):
                inputs = inputs_of(session, 1 + call % 3, CALLS * caller + call)
                expected = session.run(None, inputs)
                answer = client.infer(name, *(tensor(*item) for item in inputs.items()))
                for own, actual in zip(expected, answer.values(), strict=True):
                    if own.shape != actual.shape or not np.allclose(
                        own, actual, rtol=TOLERANCE, atol=TOLERANCE
                    ):
                        wrong.append(f"caller {caller}, call {call}: {actual.shape}")
        return wrong

    before = server.counts(name)
    with ThreadPoolExecutor(CALLERS) as pool:
        wrong = [text for texts in pool.map(ask, range(CALLERS)) for text in texts]
    server.settle()
    counts = {key: value - before.get(key, 0) for key, value in server.counts(name).items()}

    assert wrong == []
    assert counts["OK"] == CALLERS * CALLS
    assert (counts["batches"] < counts["OK"]) is is_batched
    with weir.Client(server.target) as client:
        (listed,) = (model for model in client.models() if model.name == name)
    assert listed.versions[0].is_batched is is_batched, listed.versions[0].batching_reason
