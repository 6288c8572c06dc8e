"""Every panel query and every rule operand returns data from a real Prometheus."""

import shutil
from pathlib import Path

import pytest

from tests.helpers.waiting import wait_until
from tests.ops.answers import EMPTY_OPERANDS, empty_panels, empty_rules, operands
from tests.ops.prometheus_api import Prometheus, filled
from tools.dashboards.grafana_json import FOLDER

pytestmark = pytest.mark.ops

yaml = pytest.importorskip("yaml", reason="installed by make test-ops")

SCALING = Path(__file__).parents[2] / "deploy" / "kubernetes" / "components"


def test_every_query_of_every_panel_returns_data(watched: Prometheus) -> None:
    problems = list(empty_panels(FOLDER, watched))

    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("weir_running_requests{", "weir_ruining_requests{", "no data"),
        ('version=~\\"$version\\"', 'edition=\\"$version\\"', "no data"),
        ("sum by (le)", "sum by (le", "parse error"),
    ],
    ids=["metric", "label", "syntax"],
)
def test_a_broken_query_is_found(
    watched: Prometheus, tmp_path: Path, right: str, wrong: str, problem: str
) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "dashboards"))
    page = copy / "model.json"
    text = page.read_text("utf-8")
    assert right in text
    page.write_text(text.replace(right, wrong, 1), "utf-8")

    (found,) = empty_panels(copy, watched)

    assert found.startswith("weir-model: ")
    assert problem in found


def test_variables_of_a_query_are_filled_in() -> None:
    expr = 'rate(weir_rows_total{model="$model"}[$__rate_interval])'

    assert filled(expr, {"model": "lenet5", "__rate_interval": "1m"}) == (
        'rate(weir_rows_total{model="lenet5"}[1m])'
    )
    with pytest.raises(KeyError):
        filled(expr, {"model": "lenet5"})


def test_every_part_of_every_rule_returns_data(watched: Prometheus) -> None:
    rules = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]

    problems = list(empty_rules((rule["query"] for rule in rules), watched))

    assert len(rules) > 20
    assert not problems, "\n".join(problems)
    assert {rule["health"] for rule in rules} == {"ok"}


def test_a_broken_rule_is_found(watched: Prometheus) -> None:
    broken = "(up == 0 and on (job) (weir_no_such_metric > 1)) or absent(up)"

    assert list(empty_rules([broken], watched)) == [
        "no data: weir_no_such_metric > 1",
        "no data: absent(up)",
    ]


def test_exceptions_are_parts_of_rules(watched: Prometheus) -> None:
    rules = [rule for group in watched.ask("rules")["groups"] for rule in group["rules"]]
    parts = {part for rule in rules for part in operands(rule["query"])}

    assert set(EMPTY_OPERANDS) <= parts


def test_only_the_expected_alerts_fire(watched: Prometheus) -> None:
    def active() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for alert in watched.ask("alerts")["alerts"]:
            found.setdefault(alert["labels"]["alertname"], set()).add(
                alert["labels"].get("model", "")
            )
        return found

    wait_until(
        lambda: "WeirGoldenMismatch" in active(), "no alert for the model with wrong outputs"
    )

    alerts = active()
    assert alerts["WeirGoldenMismatch"] == {"mismatch"}
    assert alerts["WeirModelFailed"] == {"broken", "mismatch"}
    assert not {"WeirDown", "WeirVersionFailed", "WeirQueueFilling"} & set(alerts)


def test_autoscalers_of_kubernetes_ask_for_the_waiting_rows_of_a_server(
    watched: Prometheus,
) -> None:
    rule = yaml.safe_load((SCALING / "scaling-hpa" / "prometheus-adapter-rule.yaml").read_text())
    (metric,) = rule["rules"]["custom"]
    keda = yaml.safe_load((SCALING / "scaling-keda" / "autoscaler.yaml").read_text())
    (trigger,) = keda["spec"]["triggers"]
    # What prometheus-adapter fills in. A pod's labels come from Kubernetes; here is one server.
    query = metric["metricsQuery"]
    for name, value in (
        ("GroupBy", "instance"),
        ("Series", metric["name"]["as"]),
        ("LabelMatchers", 'job="weir"'),
    ):
        query = query.replace(f"<<.{name}>>", value)
    models = watched.query("count(weir_queue_rows)")

    assert len(watched.query(query)) == 1
    of_all = trigger["metadata"]["query"].replace('namespace="weir"', 'job="weir"')
    assert len(watched.query(of_all)) == 1
    assert models > [1], "one number for several models"
