"""Pictures as uint8 pixels in front of an imported graph, and probabilities behind it.

The nodes in front compute (pixel * scale - mean) / std for each channel, in the layout, the order
of channels and the type of the graph's own input.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from weir.bundle.contract import Preprocessing
from weir.export.errors import ExportError
from weir.export.onnx_import.spec import Pictures
from weir.export.onnx_import.tensor_specs import TensorSpec, find, set_axes
from weir.export.onnx_import.zip_map import PROBABILITIES

Array = NDArray[Any]

_NAMES = ("image", "pixels", "image_pixels")
_PREFIX = "weir_pictures_"


@dataclass(frozen=True, slots=True)
class PictureInput:
    """An input of pictures, as the bundle takes it and as the graph does.

    Attributes:
        name: of the bundle's input, uint8 [batch, height, width, channels].
        original: the graph's own input.
        scale, mean, std: (channels,) float32.
    """

    name: str
    original: TensorSpec
    layout: Literal["nchw", "nhwc"]
    height: int
    width: int
    channels: Literal[1, 3]
    is_bgr: bool
    scale: float
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def convert(self, pixels: Array) -> Array:
        """The graph's own input for pixels, (rows, height, width, channels)."""
        if self.original.dtype == np.uint8:
            values = pixels
        else:
            values = (pixels.astype(np.float32) * np.float32(self.scale) - self.mean) / self.std
        if self.is_bgr:
            values = values[..., ::-1]
        if self.layout == "nchw":
            values = np.moveaxis(values, -1, 1)
        return np.ascontiguousarray(values, self.original.dtype)


def picture_input(pictures: Pictures, inputs: list[TensorSpec]) -> PictureInput:
    """The input of pictures; ExportError with the inputs that there are if none fits."""
    spec = find("image", pictures.input, inputs, "input")
    axes = spec.axes or ()
    if len(axes) != 4 or not (spec.dtype.kind == "f" or spec.dtype == np.uint8):
        raise ExportError(f"image: expected an input of floats or uint8 with 4 axes, got {spec}")
    layout = pictures.layout or _layout(spec)
    places = (1, 2, 3) if layout == "nchw" else (3, 1, 2)
    channels, height, width = (axes[place] for place in places)
    if channels not in (1, 3):
        raise ExportError(f"image: expected 1 or 3 channels in layout {layout}, got {spec}")
    sides = [
        _side(name, axis, given, spec)
        for name, axis, given in (
            ("height", height, pictures.height),
            ("width", width, pictures.width),
        )
    ]
    if spec.dtype == np.uint8 and (tuple(pictures.mean) != (0.0,) or tuple(pictures.std) != (1.0,)):
        raise ExportError(f"mean, std: expected none for an input of pixels, got {spec}")
    return PictureInput(
        name=_free_name(spec.name, inputs),
        original=spec,
        layout=layout,
        height=sides[0],
        width=sides[1],
        channels=3 if channels == 3 else 1,
        is_bgr=pictures.is_bgr,
        scale=pictures.scale,
        mean=_per_channel("mean", pictures.mean, int(channels)),
        std=_per_channel("std", pictures.std, int(channels)),
    )


def prepend(model: onnx.ModelProto, picture: PictureInput) -> str:
    """Put the conversion of pixels in front of the graph; returns the change in words."""
    graph = model.graph
    place = [value.name for value in graph.input].index(picture.original.name)
    del graph.input[place]
    value = helper.make_tensor_value_info(picture.name, onnx.TensorProto.UINT8, [])
    rows = (picture.original.axes or (None,))[0]
    set_axes(value, (rows, picture.height, picture.width, picture.channels))
    graph.input.insert(place, value)
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    is_nchw = picture.layout == "nchw"
    if is_nchw:
        # First: with the channels in the last axis, ONNX Runtime takes 3 numbers at a time.
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
    mean, std = picture.mean, picture.std
    if picture.is_bgr:
        order = np.arange(picture.channels)[::-1].astype(np.int64)
        graph.initializer.append(numpy_helper.from_array(order, _PREFIX + "order"))
        steps.append(("Gather", [_PREFIX + "order"], {"axis": 1 if is_nchw else 3}))
        mean, std = mean[order], std[order]
    if picture.original.dtype != np.uint8:
        shape = (-1, 1, 1) if is_nchw else (-1,)
        constants = {
            "scale": np.float32(picture.scale),
            "mean": mean.reshape(shape),
            "std": std.reshape(shape),
        }
        for name, array in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), _PREFIX + name))
        steps += [
            ("Cast", [], {"to": onnx.TensorProto.FLOAT}),
            ("Mul", [_PREFIX + "scale"], {}),
            ("Sub", [_PREFIX + "mean"], {}),
            ("Div", [_PREFIX + "std"], {}),
        ]
    if picture.original.dtype not in (np.uint8, np.float32):
        to = helper.np_dtype_to_tensor_dtype(picture.original.dtype)
        steps.append(("Cast", [], {"to": to}))
    steps = steps or [("Identity", [], {})]
    nodes, last = [], picture.name
    for number, (operator, constants_of, attributes) in enumerate(steps):
        is_last = number == len(steps) - 1
        made = picture.original.name if is_last else f"{_PREFIX}{number}"
        node = helper.make_node(
            operator, [last, *constants_of], [made], f"{_PREFIX}{operator}_{number}", **attributes
        )
        nodes.append(node)
        last = made
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])
    return (
        f"input {picture.original.name} is made of uint8 pixels {picture.name} "
        f"[batch, {picture.height}, {picture.width}, {picture.channels}]: "
        f"{' '.join(operator for operator, _, _ in steps)}"
    )


