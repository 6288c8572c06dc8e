"""Configuration and rules, checked with promtool; each alert is tested and documented."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.ops.stack import CONFIG

pytestmark = pytest.mark.ops

TESTS = sorted((CONFIG / "tests").glob("*.yml"))
ALERTS = re.findall(r"- alert: (\w+)", (CONFIG / "rules" / "alerts.yml").read_text("utf-8"))


def promtool(*words: str | Path) -> None:
    command = ["promtool", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_loads_the_rules() -> None:
    promtool("check", "config", "--lint=all", "--lint-fatal", CONFIG / "prometheus.yml")


@pytest.mark.parametrize("path", TESTS, ids=[path.stem for path in TESTS])
def test_rules_pass_their_promtool_tests(path: Path) -> None:
    promtool("test", "rules", path)


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_is_tested_firing_and_silent(alert: str) -> None:
    cases = re.findall(
        rf"alertname: {alert}[,\s]+exp_alerts:(?: &\w+)?\s*(\S+)",
        "\n".join(path.read_text("utf-8") for path in TESTS),
    )

    assert any(case.startswith("[]") for case in cases), f"{alert} is silent in no test"
    assert any(case.startswith(("-", "*")) for case in cases), f"{alert} fires in no test"


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_has_severity_texts_and_runbook(alert: str) -> None:
    text = (CONFIG / "rules" / "alerts.yml").read_text("utf-8")
    (rule,) = re.findall(rf"- alert: {alert}\n(.*?)(?=\n\n|\Z)", text, re.DOTALL)

    assert re.search(r"severity: (page|ticket)\n", rule)
    assert re.search(r"summary: .", rule)
    assert re.search(r"description: .", rule)
    assert f"runbook: docs/operations.md#{alert.lower()}" in rule
    assert f"\n### {alert}\n" in (CONFIG.parents[1] / "docs" / "operations.md").read_text("utf-8")
