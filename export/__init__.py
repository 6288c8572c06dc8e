"""From a PyTorch network to a published bundle, through the parity gate.

`export.publish` is the one way there, for the recipes of this project and for any other network;
`export.publish_pair` is it for encoder-decoders, which become two graphs.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir.export.publishing import Published, publish
    from weir.export.seq2seq.publishing import publish_pair
    from weir.export.seq2seq.spec import PairSpec
    from weir.export.spec import ExportSpec

# ONNX Runtime on Linux, since 1.30, would tell Microsoft of each process, session and model, and keep an identifier of
# the machine; it asks this when it is first imported. Whoever wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["ExportSpec", "PairSpec", "Published", "publish", "publish_pair"]

_MODULES = {
    "ExportSpec": "weir.export.spec",
    "PairSpec": "weir.export.seq2seq.spec",
    "Published": "weir.export.publishing",
    "publish": "weir.export.publishing",
    "publish_pair": "weir.export.seq2seq.publishing",
}


def __getattr__(name: str) -> object:
    """Import the public face on first use: torch takes seconds, and `--help` needs none of it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'export' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
