"""The metrics under Triton's names."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.unit.server.batches import batch_ran
from weir.server.telemetry.metrics import Metrics
from weir.server.telemetry.model_stats import ModelGauges, ModelStats
from weir.server.transport.status import REASONS

LABELS = {"model": "m", "version": "1"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def batch(model: ModelStats, *, rows: int, answered: int) -> None:
    batch_ran(
        model,
        rows=rows,
        answered=answered,
        total_s=1.0,
        queue_s=0.25,
        input_s=0.125,
        infer_s=0.5,
        output_s=0.0625,
    )


def test_counts_and_durations_are_those_of_triton(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, triton=True)
    metrics.watch(lambda: [ModelGauges("m", "1", True, 3, 5, 1, 8)])
    model = metrics.model("m", "1")
    batch(model, rows=4, answered=2)
    batch(model, rows=2, answered=1)
    model.load_seconds, model.provider = 1.5, "cpu"

    found = {
        name: registry.get_sample_value(name, LABELS)
        for name in (
            "nv_inference_request_success",
            "nv_inference_count",
            "nv_inference_exec_count",
            "nv_inference_request_duration_us",
            "nv_inference_queue_duration_us",
            "nv_inference_compute_input_duration_us",
            "nv_inference_compute_infer_duration_us",
            "nv_inference_compute_output_duration_us",
            "nv_inference_pending_request_count",
            "nv_model_load_duration_secs",
        )
    }

    # A batch of two requests counts twice in what requests spend: there it is a mean per request.
    assert list(found.values()) == [3, 6, 2, 3e6, 0.75e6, 0.375e6, 1.5e6, 0.1875e6, 3, 1.5]


def test_every_failure_has_one_of_tritons_reasons(registry: CollectorRegistry) -> None:
    model = Metrics(registry, triton=True).model("m", "1")
    for reason in REASONS:
        model.request_failed("X", reason, 0.5, 10)

    failures = {
        reason: registry.get_sample_value(
            "nv_inference_request_failure", {**LABELS, "reason": reason}
        )
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }

    assert failures == {
        "REJECTED": 2,
        "CANCELED": 1,
        "BACKEND": 3,
        "OTHER": len(REASONS) - 6,
    }


def test_names_have_no_suffix_and_failures_start_at_zero(registry: CollectorRegistry) -> None:
    Metrics(registry, triton=True).model("m", "1")

    text = generate_latest(registry).decode()

    assert "nv_inference_request_success_total" not in text
    assert text.count("nv_inference_request_failure{") == 4


def test_tritons_names_are_absent_by_default(registry: CollectorRegistry) -> None:
    Metrics(registry).model("m", "1")

    assert b"nv_" not in generate_latest(registry)
