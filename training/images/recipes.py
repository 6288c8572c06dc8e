"""The recipes of pictures: for each a function of the data set, which gives what differs from the defaults."""

from collections.abc import Callable

from weir.training.data import DATA_SETS
from weir.training.recipe import Setting

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
"""One cycle of a high rate, smoothed labels and averaged weights: few epochs go far."""

AUGMENTATION: dict[str, dict[str, Setting]] = {
    "cifar10": {"crop_pixels": 3, "mirror": True, "cutout_pixels": 8},
    "fashion-mnist": {"crop_pixels": 2, "mirror": True},
    "mnist": {"shift_pixels": 2.0, "rotation_degrees": 10.0, "scale": 0.1},
    "digits": {"shift_pixels": 2.0, "rotation_degrees": 8.0, "scale": 0.1},
    "folder": {"crop_pixels": 6, "mirror": True, "colour": 0.2},
}


FEW_PICTURES: dict[str, Setting] = {
    "epochs": 4,
    "batch_size": 32,
    "validation_share": 0.1,
    "average_decay": 0.97,
    "cpu_threads": 1,
}
"""For the 1,438 digits: under a minute, with steps enough for an average; one thread as for LeNet."""


def _convolutional(data: str, epochs: int) -> dict[str, Setting]:
    """What AlexNet and the Inceptions have in common."""
    return {
        **CONVOLUTIONAL,
        "image": SIZES.get(data, COLOUR_64),
        "augmentation": AUGMENTATION.get(data, AUGMENTATION["folder"]),
        **(FEW_PICTURES if data == "digits" else {"epochs": epochs}),
    }


def alexnet(data: str) -> dict[str, Setting]:
    """Settings of AlexNet: its small form for named data sets and, unless asked otherwise, for folders."""
    # Its fully connected layers are not normalised and bear less than convolutions do.
    optimizer = {**CONVOLUTIONAL_OPTIMIZER, "learning_rate": 0.05}
    return {**_convolutional(data, 18), "architecture": "alexnet", "optimizer": optimizer}


def alexnet_2012(data: str) -> dict[str, Setting]:
    """Settings of AlexNet as published, section 5; it takes pictures of 224 x 224 only.

    Deviation: one cycle in place of dividing the rate by hand; and see `training.colour`.
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
    """Settings of Inception v1, likewise; its auxiliary classifiers weigh 0.3 as in section 5."""
    # Pictures of a folder may be large, and without normalisation the large form bears no such rate.
    form = "inception-v1" if data in SIZES else "inception-v1-bn"
    return {**_convolutional(data, 12), "architecture": form}


def googlenet(data: str) -> dict[str, Setting]:
    """Settings of Inception v1 in the layout of torchvision's weights."""
    return {**_convolutional(data, 12), "architecture": "googlenet"}


def inception_v3(data: str) -> dict[str, Setting]:
    """Settings of Inception v3: labels smoothed by 0.1 (section 7), weights averaged (section 8).

    Deviation: momentum in place of RMSProp.
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
"""The data sets of each recipe, its default first; PATH stands for a folder or tar file of yours.

The default comes with scikit-learn: a first run needs no download.
"""
