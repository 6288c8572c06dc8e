import torch

from export.samples import BATCH_SIZES, batches, take
from export.spec import ExportSpec

SPEC = ExportSpec(architecture="any", outputs=["y"])


def test_rows_start_over_at_the_end() -> None:
    rows = take({"x": torch.tensor([[0], [1], [2]])}, SPEC, 2, 5)

    assert rows["x"].flatten().tolist() == [2, 0, 1, 2, 0]


def test_inputs_stay_together() -> None:
    examples = {"x": torch.arange(6).reshape(6, 1), "y": torch.arange(6)}

    for batch in list(batches(examples, SPEC))[::2]:
        assert batch["x"].flatten().tolist() == batch["y"].tolist()


def test_an_example_and_a_random_batch_of_each_size() -> None:
    sizes = [len(batch["x"]) for batch in batches({"x": torch.randn(4, 2)}, SPEC)]

    assert sizes == [size for size in BATCH_SIZES for _ in range(2)]


def test_random_rows_are_of_the_same_kind() -> None:
    examples = {
        "bytes": torch.zeros(2, 500, dtype=torch.uint8),
        "tokens": torch.tensor([[3, 9] * 50] * 2),
        "real": torch.zeros(2, 500, dtype=torch.float64),
        "mask": torch.zeros(2, 500, dtype=torch.bool),
    }

    random = list(batches(examples, SPEC))[-1]

    assert {name: t.dtype for name, t in random.items()} == {
        name: t.dtype for name, t in examples.items()
    }
    assert random["bytes"].min() == 0 and random["bytes"].max() == 255
    assert set(random["tokens"].flatten().tolist()) == set(range(3, 10))
    assert 0.9 < random["real"].std() < 1.1
    assert 0.4 < random["mask"].float().mean() < 0.6


def test_the_same_each_time() -> None:
    examples = {"x": torch.randn(4, 2)}

    for first, second in zip(batches(examples, SPEC), batches(examples, SPEC), strict=True):
        assert torch.equal(first["x"], second["x"])


def test_without_a_batch_axis_shapes_stay() -> None:
    alone = ExportSpec(architecture="any", outputs=["y"], batch_axis=None)

    shapes = [tuple(batch["x"].shape) for batch in batches({"x": torch.randn(4, 2)}, alone)]

    assert shapes == [(4, 2), (4, 2)]
