import subprocess
import sys
from pathlib import Path

import pytest

import weir
from weir.client import errors

ROOT = Path(__file__).parents[3]
STRANGE = {"weir.server", "weir.training", "weir.export", "weir.bundle", "onnxruntime", "torch"}
HEAVY = {"grpc", "numpy", "onnx", "onnxruntime", "torch", "google.protobuf"}


def test_every_public_name_can_be_had() -> None:
    for name in weir.__all__:
        assert getattr(weir, name).__name__ == name

    assert sorted(weir.__all__) == weir.__all__ == dir(weir)


def test_every_error_is_public() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]

    leaves = {kind.__name__ for kind in kinds if issubclass(kind, weir.WeirError)}

    assert leaves <= set(weir.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        weir.Klient  # noqa: B018


@pytest.mark.parametrize("what", ["import weir", "import weir.cli.main; weir.cli.main._app()"])
def test_nothing_heavy_is_imported_before_it_is_needed(what: str) -> None:
    code = f"import sys; {what}; print(sorted({HEAVY!r} & set(sys.modules)))"

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "Generation", "Answer", "CallError"])
def test_the_client_imports_no_server_and_sets_no_environment_variable(name: str) -> None:
    code = f"""
import json, os, sys
before = dict(os.environ)
from weir import {name}
strays = {STRANGE!r} & {{".".join(module.split(".")[:2]) for module in sys.modules}}
print(json.dumps([sorted(strays), before == dict(os.environ)]))
"""

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout.strip() == "[[], true]"
