import numpy as np
import pytest

from tests.helpers import onnx_models, profiled_graphs
from weir.export.speed import compare

X = np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    ("most_rows", "sizes"), [(32, [1, 32]), (1, [1]), (None, [1])], ids=["batch", "one", "no batch"]
)
def test_graphs_are_compared_with_one_row_and_with_a_full_batch(
    most_rows: int | None, sizes: list[int]
) -> None:
    model = onnx_models.affine()

    speeds = compare(model, model, {"x": X}, ["y"], most_rows=most_rows)

    assert [each.rows for each in speeds] == sizes
    assert all(each.fp32 > 0 and each.int8 > 0 for each in speeds)


def test_more_work_is_slower() -> None:
    one, chain = (
        profiled_graphs.graph(
            "g (float[batch, 512] x) => (float[batch, 512] y) {"
            + " ".join(f"t{at + 1} = Erf(t{at})" for at in range(count)).replace("t0", "x", 1)
            + f" y = Identity(t{count}) }}"
        )
        for count in (1, 200)
    )

    for speed in compare(one, chain, {"x": np.ones((2, 512), np.float32)}, ["y"], most_rows=16):
        assert speed.int8 < speed.fp32
