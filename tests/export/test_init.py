import subprocess
from collections.abc import Callable

import pytest

import export


def test_public_face() -> None:
    assert callable(export.publish)
    assert export.ExportSpec.__name__ == "ExportSpec"
    assert export.Published.__name__ == "Published"


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = export.nothing


def test_importing_costs_no_torch(
    python: Callable[..., list[str]], environment: dict[str, str]
) -> None:
    code = "import sys, export, export.__main__; sys.exit('torch' in sys.modules)"

    assert subprocess.run(python("-c", code), env=environment, check=False).returncode == 0
