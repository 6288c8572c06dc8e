"""A short fuzzing of each part, and the planted bugs that each must find: see `make fuzz`.

The number of inputs is bounded, not the time. Hypothesis also takes constants of the modules that
are loaded, so a planted bug may need more rounds in another order of the tests.
"""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import contract, http2, messages
from tests.fuzz.findings import Findings

SEED = 17

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of the server")


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    return Findings(tmp_path / "found", "part", SEED)


def test_requests_get_what_a_model_of_the_contract_says(findings: Findings, tmp_path: Path) -> None:
    contract.run(findings, SEED, tmp_path, seconds=math.inf, rounds=1)

    assert findings.executions > 200
    assert findings.files == []


def test_any_bytes_are_a_message_or_refused(findings: Findings) -> None:
    messages.drive(findings, SEED, seconds=math.inf, executions=2500)

    assert findings.files == []


def test_hostile_http2_harms_nobody(findings: Findings, tmp_path: Path, transport: str) -> None:
    http2.run(
        findings,
        SEED,
        tmp_path,
        seconds=math.inf,
        rounds=1,
        sessions=60,
        transports=(transport,),
    )

    assert findings.files == []


@pytest.mark.parametrize("bug", ["reversed-elements", "one-row-more"])
def test_planted_bug_of_the_contract_is_found(bug: str, findings: Findings, tmp_path: Path) -> None:
    contract.run(findings, SEED, tmp_path, seconds=math.inf, rounds=20, planted=bug)

    assert findings.files


PLANTED_MESSAGES = """
import sys
from pathlib import Path
from tests.fuzz import messages
from tests.fuzz.findings import Findings
from tests.fuzz.planted import BUGS
BUGS[sys.argv[1]]()
findings = Findings(Path(sys.argv[2]), "messages", int(sys.argv[3]))
messages.drive(findings, int(sys.argv[3]), seconds=60, executions=2500)
sys.exit(len(findings.files) > 0)
"""


@pytest.mark.parametrize("bug", ["varint-past-the-end", "uncounted-fields"])
def test_planted_bug_of_the_messages_is_found(bug: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLANTED_MESSAGES, bug, str(tmp_path / "found"), str(SEED)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert "FOUND messages" in done.stdout


def test_planted_leak_of_descriptors_is_found_and_replayed(
    findings: Findings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    http2.run(
        findings,
        SEED,
        tmp_path,
        seconds=math.inf,
        rounds=1,
        sessions=60,
        transports=("completion-queue",),
        planted="leaked-descriptor",
        rest_s=1.0,
    )

    assert "descriptors, got" in capsys.readouterr().out
    (file,) = findings.files
    http2.replay(file.read_bytes(), tmp_path / "replay")
