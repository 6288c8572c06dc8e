"""Reference of an import: the file as it is, in ONNX Runtime without graph optimisation.

It takes the inputs of the imported graph and gives the imported graph's outputs: pixels are
converted and ZipMap's dictionaries are read here by numpy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from weir.export import runtime
from weir.export.onnx_import.pictures import PictureInput, softmax
from weir.export.onnx_import.source import SourceModel
from weir.export.onnx_import.zip_map import ServableOutputs

Array = NDArray[Any]


@dataclass(slots=True)
class Reference:
    """The file's own graph, behind the inputs and outputs of the imported graph.

    Attributes:
        session: of the file.
        outputs: of the imported graph, and where they come from.
        picture: the input that takes pixels.
        softmaxes: for each added output, the scores that it is the softmax of.
        takes_single_rows: whether the file's graph takes one row a run only.
    """

    session: onnxruntime.InferenceSession
    outputs: ServableOutputs
    picture: PictureInput | None = None
    softmaxes: dict[str, str] = field(default_factory=dict)
    takes_single_rows: bool = False

    @classmethod
    def of(cls, read: SourceModel, outputs: ServableOutputs) -> "Reference":
        """The reference of an ONNX file."""
        session = runtime.open_session(
            read.data, is_optimised=False, external_data=read.external_data
        )
        return cls(session, outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of the imported graph, computed by the file."""
        own = dict(inputs)
        if self.picture is not None:
            own[self.picture.original.name] = self.picture.convert(own.pop(self.picture.name))
        return self.run_own(own)

    def run_own(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The same for the inputs of the file."""
        if not self.takes_single_rows:
            return self._run_once(inputs)
        rows = [
            self._run_once({name: array[row : row + 1] for name, array in inputs.items()})
            for row in range(len(next(iter(inputs.values()))))
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def _run_once(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        names = list(dict.fromkeys(self.outputs.origins.values()))
        found = dict(zip(names, self.session.run(names, dict(inputs)), strict=True))
        arrays = {}
        for name, origin in self.outputs.origins.items():
            keys = self.outputs.keys.get(name)
            arrays[name] = (
                np.asarray(found[origin])
                if keys is None
                else np.array([[row[key] for key in keys] for row in found[origin]], np.float32)
            )
        for name, scores in self.softmaxes.items():
            arrays[name] = softmax(arrays[scores])
        return arrays
