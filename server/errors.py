"""The tree of expected failures. `transport.status` maps them to gRPC statuses.

A leaf is chosen by what its receiver should do next.

    ServerError
    ├── RequestError            one request fails; the server goes on
    │   ├── InvalidRequest      correct the request
    │   ├── Unauthenticated     send a known token
    │   ├── PermissionDenied    use a token that is allowed to do this
    │   ├── UnknownModel        correct the name or the version
    │   ├── ModelNotReady       try again later, or another server
    │   ├── ModelNotLoaded      repair the model's files, then load it again
    │   ├── Draining            try another server
    │   ├── Overloaded          back off, then try again
    │   ├── OutOfMemory         send fewer rows
    │   ├── ResponseTooLarge    send fewer rows, or request fewer outputs
    │   ├── MetadataTooLarge    send less metadata
    │   ├── ClientTooSlow       read faster, or request less at a time
    │   ├── DeadlineExceeded    set a longer deadline
    │   ├── Cancelled           nothing: the client is gone
    │   └── Unsupported         do without the feature
    ├── ModelLoadError          a model cannot be served; the message is for its operator
    │   └── GoldenMismatch      export it again, for this machine, or find what changed its files
    └── StartError              the server cannot start
        ├── ConfigError         correct the setting that the message names
        ├── ProviderMissing     choose another execution provider, or install this one
        └── PortUnavailable     choose another port
"""

from weir.bundle.escaping import printable_message


class ServerError(Exception):
    """Any expected failure of this package."""


class RequestError(ServerError):
    """One request fails; all others are unaffected."""


class InvalidRequest(RequestError):
    """The request breaks the model's contract or the protocol."""


class Unauthenticated(RequestError):
    """The call has no token, or none that the server knows."""


class PermissionDenied(RequestError):
    """The call's token may not make this call, or not for this model."""


class UnknownModel(RequestError):
    """There is no model of that name, or no such version of it."""


class ModelNotReady(RequestError):
    """The model is known and cannot answer now; `model` is its name and version, if known."""

    def __init__(self, message: str, model: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.model = model


class ModelNotLoaded(RequestError):
    """A model or a label could not be loaded; the versions that served before still do."""


class Draining(RequestError):
    """The server is stopping, or the model is being unloaded, and takes no new work."""


class Overloaded(RequestError):
    """A queue is full, or too long for the deadline; `retry_after_s`, if known, is the pause."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OutOfMemory(RequestError):
    """The run needs more memory than there is."""


class ResponseTooLarge(RequestError):
    """The response is larger than a message may be."""


class MetadataTooLarge(RequestError):
    """The metadata of the call is larger than a call's may be."""


class ClientTooSlow(RequestError):
    """Too many messages of a stream wait for the client to read them."""


class DeadlineExceeded(RequestError):
    """The deadline of the request has passed."""


class Cancelled(RequestError):
    """The client closed the call."""


class Unsupported(RequestError):
    """This server does not offer a feature of the protocol."""


class ModelLoadError(ServerError):
    """A model cannot be served; the repository index shows the message, printable and bounded."""

    def __init__(self, reason: str) -> None:
        super().__init__(printable_message(reason))

    @classmethod
    def of(cls, error: Exception, part: str | None = None) -> "ModelLoadError":
        """Convert an error of a model, or of a part of it; a ModelLoadError keeps its class."""
        kind = type(error) if isinstance(error, ModelLoadError) else ModelLoadError
        return kind(f"{part}: {error}" if part else str(error))


class GoldenMismatch(ModelLoadError):
    """A model's outputs differ from those recorded at its export."""


class StartError(ServerError):
    """The server cannot start."""


class ConfigError(StartError):
    """A setting is unknown, malformed or out of bounds."""


class ProviderMissing(StartError):
    """The execution provider of the settings does not work on this machine."""


class PortUnavailable(StartError):
    """A port cannot be bound."""
