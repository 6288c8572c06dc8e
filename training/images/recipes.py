"""Recipes of image classification.

Each recipe is a function from the data set to the settings that differ from the defaults.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from weir.training.data import DATA_SETS
from weir.training.recipe import CLASS_WEIGHTS, ClassWeights, CliOption, Recipe, Setting, Settings


class ImageSize(Settings):
    """The network's input; images of another size or colour are converted to it."""

    height: Annotated[int, CliOption()] = Field(
        default=28, ge=1, le=1024, description="of the network's input, in pixels"
    )
    width: Annotated[int, CliOption()] = Field(
        default=28, ge=1, le=1024, description="of the network's input, in pixels"
    )
    channels: Annotated[Literal[1, 3], CliOption()] = Field(
        default=1, description="1: grey, 3: colour"
    )
    short_side: Annotated[int | None, CliOption()] = Field(
        default=None,
        le=4096,
        description="resize in proportion to this and crop the centre; none: stretch",
    )

    @model_validator(mode="after")
    def _crop_lies_inside(self) -> Self:
        least = max(self.height, self.width)
        if self.short_side is not None and self.short_side < least:
            raise ValueError(f"short_side must be at least {least}, got {self.short_side}")
        return self


class Augmentation(Settings):
    """Bounds of the random augmentation; each image draws uniformly within them each time."""

    shift_pixels: float = Field(default=0.0, ge=0.0)
    rotation_degrees: float = Field(default=0.0, ge=0.0, le=180.0)
    scale: float = Field(default=0.0, ge=0.0, lt=1.0, description="0.1 draws from 0.9 to 1.1")
    shear: float = Field(default=0.0, ge=0.0, lt=1.0)
    mirror: bool = False
    crop_pixels: int = Field(
        default=0, ge=0, description="largest move by whole pixels; the border reflects"
    )
    cutout_pixels: int = Field(default=0, ge=0, description="side of the blanked square")
    colour: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="0.1 draws brightness, contrast, saturation from 0.9 to 1.1",
    )
    mixup_alpha: float = Field(
        default=0.0,
        ge=0.0,
        description="of the beta distribution that mixup draws from; 0: no mixup",
    )

    @property
    def is_affine(self) -> bool:
        """Whether images are resampled; a crop mirrors without resampling."""
        moves = self.shift_pixels or self.rotation_degrees or self.scale or self.shear
        return bool(moves) or (self.mirror and not self.crop_pixels)

    @model_validator(mode="after")
    def _mirror_once(self) -> Self:
        if self.mirror and self.crop_pixels and self.is_affine:
            raise ValueError("mirror goes with crop_pixels or with resampling, not with both")
        return self


class Normalisation(Settings):
    """Fixed (uint8 / 255 - mean) / std, as a paper prescribes it."""

    mean: float
    std: float = Field(gt=0.0)


class ImageRecipe(Recipe):
    """Recipe of an image classifier."""

    task: Literal["image-classification"] = "image-classification"
    image: ImageSize = ImageSize()
    normalisation: Normalisation | None = Field(
        default=None, description="none: measured on the training images"
    )
    augmentation: Augmentation = Augmentation()
    loss: Literal["cross-entropy", "map-1998"] = "cross-entropy"
    class_weights: ClassWeights = Field(default=0.0, ge=0.0, le=1.0, description=CLASS_WEIGHTS)
    auxiliary_weight: float = Field(
        default=0.3,
        ge=0.0,
        description="factor of each auxiliary classifier's loss; 0: no such classifiers",
    )
    channels_last: bool = Field(default=False, description="memory layout of feature maps")

    @model_validator(mode="after")
    def _smoothing_needs_cross_entropy(self) -> Self:
        if self.loss != "cross-entropy" and self.label_smoothing:
            raise ValueError(f"label_smoothing must be 0 with loss {self.loss}")
        if self.loss != "cross-entropy" and self.class_weights:
            raise ValueError(f"class_weights go with cross-entropy, got loss {self.loss}")
        return self


# Both networks use one thread: their steps take milliseconds, so a second thread gains little on
# an idle machine. When another program needed that core, each step took 8 to 14 times longer.
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
    """LeNet-5 in its modern form."""
    return {"architecture": "lenet5", "cpu_threads": 1, **LENET5.get(data, LENET5["folder"])}


def lenet5_1998(data: str) -> dict[str, Setting]:
    """LeNet-5 (LeCun et al., 1998). Deviation: momentum, not diagonal Levenberg-Marquardt."""
    return {
        **lenet5(data),
        "architecture": "lenet5-1998",
        "normalisation": INPUT_1998,
        "loss": "map-1998",
        "label_smoothing": 0.0,
        "optimizer": {"kind": "sgd", "learning_rate": 0.02, "weight_decay": 1e-5, "clip_norm": 5.0},
    }


