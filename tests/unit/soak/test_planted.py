"""Planted bugs change what they name, or say that it is gone."""

import subprocess
import sys

import pytest

from tests.soak.planted import PlantError, replace

PLANT_ALL = """
from tests.soak.planted import BUGS, plant
for name in BUGS:
    plant(name)
    print(name)
"""


class Owner:
    """What a planted bug changes."""

    def answer(self) -> int:
        return 1


def test_each_bug_has_a_place_in_the_server() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLANT_ALL], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr


def test_place_that_is_gone_is_an_error() -> None:
    with pytest.raises(PlantError, match=r"Owner has no attribute 'gone'"):
        replace(Owner, "gone", lambda original: original)
