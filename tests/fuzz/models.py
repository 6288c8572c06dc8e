"""The repository of the fuzzing: the models of `contract_model.CONTRACTS`."""

from pathlib import Path

import numpy as np
import onnx

from tests.fuzz.contract_model import DTYPES, MAX_ROWS, MAX_TIME, VOCABULARY
from tests.helpers import onnx_models
from weir.bundle.contract import Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.sequences import PaddedAxis, ValueRange
from weir.bundle.writer import write

SETTINGS = f"""
threads = 1
instances = 1
max_batch_rows = {MAX_ROWS}

[models.strict]
non_finite = "reject"
"""

_ONNX_NAMES = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BF16": "BFLOAT16"}
_ONNX_NAMES |= {"BYTES": "STRING"}


def write_repository(folder: Path) -> tuple[Path, Path]:
    """Write the models and the settings of a server; their paths."""
    root, settings = folder / "models", folder / "weir.toml"
    root.mkdir()
    settings.write_text(SETTINGS)
    plain = {
        **{f"echo_{name}": onnx_models.echo(_onnx(name), ("batch", 2)) for name in DTYPES},
        "free": onnx_models.echo(axes=("batch", "time")),
        "strict": onnx_models.affine(),
        "arithmetic": onnx_models.arithmetic(),
    }
    for name, graph in plain.items():
        onnx_models.write_plain(root, name, graph)
    _write_sentences(root)
    return root, settings


def _onnx(datatype: str) -> int:
    return int(onnx.TensorProto.DataType.Value(_ONNX_NAMES.get(datatype, datatype)))


def _write_sentences(root: Path) -> None:
    """A bundle whose contract bounds values and lengths."""
    tokens = np.array([[1, 2, 7], [3, 0, 0]])
    golden = Golden({"tokens": tokens}, {"y": (10 * tokens).astype(np.float32)})
    contract = Contract(
        task="other",
        architecture="gather",
        padded_axes={"time": PaddedAxis(maximum=MAX_TIME, padding={"tokens": 0})},
        value_ranges={"tokens": ValueRange(maximum=VOCABULARY - 1)},
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    files = {"model.onnx": onnx_models.gather(VOCABULARY), GOLDEN: encode(golden)}
    write(files, contract, root, "sentences")