GREY_28: dict[str, Setting] = {"height": 28, "width": 28, "channels": 1}
COLOUR_32: dict[str, Setting] = {"height": 32, "width": 32, "channels": 3}
COLOUR_64: dict[str, Setting] = {"height": 64, "width": 64, "channels": 3}
PHOTO_224: dict[str, Setting] = {"height": 224, "width": 224, "channels": 3, "short_side": 256}
SIZES = {"mnist": GREY_28, "fashion-mnist": GREY_28, "digits": GREY_28, "cifar10": COLOUR_32}

CONVOLUTIONAL_OPTIMIZER: dict[str, Setting] = {
    "kind": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "warmup_share": 0.2,
    "clip_norm": 5.0,
}
CONVOLUTIONAL: dict[str, Setting] = {
    "optimizer": CONVOLUTIONAL_OPTIMIZER,
    "label_smoothing": 0.1,
    "average_decay": 0.998,
    "batch_size": 128,
    "validation_share": 0.05,
    "patience": 100,
    "cpu_bfloat16": True,
    "channels_last": True,
}
"""One cycle of a high rate, smoothed labels and averaged weights reach much in few epochs."""

AUGMENTATION: dict[str, dict[str, Setting]] = {
    "cifar10": {"crop_pixels": 3, "mirror": True, "cutout_pixels": 8},
    "fashion-mnist": {"crop_pixels": 2, "mirror": True},
    "mnist": {"shift_pixels": 2.0, "rotation_degrees": 10.0, "scale": 0.1},
    "digits": {"shift_pixels": 2.0, "rotation_degrees": 8.0, "scale": 0.1},
    "folder": {"crop_pixels": 6, "mirror": True, "colour": 0.2},
}


FEW_IMAGES: dict[str, Setting] = {
    "epochs": 4,
    "batch_size": 32,
    "validation_share": 0.1,
    "average_decay": 0.97,
    "cpu_threads": 1,
}
"""For the 1,438 digits: under a minute, yet enough steps for an average."""


def _convolutional(data: str, epochs: int) -> dict[str, Setting]:
    """The settings that AlexNet and the Inceptions share."""
    return {
        **CONVOLUTIONAL,
        "image": SIZES.get(data, COLOUR_64),
        "augmentation": AUGMENTATION.get(data, AUGMENTATION["folder"]),
        **(FEW_IMAGES if data == "digits" else {"epochs": epochs}),
    }


def alexnet(data: str) -> dict[str, Setting]:
    """AlexNet; its small form unless the image size is changed."""
    # Its fully connected layers are not normalised and diverge at the rate of convolutions.
    optimizer = {**CONVOLUTIONAL_OPTIMIZER, "learning_rate": 0.05}
    return {**_convolutional(data, 18), "architecture": "alexnet", "optimizer": optimizer}


def alexnet_2012(data: str) -> dict[str, Setting]:
    """AlexNet as published (Krizhevsky et al., 2012, section 5), for images of 224 x 224 only.

    Deviation: one cycle instead of dividing the rate by hand; and see
    `weir.training.images.augmentation.shift_colours`.
    """
    settings = _convolutional(data, 90)
    return {
        **settings,
        "architecture": "alexnet-2012",
        "image": PHOTO_224,
        "augmentation": {"crop_pixels": 16, "mirror": True, "colour": 0.1},
        "optimizer": {**CONVOLUTIONAL_OPTIMIZER, "learning_rate": 0.01},
        "label_smoothing": 0.0,
        "average_decay": 0.0,
    }


def inception_v1(data: str) -> dict[str, Setting]:
    """Inception v1 (Szegedy et al., 2015); auxiliary losses weigh 0.3 as in section 5."""
    # Images of a folder may be large. Without normalisation, the large form diverges at this rate.
    form = "inception-v1" if data in SIZES else "inception-v1-bn"
    return {**_convolutional(data, 12), "architecture": form}


def googlenet(data: str) -> dict[str, Setting]:
    """Inception v1 in the layout of torchvision's weights."""
    return {**_convolutional(data, 12), "architecture": "googlenet"}


def inception_v3(data: str) -> dict[str, Setting]:
    """Inception v3 (Szegedy et al., 2016): smoothed labels (section 7), averaged weights (8).

    Deviation: momentum instead of RMSProp.
    """
    image = COLOUR_32 if data == "cifar10" else COLOUR_64
    return {**_convolutional(data, 30), "architecture": "inception-v3", "image": image}


RECIPES: dict[str, Callable[[str], dict[str, Setting]]] = {
    "lenet5": lenet5,
    "lenet5-1998": lenet5_1998,
    "alexnet": alexnet,
    "alexnet-2012": alexnet_2012,
    "inception-v1": inception_v1,
    "googlenet": googlenet,
    "inception-v3": inception_v3,
}

MADE_FOR = dict.fromkeys(RECIPES, (*DATA_SETS, "PATH"))
"""The data sets of each recipe, the default first; PATH is the user's own folder or tar file.

The default comes with scikit-learn, so that a first run needs no download.
"""
