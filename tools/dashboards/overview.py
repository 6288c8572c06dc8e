"""The overview: whether something is wrong, since when, and with which model."""

from tools.dashboards.panels import THRESHOLDS, Dashboard, Panel, Query, Row
from tools.dashboards.promql import (
    QUANTILES,
    WINDOW,
    bucket_increase,
    error_rate,
    quantile,
    rate,
)

_BY_MODEL = f'label_replace({rate("weir_requests_total", "model")}, "model", "(none)", "model", "")'
_QUEUE_UTILISATION = "weir_queue_rows / weir_queue_limit_rows"

_SUMMARY = Row(
    "Summary",
    (
        Panel(
            "Firing alerts",
            "Alerts that fire now. The table below names them.",
            "none",
            (Query('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),),
            kind="stat",
            width=3,
            steps=THRESHOLDS["nothing"],
        ),
        Panel(
            "Models ready",
            "Model versions that serve requests. If it falls unexpectedly, look at the next panel.",
            "none",
            (Query("sum(weir_model_ready)", "ready"),),
            kind="stat",
            width=3,
        ),
        Panel(
            "Models not ready",
            "Model versions that are loading, failed or unloaded. `weir models` prints the reason.",
            "none",
            (Query("sum(1 - weir_model_ready)", "not ready"),),
            kind="stat",
            width=3,
            steps=THRESHOLDS["nothing"],
        ),
        Panel(
            "Requests per second",
            "Finished requests of all models, with any status. If it falls to 0, check the clients "
            "and the network between.",
            "reqps",
            (Query(rate("weir_requests_total"), "requests"),),
            kind="stat",
            width=3,
        ),
        Panel(
            "Error rate",
            "Share of requests that end with INTERNAL, UNAVAILABLE, RESOURCE_EXHAUSTED or "
            "DEADLINE_EXCEEDED. Client errors do not count. The objective is below 0.1 %.",
            "percentunit",
            (Query(error_rate(), "errors"),),
            kind="stat",
            width=3,
            steps=THRESHOLDS["budget"],
        ),
        Panel(
            "Latency p95",
            "Time from arrival to answer, of all models. If it rises, check below whether queue "
            "time or compute time rises.",
            "s",
            (Query(quantile(0.95, "weir_request_seconds"), "p95"),),
            kind="stat",
            width=3,
        ),
        Panel(
            "Queue utilisation (max)",
            "Waiting rows divided by the queue limit, of the model with the fullest queue. At 100 "
            "% requests are rejected.",
            "percentunit",
            (Query(f"max({_QUEUE_UTILISATION})", "utilisation"),),
            kind="stat",
            width=3,
            steps=THRESHOLDS["limit"],
        ),
        Panel(
            "I/O thread utilisation",
            "Share of time the I/O thread is busy; of several servers, the highest. Near 100 % "
            "every request waits for this thread.",
            "percentunit",
            (Query(f"max(rate(weir_io_busy_seconds_total{WINDOW}))", "busy"),),
            kind="stat",
            width=3,
            steps=THRESHOLDS["limit"],
        ),
    ),
)
_ALERTS = Row(
    "Alerts",
    (
        Panel(
            "Pending and firing alerts",
            "An alert is pending until its condition has held long enough. docs/operations.md "
            "explains each alert and the first steps.",
            "none",
            (
                Query(
                    "max by (alertname, alertstate, severity, model, instance) "
                    '(ALERTS{alertstate=~"pending|firing"})'
                ),
            ),
            kind="table",
            width=24,
            no_value="none",
        ),
    ),
)
_TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Requests per second by status",
            "RESOURCE_EXHAUSTED: a queue is full. UNAVAILABLE: a model is not ready, or the server "
            "stops. INTERNAL: a bug; see the log.",
            "reqps",
            (Query(rate("weir_requests_total", "status"), "{{status}}"),),
            is_stacked=True,
        ),
        Panel(
            "Requests per second by model",
            "Load per model. (none): requests that reached no model, for example with an unknown "
            "model name.",
            "reqps",
            (Query(_BY_MODEL, "{{model}}"),),
            is_stacked=True,
        ),
        Panel(
            "Error rate by model",
            "Share of each model's requests that the server could not answer. If it rises for one "
            "model, check the model; if for all models, check the host.",
            "percentunit",
            (Query(error_rate("model"), "{{model}}"),),
        ),
    ),
)
_LATENCY = Row(
    "Latency",
    (
        Panel(
            "Latency distribution",
            "Requests per latency bucket over time. A second band above the first: some requests "
            "wait in a queue or use a slow model.",
            "s",
            (Query(bucket_increase("weir_request_seconds"), "{{le}}"),),
            kind="heatmap",
        ),
        Panel(
            "Latency p50/p95/p99",
            "Time from arrival to answer. If only p99 rises: bursts, or few long requests. If all "
            "rise: overload, or a slower machine.",
            "s",
            tuple(Query(quantile(q, "weir_request_seconds"), name) for name, q in QUANTILES),
        ),
        Panel(
            "Latency p95 by model",
            "Time from arrival to answer. The model dashboard shows whether a slow model queues or "
            "computes.",
            "s",
            (Query(quantile(0.95, "weir_request_seconds", "model"), "{{model}}"),),
        ),
    ),
)
_SATURATION = Row(
    "Saturation",
    (
        Panel(
            "Queue utilisation",
            "Waiting rows divided by the queue limit. A rise means overload. At 100 % requests are "
            "rejected with RESOURCE_EXHAUSTED.",
            "percentunit",
            (Query(f"max by (model, version) ({_QUEUE_UTILISATION})", "{{model}} {{version}}"),),
            steps=THRESHOLDS["limit"],
        ),
        Panel(
            "Failed requests per second by reason",
            "overloaded: add capacity or reduce the load. invalid_request and unknown_model: a "
            "client changed.",
            "reqps",
            (Query(rate("weir_request_failures_total", "reason"), "{{reason}}"),),
            is_stacked=True,
        ),
        Panel(
            "I/O thread utilisation by server",
            "Share of time the I/O thread is busy. Near 100 % every request waits for this thread.",
            "percentunit",
            (Query(f"rate(weir_io_busy_seconds_total{WINDOW})", "{{instance}}"),),
            steps=THRESHOLDS["limit"],
        ),
    ),
)
_BUDGET = Row(
    "Error budget",
    (
        Panel(
            "Availability burn rate (1h)",
            "At 1 the errors use up the budget (0.1 % of requests) in exactly 30 days; at 14.4 in "
            "two days, which fires an alert.",
            "none",
            (Query("weir:failed_requests:ratio_rate1h / 0.001", "{{model}}"),),
            width=12,
            steps=THRESHOLDS["burn rate"],
        ),
        Panel(
            "Latency burn rate (1h)",
            "The same for requests slower than 0.5 s; the budget is 1 % of requests. For "
            "encoder-decoders the time to first token counts.",
            "none",
            (Query("weir:slow_requests:ratio_rate1h / 0.01", "{{model}}"),),
            width=12,
            steps=THRESHOLDS["burn rate"],
        ),
    ),
)

OVERVIEW = Dashboard(
    "overview",
    "Weir overview",
    "Alerts, traffic, errors, latency and saturation of all models.",
    (_SUMMARY, _ALERTS, _TRAFFIC, _LATENCY, _SATURATION, _BUDGET),
)
