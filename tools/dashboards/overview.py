"""The overview: whether something is wrong, since when, and with which model."""

from tools.dashboards.panels import (
    THRESHOLDS,
    Dashboard,
    Panel,
    Query,
    Row,
    heatmap,
    percentiles,
    stat,
)
from tools.dashboards.promql import WINDOW, bucket_increase, error_rate, quantile, rate

_BY_MODEL = f'label_replace({rate("weir_requests_total", "model")}, "model", "(none)", "model", "")'
_QUEUE_UTILISATION = "weir_queue_rows / weir_queue_limit_rows"

_SUMMARY = Row("Summary", (
    stat("Firing alerts", "none",
        "Alerts that fire now. The table below names them.",
        (Query('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),),
        width=3, steps=THRESHOLDS["nothing"]),
    stat("Models ready", "none",
        "Model versions that serve requests. If it falls unexpectedly, look at the next panel.",
        (Query("sum(weir_model_ready)", "ready"),), width=3),
    stat("Models not ready", "none",
        "Model versions that are loading, failed or unloaded. `weir models` prints the reason.",
        (Query("sum(1 - weir_model_ready)", "not ready"),), width=3, steps=THRESHOLDS["nothing"]),
    stat("Requests per second", "reqps",
        "Finished requests of all models, with any status. If it falls to 0, check the "
        "clients and the network between.",
        (Query(rate("weir_requests_total"), "requests"),), width=3),
    stat("Error rate", "percentunit",
        "Share of requests that end with INTERNAL, UNAVAILABLE, RESOURCE_EXHAUSTED or "
        "DEADLINE_EXCEEDED. Client errors do not count. The objective is below 0.1 %.",
        (Query(error_rate(), "errors"),), width=3, steps=THRESHOLDS["budget"]),
    stat("Latency p95", "s",
        "Time from arrival to answer, of all models. If it rises, check below whether queue "
        "time or compute time rises.",
        (Query(quantile(0.95, "weir_request_seconds"), "p95"),), width=3),
    stat("Queue utilisation (max)", "percentunit",
        "Waiting rows divided by the queue limit, of the model with the fullest queue. At 100 "
        "% requests are rejected.",
        (Query(f"max({_QUEUE_UTILISATION})", "utilisation"),), width=3, steps=THRESHOLDS["limit"]),
    stat("I/O thread utilisation", "percentunit",
        "Share of time the I/O thread is busy; of several servers, the highest. Near 100 % "
        "every request waits for this thread.",
        (Query(f"max(rate(weir_io_busy_seconds_total{WINDOW}))", "busy"),),
        width=3, steps=THRESHOLDS["limit"]),
))  # fmt: skip
_ALERTS = Row("Alerts", (
    Panel("Pending and firing alerts", "none",
        "An alert is pending until its condition has held long enough. docs/operations.md "
        "explains each alert and the first steps.",
        (Query("max by (alertname, alertstate, severity, model, instance) "
               '(ALERTS{alertstate=~"pending|firing"})'),),
        kind="table", width=24, no_value="none"),
))  # fmt: skip
_TRAFFIC = Row("Traffic", (
    Panel("Requests per second by status", "reqps",
        "RESOURCE_EXHAUSTED: a queue is full. UNAVAILABLE: a model is not ready, or the "
        "server stops. INTERNAL: a bug; see the log.",
        (Query(rate("weir_requests_total", "status"), "{{status}}"),), is_stacked=True),
    Panel("Requests per second by model", "reqps",
        "Load per model. (none): requests that reached no model, for example with an unknown "
        "model name.",
        (Query(_BY_MODEL, "{{model}}"),), is_stacked=True),
    Panel("Error rate by model", "percentunit",
        "Share of each model's requests that the server could not answer. If it rises for one "
        "model, check the model; if for all models, check the host.",
        (Query(error_rate("model"), "{{model}}"),)),
))  # fmt: skip
_LATENCY = Row("Latency", (
    heatmap("Latency distribution", "s",
        "Requests per latency bucket over time. A second band above the first: some requests "
        "wait in a queue or use a slow model.",
        (Query(bucket_increase("weir_request_seconds"), "{{le}}"),)),
    Panel("Latency p50/p95/p99", "s",
        "Time from arrival to answer. If only p99 rises: bursts, or few long requests. If all "
        "rise: overload, or a slower machine.",
        percentiles("weir_request_seconds")),
    Panel("Latency p95 by model", "s",
        "Time from arrival to answer. The model dashboard shows whether a slow model queues "
        "or computes.",
        (Query(quantile(0.95, "weir_request_seconds", "model"), "{{model}}"),)),
))  # fmt: skip
_SATURATION = Row("Saturation", (
    Panel("Queue utilisation", "percentunit",
        "Waiting rows divided by the queue limit. A rise means overload. At 100 % requests "
        "are rejected with RESOURCE_EXHAUSTED.",
        (Query(f"max by (model, version) ({_QUEUE_UTILISATION})", "{{model}} {{version}}"),),
        steps=THRESHOLDS["limit"]),
    Panel("Failed requests per second by reason", "reqps",
        "overloaded: add capacity or reduce the load. invalid_request and unknown_model: a "
        "client changed.",
        (Query(rate("weir_request_failures_total", "reason"), "{{reason}}"),), is_stacked=True),
    Panel("I/O thread utilisation by server", "percentunit",
        "Share of time the I/O thread is busy. Near 100 % every request waits for this thread.",
        (Query(f"rate(weir_io_busy_seconds_total{WINDOW})", "{{instance}}"),),
        steps=THRESHOLDS["limit"]),
))  # fmt: skip
_BUDGET = Row("Error budget", (
    Panel("Availability burn rate (1h)", "none",
        "At 1 the errors use up the budget (0.1 % of requests) in exactly 30 days; at 14.4 in "
        "two days, which fires an alert.",
        (Query("weir:failed_requests:ratio_rate1h / 0.001", "{{model}}"),),
        width=12, steps=THRESHOLDS["burn rate"]),
    Panel("Latency burn rate (1h)", "none",
        "The same for requests slower than 0.5 s; the budget is 1 % of requests. For "
        "encoder-decoders the time to first token counts.",
        (Query("weir:slow_requests:ratio_rate1h / 0.01", "{{model}}"),),
        width=12, steps=THRESHOLDS["burn rate"]),
))  # fmt: skip

OVERVIEW = Dashboard(
    "overview",
    "Weir overview",
    "Alerts, traffic, errors, latency and saturation of all models.",
    (_SUMMARY, _ALERTS, _TRAFFIC, _LATENCY, _SATURATION, _BUDGET),
)
