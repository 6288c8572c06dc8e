"""`weir generate`: text from text by an encoder-decoder, token by token."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir.cli.error_hints import connect, requires, suggest_verb
from weir.cli.fan_out import Outcome, raise_failures, with_retries
from weir.cli.figures import (
    TooWide,
    attention_figure,
    print_attention,
    require_figure_path,
    save,
    visible,
)
from weir.cli.options import (
    AsJson,
    Model,
    ServerOptions,
    Texts,
    Timeout,
    Version,
    model_name,
    takes_server,
)
from weir.cli.text_inputs import read_texts
from weir.client import defaults
from weir.client.errors import InvalidArgument, UsageError

if TYPE_CHECKING:
    from weir.client.generation import Beam, Generation, Sample
    from weir.client.results import Generated, Hypothesis

# Prefix of the server's messages about the text; messages about an option start with its name.
_TEXT_PREFIX = "expected "


@takes_server
def generate(
    texts: Texts,
    *,
    model: Model = "",
    beam: Annotated[
        int | None, typer.Option(min=1, metavar="WIDTH", help="Use beam search.")
    ] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Sample tokens by their probabilities.")
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(help="With --sample: above 1 flattens the distribution, below sharpens it."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="With --sample: draw among the k likeliest tokens.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="With --sample: equal seeds draw equal tokens.")
    ] = None,
    n_best: Annotated[
        int, typer.Option(min=1, help="With --beam or --sample: number of hypotheses.")
    ] = 1,
    max_tokens: Annotated[
        int, typer.Option(min=0, help="Token limit of a hypothesis; 0: the bundle's limit.")
    ] = 0,
    attention: Annotated[
        bool, typer.Option("--attention", help="Print the attention heat map.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Save the heat map as this .png or .svg file.")
    ] = None,
    version: Version = "",
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Generate a text from a text, and print each token as it arrives.

    Each text, or line of standard input, gets one output line. A text that fails is reported and
    its line stays empty. Exit code 1 if a text failed.
    """
    search = _search(beam, sample=sample, temperature=temperature, top_k=top_k, seed=seed)
    if n_best > 1 and search is None:
        raise UsageError(
            f"--n-best: expected --beam or --sample with it, greedily there is 1, got {n_best}"
        )
    given = read_texts(texts)
    require_figure_path(out, "--out")
    if out is not None and len(given) > 1:
        raise UsageError(f"--out: expected one text to draw, got {len(given)}")
    with connect(server, timeout) as client:
        name = model_name(client, model)

        def answer(text: str) -> "Generated":
            generation = client.generate(
                name,
                text,
                search=search,
                n_best=n_best,
                max_tokens=max_tokens,
                attention=attention or out is not None,
                version=version,
            )
            result = generation.result() if as_json else _print(generation)
            if attention and not as_json:
                _print_attention(result, is_drawn=out is not None)
            return result

        with suggest_verb(client, name, "generate"):
            outcomes = [_outcome(answer, text, is_quiet=as_json) for text in given]
    if as_json:
        typer.echo(json.dumps(list(map(_to_json, outcomes)), ensure_ascii=False))
    raise_failures(outcomes, "texts could not be answered")
    if out is not None and (only := outcomes[0].result):
        save(attention_figure(only), out)


def _search(
    beam: int | None,
    *,
    sample: bool,
    temperature: float | None,
    top_k: int | None,
    seed: int | None,
) -> "Beam | Sample | None":
    """The search of the options; UsageError if they contradict each other."""
    with requires("client"):
        from weir.client.generation import Beam, Sample
    own = {"--temperature": temperature, "--top-k": top_k, "--seed": seed}
    if not sample and (strays := [key for key, value in own.items() if value is not None]):
        raise UsageError(f"{strays[0]}: expected --sample with it")
    if sample and beam is not None:
        raise UsageError("--beam: expected either a beam or samples, got both")
    if sample:
        return Sample(1.0 if temperature is None else temperature, top_k or 0, seed)
    return None if beam is None else Beam(beam)


def _outcome(
    answer: "Callable[[str], Generated]", text: str, *, is_quiet: bool
) -> "Outcome[str, Generated]":
    """The outcome of a text; a failure that concerns all texts raises."""
    try:
        return Outcome(text, with_retries(lambda: answer(text)))
    except InvalidArgument as error:
        if not str(error).startswith(_TEXT_PREFIX):
            raise
        if not is_quiet:
            sys.stdout.write("\n")
        return Outcome(text, failure=str(error))


def _print(generation: "Generation") -> "Generated":
    """Print a result while it arrives; warnings go to standard error."""
    text = ""
    for token in generation:
        text += token.text
        sys.stdout.write(token.text)
        sys.stdout.flush()
    result = generation.result()
    if len(result.hypotheses) > 1:
        Console().print(_table(result))
    else:
        # A beam search streams no tokens.
        sys.stdout.write(result.text.removeprefix(text) + "\n")
        sys.stdout.flush()
    if result.unknown:
        sys.stderr.write(f"weir: never seen: {' '.join(map(visible, result.unknown))}\n")
    if not result.hypotheses[0].is_complete:
        sys.stderr.write("weir: cut off at the most tokens\n")
    return result


def _print_attention(result: "Generated", *, is_drawn: bool) -> None:
    """Print the heat map; one that is too wide is an error unless a file gets it too."""
    try:
        print_attention(result, Console())
    except TooWide as error:
        if not is_drawn:
            raise
        sys.stderr.write(f"weir: {error}\n")


def _table(result: "Generated") -> Table:
    table = Table("", "text", title=result.model)
    table.add_column("score", justify="right")
    for rank, one in enumerate(result.hypotheses, 1):
        table.add_row(str(rank), escape(one.text), f"{one.score:.4f}")
    return table


def _to_json(outcome: "Outcome[str, Generated]") -> dict[str, Any]:
    result = outcome.result
    if result is None:
        return {"text": outcome.item, "error": outcome.failure}
    return {**asdict(result), "hypotheses": list(map(_hypothesis_to_json, result.hypotheses))}


def _hypothesis_to_json(one: "Hypothesis") -> dict[str, Any]:
    fields = asdict(one)
    attention = fields.pop("attention")
    return fields if attention is None else {**fields, "attention": attention.tolist()}
