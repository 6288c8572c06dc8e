"""The first page: is something wrong, since when, and with which model."""

from deploy.grafana.panels import GOOD_BELOW, Dashboard, Panel, Query, Row
from deploy.grafana.promql import (
    QUANTILES,
    WINDOW,
    by_bucket,
    failed_share,
    quantile,
    rate,
)

_BY_MODEL = f'label_replace({rate("weir_requests_total", "model")}, "model", "(none)", "model", "")'
_FULLNESS = "weir_queue_rows / weir_queue_limit_rows"

_NOW = Row(
    "Now",
    (
        Panel(
            "Alerts firing",
            "Alerts that fire now; the table below names them. 0 is a quiet night.",
            "none",
            (Query('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),),
            kind="stat",
            width=3,
            steps=GOOD_BELOW["nothing"],
        ),
        Panel(
            "Models ready",
            "Versions that answer. A fall that nobody asked for: see the next.",
            "none",
            (Query("sum(weir_model_ready)", "ready"),),
            kind="stat",
            width=3,
        ),
        Panel(
            "Models not ready",
            "Versions that are known and do not answer: loading, failed, or unloaded. `weir models` says why.",
            "none",
            (Query("sum(1 - weir_model_ready)", "not ready"),),
            kind="stat",
            width=3,
            steps=GOOD_BELOW["nothing"],
        ),
        Panel(
            "Requests",
            "Requests that ended, of all models and with any status. A fall to 0: look at the callers, "
            "or at what stands between.",
            "reqps",
            (Query(rate("weir_requests_total"), "requests"),),
            kind="stat",
            width=3,
        ),
        Panel(
            "Failed",
            "Share of requests that the server could not answer (INTERNAL, UNAVAILABLE, RESOURCE_EXHAUSTED, "
            "DEADLINE_EXCEEDED), callers' own faults left out. The objective is below 0.1 %.",
            "percentunit",
            (Query(failed_share(), "failed"),),
            kind="stat",
            width=3,
            steps=GOOD_BELOW["budget"],
        ),
        Panel(
            "95 % faster than",
            "From arrival to answer, of all models. A rise: see below whether queue or compute grew.",
            "s",
            (Query(quantile(0.95, "weir_request_seconds"), "p95"),),
            kind="stat",
            width=3,
        ),
        Panel(
            "Fullest queue",
            "Rows that wait, by the most that may, of the model where that is highest. At 100 % requests "
            "are refused.",
            "percentunit",
            (Query(f"max({_FULLNESS})", "full"),),
            kind="stat",
            width=3,
            steps=GOOD_BELOW["limit"],
        ),
        Panel(
            "I/O thread busy",
            "Share of the time in which the one thread that takes calls in was not waiting; of several servers, "
            "the busiest. Near 100 % every request of every model waits for it.",
            "percentunit",
            (Query(f"max(rate(weir_io_busy_seconds_total{WINDOW}))", "busy"),),
            kind="stat",
            width=3,
            steps=GOOD_BELOW["limit"],
        ),
    ),
)
_ALERTS = Row(
    "Alerts",
    (
        Panel(
            "Alerts, pending and firing",
            "Pending: the condition holds, but not yet for long enough. docs/operations.md says of each "
            "what it means and what to do first.",
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
            "Requests by status",
            "Orange: refused, a queue is full. Yellow: too late. Purple: a model is not ready, or the server "
            "stops. Red: our bug, see the log. Blue: callers' faults. Grey: callers that hung up.",
            "reqps",
            (Query(rate("weir_requests_total", "status"), "{{status}}"),),
            is_stacked=True,
        ),
        Panel(
            "Requests by model",
            "Which model the load is for. (none): requests that reached no model, as of an unknown name.",
            "reqps",
            (Query(_BY_MODEL, "{{model}}"),),
            is_stacked=True,
        ),
        Panel(
            "Failed by model",
            "Share of each model's requests that the server could not answer. A rise of one model: look at "
            "that model; of all: look at the host.",
            "percentunit",
            (Query(failed_share("model"), "{{model}}"),),
        ),
    ),
)
_LATENCY = Row(
    "Latency",
    (
        Panel(
            "How long requests take",
            "Each column: how many requests took how long. A second band above the first: some requests "
            "meet a queue, or a slow model.",
            "s",
            (Query(by_bucket("weir_request_seconds"), "{{le}}"),),
            kind="heatmap",
        ),
        Panel(
            "Half, 95 % and 99 % of requests are faster than",
            "p99 rises alone: bursts, or few long requests. All rise: more load than the sessions can take, "
            "or a slower machine.",
            "s",
            tuple(
                Query(quantile(share, "weir_request_seconds"), name) for name, share in QUANTILES
            ),
        ),
        Panel(
            "95 % are faster than, by model",
            "Which model is slow. Its own page shows whether it queues or computes.",
            "s",
            (Query(quantile(0.95, "weir_request_seconds", "model"), "{{model}}"),),
        ),
    ),
)
_SATURATION = Row(
    "Saturation",
    (
        Panel(
            "How full the queues are",
            "Rows that wait, by the most that may. At 100 % requests are refused with RESOURCE_EXHAUSTED. "
            "A rise: more load than the model's sessions can take.",
            "percentunit",
            (Query(f"max by (model, version) ({_FULLNESS})", "{{model}} {{version}}"),),
            steps=GOOD_BELOW["limit"],
        ),
        Panel(
            "Refusals by reason",
            "Requests that were refused, by the kind of error. overloaded: add capacity, or slow the callers "
            "down. invalid_request and unknown_model: a caller was changed.",
            "reqps",
            (Query(rate("weir_request_failures_total", "reason"), "{{reason}}"),),
            is_stacked=True,
        ),
        Panel(
            "I/O thread busy",
            "Share of the time in which the one thread that takes calls in was not waiting. Near 100 % every "
            "request of every model waits for it.",
            "percentunit",
            (
                Query(
                    f"rate(weir_io_busy_seconds_total{WINDOW})",
                    "{{instance}}",
                ),
            ),
            steps=GOOD_BELOW["limit"],
        ),
    ),
)
_BUDGET = Row(
    "Error budget",
    (
        Panel(
            "Budget of failures, burn rate over an hour",
            "1: failures use up the budget (0.1 % of requests) exactly in its 30 days. 14.4: in two days, "
            "which is when somebody is called.",
            "none",
            (Query("weir:failed_requests:ratio_rate1h / 0.001", "{{model}}"),),
            width=12,
            steps=GOOD_BELOW["burn rate"],
        ),
        Panel(
            "Budget of slow requests, burn rate over an hour",
            "The same for requests slower than half a second, of which 1 % may be; of encoder-decoders, "
            "whose answers are long, first tokens count.",
            "none",
            (Query("weir:slow_requests:ratio_rate1h / 0.01", "{{model}}"),),
            width=12,
            steps=GOOD_BELOW["burn rate"],
        ),
    ),
)

OVERVIEW = Dashboard(
    "overview",
    "Weir overview",
    "Is something wrong, since when, and with which model.",
    (_NOW, _ALERTS, _TRAFFIC, _LATENCY, _SATURATION, _BUDGET),
)
