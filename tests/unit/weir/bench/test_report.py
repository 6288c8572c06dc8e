import io
import json

from rich.console import Console

from weir.bench import report
from weir.bench.plan import Plan
from weir.bench.tally import Summary

SUMMARY = Summary(
    answered=1234,
    late=7,
    errors={"UNAVAILABLE": 5},
    messages={"UNAVAILABLE": "the server is [stopping]"},
    elapsed_s=1.0,
    calls_per_s=1234.0,
    rows_per_s=2468.0,
    latency_s={"p50": 0.001, "max": 0.25},
    lateness_p99_s=0.0002,
)


def test_the_table_shows_what_was_measured() -> None:
    console = Console(width=80, record=True, file=io.StringIO())

    console.print(report.table(SUMMARY))

    shown = console.export_text()
    for text in ("1,234", "after the end", "2,468", "1.00 ms", "250.00 ms", "UNAVAILABLE"):
        assert text in shown


def test_a_message_of_each_status_is_shown_as_it_is() -> None:
    console = Console(width=80, record=True, file=io.StringIO())

    console.print(report.messages(SUMMARY), end="")

    assert console.export_text() == "UNAVAILABLE, for instance: the server is [stopping]\n"


def test_the_record_holds_what_a_published_number_needs() -> None:
    plan = Plan(target="t", path="/p", body=b"12345", rate_per_s=7.0)

    record = report.record(plan, SUMMARY, rows=2, processes=3, command=["weir", "bench"])

    read = json.loads(json.dumps(record))
    assert read["command"] == ["weir", "bench"]
    assert read["load"]["request_bytes"] == 5 and read["load"]["rate_per_s"] == 7.0
    assert read["load"]["rows"] == 2 and read["load"]["processes"] == 3
    assert read["machine"]["cores"] >= 1 and read["versions"]["grpcio"]
    assert read["result"]["latency_s"]["max"] == 0.25


def test_the_record_names_headers_without_their_values() -> None:
    plan = Plan(target="t", path="/p", body=b"", headers={"x-key": "secret"})

    record = report.record(plan, SUMMARY, rows=1, processes=1, command=["weir", "bench"])

    assert "secret" not in json.dumps(record) and '"headers": ["x-key"]' in json.dumps(record)
