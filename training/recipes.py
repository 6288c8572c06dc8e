"""Recipes: everything that decides a training run, by name, with defaults for each data set.

A recipe is a value. It is written whole into `run.json`, so that a run can be repeated from its record alone.
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.cookbook import RECIPES, Setting
from training.errors import RecipeError

__all__ = [
    "DEFAULT_DATA",
    "RECIPES",
    "Augmentation",
    "Normalisation",
    "OptimizerSettings",
    "PictureSize",
    "Recipe",
    "Setting",
    "change_recipe",
    "explain",
    "make_recipe",
]

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
    short_side: int | None = Field(
        default=None,
        le=4096,
        description="pictures are resized to it in proportion and their middle is cut out; none: stretched",
    )

    @model_validator(mode="after")
    def _crop_lies_inside(self) -> Self:
        least = max(self.height, self.width)
        if self.short_side is not None and self.short_side < least:
            raise ValueError(f"short_side must be at least {least}, got {self.short_side}")
        return self


class Augmentation(Settings):
    """Bounds of the random distortions; each picture draws its own, uniformly, each time."""

    shift_pixels: float = Field(default=0.0, ge=0.0)
    rotation_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    scale: float = Field(default=0.0, ge=0.0, lt=1.0, description="0.1 draws from 0.9 to 1.1")
    shear: float = Field(default=0.0, ge=0.0, lt=1.0)
    mirror: bool = False
    crop_pixels: int = Field(
        default=0, ge=0, description="moves by whole pixels, reflecting the border"
    )
    cutout_pixels: int = Field(default=0, ge=0, description="side of a square that is blanked")
    colour: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="0.1 draws brightness, contrast, saturation from 0.9 to 1.1",
    )
    mixup_alpha: float = Field(
        default=0.0, ge=0.0, description="how far pictures are laid over each other; 0: not at all"
    )

    @property
    def is_affine(self) -> bool:
        """True where pictures are resampled; a crop mirrors by itself."""
        moves = self.shift_pixels or self.rotation_degrees or self.scale or self.shear
        return bool(moves) or (self.mirror and not self.crop_pixels)

    @model_validator(mode="after")
    def _mirror_once(self) -> Self:
        if self.mirror and self.crop_pixels and self.is_affine:
            raise ValueError("mirror goes with crop_pixels or with resampling, not with both")
        return self


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
    auxiliary_weight: float = Field(
        default=0.3, ge=0.0, description="of each auxiliary classifier's loss; 0: without them"
    )
    average_decay: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="of the weights kept over the steps; 0: no average"
    )
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
    cpu_bfloat16: bool = Field(
        default=False, description="on CPUs that have it too; small networks gain nothing from it"
    )
    channels_last: bool = Field(default=False, description="how maps lie in memory")

    @model_validator(mode="after")
    def _smoothing_needs_cross_entropy(self) -> Self:
        if self.loss != "cross-entropy" and self.label_smoothing:
            raise ValueError(f"label_smoothing must be 0 with loss {self.loss}")
        return self


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
