"""Encoder-decoders: time to first token, inter-token latency and decoder utilisation."""

from tools.dashboards.panels import Dashboard, Panel, Query, Row, Variable
from tools.dashboards.promql import QUANTILES, bucket_increase, mean, padding_ratio, quantile, rate

_THIS = 'model=~"$model"'
_FIRST, _NEXT = "weir_generation_first_token_seconds", "weir_generation_token_seconds"

_SUMMARY = Row(
    "Summary",
    (
        Panel(
            "Tokens per second",
            "Generated tokens of all selected models. This is the throughput.",
            "ops",
            (Query(rate("weir_generation_tokens_total", "", _THIS), "tokens"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Time to first token p95",
            "Time from a request's arrival to its first token. A rise means that rows wait for a "
            "decoder slot, or for the encoder.",
            "s",
            (Query(quantile(0.95, _FIRST, "", _THIS), "p95"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Inter-token latency p95",
            "Time between two tokens. A rise means more rows per step, or a slower machine.",
            "s",
            (Query(quantile(0.95, _NEXT, "", _THIS), "p95"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Active rows",
            "Rows in the decoder; each beam counts. At max_batch_rows new rows wait.",
            "none",
            (Query(f"sum(weir_generation_active_rows{{{_THIS}}})", "rows"),),
            kind="stat",
            width=6,
        ),
    ),
)
_LATENCY = Row(
    "Latency",
    (
        Panel(
            "Time to first token p50/p95/p99",
            "Time from arrival to the first step of a row. A rise means that rows wait for a "
            "decoder slot, or for the encoder.",
            "s",
            tuple(Query(quantile(q, _FIRST, "", _THIS), name) for name, q in QUANTILES),
        ),
        Panel(
            "Inter-token latency p50/p95/p99",
            "Average time per decoder step of a row. A rise means more rows per step, or a slower "
            "machine.",
            "s",
            tuple(Query(quantile(q, _NEXT, "", _THIS), name) for name, q in QUANTILES),
        ),
        Panel(
            "Time to first token distribution",
            "Rows per bucket over time. A second band above the first: rows wait in the queue.",
            "s",
            (Query(bucket_increase(_FIRST, _THIS), "{{le}}"),),
            kind="heatmap",
        ),
    ),
)
_DECODER = Row(
    "Decoder",
    (
        Panel(
            "Tokens per second by model",
            "Generated tokens. A fall while requests wait means slower steps.",
            "ops",
            (Query(rate("weir_generation_tokens_total", "model", _THIS), "{{model}}"),),
            is_stacked=True,
        ),
        Panel(
            "Decoder steps per second",
            "Runs of the decoder. More steps for the same tokens mean fewer rows per step.",
            "ops",
            (Query(rate("weir_generation_steps_total", "model", _THIS), "{{model}}"),),
        ),
        Panel(
            "Batch size",
            "Average rows per decoder step. A rise means more load and less time per token.",
            "none",
            (Query(mean("weir_batch_rows", "model", _THIS), "{{model}}"),),
        ),
        Panel(
            "Active rows and waiting requests",
            "At max_batch_rows the active rows stay constant and the waiting requests rise.",
            "none",
            (
                Query(
                    f"sum by (model) (weir_generation_active_rows{{{_THIS}}})",
                    "{{model}}: active rows",
                ),
                Query(
                    f"sum by (model) (weir_queue_requests{{{_THIS}}} "
                    "and on (model) weir_generation_active_rows)",
                    "{{model}}: waiting requests",
                ),
            ),
        ),
        Panel(
            "Finished rows per second by reason",
            "end: complete. limit: cut off at the token limit. cancelled: the client left. "
            "deadline: too late. failed: see the log.",
            "ops",
            (Query(rate("weir_generation_finished_total", "reason", _THIS), "{{reason}}"),),
            is_stacked=True,
        ),
        Panel(
            "Padding ratio of sources",
            "Share of the encoder's computed tokens that is padding. A rise means more varied "
            "source lengths.",
            "percentunit",
            (Query(padding_ratio("model", _THIS), "{{model}}"),),
        ),
    ),
)

GENERATION = Dashboard(
    "generation",
    "Weir generation",
    "Time to first token, inter-token latency and decoder throughput of encoder-decoders.",
    (_SUMMARY, _LATENCY, _DECODER),
    (Variable("model", "label_values(weir_generation_steps_total, model)", True),),
)
