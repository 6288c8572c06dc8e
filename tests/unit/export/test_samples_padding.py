import pytest
import torch
from torch import Tensor

from tests.helpers.sequence_networks import class_spec, tag_spec
from weir.bundle.sequences import PaddedAxis
from weir.export.errors import ExportError
from weir.export.samples import batches, check_examples, select, shrink, sizes, spread, widen
from weir.export.spec import ExportSpec

TOKENS = torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0], [3, 0, 4, 0]])
LENGTHS = torch.tensor([3, 1, 2])


def spelled() -> dict[str, Tensor]:
    """The second row has letters beyond its length, longer than all others."""
    characters = torch.zeros(3, 4, 5, dtype=torch.int64)
    characters[0, 1, :3] = 2
    characters[1, 2, :5] = 4
    characters[2, 0, :2] = 3
    return {"tokens": TOKENS, "lengths": LENGTHS, "characters": characters}


def test_batch_is_cut_to_its_longest_row() -> None:
    shrunk = shrink({"tokens": TOKENS, "lengths": LENGTHS}, class_spec())

    assert shrunk["tokens"].tolist() == [[5, 6, 7], [8, 0, 0], [3, 0, 4]]
    assert shrunk["lengths"] is LENGTHS


@pytest.mark.parametrize(
    ("row", "time", "letters"), [(0, 3, 3), (1, 1, 1), (2, 2, 2)], ids=["long", "bare", "short"]
)
def test_row_alone_has_its_own_sizes(row: int, time: int, letters: int) -> None:
    alone = select(spelled(), row, tag_spec())

    assert sizes(alone, tag_spec()) == {"time": time, "letters": letters}
    assert alone["tokens"].shape == (1, time)
    assert alone["characters"].shape == (1, time, letters)


def test_padding_fills_up() -> None:
    widened = widen(select(spelled(), 1, tag_spec()), tag_spec(), 2)

    assert widened["tokens"].tolist() == [[8, 0]]
    assert widened["characters"].shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"lengths": torch.tensor([0, 1, 2])}, "lengths: expected whole.* 1 to 4", id="0"
        ),
        pytest.param({"lengths": torch.tensor([5, 1, 2])}, r"got \[5, 1, 2\]", id="too long"),
        pytest.param({"lengths": torch.ones(3)}, "expected whole numbers", id="floats"),
        pytest.param(
            {"tokens": TOKENS[:, :3]}, r"axis 'time'.*'tokens': 3, 'characters': 4", id="sizes"
        ),
    ],
)
def test_examples_must_be_as_long_as_they_say(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        check_examples({**spelled(), **changes}, tag_spec())


def test_examples_may_not_be_longer_than_the_axis() -> None:
    short = PaddedAxis(maximum=3, lengths="lengths", padding={"tokens": 0})
    spec = class_spec(padded_axes={"time": short})

    with pytest.raises(ExportError, match="axis 'time': expected one size from 1 to 3"):
        check_examples({"tokens": TOKENS, "lengths": LENGTHS}, spec)


MASKED = ExportSpec(
    architecture="any",
    outputs=["y"],
    axes={"tokens": {0: "batch", 1: "time"}, "mask": {0: "batch", 1: "time"}},
    padded_axes={"time": PaddedAxis(maximum=9, mask="mask", padding={"tokens": 7, "mask": 0})},
)
MASK = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])


def test_mask_tells_the_lengths() -> None:
    examples = {"tokens": TOKENS, "mask": MASK}

    assert shrink(examples, MASKED)["tokens"].tolist() == [[5, 6, 7], [8, 0, 0], [3, 0, 4]]
    assert select(examples, 1, MASKED)["mask"].tolist() == [[1]]
    assert spread(examples, MASKED, 3)["mask"].sum(dim=1).tolist() == [3, 2, 1]


def test_random_masks_have_a_length_and_rows_random_values_beyond_it() -> None:
    for batch in list(batches({"tokens": TOKENS, "mask": MASK}, MASKED))[1::2]:
        mask, counts = batch["mask"], batch["mask"].sum(dim=1, keepdim=True)
        assert mask.tolist() == (torch.arange(mask.shape[1]) < counts).long().tolist()
        assert counts.min() >= 1


@pytest.mark.parametrize(
    "row",
    [[0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [2, 2, 0, 0]],
    ids=["left", "gap", "none", "2"],
)
def test_examples_are_padded_on_the_right(row: list[int]) -> None:
    mask = torch.tensor([row, [1, 1, 1, 1], [1, 0, 0, 0]])

    with pytest.raises(ExportError, match="mask: expected rows of 1, then 0 as padding"):
        check_examples({"tokens": TOKENS, "mask": mask}, MASKED)
