"""The metrics of models: declared, and filled in at each scrape."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric

from weir.server.telemetry.families import MODEL, Family
from weir.server.telemetry.model_stats import ModelStats

REQUESTS = Family(
    "weir_requests_total", "counter", (*MODEL, "status"), "requests",
    "Requests by the status they ended with; model and version are empty where none was found.",
    "of OK, more traffic; of any other status, see its name.",
)  # fmt: skip
REFUSALS = Family(
    "weir_request_failures_total", "counter", (*MODEL, "reason"), "requests",
    "Requests that ended with another status than OK, by the kind of failure, which is finer than the status.",
    "see the reason; of `internal`, the log has an error id.",
)  # fmt: skip
REQUEST_BYTES = Family(
    "weir_request_bytes_total", "counter", MODEL, "bytes",
    "Bytes of the messages of requests that ended, refused ones too.",
    "more requests, or larger ones.",
)  # fmt: skip
RESPONSE_BYTES = Family(
    "weir_response_bytes_total", "counter", MODEL, "bytes",
    "Bytes of the messages that answered requests.",
    "more answers, or larger ones.",
)  # fmt: skip
ROWS = Family(
    "weir_rows_total", "counter", MODEL, "rows", "Rows computed.", "more work done."
)  # fmt: skip
BATCHES = Family(
    "weir_batches_total", "counter", MODEL, "batches", "Runs of the model.",
    "more work done; faster than rows: smaller batches.",
)  # fmt: skip
TOKENS = Family(
    "weir_input_tokens_total", "counter", MODEL, "tokens",
    "Entries of rows, within their lengths; 0 for a model without lengths. Of an encoder-decoder those of its sources.",
    "more work done.",
)  # fmt: skip
PADDED_TOKENS = Family(
    "weir_padded_tokens_total", "counter", MODEL, "tokens",
    "The same with what fills rows up: tokens that were computed.",
    "more work done; faster than tokens: lengths further apart, or fewer requests to choose from.",
)  # fmt: skip
REQUEST_SECONDS = Family(
    "weir_request_seconds", "histogram", MODEL, "seconds",
    "From a request's arrival to its answer; what is refused is not in it.", "look at queue and compute for its cause.",
)  # fmt: skip
QUEUE_SECONDS = Family(
    "weir_queue_seconds", "histogram", MODEL, "seconds",
    "Waiting for a batch to be cut; of task calls, from when their rows are ready.",
    "more load than the sessions can take.",
)  # fmt: skip
DECODE_SECONDS = Family(
    "weir_preprocess_seconds", "histogram", MODEL, "seconds",
    "Decoding and resizing one picture.", "larger pictures, or a busier machine.",
)  # fmt: skip
COMPUTE_SECONDS = Family(
    "weir_compute_seconds", "histogram", MODEL, "seconds",
    "One run of the model on a batch.", "larger batches, or a busier machine.",
)  # fmt: skip
BATCH_ROWS = Family(
    "weir_batch_rows", "histogram", MODEL, "rows",
    "Rows of a batch.", "more load, or clients that send more rows at once.",
)  # fmt: skip
LOAD_SECONDS = Family(
    "weir_model_load_seconds", "gauge", MODEL, "seconds",
    "The last load, with its checks.", "a slower start.",
)  # fmt: skip
PROVIDER = Family(
    "weir_model_provider", "gauge", (*MODEL, "provider"), "1",
    "1 for the execution provider the model runs on.",
)  # fmt: skip
READY = Family(
    "weir_model_ready", "gauge", MODEL, "0 or 1",
    "1 while the model answers; 0 is a model to look at.",
)  # fmt: skip
QUEUE_REQUESTS = Family(
    "weir_queue_requests", "gauge", MODEL, "requests", "Requests that wait.", "overload."
)  # fmt: skip
QUEUE_ROWS = Family(
    "weir_queue_rows", "gauge", MODEL, "rows", "Rows that wait.",
    "overload; at weir_queue_limit_rows requests are refused.",
)  # fmt: skip
QUEUE_LIMIT_ROWS = Family(
    "weir_queue_limit_rows", "gauge", MODEL, "rows",
    "Most rows that may wait (max_queue_rows), while the model is loaded.",
)  # fmt: skip
RUNNING_REQUESTS = Family(
    "weir_running_requests", "gauge", MODEL, "requests",
    "Requests in a batch that runs.", "larger batches, or slower ones.",
)  # fmt: skip
LOADS = Family(
    "weir_model_loads_total", "counter", ("model", "result"), "loads",
    "Versions that were loaded, by how that ended: ready, failed, or golden_mismatch, where a model did not give "
    "its recorded outputs. All three are there at 0 once a model is known.",
    "of any but ready, a version was published that cannot be served: see the log.",
)  # fmt: skip

_TOTALS = {
    ROWS: "rows",
    BATCHES: "batches",
    TOKENS: "tokens",
    PADDED_TOKENS: "padded_tokens",
    REQUEST_BYTES: "request_bytes",
    RESPONSE_BYTES: "response_bytes",
}
_HISTOGRAMS = (REQUEST_SECONDS, QUEUE_SECONDS, DECODE_SECONDS, COMPUTE_SECONDS, BATCH_ROWS)
_FROM_THE_START = ("OK", "INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
_GAUGES = {
    READY: "is_ready",
    QUEUE_REQUESTS: "waiting_requests",
    QUEUE_ROWS: "waiting_rows",
    QUEUE_LIMIT_ROWS: "queue_limit_rows",
    RUNNING_REQUESTS: "running_requests",
}

REQUEST_FAMILIES = (REQUESTS, REFUSALS, REQUEST_BYTES, RESPONSE_BYTES, REQUEST_SECONDS, QUEUE_SECONDS, DECODE_SECONDS)  # fmt: skip
BATCH_FAMILIES = (ROWS, BATCHES, BATCH_ROWS, COMPUTE_SECONDS, TOKENS, PADDED_TOKENS)
MODEL_FAMILIES = (*_GAUGES, LOADS, LOAD_SECONDS, PROVIDER)


@dataclass(frozen=True, slots=True)
class ModelGauges:
    """What a model holds at the moment of a scrape; its queue has no limit while it is not loaded."""

    model: str
    version: str
    is_ready: bool
    waiting_requests: int
    waiting_rows: int
    running_requests: int
    queue_limit_rows: int | None


def counters(models: Sequence[ModelStats]) -> Iterator[Metric]:
    """What was counted of each model."""
    requests, refusals = REQUESTS.values(), REFUSALS.values()
    totals = {family: family.values() for family in _TOTALS}
    for model in models:
        labels = (model.model, model.version)
        with model.lock:
            statuses, reasons = dict(model.statuses), dict(model.reasons)
            counts = {family: getattr(model, name) for family, name in _TOTALS.items()}
        if model.model:
            # A series that begins with its first burst has no increase.
            statuses = dict.fromkeys(_FROM_THE_START, 0) | statuses
        for status, count in statuses.items():
            requests.add_metric((*labels, status), count)
        for reason, count in reasons.items():
            refusals.add_metric((*labels, reason), count)
        for family, count in counts.items():
            # Without a model nothing is computed.
            if model.model or count:
                totals[family].add_metric(labels, count)
    yield from (requests, refusals, *totals.values())


def histograms(models: Sequence[ModelStats]) -> Iterator[Metric]:
    """What was observed of each model."""
    for declared in _HISTOGRAMS:
        family = declared.histogram()
        for model in models:
            with model.lock:
                histogram = model.histograms[declared.name].copy()
            family.add_metric((model.model, model.version), histogram.buckets(), histogram.total)
        yield family


def loads(
    models: Sequence[ModelStats], results: Mapping[str, Mapping[str, int]]
) -> Iterator[Metric]:
    """How each model's loads ended, and what the last one took."""
    seconds, provider, ended = LOAD_SECONDS.values(), PROVIDER.values(), LOADS.values()
    for model in models:
        with model.lock:
            own, load_seconds = model.provider, model.load_seconds
        if own:
            seconds.add_metric((model.model, model.version), load_seconds)
            provider.add_metric((model.model, model.version, own), 1)
    for name, counts in results.items():
        for result, count in counts.items():
            ended.add_metric((name, result), count)
    yield from (seconds, provider, ended)


def gauges(held: Sequence[ModelGauges]) -> Iterator[Metric]:
    """What each model holds now."""
    for declared, attribute in _GAUGES.items():
        family = declared.values()
        for one in held:
            value = getattr(one, attribute)
            if value is not None:
                family.add_metric((one.model, one.version), float(value))
        yield family
