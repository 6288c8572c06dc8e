"""The .proto files as clients of other languages compile them: as they lie, with Debian's tools."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.languages

PROTOS = Path(__file__).parents[2] / "protos"
FILES = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))

# Where Debian's packages put the libraries.
GO_LIBRARIES = Path("/usr/share/gocode")
JAVA_LIBRARIES = Path("/usr/share/java")
JAVA_PLUGIN = "/usr/bin/grpc_java_plugin"
JARS = (
    "protobuf",
    "grpc-api",
    "grpc-protobuf",
    "grpc-stub",
    "guava",
    "geronimo-annotation-1.3-spec",
)


def run(command: Sequence[str | Path], **options: Path | dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr


def protoc(*options: str) -> None:
    run(["protoc", "--proto_path", PROTOS, *options, *FILES])


def test_protos_compile_for_go(tmp_path: Path) -> None:
    sources = tmp_path / "src"
    sources.mkdir()

    protoc(f"--go_out={sources}", f"--go-grpc_out={sources}")

    assert {path.parent.relative_to(sources).as_posix() for path in sources.rglob("*.go")} == {
        "weir/inference",
        "weir/v1",
    }
    # Without modules, whose dependencies would be downloaded.
    paths = {"GO111MODULE": "off", "GOFLAGS": "", "GOPATH": f"{tmp_path}:{GO_LIBRARIES}"}
    run(["go", "vet", "./..."], cwd=sources, env={**os.environ, **paths})


def test_protos_compile_for_java(tmp_path: Path) -> None:
    sources, classes = tmp_path / "sources", tmp_path / "classes"
    sources.mkdir()
    classes.mkdir()

    protoc(
        f"--java_out={sources}",
        f"--grpc-java_out={sources}",
        f"--plugin=protoc-gen-grpc-java={JAVA_PLUGIN}",
    )

    files = sorted(sources.rglob("*.java"))
    assert {path.parent.relative_to(sources).as_posix() for path in files} == {
        "io/weir/inference",
        "io/weir/v1",
    }
    jars = ":".join(str(JAVA_LIBRARIES / f"{jar}.jar") for jar in JARS)
    run(["javac", "-d", classes, "-cp", jars, *files])
    assert (classes / "io/weir/inference/GRPCInferenceServiceGrpc.class").exists()
