import math
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.server.batches import batch_ran
from weir.server.errors import GoldenMismatch
from weir.server.telemetry.metrics import GROUPS, Metrics
from weir.server.telemetry.model_stats import ModelGauges, ModelStats
from weir.server.transport.call_stats import ROWS, SECONDS, Histogram


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def scrape(registry: CollectorRegistry) -> dict[str, Metric]:
    """The families that Prometheus reads, by name."""
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def batch(
    model: ModelStats,
    *,
    rows: int = 4,
    tokens: tuple[int, int] = (0, 0),
    answered: int = 2,
    seconds: float = 0.25,
) -> None:
    batch_ran(
        model,
        rows=rows,
        answered=answered,
        tokens=tokens,
        total_s=4 * seconds,
        queue_s=seconds,
        request_bytes=100,
        response_bytes=40,
        input_s=seconds,
        infer_s=2 * seconds,
        output_s=3 * seconds,
    )


def test_requests_are_counted_by_model_version_and_status(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    lenet = metrics.model("lenet", "1")
    batch(lenet, answered=3)
    lenet.request_failed("DEADLINE_EXCEEDED", "deadline_exceeded", 0.5, 10)
    lenet.request_failed("DEADLINE_EXCEEDED", "deadline_exceeded", 0.5, 10)
    metrics.unattributed.request_failed("NOT_FOUND", "unknown_model", 0.5, 10)

    requests = {
        tuple(sample.labels[label] for label in ("model", "version", "status")): sample.value
        for sample in scrape(registry)["weir_requests"].samples
        if sample.name == "weir_requests_total"
    }
    assert requests == {
        ("lenet", "1", "OK"): 3.0,
        ("lenet", "1", "DEADLINE_EXCEEDED"): 2.0,
        # They exist from the start, so that a first burst has an increase.
        ("lenet", "1", "INTERNAL"): 0.0,
        ("lenet", "1", "UNAVAILABLE"): 0.0,
        ("lenet", "1", "RESOURCE_EXHAUSTED"): 0.0,
        ("", "", "NOT_FOUND"): 1.0,
    }


def test_failures_are_counted_by_reason(metrics: Metrics, registry: CollectorRegistry) -> None:
    model = metrics.model("m", "1")
    batch(model)
    model.request_failed("RESOURCE_EXHAUSTED", "overloaded", 0.5, 10)
    model.request_failed("RESOURCE_EXHAUSTED", "out_of_memory", 0.5, 10)
    metrics.unattributed.request_failed("NOT_FOUND", "unknown_model", 0.5, 10)

    refusals = {
        (sample.labels["model"], sample.labels["reason"]): sample.value
        for sample in scrape(registry)["weir_request_failures"].samples
    }
    assert refusals == {("m", "overloaded"): 1, ("m", "out_of_memory"): 1, ("", "unknown_model"): 1}


def test_bytes_of_answered_and_failed_requests_are_counted(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    model = metrics.model("m", "1")
    batch(model, answered=2)
    model.request_failed("CANCELLED", "cancelled", 0.5, 7, response_bytes=3)
    metrics.unattributed.request_failed("NOT_FOUND", "unknown_model", 0.5, 5)

    def bytes_of(model: str, version: str) -> list[float | None]:
        names = ("weir_request_bytes_total", "weir_response_bytes_total")
        return [value(registry, name, model=model, version=version) for name in names]

    assert bytes_of("m", "1") == [207, 83]
    assert bytes_of("", "") == [5, None]
    assert value(registry, "weir_rows_total", model="", version="") is None


def test_rows_and_runs_are_counted(metrics: Metrics, registry: CollectorRegistry) -> None:
    model = metrics.model("m", "2")
    batch(model, rows=4)
    batch(model, rows=8)

    labels = {"model": "m", "version": "2"}
    assert value(registry, "weir_rows_total", **labels) == 12
    assert value(registry, "weir_batches_total", **labels) == 2
    assert value(registry, "weir_batch_rows_sum", **labels) == 12
    assert value(registry, "weir_batch_rows_count", **labels) == 2


def test_padded_tokens_include_the_padding(metrics: Metrics, registry: CollectorRegistry) -> None:
    model = metrics.model("tagger", "1")
    batch(metrics.model("lenet", "1"))
    batch(model, tokens=(20, 32))
    batch(model, tokens=(5, 8))

    def totals(**labels: str) -> list[float | None]:
        names = ("weir_input_tokens_total", "weir_padded_tokens_total")
        return [value(registry, name, version="1", **labels) for name in names]

    assert totals(model="tagger") == [25, 40]
    assert totals(model="lenet") == [0, 0]


def test_batch_without_answered_requests_counts_no_request(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    batch(metrics.model("m", "1"), rows=4, answered=0)

    labels = {"model": "m", "version": "1"}
    assert value(registry, "weir_batches_total", **labels) == 1
    assert value(registry, "weir_requests_total", **labels, status="OK") in (None, 0)
    assert value(registry, "weir_request_seconds_count", **labels) == 0


def test_histograms_have_the_answered_requests_only(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    model = metrics.model("m", "1")
    batch(model, answered=5, seconds=0.25)
    model.request_failed("CANCELLED", "cancelled", 2.0, 10)

    labels = {"model": "m", "version": "1"}
    assert value(registry, "weir_request_seconds_count", **labels) == 5
    assert value(registry, "weir_request_seconds_sum", **labels) == 5 * 1.0
    assert value(registry, "weir_queue_seconds_count", **labels) == 5
    assert value(registry, "weir_compute_seconds_sum", **labels) == 0.5


@given(st.lists(st.floats(0, 100, allow_subnormal=False), max_size=30))
def test_histogram_is_cumulative(values: list[float]) -> None:
    histogram = Histogram(SECONDS)

    for each in values:
        histogram.add(each)

    for bound, count in histogram.buckets():
        assert count == sum(each <= float(bound) for each in values)
    assert histogram.buckets()[-1] == ("+Inf", len(values))
    assert histogram.total == pytest.approx(math.fsum(values))


@pytest.mark.parametrize("bound", [*SECONDS], ids=str)
def test_value_on_a_bound_belongs_to_it(bound: float) -> None:
    histogram = Histogram(SECONDS)

    histogram.add(bound)

    assert dict(histogram.buckets())[str(bound)] == 1


def test_bounds_are_sorted_and_start_low_enough_for_small_models() -> None:
    for bounds in (SECONDS, ROWS):
        assert list(bounds) == sorted(set(bounds))
    assert SECONDS[0] == 0.0005
    assert ROWS[0] == 1


HISTOGRAMS = {
    "weir_request_seconds": SECONDS,
    "weir_queue_seconds": SECONDS,
    "weir_preprocess_seconds": SECONDS,
    "weir_compute_seconds": SECONDS,
    "weir_batch_rows": ROWS,
}


def test_exposition_of_histograms_is_read_back(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    batch(metrics.model("m", "1"), rows=4)

    families = scrape(registry)

    for name, bounds in HISTOGRAMS.items():
        family = families[name]
        assert family.type == "histogram"
        buckets = [sample for sample in family.samples if sample.name == f"{name}_bucket"]
        assert [float(sample.labels["le"]) for sample in buckets] == [*bounds, math.inf]
        counts = [sample.value for sample in buckets]
        assert counts == sorted(counts)
        (count,) = (sample.value for sample in family.samples if sample.name == f"{name}_count")
        assert counts[-1] == count


def test_gauges_are_read_at_each_scrape(metrics: Metrics, registry: CollectorRegistry) -> None:
    waiting = iter([3, 5])

    def gauges() -> Iterable[ModelGauges]:
        rows = next(waiting)
        return [
            ModelGauges(
                "m", "1", True, 1, rows, 2, 8, is_batched=True, batched_by="proof", expected_s=0.5
            ),
            ModelGauges("alone", "1", True, 0, 0, 0, 8, is_batched=False, batched_by="form"),
            ModelGauges("broken", "1", False, 0, 0, 0, None),
        ]

    metrics.watch(gauges)

    first, second = scrape(registry), scrape(registry)

    def of(families: dict[str, Metric], name: str) -> dict[str, float]:
        return {sample.labels["model"]: sample.value for sample in families[name].samples}

    assert of(first, "weir_model_ready") == {"m": 1, "alone": 1, "broken": 0}
    assert of(first, "weir_queue_rows") == {"m": 3, "alone": 0, "broken": 0}
    assert of(second, "weir_queue_rows") == {"m": 5, "alone": 0, "broken": 0}
    assert of(first, "weir_queue_limit_rows") == {"m": 8, "alone": 8}
    assert of(second, "weir_queue_requests") == {"m": 1, "alone": 0, "broken": 0}
    assert of(second, "weir_running_requests") == {"m": 2, "alone": 0, "broken": 0}
    assert of(first, "weir_expected_answer_seconds") == {"m": 0.5}
    assert of(first, "weir_model_batched") == {"m": 1, "alone": 0}
    reasons = [each.labels["reason"] for each in first["weir_model_batched"].samples]
    assert reasons == ["proof", "form"]


def test_parsing_is_exported(metrics: Metrics, registry: CollectorRegistry) -> None:
    metrics.watch_parsing(lambda: 3)

    assert value(registry, "weir_parse_queue_requests") == 3


def test_preprocessing_is_exported(metrics: Metrics, registry: CollectorRegistry) -> None:
    waiting = iter([3, 5])
    metrics.watch_preprocessing(lambda: next(waiting))
    metrics.model("m", "1").request_preprocessed(0.25)

    assert value(registry, "weir_preprocess_queue_requests") == 3
    assert value(registry, "weir_preprocess_queue_requests") == 5
    metrics.watch_preprocessing(int)
    assert value(registry, "weir_preprocess_seconds_sum", model="m", version="1") == 0.25
    assert value(registry, "weir_preprocess_seconds_count", model="m", version="1") == 1


def test_load_is_exported_once_the_model_is_loaded(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    model = metrics.model("m", "1")
    assert scrape(registry)["weir_model_load_seconds"].samples == []

    model.load_seconds, model.provider = 1.5, "cpu"

    labels = {"model": "m", "version": "1"}
    assert value(registry, "weir_model_load_seconds", **labels) == 1.5
    assert value(registry, "weir_model_provider", **labels, provider="cpu") == 1


def test_loads_are_counted_by_result_from_zero(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    def loads() -> dict[str, float]:
        samples = scrape(registry)["weir_model_loads"].samples
        return {sample.labels["result"]: sample.value for sample in samples}

    assert loads() == {}
    metrics.model_known("m")
    known = loads()
    for failure in (None, GoldenMismatch, GoldenMismatch):
        metrics.load_ended("m", failure)
    metrics.model_known("m")
    counted = loads()
    metrics.forget_loads("m")

    assert known == {"ready": 0, "failed": 0, "golden_mismatch": 0}
    assert counted == {"ready": 1, "failed": 0, "golden_mismatch": 2}
    assert loads() == {}


def test_dropped_log_lines_are_exported(metrics: Metrics, registry: CollectorRegistry) -> None:
    assert value(registry, "weir_log_dropped_total") == 0

    metrics.watch_log(lambda: 3)

    assert value(registry, "weir_log_dropped_total") == 3


def test_end_of_the_certificate_is_exported_with_tls_only(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    name = "weir_tls_certificate_expiry_timestamp_seconds"
    assert name not in scrape(registry)

    ends = iter([1_800_000_000.0, 4_000_000_000.0])
    metrics.watch_certificate(lambda: next(ends))

    assert value(registry, name) == 1_800_000_000
    assert value(registry, name) == 4_000_000_000


def test_forgotten_version_leaves_nothing(metrics: Metrics, registry: CollectorRegistry) -> None:
    stats = metrics.generation("m", "1")
    batch(stats.model)
    stats.model.request_failed("CANCELLED", "cancelled", 0.5, 7)
    before = generate_latest(registry)

    metrics.forget("m", "1")

    assert b'version="1"' in before
    assert b'version="1"' not in generate_latest(registry)


def test_late_refusal_does_not_bring_back_a_removed_version(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.model("m", "1").request_failed("UNAVAILABLE", "model_not_ready", 0.5, 7)
    assert metrics.find("m", "1") is metrics.model("m", "1")

    metrics.forget("m", "1")
    metrics.find("m", "1").request_failed("UNAVAILABLE", "model_not_ready", 0.5, 7)

    assert b'version="1"' not in generate_latest(registry)
    labels = {"model": "", "version": "", "status": "UNAVAILABLE"}
    assert value(registry, "weir_requests_total", **labels) == 1


def test_numbers_outlive_a_reload(metrics: Metrics) -> None:
    assert metrics.model("m", "1") is metrics.model("m", "1")
    assert metrics.model("m", "1") is not metrics.model("m", "2")


def test_every_family_is_declared_once_with_description_and_meaning() -> None:
    families = [family for group in GROUPS for family in group.families]

    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.name.startswith(("weir_", "grpc_server_", "nv_")), family
        assert family.description.endswith(".") and len(family.help) > 15, family
        assert family.rise == "" or family.rise.endswith("."), family
        assert family.unit, family
        if family.kind in ("counter", "histogram"):
            assert family.rise, family


def test_exported_families_are_the_declared_ones(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    metrics.generation("m", "1")
    declared = {family.name: family for group in GROUPS for family in group.families}

    for family in scrape(registry).values():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert (family.type, family.documentation) == (declared[name].kind, declared[name].help)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(declared[name].labels)


def test_names_carry_base_units_and_their_kind(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    batch(metrics.model("m", "1"))

    for name, family in scrape(registry).items():
        assert not name.endswith(("_ms", "_us", "_milliseconds"))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_labels_come_from_closed_sets(metrics: Metrics, registry: CollectorRegistry) -> None:
    batch(metrics.model("m", "1"))
    before = generate_latest(registry).count(b"\n")

    metrics.unattributed.request_failed("NOT_FOUND", "unknown_model", 0.5, 10)
    once = generate_latest(registry).count(b"\n")
    for _ in range(1000):
        metrics.unattributed.request_failed("NOT_FOUND", "unknown_model", 0.5, 10)

    # A status, a reason, and the bytes of the message.
    assert once == before + 3
    assert generate_latest(registry).count(b"\n") == once
    labels = {
        label
        for family in scrape(registry).values()
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= {"model", "version", "status", "reason", "le", "provider"}


def test_counters_add_up_whatever_happens_in_between(
    metrics: Metrics, registry: CollectorRegistry
) -> None:
    model = metrics.model("m", "1")
    for number in range(50):
        batch(model, rows=1 + number % 3, answered=number % 4)
        model.request_failed("CANCELLED", "cancelled", 0.001, 10)

    families = scrape(registry)

    ended = sum(
        sample.value
        for sample in families["weir_requests"].samples
        if sample.name == "weir_requests_total"
    )
    assert ended - 50 == value(registry, "weir_request_seconds_count", model="m", version="1")
    assert ended == 50 + sum(number % 4 for number in range(50))


def test_statistics_of_a_batch_size_are_kept(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    model = metrics.model("m", "1")
    batch(model, rows=4, seconds=0.5)
    batch(model, rows=4, seconds=0.5)
    batch(model, rows=2, seconds=0.5)

    assert sorted(model.by_batch_size) == [2, 4]
    four = model.by_batch_size[4]
    assert (four.compute_input.count, four.compute_input.seconds) == (2, 1.0)
    assert (four.compute_infer.count, four.compute_infer.seconds) == (2, 2.0)
    assert (four.compute_output.count, four.compute_output.seconds) == (2, 3.0)
    assert model.last_inference_epoch_s == 1e9
