"""`weir generate`: what an encoder-decoder makes of a text, its tokens as they come."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weir.cli.advice import advised
from weir.cli.attention import TooWide, attention_picture, print_attention, visible
from weir.cli.drawing import check_picture, save
from weir.cli.extras import requires
from weir.cli.many import Outcome, patiently, raise_failures
from weir.cli.options import AsJson, Target, Timeout, Version
from weir.cli.texts import Model, Texts, model_of, texts_of
from weir.client import defaults
from weir.client.errors import InvalidArgument, UsageError

if TYPE_CHECKING:
    from weir.client.generation import Beam, Generation, Sample
    from weir.client.results import Generated, Hypothesis

# How the server begins what it says of a text alone; of an option it says the name first.
_OWN = "expected "


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is printed of an answer, and whether it is also drawn into a file."""

    is_quiet: bool
    attention: bool
    is_drawn: bool


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
    n_best: Annotated[
        int, typer.Option(min=1, help="Of --beam or --sample: how many answers are wanted.")
    ] = 1,
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

    Of several texts, or lines of standard input, each gets a line. A text that cannot be answered is named
    and passed over, its line stays empty. Exit code 1 if there was one.
    """
    with requires("client"):
        from weir.client.client import Client
    search = _search(beam, sample=sample, temperature=temperature, top_k=top_k, seed=seed)
    if n_best > 1 and search is None:
        raise UsageError(
            f"--n-best: expected --beam or --sample with it, greedily there is 1, got {n_best}"
        )
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
        shown = _Shown(is_quiet=as_json, attention=attention, is_drawn=out is not None)
        with advised(client, name, "generate"):
            outcomes = [_outcome(ask, text, shown) for text in given]
    if as_json:
        typer.echo(json.dumps(list(map(_plain, outcomes)), ensure_ascii=False))
    raise_failures(outcomes, "texts could not be answered")
    if out is not None and (only := outcomes[0].answer):
        save(attention_picture(only), out)


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
    ask: "Callable[[str], Generation]", text: str, shown: _Shown
) -> "Outcome[str, Generated]":
    """What came of a text; a failure that is not this text's alone raises."""
    try:
        return Outcome(text, patiently(lambda: _show(ask(text), shown)))
    except InvalidArgument as error:
        if not str(error).startswith(_OWN):
            raise
        if not shown.is_quiet:
            sys.stdout.write("\n")
        return Outcome(text, failure=str(error))


def _show(generation: "Generation", shown: _Shown) -> "Generated":
    """Print an answer while it comes; what it says about itself goes to standard error."""
    text = ""
    for token in generation:
        text += token.text
        if not shown.is_quiet:
            sys.stdout.write(token.text)
            sys.stdout.flush()
    result = generation.result()
    if shown.is_quiet:
        return result
    if len(result.hypotheses) > 1:
        Console().print(_table(result))
    else:
        # A beam has no tokens to show before its end.
        sys.stdout.write(result.text.removeprefix(text) + "\n")
        sys.stdout.flush()
    _tell(result)
    if shown.attention:
        try:
            print_attention(result, Console())
        except TooWide as error:
            if not shown.is_drawn:
                raise
            sys.stderr.write(f"weir: {error}\n")
    return result


def _tell(result: "Generated") -> None:
    if result.unknown:
        sys.stderr.write(f"weir: never seen: {' '.join(map(visible, result.unknown))}\n")
    if not result.hypotheses[0].is_complete:
        sys.stderr.write("weir: cut off at the most tokens\n")


def _table(result: "Generated") -> Table:
    table = Table("", "text", title=result.model)
    table.add_column("score", justify="right")
    for rank, one in enumerate(result.hypotheses, 1):
        table.add_row(str(rank), escape(one.text), f"{one.score:.4f}")
    return table


def _plain(outcome: "Outcome[str, Generated]") -> dict[str, Any]:
    result = outcome.answer
    if result is None:
        return {"text": outcome.item, "error": outcome.failure}
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
