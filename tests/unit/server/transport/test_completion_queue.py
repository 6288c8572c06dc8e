"""The versions of grpcio that the transport is used with; `tests/integration` tests its calls."""

import tomllib
from pathlib import Path

import grpc
import pytest

from weir.server.transport import completion_queue

PYPROJECT = Path(__file__).parents[4] / "pyproject.toml"


@pytest.mark.parametrize("version", ["1.81.0", "1.85.1", "1.85.99"])
def test_tested_versions_have_no_problem(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "__version__", version)

    assert completion_queue.problem() is None


@pytest.mark.parametrize("version", ["1.80.9", "1.86.0", "2.0.0", "1.86.0rc1"])
def test_problem_names_the_tested_versions(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "__version__", version)

    assert completion_queue.problem() == f"expected grpcio>=1.81,<1.86, got {version}"


def test_problem_names_what_grpcio_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion_queue, "cygrpc", None)

    assert completion_queue.problem() == (
        "grpcio lacks Server, CompletionQueue, ReceiveCloseOnServerOperation, "
        "ReceiveMessageOperation"
    )


def test_server_package_requires_the_tested_versions() -> None:
    extras = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    (required,) = [each for each in extras["server"] if each.startswith("grpcio>")]

    low, high = required.removeprefix("grpcio>=").split(",<")
    assert tuple(map(int, low.split(".")))[:2] == completion_queue.FIRST_TESTED
    assert tuple(map(int, high.split("."))) == completion_queue.FIRST_UNTESTED
