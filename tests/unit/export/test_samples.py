import torch

from tests.helpers.sequence_networks import LETTERS, class_spec, examples, tag_spec
from weir.bundle.sequences import ValueRange
from weir.export.samples import BATCH_SIZES, batches, spread, take
from weir.export.spec import ExportSpec

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


def test_examples_are_cut_to_the_longest_of_the_batch() -> None:
    given = examples()

    for batch in list(batches(given, class_spec()))[:-1:2]:
        assert batch["tokens"].shape[1] == batch["lengths"].max()


def test_random_rows_are_of_any_length_and_go_on_behind_it() -> None:
    random = list(batches(examples(has_letters=True), tag_spec()))[1:-1:2]

    widths = [batch["tokens"].shape[1] for batch in random]
    assert max(widths) > 9 and all(width <= 18 for width in widths)
    for batch in random:
        rows, width = batch["tokens"].shape
        assert batch["characters"].shape[:2] == (rows, width)
        assert batch["lengths"].min() >= 1 and batch["lengths"].max() <= width
    last = random[-1]
    assert len(set(last["lengths"].tolist())) > 3
    beyond = torch.arange(last["tokens"].shape[1]) >= last["lengths"][:, None]
    assert set(last["tokens"][beyond].tolist()) > set(range(1, 10))


def test_random_letters_end_in_padding() -> None:
    random = list(batches(examples(has_letters=True), tag_spec()))[1:-1:2]

    wide = [batch["characters"] for batch in random if batch["characters"].shape[2] > 2]
    assert wide
    for characters in wide:
        assert characters.shape[2] <= 8 and characters.max() < len(LETTERS)
        assert (characters[..., -1] == 0).sum() > (characters[..., 0] == 0).sum()


def test_one_batch_has_rows_of_one_entry() -> None:
    last = list(batches(examples(has_letters=True), tag_spec()))[-1]

    assert last["lengths"].tolist() == [1, 1, 1]
    assert last["characters"].shape == (3, 1, 1)


def test_recorded_rows_are_of_unequal_lengths() -> None:
    assert spread(examples(), class_spec(), 4)["lengths"].tolist() == [9, 6, 3, 1]
    assert spread(examples(2), class_spec(), 4)["lengths"].tolist() == [6, 1]
    assert spread({"x": torch.arange(6)}, SPEC, 4)["x"].tolist() == [0, 1, 2, 3]


def test_range_goes_before_what_examples_hold() -> None:
    spec = ExportSpec(
        architecture="any", outputs=["y"], value_ranges={"x": ValueRange(minimum=-2, maximum=3)}
    )

    random = list(batches({"x": torch.zeros(2, 200, dtype=torch.int64)}, spec))[-1]

    assert set(random["x"].flatten().tolist()) == set(range(-2, 4))
