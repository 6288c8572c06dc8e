"""Pictures that a verb leaves, by matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING

from weir.cli.extras import requires
from weir.client.errors import UsageError, WeirError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg")


def check_picture(path: Path | None, option: str) -> None:
    """Before a server works for it, refuse a picture that cannot be drawn."""
    if path is None:
        return
    if path.suffix not in _SUFFIXES:
        raise UsageError(
            f"{option}: expected a name that ends in {' or '.join(_SUFFIXES)}, got {path}"
        )
    with requires("plot"):
        import matplotlib.figure as _  # noqa: F401


def save(figure: "Figure", path: Path) -> None:
    """Write a picture; WeirError where it cannot be written."""
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise WeirError(f"{path}: {error.strerror or error}") from error
