import subprocess
from collections.abc import Callable

import pytest

import weir.export


def test_public_face() -> None:
    assert callable(weir.export.publish)
    assert weir.export.ExportSpec.__name__ == "ExportSpec"
    assert weir.export.Published.__name__ == "Published"


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = weir.export.nothing


def test_importing_costs_no_torch(
    python: Callable[..., list[str]], environment: dict[str, str]
) -> None:
    code = "import sys, export, weir.export.__main__; sys.exit('torch' in sys.modules)"

    assert subprocess.run(python("-c", code), env=environment, check=False).returncode == 0
