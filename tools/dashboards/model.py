"""One model in depth: latency by phase, batches, and its versions side by side."""

from tools.dashboards.panels import (
    GREEN,
    RED,
    THRESHOLDS,
    Dashboard,
    Panel,
    Query,
    Row,
    Variable,
    heatmap,
    percentiles,
    stat,
)
from tools.dashboards.promql import bucket_increase, error_rate, mean, padding_ratio, quantile, rate

_THIS = 'model="$model", version=~"$version"'


def _by_version(expr: str) -> tuple[Query, ...]:
    return (Query(expr, "version {{version}}"),)


_SUMMARY = Row("Summary", (
    stat("Status", "none",
        "Whether each version serves requests. `weir models` prints why a version does not.",
        _by_version(f"max by (version) (weir_model_ready{{{_THIS}}})"),
        steps=((0, RED), (1, GREEN)), value_names=((0, "not ready"), (1, "ready"))),
    stat("Execution provider", "none",
        "The execution provider of each version. CPUExecutionProvider on a machine with a "
        "GPU: see the server's log.",
        (Query(f"max by (version, provider) (weir_model_provider{{{_THIS}}})",
               "{{version}}: {{provider}}"),),
        shows_name=True),
    stat("Threads and instances", "none",
        "Threads within one operator, and batches that may run at the same time, as set or as "
        "chosen at the last load. If they change with a load, compute time may change too; the "
        "log event `parallelism chosen` has the reason.",
        (
            Query(f"max by (version) (weir_model_threads{{{_THIS}}})", "{{version}}: threads"),
            Query(f"max by (version) (weir_model_instances{{{_THIS}}})", "{{version}}: instances"),
        )),
    stat("Load time", "s",
        "Duration of the last load, with its checks. A rise means a slower start.",
        _by_version(f"max by (version) (weir_model_load_seconds{{{_THIS}}})"), width=4),
    stat("Loads by result", "none",
        "Loads since the server started. failed and golden_mismatch: a version was rejected; "
        "see the log.",
        (Query('sum by (result) (weir_model_loads_total{model="$model"})', "{{result}}"),),
        width=4),
))  # fmt: skip
_REQUESTS = Row("Requests", (
    Panel("Requests per second by status", "reqps",
        "RESOURCE_EXHAUSTED: the queue is full. UNAVAILABLE: the model is not ready. "
        "INTERNAL: a bug; see the log.",
        (Query(rate("weir_requests_total", "status", _THIS), "{{status}}"),), is_stacked=True),
    Panel("Failed requests per second by reason", "reqps",
        "overloaded: the load is higher than this model's capacity.",
        (Query(rate("weir_request_failures_total", "reason", _THIS), "{{reason}}"),),
        is_stacked=True),
    Panel("Request and response bytes per second", "Bps",
        "Size of the messages. A rise without more requests means larger messages, which load "
        "the I/O thread.",
        (
            Query(rate("weir_request_bytes_total", "", _THIS), "requests"),
            Query(rate("weir_response_bytes_total", "", _THIS), "responses"),
        )),
))  # fmt: skip
_LATENCY = Row("Latency", (
    Panel("Average latency by phase", "s",
        "If only queue time rises: overload. If compute time rises: larger batches, or a "
        "slower machine.",
        (
            Query(mean("weir_queue_seconds", "", _THIS), "queue"),
            Query(mean("weir_compute_seconds", "", _THIS), "compute"),
            Query(mean("weir_request_seconds", "", _THIS), "total"),
        )),
    Panel("Latency p50/p95/p99", "s",
        "Time from arrival to answer. If only p99 rises: bursts, or few long requests.",
        percentiles("weir_request_seconds", _THIS)),
    heatmap("Latency distribution", "s",
        "Requests per latency bucket over time. Two bands: two kinds of requests, or a queue.",
        (Query(bucket_increase("weir_request_seconds", _THIS), "{{le}}"),)),
    Panel("Queue time p95", "s",
        "Time a request waits for a batch. A rise means overload.",
        _by_version(quantile(0.95, "weir_queue_seconds", "version", _THIS))),
    Panel("Compute time p95", "s",
        "Time of one model run. A rise means larger batches, or a slower machine.",
        _by_version(quantile(0.95, "weir_compute_seconds", "version", _THIS))),
    Panel("Preprocessing time p95", "s",
        "Time to decode and resize one image. A rise means larger images, or a slower "
        "machine. Empty for models without images.",
        _by_version(quantile(0.95, "weir_preprocess_seconds", "version", _THIS)),
        no_value="no images"),
))  # fmt: skip
_BATCHES = Row("Batches", (
    Panel("Batch size", "none",
        "Average rows per batch. A rise means more load, or more rows per request.",
        _by_version(mean("weir_batch_rows", "version", _THIS))),
    heatmap("Batch size distribution", "none",
        "Batches per size bucket over time. If all are in the top bucket, max_batch_rows "
        "limits the throughput.",
        (Query(bucket_increase("weir_batch_rows", _THIS), "{{le}}"),)),
    Panel("Padding ratio", "percentunit",
        "Share of computed tokens that is padding. A rise means more varied lengths, or too "
        "few requests to group. Empty for models without lengths.",
        _by_version(padding_ratio("version", _THIS)), no_value="no lengths"),
    Panel("Queue utilisation", "percentunit",
        "Waiting rows divided by the queue limit. At 100 % requests are rejected.",
        _by_version(f"max by (version) (weir_queue_rows{{{_THIS}}} / "
                    f"weir_queue_limit_rows{{{_THIS}}})"),
        steps=THRESHOLDS["limit"]),
    Panel("Expected time to an answer", "s",
        "Time in which a request of one row that arrives now is expected to be answered. Requests "
        "whose deadline is not a quarter longer are refused.",
        _by_version(f"max by (version) (weir_expected_answer_seconds{{{_THIS}}})")),
    Panel("Waiting and running requests", "none",
        "If waiting requests rise and running requests do not, all sessions are busy.",
        (
            Query(f"sum(weir_queue_requests{{{_THIS}}})", "waiting"),
            Query(f"sum(weir_running_requests{{{_THIS}}})", "running"),
        )),
    Panel("Rows and batches per second", "ops",
        "Throughput. If rows rise faster than batches, batching works.",
        (
            Query(rate("weir_rows_total", "", _THIS), "rows"),
            Query(rate("weir_batches_total", "", _THIS), "batches"),
        )),
))  # fmt: skip
_VERSIONS = Row("Versions", (
    Panel("Requests per second by version", "reqps",
        "How the traffic is split between versions, for example during a canary release.",
        _by_version(rate("weir_requests_total", "version", _THIS)), is_stacked=True),
    Panel("Error rate by version", "percentunit",
        "If the new version has more errors than the old one, roll back (docs/operations.md).",
        _by_version(error_rate("version", _THIS))),
    Panel("Latency p95 by version", "s",
        "If the new version is slower at the same load, it needs more capacity.",
        _by_version(quantile(0.95, "weir_request_seconds", "version", _THIS))),
))  # fmt: skip

MODEL = Dashboard(
    "model",
    "Weir model",
    "Requests, latency by phase, batches and versions of one model.",
    (_SUMMARY, _REQUESTS, _LATENCY, _BATCHES, _VERSIONS),
    (
        Variable("model", "label_values(weir_model_ready, model)"),
        Variable("version", 'label_values(weir_model_ready{model="$model"}, version)', True),
    ),
)
