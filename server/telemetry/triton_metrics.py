"""Metrics under Triton's names, for dashboards made for Triton (`--triton-metrics`).

Triton's counters lack the suffix `_total`, which prometheus-client adds to every counter. They are
therefore exported without a type.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import Metric

from weir.server.telemetry.metric_family import MODEL, Family
from weir.server.telemetry.model_stats import ModelGauges, ModelStats
from weir.server.telemetry.server_stats import Gpu

SUCCESS = Family(
    "nv_inference_request_success", "untyped", MODEL, "requests",
    "Requests that ended with OK.", "more traffic.",
)  # fmt: skip
FAILURE = Family(
    "nv_inference_request_failure", "untyped", (*MODEL, "reason"), "requests",
    "Failed requests: REJECTED (queue full, deadline passed), CANCELED, "
    "BACKEND (the run or its answer) or OTHER.",
    "more failures. weir_request_failures_total has finer reasons.",
)  # fmt: skip
COUNT = Family(
    "nv_inference_count", "untyped", MODEL, "rows", "Computed rows.", "more work."
)  # fmt: skip
EXEC_COUNT = Family(
    "nv_inference_exec_count", "untyped", MODEL, "batches", "Runs of the model.",
    "more work. If it rises faster than the rows, batches get smaller.",
)  # fmt: skip
REQUEST_US = Family(
    "nv_inference_request_duration_us", "untyped", MODEL, "microseconds",
    "Total latency of all successful requests.",
    "more traffic. If it rises faster than the request count, answers get slower.",
)  # fmt: skip
QUEUE_US = Family(
    "nv_inference_queue_duration_us", "untyped", MODEL, "microseconds",
    "Total time of requests in the queue.",
    "more traffic. If it rises faster than the request count: overload.",
)  # fmt: skip
INPUT_US = Family(
    "nv_inference_compute_input_duration_us", "untyped", MODEL, "microseconds",
    "Total time to join requests to batches. A batch's time counts once per request.",
    "more traffic. If it rises faster than the request count, inputs get larger.",
)  # fmt: skip
INFER_US = Family(
    "nv_inference_compute_infer_duration_us", "untyped", MODEL, "microseconds",
    "Total time of model runs. A batch's time counts once per request; "
    "for an encoder-decoder, a step's time counts once per active row.",
    "more traffic. If it rises faster than the request count: larger batches, or a slower machine.",
)  # fmt: skip
OUTPUT_US = Family(
    "nv_inference_compute_output_duration_us", "untyped", MODEL, "microseconds",
    "Total time to encode and send answers. A batch's time counts once per request.",
    "more traffic. If it rises faster than the request count, answers get larger.",
)  # fmt: skip
PENDING = Family(
    "nv_inference_pending_request_count", "gauge", MODEL, "requests", "Waiting requests.",
    "overload.",
)  # fmt: skip
LOAD_SECS = Family(
    "nv_model_load_duration_secs", "gauge", MODEL, "seconds",
    "Duration of the last load, with its checks.", "a slower start.",
)  # fmt: skip
GPU_UTILIZATION = Family(
    "nv_gpu_utilization", "gauge", ("gpu_uuid",), "0 to 1",
    "Share of the last sample period in which a kernel ran on the GPU.", "more work.",
)  # fmt: skip
GPU_TOTAL = Family(
    "nv_gpu_memory_total_bytes", "gauge", ("gpu_uuid",), "bytes", "Size of the GPU's memory."
)  # fmt: skip
GPU_USED = Family(
    "nv_gpu_memory_used_bytes", "gauge", ("gpu_uuid",), "bytes",
    "GPU memory in use by all processes.", "more or larger models.",
)  # fmt: skip

FAMILIES = (
    SUCCESS, FAILURE, COUNT, EXEC_COUNT, REQUEST_US, QUEUE_US, INPUT_US, INFER_US, OUTPUT_US,
    PENDING, LOAD_SECS,
)  # fmt: skip
GPU_FAMILIES = (GPU_UTILIZATION, GPU_TOTAL, GPU_USED)

_FAILURES = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
_FAILURE_OF = {
    "overloaded": "REJECTED",
    "deadline_exceeded": "REJECTED",
    "cancelled": "CANCELED",
    "out_of_memory": "BACKEND",
    "response_too_large": "BACKEND",
    "internal": "BACKEND",
}
_COUNTS: dict[Family, Callable[[ModelStats], float]] = {
    SUCCESS: lambda model: model.success.count,
    COUNT: lambda model: model.rows,
    EXEC_COUNT: lambda model: model.batches,
    REQUEST_US: lambda model: 1e6 * model.success.seconds,
    QUEUE_US: lambda model: 1e6 * model.queue.seconds,
    INPUT_US: lambda model: 1e6 * model.requests_input_s,
    INFER_US: lambda model: 1e6 * model.requests_infer_s,
    OUTPUT_US: lambda model: 1e6 * model.requests_output_s,
}


def families(
    models: Sequence[ModelStats], gauges: Iterable[ModelGauges], gpus: Iterable[Gpu]
) -> Iterator[Metric]:
    """All metrics under Triton's names, for one scrape."""
    yield from _counts(models)
    pending, loads = PENDING.new(), LOAD_SECS.new()
    for gauge in gauges:
        pending.add_metric((gauge.model, gauge.version), gauge.waiting_requests)
    for model in models:
        with model.lock:
            is_loaded, load_seconds = bool(model.provider), model.load_seconds
        if is_loaded:
            loads.add_metric((model.model, model.version), load_seconds)
    yield from (pending, loads)
    yield from _gpus(gpus)


def _counts(models: Sequence[ModelStats]) -> Iterator[Metric]:
    counts = {family: family.new() for family in _COUNTS}
    failures = FAILURE.new()
    for model in models:
        labels = (model.model, model.version)
        with model.lock:
            values = {family: count(model) for family, count in _COUNTS.items()}
            reasons = dict(model.reasons)
        for family, value in values.items():
            counts[family].add_metric(labels, value)
        failed = dict.fromkeys(_FAILURES, 0)
        for reason, count in reasons.items():
            failed[_FAILURE_OF.get(reason, "OTHER")] += count
        for name, count in failed.items():
            failures.add_metric((*labels, name), count)
    yield from (*counts.values(), failures)


def _gpus(gpus: Iterable[Gpu]) -> Iterator[Metric]:
    utilization, total, used = (family.new() for family in GPU_FAMILIES)
    for gpu in gpus:
        for family, value in (
            (utilization, gpu.utilization),
            (total, gpu.total_bytes),
            (used, gpu.used_bytes),
        ):
            if value is not None:
                family.add_metric((gpu.uuid,), value)
    yield from (family for family in (utilization, total, used) if family.samples)
