"""Metrics under Triton's names, for dashboards made for Triton (`--triton-metrics`).

Triton's counters lack the suffix `_total`, which prometheus-client adds to every counter. They are
therefore exported without a type.
"""

from collections.abc import Mapping

from weir.server.telemetry.metric_family import MODEL, Family, Readers
from weir.server.telemetry.model_stats import ModelGauges, ModelStats
from weir.server.telemetry.server_stats import Gpu

_FAILURE_OF = {
    "overloaded": "REJECTED",
    "deadline_exceeded": "REJECTED",
    "cancelled": "CANCELED",
    "out_of_memory": "BACKEND",
    "response_too_large": "BACKEND",
    "internal": "BACKEND",
}


def _failures(reasons: Mapping[str, int]) -> dict[str, int]:
    failed = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
    for reason, count in reasons.items():
        failed[_FAILURE_OF.get(reason, "OTHER")] += count
    return failed


COUNTERS: Readers[ModelStats] = {
    Family(
        "nv_inference_request_success", "untyped", MODEL, "requests",
        "Requests that ended with OK.", "more traffic.",
    ): lambda stats: stats.success.count,
    Family(
        "nv_inference_request_failure", "untyped", (*MODEL, "reason"), "requests",
        "Failed requests: REJECTED (queue full, deadline passed), CANCELED, "
        "BACKEND (the run or its answer) or OTHER.",
        "more failures. weir_request_failures_total has finer reasons.",
    ): lambda stats: _failures(stats.reasons),
    Family(
        "nv_inference_count", "untyped", MODEL, "rows", "Computed rows.", "more work."
    ): lambda stats: stats.rows,
    Family(
        "nv_inference_exec_count", "untyped", MODEL, "batches", "Runs of the model.",
        "more work. If it rises faster than the rows, batches get smaller.",
    ): lambda stats: stats.batches,
    Family(
        "nv_inference_request_duration_us", "untyped", MODEL, "microseconds",
        "Total latency of all successful requests.",
        "more traffic. If it rises faster than the request count, answers get slower.",
    ): lambda stats: 1e6 * stats.success.seconds,
    Family(
        "nv_inference_queue_duration_us", "untyped", MODEL, "microseconds",
        "Total time of requests in the queue.",
        "more traffic. If it rises faster than the request count: overload.",
    ): lambda stats: 1e6 * stats.queue.seconds,
    Family(
        "nv_inference_compute_input_duration_us", "untyped", MODEL, "microseconds",
        "Total time to join requests to batches. A batch's time counts once per request.",
        "more traffic. If it rises faster than the request count, inputs get larger.",
    ): lambda stats: 1e6 * stats.requests_input_s,
    Family(
        "nv_inference_compute_infer_duration_us", "untyped", MODEL, "microseconds",
        "Total time of model runs. A batch's time counts once per request; "
        "for an encoder-decoder, a step's time counts once per active row.",
        "more traffic. If it rises faster than the request count: larger batches, or a slower "
        "machine.",
    ): lambda stats: 1e6 * stats.requests_infer_s,
    Family(
        "nv_inference_compute_output_duration_us", "untyped", MODEL, "microseconds",
        "Total time to encode and send answers. A batch's time counts once per request.",
        "more traffic. If it rises faster than the request count, answers get larger.",
    ): lambda stats: 1e6 * stats.requests_output_s,
}  # fmt: skip
GAUGES: Readers[ModelGauges] = {
    Family(
        "nv_inference_pending_request_count", "gauge", MODEL, "requests", "Waiting requests.",
        "overload.",
    ): lambda model: model.waiting_requests,
}  # fmt: skip
LAST_LOAD: Readers[ModelStats] = {
    Family(
        "nv_model_load_duration_secs", "gauge", MODEL, "seconds",
        "Duration of the last load, with its checks.", "a slower start.",
    ): lambda stats: stats.load_seconds if stats.provider else None,
}  # fmt: skip
GPUS: Readers[Gpu] = {
    Family(
        "nv_gpu_utilization", "gauge", ("gpu_uuid",), "0 to 1",
        "Share of the last sample period in which a kernel ran on the GPU.", "more work.",
    ): lambda gpu: gpu.utilization,
    Family(
        "nv_gpu_memory_total_bytes", "gauge", ("gpu_uuid",), "bytes", "Size of the GPU's memory."
    ): lambda gpu: gpu.total_bytes,
    Family(
        "nv_gpu_memory_used_bytes", "gauge", ("gpu_uuid",), "bytes",
        "GPU memory in use by all processes.", "more or larger models.",
    ): lambda gpu: gpu.used_bytes,
}  # fmt: skip

FAMILIES = (*COUNTERS, *GAUGES, *LAST_LOAD, *GPUS)
