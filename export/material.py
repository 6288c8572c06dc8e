"""What a run has to give for its publication."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from weir.export.spec import ExportSpec


@dataclass(frozen=True, slots=True)
class Material:
    """The network as it is served, rows to try it on, and what neither can say of itself."""

    module: nn.Module
    examples: Mapping[str, Tensor]
    spec: ExportSpec
