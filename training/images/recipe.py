"""Recipes of image classification."""

from typing import Literal, Self

from pydantic import Field, model_validator

from weir.training.recipe import Recipe, Settings


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


class Normalisation(Settings):
    """Fixed (uint8 / 255 - mean) / std, where the network's paper prescribes it."""

    mean: float
    std: float = Field(gt=0.0)


class PictureRecipe(Recipe):
    """How a network learns to classify pictures."""

    task: Literal["image-classification"] = "image-classification"
    image: PictureSize = PictureSize()
    normalisation: Normalisation | None = Field(
        default=None, description="none: measured on the training pictures"
    )
    augmentation: Augmentation = Augmentation()
    loss: Literal["cross-entropy", "map-1998"] = "cross-entropy"
    auxiliary_weight: float = Field(
        default=0.3, ge=0.0, description="of each auxiliary classifier's loss; 0: without them"
    )
    channels_last: bool = Field(default=False, description="how maps lie in memory")

    @model_validator(mode="after")
    def _smoothing_needs_cross_entropy(self) -> Self:
        if self.loss != "cross-entropy" and self.label_smoothing:
            raise ValueError(f"label_smoothing must be 0 with loss {self.loss}")
        return self
