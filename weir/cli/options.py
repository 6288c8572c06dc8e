"""Options that several verbs share."""

import re
from typing import Annotated

import typer

from weir.client.errors import UsageError

Target = Annotated[
    str, typer.Option(envvar="WEIR_TARGET", metavar="HOST:PORT", help="The server to call.")
]
Timeout = Annotated[float, typer.Option(min=0.001, metavar="SECONDS", help="Deadline of a call.")]
Version = Annotated[
    str, typer.Option(help="The model's version, or a label of one; else the server chooses.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


def duration_s(text: str) -> float:
    """Seconds from `10s`, `500ms`, `1.5m`, `2h` or a bare number of seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"expected a duration such as 10s, 500ms or 2m, got {text!r}")
    return float(match[1]) * _UNIT_S[match[2]]
