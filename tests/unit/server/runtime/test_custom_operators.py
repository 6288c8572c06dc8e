"""The library of custom operators is found without its package, and named where it is missing."""

import subprocess
import sys
from importlib.util import find_spec

import onnxruntime
import pytest

from weir.server.errors import ConfigError
from weir.server.runtime import custom_operators
from weir.server.runtime.custom_operators import library_path, missing_operator

SETTING = "onnxruntime-extensions"


def test_no_library_is_asked_for() -> None:
    assert library_path("none") is None


@pytest.mark.skipif(
    find_spec("onnxruntime_extensions") is None, reason="onnxruntime-extensions is not installed"
)
def test_library_is_one_that_onnx_runtime_loads() -> None:
    path = library_path(SETTING)

    assert path is not None
    onnxruntime.SessionOptions().register_custom_ops_library(path)


@pytest.mark.skipif(
    find_spec("onnxruntime_extensions") is None, reason="onnxruntime-extensions is not installed"
)
def test_its_package_is_not_imported() -> None:
    code = (
        "import sys; from weir.server.runtime.custom_operators import library_path; "
        f"library_path({SETTING!r}); "
        "sys.exit(bool({'onnxruntime_extensions', 'onnx', 'torch'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_operators, "find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r"got none: pip install onnxruntime-extensions$"):
        library_path(SETTING)


def test_only_a_graph_that_needs_it_is_told_the_flag() -> None:
    needs = "Fatal error: ai.onnx.contrib:BertTokenizer(-1) is not a registered function/op"
    other = "Fatal error: my.domain:Thing(-1) is not a registered function/op"

    assert missing_operator(needs) == (
        "operator BertTokenizer of ai.onnx.contrib: expected a server with "
        "--custom-operators onnxruntime-extensions, got one without"
    )
    assert missing_operator(other) is None
