"""The numbers of step-wise decoding as a scrape sees them."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from tests.integration.harness import samples
from weir.server.telemetry.metrics import Metrics
from weir.server.transport.call_stats import SECONDS, Histogram

LABELS = frozenset({("model", "toy"), ("version", "1")})


def test_everything_is_told_under_its_name() -> None:
    registry = CollectorRegistry()
    stats = Metrics(registry).generation("toy", "1")

    for slots in (3, 2, 1):
        stats.stepped(slots, 0.5)
    stats.row_started(1.0)
    stats.row_finished(is_complete=True, tokens=5, steps=3, decode_s=4.0)
    stats.row_finished(is_complete=False, tokens=3, steps=3, decode_s=4.0)
    stats.dropped("failed", 1)
    stats.set_active_rows(7)
    found = samples(generate_latest(registry).decode())

    assert {
        name: value
        for (name, labels), value in found.items()
        if labels == LABELS and name.startswith("weir_generation") and "created" not in name
    } == {
        "weir_generation_first_token_seconds_count": 1,
        "weir_generation_first_token_seconds_sum": 1.0,
        "weir_generation_token_seconds_count": 2,
        "weir_generation_token_seconds_sum": 4.0,
        "weir_generation_steps_total": 3,
        "weir_generation_tokens_total": 8,
        "weir_generation_active_rows": 7,
    }
    reasons = {
        dict(labels)["reason"]: value
        for (name, labels), value in found.items()
        if name == "weir_generation_finished_total"
    }
    assert reasons == {"end": 1, "limit": 1, "failed": 1}


def test_a_scrape_makes_nothing_while_it_holds_the_lock() -> None:
    """The request path waits for that lock."""
    registry = CollectorRegistry()
    stats = Metrics(registry).generation("toy", "1")
    under_lock: list[bool] = []

    class Watched(Histogram):
        def buckets(self) -> list[tuple[str, float]]:
            under_lock.append(stats.model.lock.locked())
            return super().buckets()

    stats.token = Watched(SECONDS)

    generate_latest(registry)

    assert not any(under_lock)
