"""Tests of the onnx package that ONNX Runtime runs are served with its answers, or are listed."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import grpc
import onnxruntime as ort
import pytest

from tests.exporters.node_tests import (
    NodeTest,
    answers,
    entry_of,
    is_equal,
    node_tests,
    session_of,
    tensors,
    unserved,
)
from tests.helpers.onnx_models import write_plain
from tests.integration.harness import Client, running

pytestmark = pytest.mark.exporters

PARTS = 10
"""Servers that are started, one after the other."""


def of_part(part: int) -> list[tuple[NodeTest, ort.InferenceSession]]:
    """A share of the tests, without those that ONNX Runtime refuses to load."""
    loaded = ((case, session_of(case)) for case in node_tests()[part::PARTS])
    return [(case, session) for case, session in loaded if session is not None]


def fault_of(client: Client, case: NodeTest, session: ort.InferenceSession) -> str | None:
    """What is wrong with the answer to a test, or None."""
    entry = entry_of(case)
    wanted = None if case.inputs is None else tensors(case.inputs)
    # A model that takes no tensors of the protocol can only be refused, whatever the request.
    expected = None if wanted is None else answers(session, case.inputs or {})
    try:
        found = client.infer(case.name, *(wanted or ()))
    except grpc.RpcError as error:
        text = f"{error.code().name}: {error.details()}"
        if entry is not None:
            is_right = re.search(entry.message, text) is not None
        else:
            is_right = expected is None and text.startswith("INVALID_ARGUMENT")
        return None if is_right else text
    if entry is not None or expected is None:
        return "is served, though it is listed or ONNX Runtime refuses its inputs"
    if found.keys() != expected.keys():
        return f"has outputs {list(found)} instead of {list(expected)}"
    unequal = [name for name in expected if not is_equal(found[name], expected[name])]
    return f"has other values than ONNX Runtime in {unequal}" if unequal else None


@pytest.mark.parametrize("part", range(PARTS))
def test_served_as_onnxruntime_runs_them(part: int, tmp_path: Path) -> None:
    cases = of_part(part)
    for case, _ in cases:
        write_plain(tmp_path / "models", case.name, case.model)

    with (
        running(tmp_path / "models", tmp_path / "weir.server.log") as server,
        Client(server.target) as client,
    ):
        faults = {case.name: fault_of(client, case, session) for case, session in cases}

        assert server.process.poll() is None
    assert {name: fault for name, fault in faults.items() if fault} == {}


def test_most_tests_run_on_onnxruntime() -> None:
    """Else the tests above would prove little."""
    counts: Sequence[int] = [len(of_part(part)) for part in range(PARTS)]

    assert sum(counts) > 1500


@pytest.mark.parametrize("names", [entry.names for entry in unserved()])
def test_entry_of_the_list_names_a_test(names: str) -> None:
    named = [case for case in node_tests() if fnmatchcase(case.name, names)]

    assert any(session_of(case) for case in named)
