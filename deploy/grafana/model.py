"""One model in depth: where its time goes, what its batches look like, and its versions side by side."""

from deploy.grafana.panels import (
    GOOD_BELOW,
    GREEN,
    RED,
    Dashboard,
    Panel,
    Query,
    Row,
    Variable,
)
from deploy.grafana.promql import (
    QUANTILES,
    by_bucket,
    failed_share,
    mean,
    quantile,
    rate,
    wasted_share,
)

_THIS = 'model="$model", version=~"$version"'


def _by_version(expr: str) -> tuple[Query, ...]:
    return (Query(expr, "version {{version}}"),)


_NOW = Row(
    "Now",
    (
        Panel(
            "State",
            "Whether each version answers. `weir models` gives the reason of one that does not.",
            "none",
            _by_version(f"max by (version) (weir_model_ready{{{_THIS}}})"),
            kind="stat",
            steps=((0, RED), (1, GREEN)),
            words=((0, "not ready"), (1, "ready")),
        ),
        Panel(
            "Provider",
            "What each version runs on. CPUExecutionProvider on a machine with a GPU: look at its log.",
            "none",
            (
                Query(
                    f"max by (version, provider) (weir_model_provider{{{_THIS}}})",
                    "{{version}}: {{provider}}",
                ),
            ),
            kind="stat",
            shows_name=True,
        ),
        Panel(
            "Last load took",
            "With its checks. A rise: a slower start of the next server.",
            "s",
            _by_version(f"max by (version) (weir_model_load_seconds{{{_THIS}}})"),
            kind="stat",
            width=4,
        ),
        Panel(
            "Loads by result",
            "Since the server started. failed and golden_mismatch: a version was refused; the log says why.",
            "none",
            (Query('sum by (result) (weir_model_loads_total{model="$model"})', "{{result}}"),),
            kind="stat",
            width=4,
        ),
    ),
)
_REQUESTS = Row(
    "Requests",
    (
        Panel(
            "Requests by status",
            "Orange: the queue is full. Yellow: too late. Purple: not ready. Red: our bug, see the log.",
            "reqps",
            (Query(rate("weir_requests_total", "status", _THIS), "{{status}}"),),
            is_stacked=True,
        ),
        Panel(
            "Refusals by reason",
            "Requests that were refused, by the kind of error. overloaded: more load than this model can take.",
            "reqps",
            (Query(rate("weir_request_failures_total", "reason", _THIS), "{{reason}}"),),
            is_stacked=True,
        ),
        Panel(
            "Bytes",
            "Of request and answer messages. A rise without more requests: larger ones, which cost the I/O thread.",
            "Bps",
            (
                Query(rate("weir_request_bytes_total", "", _THIS), "in"),
                Query(rate("weir_response_bytes_total", "", _THIS), "out"),
            ),
        ),
    ),
)
_TIME = Row(
    "Where time goes",
    (
        Panel(
            "Queue against compute, on average",
            "Queue grows and compute does not: too much load. Compute grows: larger batches (see below), or a "
            "busier machine.",
            "s",
            (
                Query(mean("weir_queue_seconds", "", _THIS), "queue"),
                Query(mean("weir_compute_seconds", "", _THIS), "compute"),
                Query(mean("weir_request_seconds", "", _THIS), "request, in all"),
            ),
        ),
        Panel(
            "Requests are faster than",
            "From arrival to answer. p99 alone rises: bursts, or few long requests.",
            "s",
            tuple(
                Query(quantile(share, "weir_request_seconds", "", _THIS), name)
                for name, share in QUANTILES
            ),
        ),
        Panel(
            "How long requests take",
            "Each column: how many requests took how long. Two bands: two kinds of requests, or a queue.",
            "s",
            (Query(by_bucket("weir_request_seconds", _THIS), "{{le}}"),),
            kind="heatmap",
        ),
        Panel(
            "95 % wait in the queue less than",
            "A rise: more load than the sessions can take.",
            "s",
            _by_version(quantile(0.95, "weir_queue_seconds", "version", _THIS)),
        ),
        Panel(
            "95 % of runs take less than",
            "One run of the model on a batch. A rise: larger batches, or a busier machine.",
            "s",
            _by_version(quantile(0.95, "weir_compute_seconds", "version", _THIS)),
        ),
        Panel(
            "95 % of pictures are decoded in less than",
            "Of models that take pictures. A rise: larger pictures, or a busier machine.",
            "s",
            _by_version(quantile(0.95, "weir_preprocess_seconds", "version", _THIS)),
            no_value="takes no pictures",
        ),
    ),
)
_BATCHES = Row(
    "Batches",
    (
        Panel(
            "Rows of a batch, on average",
            "A rise: more load, which is what makes batches large, or callers that send more rows at once.",
            "none",
            _by_version(mean("weir_batch_rows", "version", _THIS)),
        ),
        Panel(
            "How large batches are",
            "Each column: how many batches had how many rows. All in the top row: the limit of a batch is "
            "what bounds this model.",
            "none",
            (Query(by_bucket("weir_batch_rows", _THIS), "{{le}}"),),
            kind="heatmap",
        ),
        Panel(
            "Padding",
            "Share of computed entries that only fill rows up. A rise: lengths further apart, or too few "
            "requests to choose from. Empty for models without lengths.",
            "percentunit",
            _by_version(wasted_share("version", _THIS)),
            no_value="without lengths",
        ),
        Panel(
            "Rows that wait",
            "By the most that may. At 100 % requests are refused.",
            "percentunit",
            _by_version(
                f"max by (version) (weir_queue_rows{{{_THIS}}} / weir_queue_limit_rows{{{_THIS}}})"
            ),
            steps=GOOD_BELOW["limit"],
        ),
        Panel(
            "Requests that wait, and that run",
            "Waiting grows, running does not: the sessions are all busy.",
            "none",
            (
                Query(f"sum(weir_queue_requests{{{_THIS}}})", "wait"),
                Query(f"sum(weir_running_requests{{{_THIS}}})", "run"),
            ),
        ),
        Panel(
            "Rows computed",
            "Work done. Batches grow more slowly than rows: batching works.",
            "ops",
            (
                Query(rate("weir_rows_total", "", _THIS), "rows"),
                Query(rate("weir_batches_total", "", _THIS), "batches"),
            ),
        ),
    ),
)
_VERSIONS = Row(
    "Versions side by side",
    (
        Panel(
            "Requests by version",
            "How traffic is shared: a canary gets what its label says.",
            "reqps",
            _by_version(rate("weir_requests_total", "version", _THIS)),
            is_stacked=True,
        ),
        Panel(
            "Failed by version",
            "The new one above the old one: roll back (docs/operations.md).",
            "percentunit",
            _by_version(failed_share("version", _THIS)),
        ),
        Panel(
            "95 % are faster than, by version",
            "The new one above the old one at the same load: it costs more.",
            "s",
            _by_version(quantile(0.95, "weir_request_seconds", "version", _THIS)),
        ),
    ),
)

MODEL = Dashboard(
    "model",
    "Weir model",
    "Where the time of one model goes, what its batches look like, and its versions side by side.",
    (_NOW, _REQUESTS, _TIME, _BATCHES, _VERSIONS),
    (
        Variable("model", "label_values(weir_model_ready, model)"),
        Variable("version", 'label_values(weir_model_ready{model="$model"}, version)', True),
    ),
)
