from typing import Any

import pytest

from tools.audit import verdict

GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {
    "name": "bad",
    "version": "2",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["2.1", "3"]},
        {"id": "PYSEC-2", "fix_versions": []},
    ],
}
SKIPPED = {"name": "away", "skip_reason": "Dependency not found on PyPI"}
KNOWN = ["bad 2: PYSEC-1, fixed in 2.1, 3", "bad 2: PYSEC-2, fixed in no version"]


@pytest.mark.parametrize(
    ("packages", "code", "lines"),
    [
        pytest.param([GOOD], 0, ["audit: 1 of 1 packages audited, 0 vulnerabilities"], id="good"),
        pytest.param(
            [GOOD, BAD],
            1,
            [*KNOWN, "audit: 2 of 2 packages audited, 2 vulnerabilities"],
            id="vulnerable",
        ),
        pytest.param(
            [GOOD, SKIPPED],
            2,
            ["audit: 1 of 2 packages audited, 0 vulnerabilities", "audit: not audited: away"],
            id="in part",
        ),
        pytest.param(
            [BAD, SKIPPED],
            1,
            [
                *KNOWN,
                "audit: 1 of 2 packages audited, 2 vulnerabilities",
                "audit: not audited: away",
            ],
            id="vulnerable and in part",
        ),
        pytest.param(
            [SKIPPED, SKIPPED],
            2,
            [
                "audit: 0 of 2 packages audited, 0 vulnerabilities",
                "audit: the feed knows none of the packages: is it reachable from here?",
            ],
            id="no feed",
        ),
    ],
)
def test_only_a_whole_audit_without_a_finding_passes(
    packages: list[dict[str, Any]], code: int, lines: list[str]
) -> None:
    assert verdict(packages) == (code, lines)
