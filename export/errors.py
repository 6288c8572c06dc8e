"""What can go wrong on the way from a network to a bundle.

ExportError
├── NotExportable   torch cannot write the network as a graph
├── BrokenGraph     it did, but the graph is not what was asked for
├── ParityError     the graph computes something else than the network
├── AccuracyError   as INT8 it answers too many test rows wrong
└── WrongWeights    a file of weights is not the network's
"""


class ExportError(Exception):
    """Any expected failure of this package; as itself: the arguments do not fit the network."""


class NotExportable(ExportError):
    """PyTorch's exporter refused the network: rewrite the part it names."""


class BrokenGraph(ExportError):
    """The graph is invalid, or an axis that should vary is fixed in it: look at reshapes."""


class ParityError(ExportError):
    """PyTorch and ONNX Runtime disagree beyond the tolerance: nothing was published."""


class AccuracyError(ExportError):
    """INT8 costs more accuracy than allowed: allow more, or stay with FP32."""


class WrongWeights(ExportError):
    """The file's tensors are not those of the network: each is named."""
