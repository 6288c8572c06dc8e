import subprocess
from collections.abc import Callable

import pytest

import weir.export
from weir.bundle.sequences import PaddedAxis, ValueRange


def test_public_face() -> None:
    assert callable(weir.export.publish)
    assert weir.export.ExportSpec.__name__ == "ExportSpec"
    assert weir.export.Published.__name__ == "Published"
    assert weir.export.PaddedAxis is PaddedAxis and weir.export.ValueRange is ValueRange
    assert all(hasattr(weir.export, name) for name in weir.export.__all__)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = weir.export.nothing


def test_importing_costs_no_torch(
    python: Callable[..., list[str]], environment: dict[str, str]
) -> None:
    code = "import sys, weir.export.__main__; sys.exit('torch' in sys.modules)"

    assert subprocess.run(python("-c", code), env=environment, check=False).returncode == 0
