"""Fixtures of the training tests: a small recipe, a small folder, and a silent monitor."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.training import Silent
from weir.training.images.recipes import ImageRecipe
from weir.training.recipes import make_recipe


@pytest.fixture(scope="session")
def silent() -> Callable[..., Silent]:
    return Silent


def write_shapes(folder: Path) -> Path:
    """A folder of two easy classes, 20 pictures each: bright discs left and right of the middle."""
    generator = np.random.default_rng(0)
    for name, column in (("left", 6), ("right", 20)):
        (folder / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 40, (28, 28), np.uint8)
            pixels[10:18, column - 3 : column + 3] = 255
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def recipe_of_shapes(shapes: Path) -> ImageRecipe:
    """Three epochs of four steps, with every setting in use."""
    recipe = make_recipe(
        "lenet5",
        str(shapes),
        epochs=3,
        batch_size=8,
        seed=3,
        validation_share=0.2,
        label_smoothing=0.1,
        optimizer={"learning_rate": 3e-3},
    )
    assert isinstance(recipe, ImageRecipe)
    return recipe


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """See `write_shapes`; the test may change the folder."""
    return write_shapes(tmp_path / "shapes")


@pytest.fixture
def small_recipe(shapes: Path) -> ImageRecipe:
    """See `recipe_of_shapes`."""
    return recipe_of_shapes(shapes)


@pytest.fixture
def weir_data() -> Path:
    """The folder of data sets, if there is one."""
    if "WEIR_DATA" not in os.environ:
        pytest.skip("WEIR_DATA names no folder of data sets")
    return Path(os.environ["WEIR_DATA"])
