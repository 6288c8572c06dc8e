"""Export of a PyTorch network into a published bundle, through the parity gate.

`publish` exports a network as one graph. `publish_pair` exports an encoder-decoder as two graphs.
`import_onnx` publishes an ONNX file of another exporter.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir.bundle.contract import Batching, Preprocessing, Series, Tolerance
    from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange
    from weir.export.errors import ExportError, ParityError
    from weir.export.int8 import DynamicInt8, StaticInt8
    from weir.export.onnx_import.publishing import Imported, import_onnx
    from weir.export.onnx_import.spec import ImportSpec, Int8, Pictures
    from weir.export.publishing import Published, publish
    from weir.export.seq2seq.publishing import publish_pair
    from weir.export.seq2seq.spec import PairSpec
    from weir.export.spec import ExportSpec
    from weir.export.tokenizer_file import TokenizerFile

# ONNX Runtime 1.30 and later for Linux reports processes, sessions and models to Microsoft, with an
# identifier of the machine. It reads this variable at its first import; 0 turns the reports on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Batching",
    "DynamicInt8",
    "ExportError",
    "ExportSpec",
    "ImportSpec",
    "Imported",
    "Int8",
    "PaddedAxis",
    "PairSpec",
    "ParityError",
    "Pictures",
    "Preprocessing",
    "Published",
    "Series",
    "StaticInt8",
    "Tokenisation",
    "TokenizerFile",
    "Tolerance",
    "ValueRange",
    "import_onnx",
    "publish",
    "publish_pair",
]

_MODULES = {
    "Batching": "weir.bundle.contract",
    "DynamicInt8": "weir.export.int8",
    "ExportError": "weir.export.errors",
    "ExportSpec": "weir.export.spec",
    "ImportSpec": "weir.export.onnx_import.spec",
    "Imported": "weir.export.onnx_import.publishing",
    "Int8": "weir.export.onnx_import.spec",
    "PaddedAxis": "weir.bundle.sequences",
    "PairSpec": "weir.export.seq2seq.spec",
    "ParityError": "weir.export.errors",
    "Pictures": "weir.export.onnx_import.spec",
    "Preprocessing": "weir.bundle.contract",
    "Published": "weir.export.publishing",
    "Series": "weir.bundle.contract",
    "StaticInt8": "weir.export.int8",
    "Tokenisation": "weir.bundle.sequences",
    "TokenizerFile": "weir.export.tokenizer_file",
    "Tolerance": "weir.bundle.contract",
    "ValueRange": "weir.bundle.sequences",
    "import_onnx": "weir.export.onnx_import.publishing",
    "publish": "weir.export.publishing",
    "publish_pair": "weir.export.seq2seq.publishing",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use: torch takes seconds, and `--help` does not need it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