def scores_output(pictures: Pictures, outputs: list[TensorSpec]) -> str:
    """The output of the classes' scores, [batch, classes]; ExportError unless one fits."""
    if pictures.output is not None:
        return find("classes", pictures.output, outputs, "output").name
    fitting = [
        spec.name
        for spec in outputs
        if spec.dtype.kind == "f" and spec.axes is not None and len(spec.axes) == 2
    ]
    if PROBABILITIES in fitting:
        return PROBABILITIES
    if len(fitting) != 1:
        raise ExportError(
            "image: expected one output of floats [batch, classes], or its name, got "
            + ", ".join(map(str, outputs))
        )
    return fitting[0]


def are_probabilities(scores: Array) -> bool:
    """Whether each row of scores, (rows, classes), is a distribution."""
    sums = scores.astype(np.float64).sum(axis=-1)
    return bool((scores >= 0).all() and np.allclose(sums, 1.0, atol=1e-2))


def append_softmax(model: onnx.ModelProto, scores: str, taken: set[str]) -> str:
    """Add an output with the softmax of the scores; returns its name."""
    name = PROBABILITIES if PROBABILITIES not in taken else f"{_PREFIX}{PROBABILITIES}"
    node = helper.make_node("Softmax", [scores], [name], f"{_PREFIX}Softmax", axis=1)
    append_output(model, node, scores)
    return name


def append_output(model: onnx.ModelProto, node: onnx.NodeProto, scores: str) -> None:
    """Add the output of a node, which has the form of the scores."""
    value = next(each for each in model.graph.output if each.name == scores)
    copied = onnx.ValueInfoProto()
    copied.CopyFrom(value)
    copied.name = node.output[0]
    model.graph.node.append(node)
    model.graph.output.append(copied)


def softmax(scores: Array) -> Array:
    """The softmax of each row."""
    exponents = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    shares: Array = exponents / exponents.sum(axis=-1, keepdims=True)
    return shares.astype(scores.dtype)


def preprocessing(pictures: Pictures, picture: PictureInput, output: str) -> Preprocessing:
    """The contract of the pictures."""
    try:
        return Preprocessing(
            input=picture.name,
            height=picture.height,
            width=picture.width,
            channels=picture.channels,
            resize="stretch" if pictures.short_side is None else "short-side",
            short_side=pictures.short_side,
            output=output,
        )
    except ValueError as error:
        least = max(picture.height, picture.width)
        raise ExportError(
            f"short side: expected at least {least}, got {pictures.short_side}"
        ) from error


def _layout(spec: TensorSpec) -> Literal["nchw", "nhwc"]:
    axes = spec.axes or ()
    is_first, is_last = axes[1] in (1, 3), axes[3] in (1, 3)
    if is_first == is_last:
        raise ExportError(
            f"image: expected 1 or 3 channels at axis 1 or at axis 3, or a layout, got {spec}"
        )
    return "nchw" if is_first else "nhwc"


def _side(name: str, axis: object, given: int | None, spec: TensorSpec) -> int:
    if isinstance(axis, int):
        if given not in (None, axis):
            raise ExportError(f"image size: expected {name} {axis}, got {given} for {spec}")
        return axis
    if given is None:
        raise ExportError(f"image size: expected HEIGHTxWIDTH, since the graph leaves it: {spec}")
    return given


def _per_channel(what: str, numbers: "tuple[float, ...] | Any", channels: int) -> Any:
    values = np.asarray(list(numbers), np.float32)
    if len(values) not in (1, channels):
        raise ExportError(f"{what}: expected 1 or {channels} numbers, got {len(values)}")
    return np.broadcast_to(values, channels).copy()


def _free_name(own: str, inputs: list[TensorSpec]) -> str:
    taken = {spec.name for spec in inputs} | {own}
    return next(name for name in _NAMES if name not in taken)
