"""What is known of the model to evaluate: contract and labels, from a bundle or from its server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from weir.bundle import contract as contracts
from weir.bundle.errors import BundleError

if TYPE_CHECKING:
    from weir.bundle.contract import Contract, Provenance
    from weir.bundle.reader import Bundle
    from weir.protocol.model_config_pb2 import ModelConfig


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Contract and labels of a model.

    Attributes:
        contract: None if the server says nothing, as for a plain model.
        labels: by output.
        bundle: the files; None if the server described the model.
    """

    contract: "Contract | None" = None
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    bundle: "Bundle | None" = None

    @property
    def training(self) -> "Provenance | None":
        """What is recorded of the training."""
        return self.contract.training if self.contract else None

    @property
    def task(self) -> str:
        """The task; `other` if it is not known."""
        return self.contract.task if self.contract else "other"

    def any_labels(self) -> Sequence[str]:
        """The labels of the classes; empty if there are none."""
        return next(iter(self.labels.values()), ())


def of_bundle(bundle: "Bundle") -> ModelDescription:
    """The description that a bundle holds."""
    labels = {output: bundle.labels(output) or () for output in bundle.contract.labels}
    return ModelDescription(bundle.contract, labels, bundle)


def of_config(config: "ModelConfig") -> ModelDescription:
    """The description in a server's configuration of the model; empty if there is none."""
    parameters = config.parameters
    named = contracts.CONTRACT_PARAMETER
    text = parameters[named].string_value if named in parameters else ""
    if not text:
        return ModelDescription()
    try:
        contract = contracts.parse(text.encode())
    except BundleError:
        # Of a newer server: what this client does not know may matter.
        return ModelDescription()
    found = {
        output: parameters.get(contracts.LABELS_PARAMETER + file)
        for output, file in contract.labels.items()
    }
    labels = {
        output: parameter.string_value.split("\n")
        for output, parameter in found.items()
        if parameter is not None
    }
    return ModelDescription(contract, labels)
