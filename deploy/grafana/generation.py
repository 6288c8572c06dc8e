"""Encoder-decoders: how soon answers begin, how fast they go on, and why they end."""

from deploy.grafana.panels import Dashboard, Panel, Query, Row, Variable
from deploy.grafana.promql import QUANTILES, by_bucket, mean, quantile, rate, wasted_share

_THIS = 'model=~"$model"'
_FIRST, _NEXT = "weir_generation_first_token_seconds", "weir_generation_token_seconds"

_NOW = Row(
    "Now",
    (
        Panel(
            "Tokens",
            "Of answers, of all models that were chosen. The work that is done.",
            "ops",
            (Query(rate("weir_generation_tokens_total", "", _THIS), "tokens"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "95 % begin within",
            "From a request's arrival to its first token. A rise: rows wait for slots, or for the encoder.",
            "s",
            (Query(quantile(0.95, _FIRST, "", _THIS), "p95"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "95 % go on within",
            "From one token to the next. A rise: more rows a step, or a busier machine.",
            "s",
            (Query(quantile(0.95, _NEXT, "", _THIS), "p95"),),
            kind="stat",
            width=6,
        ),
        Panel(
            "Rows in the decoder",
            "Each of a beam counted. At the limit of a batch new rows wait.",
            "none",
            (Query(f"sum(weir_generation_active_rows{{{_THIS}}})", "rows"),),
            kind="stat",
            width=6,
        ),
    ),
)
_ANSWERS = Row(
    "How answers come",
    (
        Panel(
            "First tokens come within",
            "From arrival to the first step of a row. A rise: rows wait for slots (see rows in the decoder), "
            "or for the encoder.",
            "s",
            tuple(Query(quantile(share, _FIRST, "", _THIS), name) for name, share in QUANTILES),
        ),
        Panel(
            "Further tokens come within",
            "A row's time from one step to the next, on average over its answer. A rise: more rows a step, or "
            "a busier machine.",
            "s",
            tuple(Query(quantile(share, _NEXT, "", _THIS), name) for name, share in QUANTILES),
        ),
        Panel(
            "How long first tokens take",
            "Each column: how many rows waited how long. A second band above the first: a queue.",
            "s",
            (Query(by_bucket(_FIRST, _THIS), "{{le}}"),),
            kind="heatmap",
        ),
    ),
)
_WORK = Row(
    "The decoder's work",
    (
        Panel(
            "Tokens by model",
            "Tokens of answers. A fall while rows wait: steps got slower.",
            "ops",
            (Query(rate("weir_generation_tokens_total", "model", _THIS), "{{model}}"),),
            is_stacked=True,
        ),
        Panel(
            "Steps by model",
            "Runs of the decoder. More steps for the same tokens: fewer rows share a step.",
            "ops",
            (Query(rate("weir_generation_steps_total", "model", _THIS), "{{model}}"),),
        ),
        Panel(
            "Rows that share a run",
            "On average. A rise: more load, and cheaper tokens.",
            "none",
            (Query(mean("weir_batch_rows", "model", _THIS), "{{model}}"),),
        ),
        Panel(
            "Rows in the decoder, and requests that wait",
            "At the limit of a batch, rows stay level and waiting requests grow.",
            "none",
            (
                Query(
                    f"sum by (model) (weir_generation_active_rows{{{_THIS}}})",
                    "{{model}}: rows in the decoder",
                ),
                Query(
                    f"sum by (model) (weir_queue_requests{{{_THIS}}} "
                    "and on (model) weir_generation_active_rows)",
                    "{{model}}: requests that wait",
                ),
            ),
        ),
        Panel(
            "Why answers end",
            "end: said in full. limit: cut off, ask for more tokens. cancelled: the caller left. deadline: too "
            "late. failed: see the log.",
            "ops",
            (Query(rate("weir_generation_finished_total", "reason", _THIS), "{{reason}}"),),
            is_stacked=True,
        ),
        Panel(
            "Padding of sources",
            "Share of what the encoder computes that only fills rows up. A rise: sources of unequal length.",
            "percentunit",
            (Query(wasted_share("model", _THIS), "{{model}}"),),
        ),
    ),
)

GENERATION = Dashboard(
    "generation",
    "Weir generation",
    "How soon the answers of encoder-decoders begin, how fast they go on, and why they end.",
    (_NOW, _ANSWERS, _WORK),
    (Variable("model", "label_values(weir_generation_steps_total, model)", True),),
)
