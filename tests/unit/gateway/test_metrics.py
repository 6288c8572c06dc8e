from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from weir.gateway.metrics import RequestMetrics

DOCS = Path(__file__).parents[3] / "docs" / "http.md"


def test_every_metric_is_documented() -> None:
    page = RequestMetrics(lambda: 0.0).page().decode()
    names = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(page)
    }
    own = {name for name in names if not name.startswith("process_")}

    assert len(own) == 3
    assert all(f"| `{name}` |" in DOCS.read_text("utf-8") for name in own)
