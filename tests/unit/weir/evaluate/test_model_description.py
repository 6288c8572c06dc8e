"""What a server's configuration says of a model."""

import json

import pytest

from weir.bundle.contract import Contract, Tolerance
from weir.evaluate.model_description import ModelDescription, of_config
from weir.protocol.model_config_pb2 import ModelConfig

CONTRACT = Contract(
    task="image-classification",
    architecture="shapes",
    labels={"probabilities": "labels.txt"},
    tolerance=Tolerance(absolute=0.0, relative=0.0),
)


def config(contract: str, labels: str | None = "left\nright") -> ModelConfig:
    made = ModelConfig(name="shapes")
    made.parameters["weir.contract"].string_value = contract
    if labels is not None:
        made.parameters["weir.labels.labels.txt"].string_value = labels
    return made


def test_contract_and_labels_are_read() -> None:
    found = of_config(config(CONTRACT.model_dump_json(exclude_defaults=True)))

    assert found.contract == CONTRACT
    assert found.any_labels() == ["left", "right"]


def test_labels_may_be_too_many_to_be_sent() -> None:
    assert of_config(config(CONTRACT.model_dump_json(), labels=None)).any_labels() == ()


@pytest.mark.parametrize(
    "contract",
    ["", json.dumps({**json.loads(CONTRACT.model_dump_json()), "of_a_later_version": 1})],
    ids=["none", "later version"],
)
def test_what_cannot_be_read_says_nothing(contract: str) -> None:
    assert of_config(config(contract)) == ModelDescription()
