"""Model for payloads of any size: it returns the largest byte of a row, which costs little."""

from pathlib import Path

import numpy as np
import onnx

from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.reader import MODEL
from weir.bundle.writer import write

NAME = "payload"
_GRAPH = """
<ir_version: 10, opset_import: ["" : 21]>
payload (uint8[batch, n] row) => (uint8[batch] largest)
<int64[1] last = {1}>
{
    largest = ReduceMax <keepdims = 0> (row, last)
}
"""


def make_bundle(models: Path) -> None:
    """Write version 1 into a repository."""
    rows = np.array([[1, 2, 3], [6, 5, 4]], np.uint8)
    contract = Contract(
        task="other", architecture=NAME, tolerance=Tolerance(absolute=0.0, relative=0.0)
    )
    graph = onnx.parser.parse_model(_GRAPH).SerializeToString()
    golden = encode(Golden({"row": rows}, {"largest": rows.max(axis=1)}))
    write({MODEL: graph, GOLDEN: golden}, contract, models, NAME, 1)
