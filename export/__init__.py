"""Export of a PyTorch network into a published bundle, through the parity gate.

`publish` exports a network as one graph. `publish_pair` exports an encoder-decoder as two graphs.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir.bundle.sequences import PaddedAxis, ValueRange
    from weir.export.publishing import Published, publish
    from weir.export.seq2seq.publishing import publish_pair
    from weir.export.seq2seq.spec import PairSpec
    from weir.export.spec import ExportSpec

# ONNX Runtime 1.30 and later for Linux reports processes, sessions and models to Microsoft, with an
# identifier of the machine. It reads this variable at its first import; 0 turns the reports on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "ExportSpec",
    "PaddedAxis",
    "PairSpec",
    "Published",
    "ValueRange",
    "publish",
    "publish_pair",
]

_MODULES = {
    "ExportSpec": "weir.export.spec",
    "PaddedAxis": "weir.bundle.sequences",
    "PairSpec": "weir.export.seq2seq.spec",
    "Published": "weir.export.publishing",
    "ValueRange": "weir.bundle.sequences",
    "publish": "weir.export.publishing",
    "publish_pair": "weir.export.seq2seq.publishing",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use: torch takes seconds, and `--help` does not need it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
