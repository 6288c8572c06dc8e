"""`weir generate`: what an encoder-decoder makes of a text, its tokens as they come."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir import defaults
from weir.commands.attention import attention_picture, print_attention
from weir.commands.drawing import check_picture, save
from weir.commands.extras import requires
from weir.commands.options import AsJson, Target, Timeout, Version
from weir.commands.texts import Model, Texts, model_of, texts_of
from weir.errors import UsageError

if TYPE_CHECKING:
    from weir.answers import Generated, Hypothesis
    from weir.generating import Beam, Sample
    from weir.generation import Generation


def generate(
    texts: Texts,
    *,
    model: Model = "",
    beam: Annotated[
        int | None, typer.Option(min=1, metavar="WIDTH", help="Search with a beam.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens by chance.")] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Of --sample: above 1 more daring, below less.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Of --sample: only among so many likeliest.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of --sample: equal seeds draw equal tokens.")
    ] = None,
    n_best: Annotated[int, typer.Option(min=1, help="How many answers are wanted.")] = 1,
    max_tokens: Annotated[
        int, typer.Option(min=0, help="Most tokens of an answer; 0: as the bundle says.")
    ] = 0,
    attention: Annotated[
        bool, typer.Option("--attention", help="Draw where each step looked.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Draw it into this picture too, .png or .svg.")
    ] = None,
    version: Version = "",
    target: Target = defaults.TARGET,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Make a text of a text, and show each token as it comes.

    Of several texts, or lines of standard input, each gets a line. Exit code 1 if one fails.
    """
    with requires("client"):
        from weir.client import Client
    search = _search(beam, sample=sample, temperature=temperature, top_k=top_k, seed=seed)
    given = texts_of(texts)
    check_picture(out, "--out")
    if out is not None and len(given) > 1:
        raise UsageError(f"--out: expected one text to draw, got {len(given)}")
    with Client(target, timeout_s=timeout) as client:
        name = model_of(client, model)
        ask = partial(
            client.generate,
            name,
            search=search,
            n_best=n_best,
            max_tokens=max_tokens,
            attention=attention or out is not None,
            version=version,
        )
        found = [_show(ask(text), is_quiet=as_json, attention=attention) for text in given]
    if as_json:
        typer.echo(json.dumps(list(map(_plain, found)), ensure_ascii=False))
    if out is not None:
        save(attention_picture(found[0]), out)


def _search(
    beam: int | None,
    *,
    sample: bool,
    temperature: float | None,
    top_k: int | None,
    seed: int | None,
) -> "Beam | Sample | None":
    """How tokens are chosen, as the options say.

    Raises:
        UsageError: they contradict each other.
    """
    with requires("client"):
        from weir.generating import Beam, Sample
    own = {"--temperature": temperature, "--top-k": top_k, "--seed": seed}
    if not sample and (strays := [key for key, value in own.items() if value is not None]):
        raise UsageError(f"{strays[0]}: expected --sample with it")
    if sample and beam is not None:
        raise UsageError("--beam: expected either a beam or samples, got both")
    if sample:
        return Sample(1.0 if temperature is None else temperature, top_k or 0, seed)
    return None if beam is None else Beam(beam)


def _show(generation: "Generation", *, is_quiet: bool, attention: bool) -> "Generated":
    """Print an answer while it comes; what it says about itself goes to standard error."""
    text = ""
    for token in generation:
        text += token.text
        if not is_quiet:
            sys.stdout.write(token.text)
            sys.stdout.flush()
    result = generation.result()
    if is_quiet:
        return result
    if len(result.hypotheses) > 1:
        Console().print(_table(result))
    else:
        # A beam has no tokens to show before its end.
        sys.stdout.write(result.text.removeprefix(text) + "\n")
        sys.stdout.flush()
    _tell(result)
    if attention:
        print_attention(result, Console())
    return result


def _tell(result: "Generated") -> None:
    if result.unknown:
        sys.stderr.write(f"weir: never seen: {' '.join(result.unknown)}\n")
    if not result.hypotheses[0].is_complete:
        sys.stderr.write("weir: cut off at the most tokens\n")


def _table(result: "Generated") -> Table:
    table = Table("", "text", title=result.model)
    table.add_column("score", justify="right")
    for rank, one in enumerate(result.hypotheses, 1):
        table.add_row(str(rank), escape(one.text), f"{one.score:.4f}")
    return table


def _plain(result: "Generated") -> dict[str, Any]:
    return {
        "model": result.model,
        "version": result.version,
        "hypotheses": list(map(_plain_hypothesis, result.hypotheses)),
        "source": list(result.source),
        "unknown": list(result.unknown),
    }


def _plain_hypothesis(one: "Hypothesis") -> dict[str, Any]:
    plain = {
        "text": one.text,
        "tokens": list(one.tokens),
        "log_probability": one.log_probability,
        "score": one.score,
        "is_complete": one.is_complete,
    }
    return plain if one.attention is None else {**plain, "attention": one.attention.tolist()}
