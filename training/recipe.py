"""What all recipes have in common: the settings of learning, whatever is learnt.

A recipe is a value. It is written whole into `run.json`, so that a run can be repeated from its record alone.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Setting: TypeAlias = "str | int | float | bool | tuple[str, ...] | Mapping[str, Setting] | None"


class Settings(BaseModel):
    """Values checked once and never changed; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OptimizerSettings(Settings):
    """How weights are updated, and the schedule: linear warm-up, then a cosine down to zero."""

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(gt=0.0, description="the peak, reached at the end of warm-up")
    weight_decay: float = Field(default=0.0, ge=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="sgd only")
    warmup_share: float = Field(default=0.1, ge=0.0, lt=1.0, description="share of all steps")
    clip_norm: float = Field(default=1.0, gt=0.0, description="bound of the gradient's norm")


class Recipe(Settings):
    """All that decides a run, beside the machine it runs on and what is particular to its kind."""

    name: str
    architecture: str
    data: str
    seed: int = Field(default=0, ge=0, lt=2**32)
    optimizer: OptimizerSettings
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    average_decay: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="of the weights kept over the steps; 0: no average"
    )
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    validation_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    patience: int = Field(
        default=10,
        ge=1,
        description="epochs without a better validation accuracy, or loss, before stopping",
    )
    cpu_threads: int | None = Field(
        default=None, ge=1, description="none: one a core; the weights' last bits depend on it"
    )
    mixed_precision: bool = Field(default=True, description="where the device has bfloat16")
    cpu_bfloat16: bool = Field(
        default=False, description="on CPUs that have it too; small networks gain nothing from it"
    )


def explain(error: ValidationError) -> str:
    """One line for a failed validation: field, what was expected, what came."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        # Our own words on settings that do not go together; what came would be all of them.
        said = first["msg"].removeprefix("Value error, ")
        return f"{field}: {said}" if field else said
    return f"{field or 'settings'}: {first['msg']}, got {first['input']!r}"
