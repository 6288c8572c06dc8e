"""Weir's public face: the clients and their errors.

Names are imported on first use, so that `import weir` and `weir --help` load neither gRPC nor
numpy.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir.answers import Answer, Class, IndexEntry, ModelMetadata, TensorMetadata
    from weir.async_client import AsyncClient
    from weir.client import Client
    from weir.errors import (
        Aborted,
        AlreadyExists,
        CallError,
        Cancelled,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        MissingExtra,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Unknown,
        UsageError,
        WeirError,
    )

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Answer",
    "AsyncClient",
    "CallError",
    "Cancelled",
    "Class",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "IndexEntry",
    "Internal",
    "InvalidArgument",
    "MissingExtra",
    "ModelMetadata",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "TensorMetadata",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "UsageError",
    "WeirError",
]

_ELSEWHERE = {
    "AsyncClient": "weir.async_client",
    "Client": "weir.client",
    **dict.fromkeys(
        ("Answer", "Class", "IndexEntry", "ModelMetadata", "TensorMetadata"), "weir.answers"
    ),
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "weir.errors")), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
