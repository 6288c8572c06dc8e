"""Weir's public face: the clients and their errors.

Names are imported on first use, so that `import weir` and `weir --help` load neither gRPC nor
numpy.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir.answers import (
        Answer,
        Class,
        ClassifiedText,
        Forecast,
        Generated,
        GeneratedToken,
        Hypothesis,
        IndexEntry,
        ModelInfo,
        ModelMetadata,
        TaggedToken,
        TensorMetadata,
        VersionInfo,
    )
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
        Unreachable,
        UsageError,
        WeirError,
    )
    from weir.generating import Beam, Sample
    from weir.generation import AsyncGeneration, Generation

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Answer",
    "AsyncClient",
    "AsyncGeneration",
    "Beam",
    "CallError",
    "Cancelled",
    "Class",
    "ClassifiedText",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Forecast",
    "Generated",
    "GeneratedToken",
    "Generation",
    "Hypothesis",
    "IndexEntry",
    "Internal",
    "InvalidArgument",
    "MissingExtra",
    "ModelInfo",
    "ModelMetadata",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Sample",
    "TaggedToken",
    "TensorMetadata",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Unreachable",
    "UsageError",
    "VersionInfo",
    "WeirError",
]

_ANSWERS = (
    "Answer",
    "Class",
    "ClassifiedText",
    "Forecast",
    "Generated",
    "GeneratedToken",
    "Hypothesis",
    "IndexEntry",
    "ModelInfo",
    "ModelMetadata",
    "TaggedToken",
    "TensorMetadata",
    "VersionInfo",
)
_ELSEWHERE = {
    "AsyncClient": "weir.async_client",
    "Client": "weir.client",
    **dict.fromkeys(_ANSWERS, "weir.answers"),
    **dict.fromkeys(("Beam", "Sample"), "weir.generating"),
    **dict.fromkeys(("AsyncGeneration", "Generation"), "weir.generation"),
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "weir.errors")), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
