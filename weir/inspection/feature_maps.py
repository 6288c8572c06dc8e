"""Feature maps: what a graph computes of a picture after each block, by running it.

Rules:
- A block ends where the network narrows to one tensor: after a convolution and what is applied to
  each of its numbers, after a pooling, after the sum or the concatenation of branches.
- A network that never narrows, for instance by a connection from its first layer to its last, has
  a block for each convolution and each pooling.
- A block's output is a picture: (1, channels, height, width), of more than one pixel.
- The tensors become outputs of the graph, which ONNX Runtime then does not fuse away. It runs once,
  for one row, on one thread of the CPU.
Needs the packages `onnx` and `onnxruntime`.
"""

import importlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto

from weir.bundle.contract import Preprocessing
from weir.bundle.external_data import ExternalTensor, ResolvedGraph
from weir.inspection.errors import InspectionError, InvalidPicture
from weir.inspection.kernels import StoredTensors

Array = NDArray[Any]

_POOLINGS = ("MaxPool", "AveragePool", "LpPool")
_CONVOLUTIONS = ("Conv", "ConvTranspose")
# They change each number of a convolution's output by itself, or by its channel.
_APPLIED = frozenset(
    {
        "Add", "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Div", "Dropout", "Elu",
        "Gelu", "GroupNormalization", "HardSigmoid", "HardSwish", "Identity",
        "InstanceNormalization", "LRN", "LeakyRelu", "Mish", "Mul", "PRelu", "QuantizeLinear",
        "Relu", "Selu", "Sigmoid", "Softplus", "Sub", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip
# They only move numbers: their output shows nothing new.
_MOVES = frozenset(
    {"Expand", "Flatten", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
_SIZES = ("Shape", "Size")
_AXES = 4
_PICTURES = "weir.server.preprocessing.images"


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a graph that ends in one tensor.

    Attributes:
        tensor: its output.
        layer: what the names of its convolutions have in common; empty if they have nothing.
        operators: its nodes' operators, in the graph's order.
    """

    tensor: str
    layer: str
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BlockMaps:
    """The feature maps of a picture after a block: float32 (channels, height, width)."""

    block: Block
    maps: NDArray[np.float32]


def read_picture(data: bytes, preprocessing: Preprocessing) -> Mapping[str, Array]:
    """The graph's input for a JPEG or PNG file, as the server makes it: uint8 (1, H, W, C).

    Raises:
        InvalidPicture: the file is damaged, too large, or in another format.
    """
    # By name: only a picture needs the server's modules.
    images = importlib.import_module(_PICTURES)
    errors = importlib.import_module("weir.server.errors")
    try:
        pixels = images.read_encoded(data, preprocessing)
    except errors.ServerError as error:
        raise InvalidPicture(f"picture: {error}") from error
    return {preprocessing.input: pixels[np.newaxis]}


def feature_maps(
    graph: ResolvedGraph, inputs: Mapping[str, Array], most_blocks: int | None = None
) -> Sequence[BlockMaps]:
    """Run a graph for one row; the feature maps of its first blocks, in the graph's order.

    Raises:
        InspectionError: ONNX Runtime refuses the graph or the inputs.
    """
    model = onnx.load_model_from_string(graph.model)
    blocks = find_blocks(model.graph, graph.external)[:most_blocks]
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=block.tensor) for block in blocks if block.tensor not in present
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if graph.external:
        options.add_external_initializers(
            [tensor.name for tensor in graph.external], [_value(each) for each in graph.external]
        )
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        outputs = session.run([block.tensor for block in blocks], inputs) if blocks else []
    except Exception as error:  # the runtime raises many unrelated classes
        raise InspectionError(f"ONNX Runtime does not run the graph: {error}") from error
    return [
        BlockMaps(block, np.asarray(output[0], np.float32))
        for block, output in zip(blocks, outputs, strict=True)
        if is_picture(output)
    ]


def is_picture(output: Array) -> bool:
    """Whether an output is one row of maps of more than one pixel."""
    return output.ndim == _AXES and output.shape[0] == 1 and math.prod(output.shape[2:]) > 1


def find_blocks(graph: GraphProto, external: Iterable[ExternalTensor] = ()) -> Sequence[Block]:
    """The blocks of a graph whose outputs may be pictures, in the graph's order."""
    consumers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in _reads(node):
            consumers[name].append(node)
    ends = {name for name in _narrow(graph, consumers) if not _is_applied_to(consumers[name])}
    if len(ends) < 2:
        ends = set(_ends_of_convolutions(graph, consumers))
    stored = StoredTensors(graph, {tensor.name: tensor for tensor in external})
    blocks: list[Block] = []
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        is_end = node.op_type not in _MOVES and not ends.isdisjoint(node.output[:1])
        if is_end and _is_block(nodes, blocks):
            blocks.append(_block(nodes, stored))
            nodes = []
    return blocks


def _is_applied_to(consumers: Sequence[NodeProto]) -> bool:
    """Whether what uses a tensor still belongs to its block: an activation, a normalisation."""
    return bool(consumers) and all(node.op_type in _APPLIED for node in consumers)


def _ends_of_convolutions(
    graph: GraphProto, consumers: Mapping[str, Sequence[NodeProto]]
) -> Iterator[str]:
    """The output of each convolution and pooling, or of what alone is applied to it."""
    for node in graph.node:
        if node.op_type in (*_CONVOLUTIONS, *_POOLINGS):
            name = node.output[0]
            while len(consumers[name]) == 1 and _is_applied_to(consumers[name]):
                name = consumers[name][0].output[0]
            yield name


def _is_block(nodes: Sequence[NodeProto], before: Sequence[Block]) -> bool:
    """Whether nodes compute new maps; what comes before the first convolution does not."""
    kinds = {node.op_type for node in nodes}
    if not before:
        return not kinds.isdisjoint(_CONVOLUTIONS)
    return not kinds.isdisjoint({*_CONVOLUTIONS, *_POOLINGS, "Concat", "Sum", "Resize", "Upsample"})


def _block(nodes: Sequence[NodeProto], stored: StoredTensors) -> Block:
    layers = [
        stored.origin(node.input[1]).removesuffix(".weight").split(".")
        for node in nodes
        if node.op_type in _CONVOLUTIONS and len(node.input) > 1
    ]
    common: list[str] = []
    for parts in zip(*layers, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return Block(nodes[-1].output[0], ".".join(common), tuple(node.op_type for node in nodes))


def _narrow(graph: GraphProto, consumers: Mapping[str, Sequence[NodeProto]]) -> Iterator[str]:
    """The tensors that everything after them is computed of, from the first convolution on."""
    stored = {tensor.name for tensor in graph.initializer}
    computed = {value.name for value in graph.input} - stored
    # The uses to come of each tensor that depends on the inputs.
    waiting = {name: len(consumers[name]) for name in computed if consumers[name]}
    is_after_convolution = False
    for node in graph.node:
        is_after_convolution |= node.op_type in _CONVOLUTIONS
        for name in _reads(node):
            if name in waiting:
                waiting[name] -= 1
                if not waiting[name]:
                    del waiting[name]
        if node.op_type in _SIZES or computed.isdisjoint(_reads(node)):
            continue
        computed.update(node.output)
        waiting |= {name: len(consumers[name]) for name in node.output if consumers[name]}
        if is_after_convolution and not waiting.keys() - {node.output[0]}:
            yield node.output[0]


def _reads(node: NodeProto) -> Iterator[str]:
    """The tensors that a node uses, those that its subgraphs take from outside too."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for subgraph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in subgraph.node:
                yield from _reads(inner)


def _value(tensor: ExternalTensor) -> ort.OrtValue:
    """The tensor as a value of ONNX Runtime; its elements have 8, 16, 32 or 64 bits."""
    bits = 8 * len(tensor.data) // math.prod(tensor.shape)
    array = np.frombuffer(tensor.data, f"<u{bits // 8}").reshape(tensor.shape)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, tensor.data_type)
