"""The metrics of Triton, for dashboards that were made for it (`--triton-metrics`).

Their names lack `_total`, which prometheus-client appends to each counter: so they are told without a type.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import Metric

from weir.server.telemetry.families import MODEL, Family
from weir.server.telemetry.gpu import Gpu
from weir.server.telemetry.model_metrics import ModelGauges
from weir.server.telemetry.model_stats import ModelStats

SUCCESS = Family(
    "nv_inference_request_success", "untyped", MODEL, "requests", "Requests answered OK.",
    "more traffic.",
)  # fmt: skip
FAILURE = Family(
    "nv_inference_request_failure", "untyped", (*MODEL, "reason"), "requests",
    "Requests that failed: REJECTED (queue full, deadline passed), CANCELED, BACKEND (the run or its answer), OTHER.",
    "see the reason, and weir_request_failures_total, which tells more of them.",
)  # fmt: skip
COUNT = Family(
    "nv_inference_count", "untyped", MODEL, "rows", "Rows computed.", "more work done."
)  # fmt: skip
EXEC_COUNT = Family(
    "nv_inference_exec_count", "untyped", MODEL, "batches", "Runs of the model.",
    "more work done; faster than rows: smaller batches.",
)  # fmt: skip
REQUEST_US = Family(
    "nv_inference_request_duration_us", "untyped", MODEL, "microseconds",
    "Time of answered requests, all together.", "faster than their count: slower answers.",
)  # fmt: skip
QUEUE_US = Family(
    "nv_inference_queue_duration_us", "untyped", MODEL, "microseconds",
    "Of that, in the queue.", "faster than requests: overload.",
)  # fmt: skip
INPUT_US = Family(
    "nv_inference_compute_input_duration_us", "untyped", MODEL, "microseconds",
    "Of that, joining requests to a batch; a batch counts for each of its requests.",
    "faster than requests: larger inputs.",
)  # fmt: skip
INFER_US = Family(
    "nv_inference_compute_infer_duration_us", "untyped", MODEL, "microseconds",
    "Of that, running the model; likewise. Of an encoder-decoder, its steps, for each row in use.",
    "faster than requests: larger batches, or a busier machine.",
)  # fmt: skip
OUTPUT_US = Family(
    "nv_inference_compute_output_duration_us", "untyped", MODEL, "microseconds",
    "Of that, encoding and sending answers; likewise.", "faster than requests: larger answers.",
)  # fmt: skip
PENDING = Family(
    "nv_inference_pending_request_count", "gauge", MODEL, "requests", "Requests that wait.",
    "overload.",
)  # fmt: skip
LOAD_SECS = Family(
    "nv_model_load_duration_secs", "gauge", MODEL, "seconds", "The last load, with its checks.",
    "a slower start.",
)  # fmt: skip
GPU_UTILIZATION = Family(
    "nv_gpu_utilization", "gauge", ("gpu_uuid",), "0 to 1",
    "Share of time in which a GPU computed anything.", "more work.",
)  # fmt: skip
GPU_TOTAL = Family(
    "nv_gpu_memory_total_bytes", "gauge", ("gpu_uuid",), "bytes", "Memory of a GPU."
)  # fmt: skip
GPU_USED = Family(
    "nv_gpu_memory_used_bytes", "gauge", ("gpu_uuid",), "bytes", "Memory in use on a GPU.",
    "more or larger models.",
)  # fmt: skip

FAMILIES = (
    SUCCESS, FAILURE, COUNT, EXEC_COUNT, REQUEST_US, QUEUE_US, INPUT_US, INFER_US, OUTPUT_US, PENDING, LOAD_SECS,
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
    models: Sequence[ModelStats], held: Iterable[ModelGauges], gpus: Iterable[Gpu]
) -> Iterator[Metric]:
    """All of it, for one scrape."""
    yield from _counts(models)
    pending, loads = PENDING.values(), LOAD_SECS.values()
    for one in held:
        pending.add_metric((one.model, one.version), one.waiting_requests)
    for model in models:
        with model.lock:
            is_loaded, load_seconds = bool(model.provider), model.load_seconds
        if is_loaded:
            loads.add_metric((model.model, model.version), load_seconds)
    yield from (pending, loads)
    yield from _gpus(gpus)


def _counts(models: Sequence[ModelStats]) -> Iterator[Metric]:
    counts = {family: family.values() for family in _COUNTS}
    failures = FAILURE.values()
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
    utilization, total, used = (family.values() for family in GPU_FAMILIES)
    for gpu in gpus:
        for family, value in (
            (utilization, gpu.utilization),
            (total, gpu.total_bytes),
            (used, gpu.used_bytes),
        ):
            if value is not None:
                family.add_metric((gpu.uuid,), value)
    yield from (family for family in (utilization, total, used) if family.samples)
