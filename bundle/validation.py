"""Error messages of an invalid `model.json`: a line for each problem."""

import json
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from weir.bundle.errors import BrokenBundle
from weir.bundle.escaping import printable, short_repr

_MOST_LINES = 8
_MOST_CHARACTERS = 200


def contract_error(error: ValidationError, file: str) -> BrokenBundle:
    """BrokenBundle with a line for each of the first eight problems."""
    problems = error.errors(include_url=False)
    # Another format has other keys; a line for each would hide the reason.
    listed = [problem for problem in problems if problem["loc"] == ("format",)] or problems
    lines = [_line(problem, file) for problem in listed[:_MOST_LINES]]
    if len(listed) > _MOST_LINES:
        lines.append(f"{file}: and {len(listed) - _MOST_LINES} more")
    return BrokenBundle("\n".join(lines))


def field_errors(error: ValidationError, where: str, field: str) -> str:
    """A line for each problem of a field of the object `where`."""
    problems = error.errors(include_url=False)[:_MOST_LINES]
    for problem in problems:
        problem["loc"] = (field, *problem["loc"])
    return "\n".join(_line(problem, where) for problem in problems)


def check_keys(text: bytes, file: str) -> None:
    """Raise BrokenBundle if an object has a key twice: parsers differ in which value they take."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise BrokenBundle(
                    f"{file}: {short_repr(name)}: expected the key once, got it twice"
                )
            seen.add(name)

    json.loads(text, object_pairs_hook=check)


def _line(problem: ErrorDetails, file: str) -> str:
    line = printable(_described(problem, file))
    return line if len(line) <= _MOST_CHARACTERS else line[:_MOST_CHARACTERS] + "…"


def _described(problem: ErrorDetails, file: str) -> str:
    key = ".".join(str(part)[:_MOST_CHARACTERS] for part in problem["loc"]) or "(whole file)"
    match problem["type"]:
        case "missing":
            return f"{file}: {key}: expected a value, got none"
        case "extra_forbidden":
            return f"{file}: {key}: unknown key"
        case "json_invalid":
            return f"{file}: expected JSON: {problem['msg']}"
        case "value_error":
            where = f"{file}: {key}" if problem["loc"] else file
            return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
    expected = problem["msg"].removeprefix("Input should be ")
    return f"{file}: {key}: expected {expected}, got {short_repr(problem['input'])}"
