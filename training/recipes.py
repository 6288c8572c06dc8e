"""Recipes: everything that decides a training run, by name, with defaults for each data set.

A recipe is a value. It is written whole into `run.json`, so that a run can be repeated from its record alone.
"""

from collections.abc import Callable, Mapping
from typing import Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError

Setting: TypeAlias = "str | int | float | bool | Mapping[str, Setting] | None"

DEFAULT_DATA = "digits"
"""Comes with scikit-learn: a first run needs no download."""


class Settings(BaseModel):
    """Values checked once and never changed; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PictureSize(Settings):
    """What the network takes: pictures of another size or colour are converted to it."""

    height: int = Field(default=28, ge=1, le=1024)
    width: int = Field(default=28, ge=1, le=1024)
    channels: Literal[1, 3] = 1


class Augmentation(Settings):
    """Bounds of the random distortions; each picture draws its own, uniformly, each time."""

    shift_pixels: float = Field(default=0.0, ge=0.0)
    rotation_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    scale: float = Field(default=0.0, ge=0.0, lt=1.0, description="0.1 draws from 0.9 to 1.1")
    shear: float = Field(default=0.0, ge=0.0, lt=1.0)
    mirror: bool = False


class OptimizerSettings(Settings):
    """How weights are updated, and the schedule: linear warm-up, then a cosine down to zero."""

    kind: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(gt=0.0, description="the peak, reached at the end of warm-up")
    weight_decay: float = Field(default=0.0, ge=0.0)
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="sgd only")
    warmup_share: float = Field(default=0.1, ge=0.0, lt=1.0, description="share of all steps")
    clip_norm: float = Field(default=1.0, gt=0.0, description="bound of the gradient's norm")


class Normalisation(Settings):
    """Fixed (uint8 / 255 - mean) / std, where the network's paper prescribes it."""

    mean: float
    std: float = Field(gt=0.0)


class Recipe(Settings):
    """All that decides a run, beside the machine it runs on."""

    name: str
    architecture: str
    data: str
    seed: int = Field(default=0, ge=0, lt=2**32)
    image: PictureSize = PictureSize()
    normalisation: Normalisation | None = Field(
        default=None, description="none: measured on the training pictures"
    )
    augmentation: Augmentation = Augmentation()
    optimizer: OptimizerSettings
    loss: Literal["cross-entropy", "map-1998"] = "cross-entropy"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    validation_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    patience: int = Field(
        default=10, ge=1, description="epochs without a better validation accuracy before stopping"
    )
    cpu_threads: int | None = Field(
        default=None, ge=1, description="none: one a core; the weights' last bits depend on it"
    )
    mixed_precision: bool = Field(default=True, description="where the device has bfloat16")

    @model_validator(mode="after")
    def _smoothing_needs_cross_entropy(self) -> Self:
        if self.loss != "cross-entropy" and self.label_smoothing:
            raise ValueError(f"label_smoothing must be 0 with loss {self.loss}")
        return self


# One thread in both networks: their steps take milliseconds, so a second one gains little on an idle
# machine and, where another program wants that core too, made each step 8 to 14 times slower.
LENET5: dict[str, dict[str, Setting]] = {
    "mnist": {
        "augmentation": {"shift_pixels": 2.0, "rotation_degrees": 10.0, "scale": 0.1, "shear": 0.1},
        "optimizer": {"learning_rate": 3e-3, "weight_decay": 1e-2},
        "epochs": 40,
        "batch_size": 128,
        "validation_share": 0.05,
        "patience": 15,
    },
    "fashion-mnist": {
        "augmentation": {
            "shift_pixels": 1.0,
            "rotation_degrees": 4.0,
            "scale": 0.05,
            "mirror": True,
        },
        "optimizer": {"learning_rate": 4e-3, "weight_decay": 1e-2},
        "epochs": 50,
        "batch_size": 128,
        "validation_share": 0.05,
        "patience": 20,
    },
    "digits": {
        "augmentation": {"shift_pixels": 2.0, "rotation_degrees": 8.0, "scale": 0.1},
        "optimizer": {"learning_rate": 5e-3, "weight_decay": 1e-2},
        "label_smoothing": 0.05,
        "epochs": 30,
        "batch_size": 64,
        "patience": 30,
    },
    "folder": {
        "augmentation": {"shift_pixels": 2.0, "rotation_degrees": 5.0},
        "optimizer": {"learning_rate": 2e-3, "weight_decay": 1e-2},
        "epochs": 60,
        "batch_size": 64,
        "patience": 20,
    },
}

# Background -0.1 and ink 1.175, as in section II.B of the paper.
INPUT_1998: dict[str, Setting] = {"mean": 0.1 / 1.275, "std": 1.0 / 1.275}


def lenet5(data: str) -> dict[str, Setting]:
    """Settings of LeNet-5 in today's form."""
    return {"architecture": "lenet5", "cpu_threads": 1, **LENET5.get(data, LENET5["folder"])}


def lenet5_1998(data: str) -> dict[str, Setting]:
    """Settings of LeNet-5 as published; deviation: momentum in place of diagonal Levenberg-Marquardt."""
    return {
        **lenet5(data),
        "architecture": "lenet5-1998",
        "normalisation": INPUT_1998,
        "loss": "map-1998",
        "label_smoothing": 0.0,
        "optimizer": {"kind": "sgd", "learning_rate": 0.02, "weight_decay": 1e-5, "clip_norm": 5.0},
    }


RECIPES: dict[str, Callable[[str], dict[str, Setting]]] = {
    "lenet5": lenet5,
    "lenet5-1998": lenet5_1998,
}


def make_recipe(name: str, data: str = DEFAULT_DATA, **changes: Setting) -> Recipe:
    """The named recipe with its defaults for a data set.

    Args:
        name: a key of `RECIPES`.
        data: a data set's name, or the path of a folder.
        **changes: top-level settings put in place of the defaults; a mapping changes only its keys.

    Raises:
        RecipeError: unknown name, or a setting out of its range; names field, bound and value.
    """
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}; there are {', '.join(sorted(RECIPES))}")
    return _validate({"name": name, "data": data, **RECIPES[name](data)}, changes)


def change_recipe(recipe: Recipe, **changes: Setting) -> Recipe:
    """The recipe with other settings, under the rules of `make_recipe`."""
    return _validate(recipe.model_dump(), changes)


def _validate(settings: Mapping[str, Setting], changes: Mapping[str, Setting]) -> Recipe:
    merged = dict(settings)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = {**before, **value}
        else:
            merged[key] = value
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError(explain(error)) from error


def explain(error: ValidationError) -> str:
    """One line for a failed validation: field, what was expected, what came."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "settings"
    return f"{field}: {first['msg']}, got {first['input']!r}"
