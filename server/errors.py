"""The tree of expected failures. It knows no protocol: `statuses` holds the table of statuses.

A leaf is chosen by what the one who gets it should do next.

    ServerError
    ├── RequestError          one request is answered with it; the server goes on
    │   ├── InvalidRequest    correct the request
    │   ├── UnknownModel      correct the name or the version
    │   ├── ModelNotReady     try again later, or elsewhere
    │   ├── ModelNotLoaded        mend the model's files, then load it again
    │   ├── Draining          try again elsewhere
    │   ├── Overloaded        back off, then try again
    │   ├── OutOfMemory       send fewer rows
    │   ├── ResponseTooLarge    send fewer rows, or ask for fewer outputs
    │   ├── ClientTooSlow      read faster, or ask for less at a time
    │   ├── DeadlineExceeded    give it more time
    │   ├── Cancelled         nothing: the caller is gone
    │   └── Unsupported        do without the feature
    ├── ModelLoadError           a model cannot be served; the reason is for its operator
    │   └── GoldenMismatch    export it again, for this machine; or find out what changed its files
    └── StartError            the server cannot start
        ├── ConfigError       correct the setting it names
        ├── ProviderMissing   choose another execution provider, or install this one
        └── PortUnavailable   choose another port
"""

from weir.bundle.wording import tame


class ServerError(Exception):
    """Any expected failure of this package."""


class RequestError(ServerError):
    """One request fails; every other one is unaffected."""


class InvalidRequest(RequestError):
    """The request breaks the model's contract or the protocol."""


class UnknownModel(RequestError):
    """No model of that name, or no such version of it."""


class ModelNotReady(RequestError):
    """The model is known and cannot answer now; `model` is its name and version, where a request asked for it."""

    def __init__(self, message: str, model: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.model = model


class ModelNotLoaded(RequestError):
    """A model could not be brought into service; what served before still does."""


class Draining(RequestError):
    """The server is stopping, or the model is being unloaded, and takes no new work."""


class Overloaded(RequestError):
    """The model's queue is full; back off and try again."""


class OutOfMemory(RequestError):
    """The run needed more memory than there is."""


class ResponseTooLarge(RequestError):
    """The answer is larger than a message may be."""


class ClientTooSlow(RequestError):
    """The caller does not take what the stream holds for it."""


class DeadlineExceeded(RequestError):
    """The time the request had is over."""


class Cancelled(RequestError):
    """The caller hung up."""


class Unsupported(RequestError):
    """A feature of the protocol that this server leaves out."""


class ModelLoadError(ServerError):
    """A model cannot be served; the message, made printable and bounded, is the reason in the index."""

    def __init__(self, reason: str) -> None:
        super().__init__(tame(reason))

    @classmethod
    def of(cls, error: Exception, part: str | None = None) -> "ModelLoadError":
        """The failure of a model, or of a part of it, that another error is; of the same kind if it is one."""
        kind = type(error) if isinstance(error, ModelLoadError) else ModelLoadError
        return kind(f"{part}: {error}" if part else str(error))


class GoldenMismatch(ModelLoadError):
    """A model does not give what was recorded when it was exported."""


class StartError(ServerError):
    """The server cannot start."""


class ConfigError(StartError):
    """A setting is unknown, malformed or out of bounds."""


class ProviderMissing(StartError):
    """The execution provider that was asked for does not work on this machine."""


class PortUnavailable(StartError):
    """A port cannot be bound."""
