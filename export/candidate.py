"""A graph that may be published, and what its contract says of its numbers."""

from dataclasses import dataclass

from weir.bundle.contract import Parity, Precision, Provider, Quantisation, Tolerance
from weir.bundle.golden import Golden


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What an export comes down to.

    Attributes:
        model: the ONNX file.
        precision: of its weights and of the values inside.
        providers: those that may run it.
        tolerance: of the golden outputs, wherever they are replayed.
        parity: how far it is from PyTorch.
        golden: example rows and the outputs expected for them.
        quantisation: what INT8 cost.
    """

    model: bytes
    precision: Precision = "fp32"
    providers: tuple[Provider, ...] = ("cpu", "cuda")
    tolerance: Tolerance
    parity: Parity
    golden: Golden
    quantisation: Quantisation | None = None
