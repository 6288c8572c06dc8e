"""Parts of Weir that may be absent: the error that says how to get them."""

from collections.abc import Iterator
from contextlib import contextmanager

from weir.client.errors import MissingExtra

_OURS = ("weir",)


@contextmanager
def requires(extra: str) -> Iterator[None]:
    """Turn a failed import of somebody else's package into the name of the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in _OURS:
            raise
        raise MissingExtra(
            f"{package or error} is not installed: pip install 'weir[{extra}]'"
        ) from error
