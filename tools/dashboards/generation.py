"""Encoder-decoders: time to first token, inter-token latency and decoder utilisation."""

from tools.dashboards.panels import (
    Dashboard,
    Panel,
    Query,
    Row,
    Variable,
    heatmap,
    percentiles,
    stat,
)
from tools.dashboards.promql import bucket_increase, mean, padding_ratio, quantile, rate

_THIS = 'model=~"$model"'
_FIRST, _NEXT = "weir_generation_first_token_seconds", "weir_generation_token_seconds"

_SUMMARY = Row("Summary", (
    stat("Tokens per second", "ops",
        "Generated tokens of all selected models. This is the throughput.",
        (Query(rate("weir_generation_tokens_total", "", _THIS), "tokens"),), width=6),
    stat("Time to first token p95", "s",
        "Time from a request's arrival to its first token. A rise means that rows wait for a "
        "decoder slot, or for the encoder.",
        (Query(quantile(0.95, _FIRST, "", _THIS), "p95"),), width=6),
    stat("Inter-token latency p95", "s",
        "Time between two tokens. A rise means more rows per step, or a slower machine.",
        (Query(quantile(0.95, _NEXT, "", _THIS), "p95"),), width=6),
    stat("Active rows", "none",
        "Rows in the decoder; each beam counts. At max_batch_rows new rows wait.",
        (Query(f"sum(weir_generation_active_rows{{{_THIS}}})", "rows"),), width=6),
))  # fmt: skip
_LATENCY = Row("Latency", (
    Panel("Time to first token p50/p95/p99", "s",
        "Time from arrival to the first step of a row. A rise means that rows wait for a "
        "decoder slot, or for the encoder.",
        percentiles(_FIRST, _THIS)),
    Panel("Inter-token latency p50/p95/p99", "s",
        "Average time per decoder step of a row. A rise means more rows per step, or a slower "
        "machine.",
        percentiles(_NEXT, _THIS)),
    heatmap("Time to first token distribution", "s",
        "Rows per bucket over time. A second band above the first: rows wait in the queue.",
        (Query(bucket_increase(_FIRST, _THIS), "{{le}}"),)),
))  # fmt: skip
_DECODER = Row("Decoder", (
    Panel("Tokens per second by model", "ops",
        "Generated tokens. A fall while requests wait means slower steps.",
        (Query(rate("weir_generation_tokens_total", "model", _THIS), "{{model}}"),),
        is_stacked=True),
    Panel("Decoder steps per second", "ops",
        "Runs of the decoder. More steps for the same tokens mean fewer rows per step.",
        (Query(rate("weir_generation_steps_total", "model", _THIS), "{{model}}"),)),
    Panel("Batch size", "none",
        "Average rows per decoder step. A rise means more load and less time per token.",
        (Query(mean("weir_batch_rows", "model", _THIS), "{{model}}"),)),
    Panel("Active rows and waiting requests", "none",
        "At max_batch_rows the active rows stay constant and the waiting requests rise.",
        (
            Query(f"sum by (model) (weir_generation_active_rows{{{_THIS}}})",
                  "{{model}}: active rows"),
            Query(f"sum by (model) (weir_queue_requests{{{_THIS}}} "
                  "and on (model) weir_generation_active_rows)", "{{model}}: waiting requests"),
        )),
    Panel("Finished rows per second by reason", "ops",
        "end: complete. limit: cut off at the token limit. cancelled: the client left. "
        "deadline: too late. failed: see the log.",
        (Query(rate("weir_generation_finished_total", "reason", _THIS), "{{reason}}"),),
        is_stacked=True),
    Panel("Padding ratio of sources", "percentunit",
        "Share of the encoder's computed tokens that is padding. A rise means more varied "
        "source lengths.",
        (Query(padding_ratio("model", _THIS), "{{model}}"),)),
))  # fmt: skip

GENERATION = Dashboard(
    "generation",
    "Weir generation",
    "Time to first token, inter-token latency and decoder throughput of encoder-decoders.",
    (_SUMMARY, _LATENCY, _DECODER),
    (Variable("model", "label_values(weir_generation_steps_total, model)", True),),
)
