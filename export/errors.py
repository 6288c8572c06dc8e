"""Errors of export, from a network to a published bundle.

ExportError
├── NotExportable   torch cannot export the network as a graph
├── BrokenGraph     the exported graph is invalid or has other names or axes
├── ParityError     the graph's outputs differ from the network's
├── AccuracyError   INT8 costs too much accuracy
└── WrongWeights    a file of weights belongs to another network
"""


class ExportError(Exception):
    """Base of the expected failures; itself: the arguments do not fit the network."""


class NotExportable(ExportError):
    """PyTorch's exporter rejects the network: rewrite the part that the message names."""


class BrokenGraph(ExportError):
    """The graph is invalid, or an axis that should vary is fixed in it: check reshapes."""


class ParityError(ExportError):
    """PyTorch and ONNX Runtime disagree beyond the tolerance; nothing was published."""


class AccuracyError(ExportError):
    """INT8 costs more accuracy than allowed: allow more, or publish FP32."""


class WrongWeights(ExportError):
    """The tensors of the file are not those of the network; the message names the first."""
