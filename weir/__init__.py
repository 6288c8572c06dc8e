"""The public interface of Weir: the clients, their results and their errors.

Names are imported on first use, so that `import weir` and `weir --help` load neither gRPC nor
numpy.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weir.client.async_client import AsyncClient
    from weir.client.client import Client
    from weir.client.credentials import Tls
    from weir.client.errors import (
        Aborted,
        AlreadyExists,
        CallError,
        Cancelled,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        HandshakeFailed,
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
    from weir.client.generation import AsyncGeneration, Beam, Generation, Sample
    from weir.client.results import (
        Answer,
        Class,
        ClassifiedText,
        Forecast,
        Generated,
        GeneratedToken,
        Hypothesis,
        IndexEntry,
        LabelChange,
        ModelInfo,
        ModelMetadata,
        ServerInfo,
        TaggedToken,
        TensorMetadata,
        VersionInfo,
    )

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
    "HandshakeFailed",
    "Hypothesis",
    "IndexEntry",
    "Internal",
    "InvalidArgument",
    "LabelChange",
    "MissingExtra",
    "ModelInfo",
    "ModelMetadata",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Sample",
    "ServerInfo",
    "TaggedToken",
    "TensorMetadata",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Unreachable",
    "UsageError",
    "VersionInfo",
    "WeirError",
]

_RESULTS = (
    "Answer",
    "Class",
    "ClassifiedText",
    "Forecast",
    "Generated",
    "GeneratedToken",
    "Hypothesis",
    "IndexEntry",
    "LabelChange",
    "ModelInfo",
    "ModelMetadata",
    "ServerInfo",
    "TaggedToken",
    "TensorMetadata",
    "VersionInfo",
)
_MODULES = {
    "AsyncClient": "weir.client.async_client",
    "Client": "weir.client.client",
    "Tls": "weir.client.credentials",
    **dict.fromkeys(_RESULTS, "weir.client.results"),
    **dict.fromkeys(("AsyncGeneration", "Beam", "Generation", "Sample"), "weir.client.generation"),
}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES.get(name, "weir.client.errors")), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
