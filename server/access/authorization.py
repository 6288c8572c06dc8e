"""Authorization: which calls a client may make, by its token.

A call is checked twice. Its kind is checked by its headers, before its message is received; the
model is checked as soon as the message names it. A `Caller` on the call carries the token from the
first check to the second.

Where tokens are off, every call's caller is None, and nothing is checked.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any

from weir.server.access.method_kinds import METHOD_KINDS
from weir.server.access.tokens import Token, TokensFile
from weir.server.errors import PermissionDenied, Unauthenticated
from weir.server.telemetry.access_log import RateLimit
from weir.server.transport.base import Headers

logger = logging.getLogger(__name__)

_MAX_LINES_PER_S = 10
_MAX_CHARACTERS = 128
_METRICS = "/metrics"
_NO_TOKEN = "authorization: expected one known bearer token"  # noqa: S105 - a message


class Authorizer:
    """Checks the tokens of calls, and of scrapes of the metrics port.

    Args:
        served: the methods that have a handler.
        opens_health: whether calls of the kind `health` need no token.
    """

    def __init__(
        self,
        tokens: TokensFile,
        served: Collection[str],
        *,
        opens_health: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._served = served
        self._opens_health = opens_health
        self._refusals = _RefusalLog(clock)

    def check(self, headers: Headers) -> None:
        """Refuse a call that its token does not allow; sets the call's caller.

        Raises:
            Unauthenticated: it has no known token.
            PermissionDenied: the token may not make this kind of call.
        """
        method = headers.method
        kind = METHOD_KINDS.get(method)
        if kind == "health" and self._opens_health:
            return
        token = self._tokens.find(headers.metadata)
        if token is None:
            self._refusals.write("token", peer=headers.peer, method=method)
            raise Unauthenticated(_NO_TOKEN)
        if kind is None and method not in self._served:
            # The transport answers UNIMPLEMENTED, by which clients choose another method.
            return
        if kind not in token.kinds:
            self._refusals.write("kind", token=token.name, peer=headers.peer, method=method)
            raise PermissionDenied(f"the token may not make calls of the kind {kind}")
        # The peer's address costs a microsecond, and is read only where a refusal may follow.
        peer = "" if token.models is None else headers.peer
        headers.caller = Caller(self._tokens, self._refusals, token, method, peer)

    def check_scrape(self, authorization: str | None, peer: str) -> HTTPStatus:
        """The status of a scrape: OK, or why it is refused. Its token must read all models."""
        token = None if authorization is None else self._tokens.find_value(authorization)
        if token is None:
            self._refusals.write("token", peer=peer, method=_METRICS)
            return HTTPStatus.UNAUTHORIZED
        if "read" not in token.kinds or token.models is not None:
            self._refusals.write("kind", token=token.name, peer=peer, method=_METRICS)
            return HTTPStatus.FORBIDDEN
        return HTTPStatus.OK


class Caller:
    """The token of one call."""

    __slots__ = ("_method", "_peer", "_refusals", "_token", "_tokens")

    def __init__(
        self, tokens: TokensFile, refusals: "_RefusalLog", token: Token, method: str, peer: str
    ) -> None:
        self._tokens = tokens
        self._refusals = refusals
        self._token = token
        self._method = method
        self._peer = peer

    @property
    def name(self) -> str:
        """The token's name in the tokens file."""
        return self._token.name

    def may_use(self, model: str) -> bool:
        """Whether the token is for the model of this name."""
        return self._token.may_use(model)

    def check_model(self, model: str) -> None:
        """Refuse a request for a model that the token is not for, whether it exists or not.

        A stream may outlive its token's entry in the file, so that is looked up again.

        Raises:
            Unauthenticated: the token was removed from the file.
            PermissionDenied: the token is not for this model, or not any more for this call.
        """
        token = self._tokens.renewed(self._token)
        if token is None:
            self._refuse("token", model)
            raise Unauthenticated(_NO_TOKEN)
        kind = METHOD_KINDS[self._method]
        if kind not in token.kinds:
            self._refuse("kind", model)
            raise PermissionDenied(f"the token may not make calls of the kind {kind}")
        if not token.may_use(model):
            self._refuse("model", model)
            raise PermissionDenied(f"the token may not use model {model[:_MAX_CHARACTERS]!r}")

    def _refuse(self, reason: str, model: str) -> None:
        self._refusals.write(
            reason, token=self.name, peer=self._peer, method=self._method, model=model
        )


def check_model(caller: Caller | None, model: str) -> None:
    """Refuse a request for a model that is not its caller's; see `Caller.check_model`."""
    if caller is not None:
        caller.check_model(model)


def may_use(caller: Caller | None, model: str) -> bool:
    """Whether a caller may know of a model."""
    return caller is None or caller.may_use(model)


class _RefusalLog:
    """Writes a line for each refused call, at most so many in a second; never a token."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = RateLimit(_MAX_LINES_PER_S)
        self._suppressed = 0

    def write(self, reason: str, **fields: Any) -> None:
        """Write a line, with the number of lines that were left out before it."""
        with self._lock:
            if not self._limit.allows(self._clock()):
                self._suppressed += 1
                return
            suppressed, self._suppressed = self._suppressed, 0
        shown = {"reason": reason, **fields, "suppressed": suppressed}
        # As fields, whose values are quoted: a client chooses method and model.
        fields = {name: _shortened(value) for name, value in shown.items() if value}
        logger.warning("call refused", extra={"fields": fields})


def _shortened(value: Any) -> Any:
    return value[:_MAX_CHARACTERS] if isinstance(value, str) else value
