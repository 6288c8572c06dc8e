"""What may be in a process, and whose names are whose."""

import json
import os
import subprocess
import sys
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("bundle", "export", "server", "training", "weir")


def modules_after(statement: str) -> set[str]:
    """Top-level modules of a fresh interpreter that ran a statement."""
    program = (
        f"import sys, json; {statement}; "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return set(json.loads(done.stdout))


def test_server_holds_no_torch_and_nothing_of_ours_but_the_bundle() -> None:
    loaded = modules_after("import server.app, server.__main__")

    assert {"server", "bundle", "onnxruntime", "grpc"} <= loaded
    assert not loaded & {"torch", "onnx", "export", "training", "weir", "sklearn", "matplotlib"}
    assert "opentelemetry" not in loaded, "it waits for a collector"
    assert "sentencepiece" not in loaded, "it waits for a bundle that needs it"


@pytest.mark.parametrize("module", ["server.session", "export.publishing"])
def test_onnx_runtime_tells_nobody_of_us(module: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)

    subprocess.run(
        [sys.executable, "-c", f"import {module}"], check=True, cwd=ROOT, env=environment
    )

    assert not list(tmp_path.rglob("deviceid")), "what it would send is named by this"


@pytest.mark.parametrize("package", ["training", "bundle"])
def test_lowest_packages_import_none_of_ours(package: str) -> None:
    statement = {"training": "import training.command", "bundle": "import bundle.writer"}[package]

    loaded = modules_after(statement)

    assert loaded & set(OURS) == {package}


@pytest.mark.parametrize(
    ("package", "importer"),
    [
        ("onnxruntime", "server/session.py"),
        ("opentelemetry", "server/traces.py"),
        ("sentencepiece", "server/subwords.py"),
    ],
)
def test_only_one_module_of_the_server_imports_it(package: str, importer: str) -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "server").rglob("*.py")
        if any(
            line.strip().startswith((f"import {package}", f"from {package}"))
            for line in path.read_text("utf-8").splitlines()
        )
    }

    assert importers == {importer}


def test_no_dependency_owns_our_names() -> None:
    owners = packages_distributions()

    for name in OURS:
        assert set(owners.get(name, ["weir"])) == {"weir"}, name


def test_no_dependency_installs_files_under_our_names() -> None:
    intruders = {
        (distribution.name, str(file))
        for distribution in distributions()
        if distribution.name != "weir"
        for file in distribution.files or ()
        if file.parts[0] in OURS or (len(file.parts) == 1 and file.stem in OURS)
    }

    assert not intruders
