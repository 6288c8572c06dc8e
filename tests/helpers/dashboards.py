"""The committed dashboards, read from their JSON files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def dashboards(folder: Path) -> list[Json]:
    """Every dashboard of a folder."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]


def panels(dashboard: Json) -> Iterator[Json]:
    """The panels that have queries."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")
