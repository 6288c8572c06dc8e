"""What may be in a process, and whose names are whose."""

import json
import os
import subprocess
import sys
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("weir",)

# A client of the protocol whose files have the names of Weir's and other contents.
NAMESAKE = """
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default
file = FileDescriptorProto(name="inference.proto", package="inference")
file.message_type.add(name="ModelInferRequest")
Default().Add(file)
"""


def modules_after(statement: str) -> set[str]:
    """Modules of an interpreter that ran a statement: packages, ours to the second name."""
    program = (
        f"import sys, json; {statement}; "
        "print(json.dumps(sorted({'.'.join(name.split('.')[:2]) for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    return {
        name if name.startswith("weir.") else name.split(".")[0] for name in json.loads(done.stdout)
    }


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith("weir.")}


def test_server_holds_no_torch_and_nothing_of_ours_but_bundle_and_protocol() -> None:
    loaded = modules_after("import weir.server.app, weir.server.__main__")

    assert ours(loaded) == {"weir.bundle", "weir.protocol", "weir.server"}
    assert {"onnxruntime", "grpc"} <= loaded
    assert not loaded & {"torch", "onnx", "sklearn", "matplotlib"}
    assert "opentelemetry" not in loaded, "it waits for a collector"
    assert not loaded & {"sentencepiece", "tokenizers"}, "they wait for a bundle that needs them"


@pytest.mark.parametrize(
    "module",
    [
        "weir.server.runtime.session",
        "weir.export.publishing",
        "weir.inspection.feature_maps",
        "weir.profile.graph_profile",
    ],
)
def test_onnx_runtime_tells_nobody_of_us(module: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)

    subprocess.run(
        [sys.executable, "-c", f"import {module}"], check=True, cwd=ROOT, env=environment
    )

    assert not list(tmp_path.rglob("deviceid")), "what it would send is named by this"


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import weir.training.__main__", {"weir.training", "weir.bundle"}),
        ("import weir.bundle.writer", {"weir.bundle"}),
        ("import weir; weir.Client", {"weir.client", "weir.protocol"}),
        (
            "import weir.inspection.feature_maps, weir.inspection.weight_sharing",
            {"weir.inspection", "weir.bundle"},
        ),
    ],
    ids=["training", "bundle", "client", "inspection"],
)
def test_lowest_packages_import_none_of_ours(statement: str, expected: set[str]) -> None:
    assert ours(modules_after(statement)) == expected


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "neighbour", ["import tritonclient.grpc", NAMESAKE], ids=["tritonclient", "namesake"]
)
def test_other_clients_of_the_protocol_share_the_process(neighbour: str, place: str) -> None:
    ours = "import weir, weir.server.services.health; weir.Client"

    programs = [neighbour, ours] if place == "before" else [ours, neighbour]

    modules_after("; ".join(f"exec({program!r})" for program in programs))


@pytest.mark.parametrize(
    ("package", "importer"),
    [
        ("onnxruntime", "server/runtime/session.py"),
        ("opentelemetry", "server/telemetry/tracing.py"),
        ("sentencepiece", "server/preprocessing/tokenizer.py"),
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
