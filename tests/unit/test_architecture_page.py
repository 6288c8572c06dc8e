"""The names in backticks on the architecture page exist in the tree."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from weir.protocol import inference_pb2, models_pb2, tasks_pb2

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")
PACKAGES = (
    *("server", "bundle", "training", "export"),
    *("weir/client", "weir/cli", "weir/bench", "weir/gateway", "weir/inspection", "weir/profile"),
)
# A model's name, and a file of a model.
NO_NAMES = {"NAME.encoder", "NAME.decoder", "config.pbtxt", "grpc.server"}


def spans() -> Iterator[str]:
    text = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    yield from (span for span in re.findall(r"`([^`\n]+)`", text) if span not in NO_NAMES)


def is_path(span: str) -> bool:
    return re.fullmatch(r"\w[\w./-]*", span) is not None and ("/" in span or span.endswith(".py"))


def members() -> dict[str, set[str]]:
    """What each module, by its last name, and each class defines."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        found[path.stem] |= set(defined_in(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name] |= set(defined_in(node))
    return found


def defined_in(owner: ast.Module | ast.ClassDef) -> Iterator[str]:
    for statement in owner.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        targets += [statement.target] if isinstance(statement, ast.AnnAssign) else []
        yield from (target.id for target in targets if isinstance(target, ast.Name))
    if isinstance(owner, ast.ClassDef):
        for node in ast.walk(owner):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr


def test_every_path_exists() -> None:
    missing = [
        span
        for span in spans()
        if is_path(span)
        and not any(
            (ROOT / folder / f"{span}{suffix}").exists()
            for folder in ("", "server")
            for suffix in ("", ".py")
        )
    ]

    assert not missing


def test_every_name_with_its_owner_is_defined() -> None:
    known = members()
    missing = [
        span
        for span in spans()
        if not is_path(span)
        and (match := re.fullmatch(r"(\w+)\.(\w+)", span))
        and not (ROOT / span).exists()
        and match[1] != "weir"
        and match[2] not in known.get(match[1], ())
    ]

    assert not missing


def test_every_class_module_and_rpc_exists() -> None:
    rpcs = {
        method.name
        for file in (inference_pb2, models_pb2, tasks_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    known = members().keys() | rpcs
    is_name = re.compile(r"[A-Z][a-z]\w*|[a-z]+(_[a-z]+)+")
    missing = [span for span in spans() if is_name.fullmatch(span) and span not in known]

    assert not missing


def test_table_of_threads_is_complete() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "server").rglob("*.py"))
    named = set(re.findall(r'name(?:_prefix)?(?:: str)? ?= ?f?"(weir-[a-z-]*[a-z])', sources))
    table = set(re.findall(r"^\| `(weir-[a-z-]*[a-z])", PAGE, flags=re.MULTILINE))

    assert named == table
