"""Removal of what a server cannot serve: ZipMap, outputs that are no tensors, default inputs.

scikit-learn's exporters end classifiers with ZipMap, which makes a list of dictionaries of the
tensor of probabilities. That tensor becomes the output, and the keys become its labels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx

from weir.export.errors import BrokenGraph
from weir.export.onnx_import.tensor_specs import spec_of, type_of, why_not_held

PROBABILITIES = "probabilities"


@dataclass(slots=True)
class ServableOutputs:
    """The outputs of a model after the removal.

    Attributes:
        origins: for each output, the output of the file that has its values.
        labels: for each former output of ZipMap its keys, as texts.
        keys: the same, as the file has them.
        changes: what was changed, a line each.
    """

    origins: dict[str, str] = field(default_factory=dict)
    labels: dict[str, list[str]] = field(default_factory=dict)
    keys: dict[str, list[str] | list[int]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)


def freeze_defaults(model: onnx.ModelProto) -> list[str]:
    """Remove the inputs that have a default value; the default stays. Returns the changes."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    removed = [value for value in model.graph.input if value.name in defaults]
    for value in removed:
        model.graph.input.remove(value)
    # Up to version 3 of the format, every weight had to be an input too.
    if model.ir_version <= 3:
        model.ir_version = 4
        return []
    return [f"input {value.name} is fixed to its default" for value in removed]


def keep_tensors(model: onnx.ModelProto) -> ServableOutputs:
    """Cut off ZipMap and drop other outputs that are no tensors; BrokenGraph if none is left."""
    servable = ServableOutputs()
    makers = {name: node for node in model.graph.node for name in node.output}
    outputs = list(model.graph.output)
    del model.graph.output[:]
    for value in outputs:
        maker = makers.get(value.name)
        if maker is not None and (maker.op_type, maker.domain) == ("ZipMap", "ai.onnx.ml"):
            _cut(model, maker, servable)
        elif spec_of(value) is not None:
            model.graph.output.append(value)
            servable.origins[value.name] = value.name
        else:
            servable.changes.append(f"output {value.name} is left out: {type_of(value)}")
    if not servable.origins:
        raise BrokenGraph("; ".join(why_not_held(value, "output") for value in outputs))
    return servable


def _cut(model: onnx.ModelProto, node: onnx.NodeProto, servable: ServableOutputs) -> None:
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    keys = [
        key.decode() if isinstance(key, bytes) else key
        for name in ("classlabels_strings", "classlabels_int64s")
        for key in attributes.get(name, ())
    ]
    former, tensor = node.output[0], node.input[0]
    model.graph.node.remove(node)
    if tensor not in servable.origins:
        tensor = _named(model, tensor)
        value = onnx.helper.make_tensor_value_info(
            tensor, onnx.TensorProto.FLOAT, [None, len(keys)]
        )
        model.graph.output.append(value)
    servable.origins[tensor] = former
    servable.labels[tensor] = list(map(str, keys))
    servable.keys[tensor] = keys
    servable.changes.append(
        f"ZipMap is cut off: output {former} is the tensor {tensor}, its keys are the labels"
    )


def _named(model: onnx.ModelProto, tensor: str) -> str:
    """The tensor under the name `probabilities`, if that is free."""
    if tensor == PROBABILITIES or PROBABILITIES in _names(model.graph.node):
        return tensor
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == tensor:
                    names[place] = PROBABILITIES
    return PROBABILITIES


def _names(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    return {name for node in nodes for name in (*node.input, *node.output)}
