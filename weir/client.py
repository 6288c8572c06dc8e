"""The client: numpy in, numpy out, over one channel that is kept.

A client may be used from several threads. gRPC's own threads send and receive; this module starts
none, except that `stream` lets gRPC read the caller's iterable on a thread of its own.
"""

import math
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
from numpy.typing import ArrayLike

from server.pb import inference_pb2 as pb
from weir import calls, defaults, errors, wire
from weir.answers import Answer, Class, IndexEntry, ModelMetadata
from weir.pictures import Picture, classify, load
from weir.streaming import stream_answers
from weir.submission import submit
from weir.watching import watch

Inputs = Mapping[str, ArrayLike] | ArrayLike
Result = TypeVar("Result")


class Client:
    """Calls a server of the Open Inference Protocol; close it, or use it in a `with`.

    Args:
        target: `host:port`, or any name gRPC resolves.
        timeout_s: deadline of each call that does not set its own; None for no deadline.
        max_message_bytes: the largest message sent or received.
        metadata: sent with each call, for instance an `authorization`.
        credentials: for TLS; None for plain text.

    Each method raises a leaf of `weir.CallError` that mirrors the status of the call. Where a
    method takes `timeout_s`, None means the client's own and `math.inf` no deadline.
    """

    def __init__(
        self,
        target: str = defaults.TARGET,
        *,
        timeout_s: float | None = defaults.TIMEOUT_S,
        max_message_bytes: int = defaults.MAX_MESSAGE_BYTES,
        metadata: Mapping[str, str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.target = target
        self._timeout_s = timeout_s
        self._metadata = tuple((metadata or {}).items())
        options = wire.channel_options(max_message_bytes)
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._known: dict[tuple[str, str], ModelMetadata] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        self._channel.close()

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[wire.InferOptions],
    ) -> Answer:
        """Run a model on arrays by input name, or on one array if it has one input."""
        return self._unary(self._infer(model, inputs, **options), timeout_s)

    def submit(
        self,
        model: str,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[wire.InferOptions],
    ) -> Future[Answer]:
        """Like `infer`, without waiting; cancelling the future cancels the call."""
        call = self._infer(model, inputs, **options)
        return submit(self._channel, call, wire.limit(timeout_s, self._timeout_s), self._metadata)

    def stream(
        self,
        model: str,
        requests: Iterable[Inputs],
        *,
        timeout_s: float = math.inf,
        in_flight: int = 64,
        **options: Unpack[wire.InferOptions],
    ) -> Generator[Answer, None, None]:
        """Send many requests over one stream and yield their answers in the requests' order.

        At most `in_flight` requests are read from `requests` ahead of the answer being waited for.
        A request that fails raises when its turn comes, and that ends the stream: as the leaf of
        its status, or as Unknown if the server tells none. The requests get ids of their own.
        """
        version = options.get("version", "")
        built = (
            wire.infer_request(model, self._named(model, version, inputs), **options)
            for inputs in requests
        )
        return stream_answers(
            self._channel,
            built,
            timeout_s=wire.limit(timeout_s, self._timeout_s),
            metadata=self._metadata,
            in_flight=in_flight,
        )

    def classify(
        self,
        model: str,
        pictures: Iterable[Picture],
        *,
        top: int = 5,
        version: str = "",
        timeout_s: float | None = None,
    ) -> list[list[Class]]:
        """The `top` most probable classes of each picture, best first, in one call.

        A picture is a path, the bytes of a JPEG or PNG, or an array of pixels; the server decodes
        and resizes it as the model's bundle says. `rank` takes arrays that are ready for the model.
        """
        call = classify(model, load(pictures), top=top, version=version)
        return self._unary(call, timeout_s)

    def rank(
        self,
        model: str,
        inputs: Inputs,
        *,
        top: int = 5,
        output: str = "",
        version: str = "",
        timeout_s: float | None = None,
    ) -> list[list[Class]]:
        """The `top` classes of each row of any model, best first.

        `output` is the output to rank: by default `probabilities`, or the first if it has none.
        """
        output = output or wire.ranked_output(self._metadata_of(model, version))
        named = self._named(model, version, inputs)
        request = wire.infer_request(model, named, version=version, outputs=[output], top=top)
        return wire.classes(self._unary(wire.infer(request), timeout_s), output)

    def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Names, datatypes and shapes of a model's tensors."""
        return self._unary(calls.metadata(model, version))

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions, in the protocol's own message."""
        return self._unary(calls.server_metadata())

    def config(self, model: str, version: str = "") -> pb.ModelConfigResponse:
        """A model's configuration, in the protocol's own message."""
        return self._unary(calls.config(model, version))

    def statistics(self, model: str = "", version: str = "") -> pb.ModelStatisticsResponse:
        """Counts and durations of a model, or of all, in the protocol's own message."""
        return self._unary(calls.statistics(model, version))

    def index(self, *, ready: bool = False) -> tuple[IndexEntry, ...]:
        """Every model the server knows, or only those that are ready."""
        return self._unary(calls.index(ready=ready))

    def is_live(self) -> bool:
        """Whether the server answers at all."""
        return self._holds(calls.server_live())

    def is_ready(self) -> bool:
        """Whether the server takes work."""
        return self._holds(calls.server_ready())

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether a model can answer now; an unknown one cannot."""
        return self._holds(calls.model_ready(model, version))

    def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, of a model by name or of the server."""
        return self._unary(calls.health(service))

    def watch(
        self, service: str = "", *, timeout_s: float = math.inf
    ) -> Generator[str, None, None]:
        """The health of a service, now and at each change, until the server closes the stream.

        Waits for a server that is not there yet; `timeout_s` bounds the whole watch.
        """
        limit_s = wire.limit(timeout_s, self._timeout_s)
        return watch(self._channel, service, timeout_s=limit_s, metadata=self._metadata)

    def wait_ready(self, model: str = "", *, timeout_s: float = 60.0) -> None:
        """Return once a model, or the server, serves; DeadlineExceeded if it does not in time."""
        with closing(self.watch(model, timeout_s=timeout_s)) as changes:
            if calls.SERVING not in changes:
                raise errors.Unavailable(f"{self.target}: the server stopped before it was ready")

    def _unary(self, call: wire.Call[Result], timeout_s: float | None = None) -> Result:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        try:
            body = method(
                call.body, timeout=wire.limit(timeout_s, self._timeout_s), metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise errors.from_failure(error) from error
        return call.read(body)

    def _infer(
        self, model: str, inputs: Inputs, **options: Unpack[wire.InferOptions]
    ) -> wire.Call[Answer]:
        named = self._named(model, options.get("version", ""), inputs)
        return wire.infer(wire.infer_request(model, named, **options))

    def _holds(self, call: wire.Call[bool]) -> bool:
        try:
            return self._unary(call)
        except (errors.Unavailable, errors.NotFound, errors.DeadlineExceeded):
            return False

    def _named(self, model: str, version: str, inputs: Inputs) -> Mapping[str, ArrayLike]:
        if isinstance(inputs, Mapping):
            return inputs
        return wire.only_input(self._metadata_of(model, version), inputs)

    def _metadata_of(self, model: str, version: str) -> ModelMetadata:
        """A model's tensors, asked for once per client."""
        key = (model, version)
        if key not in self._known:
            self._known[key] = self.metadata(model, version)
        return self._known[key]
