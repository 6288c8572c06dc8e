"""The numbers of step-wise decoding as a scrape sees them."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from tests.integration.harness import samples
from tests.unit.server.generation import toys
from weir.server.errors import Cancelled
from weir.server.generation.decoder_batch import Stepped
from weir.server.generation.row import Row
from weir.server.generation.sampling import Answer
from weir.server.histogram import SECONDS, Histogram
from weir.server.telemetry.metrics import Metrics

LABELS = frozenset({("model", "toy"), ("version", "1")})


def ended(*answers: Answer, first_s: float = 0.0) -> Row:
    row = toys.row([4])
    row.answers, row.first_s = list(answers), first_s
    return row


def test_everything_is_told_under_its_name() -> None:
    registry = CollectorRegistry()
    stats = Metrics(registry).generation("toy", "1")
    best, cut = Answer((5, 6), -1, -1, True), Answer((5, 6, 7), -2, -2, False)

    stats.stepped(Stepped(3, [], {}), [ended()], 0.5, 1.0)
    stats.stepped(Stepped(2, [ended(best, cut), ended(cut)], {}), [], 0.5, 4.0)
    stats.stepped(Stepped(1, [], {toys.row([4]): Cancelled("planned")}), [], 0.5, 4.0)
    stats.dropped("failed", 1)
    stats.hold(7)
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
    """Of the request path: whoever adds to the numbers waits for that lock."""
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
