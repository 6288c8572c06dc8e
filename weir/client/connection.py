"""One channel to a server, and what every call over it has in common."""

from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from typing import TypeVar, Unpack

import grpc
from numpy.typing import ArrayLike

from weir.client import calls, errors, wire
from weir.client.generation import Stream
from weir.client.results import Answer, Class, ModelMetadata
from weir.client.streaming import stream_answers
from weir.client.submission import submit
from weir.client.watching import watch

Inputs = Mapping[str, ArrayLike] | ArrayLike
Result = TypeVar("Result")


class Connection:
    """A channel with a client's deadline and metadata; arguments as of `weir.Client`."""

    def __init__(
        self,
        target: str,
        timeout_s: float | None,
        max_message_bytes: int,
        metadata: Mapping[str, str] | None,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self._metadata = tuple((metadata or {}).items())
        self._timeout_s = timeout_s
        options = wire.channel_options(max_message_bytes)
        self._channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self._known: dict[tuple[str, str], ModelMetadata] = {}

    def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        self._channel.close()

    def unary(self, call: wire.Call[Result], timeout_s: float | None = None) -> Result:
        """Make a call and wait for its answer."""
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.path)
        try:
            body = method(call.body, timeout=self._limit_s(timeout_s), metadata=self._metadata)
        except grpc.RpcError as error:
            # Another version may answer by now, with other tensors.
            self._known.clear()
            raise errors.from_failure(error) from error
        return call.read(body)

    def holds(self, call: wire.Call[bool]) -> bool:
        """What a call says; not so where nobody can be asked."""
        try:
            return self.unary(call)
        except (errors.Unavailable, errors.NotFound, errors.DeadlineExceeded):
            return False

    def stream(self, path: str, body: bytes, timeout_s: float | None) -> Stream:
        """Open a call of one request and many answers."""
        method: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        return method(body, timeout=self._limit_s(timeout_s), metadata=self._metadata)

    def exchange(
        self,
        model: str,
        requests: Iterable[Inputs],
        timeout_s: float,
        in_flight: int,
        **options: Unpack[wire.InferOptions],
    ) -> Generator[Answer, None, None]:
        """Many requests over one stream, their answers in order."""
        version = options.get("version", "")
        built = (
            wire.infer_request(model, self.named(model, version, inputs), **options)
            for inputs in requests
        )
        return stream_answers(
            self._channel,
            built,
            timeout_s=self._limit_s(timeout_s),
            metadata=self._metadata,
            in_flight=in_flight,
        )

    def submit(self, call: wire.Call[Result], timeout_s: float | None) -> Future[Result]:
        """Make a call without waiting for it."""
        return submit(self._channel, call, self._limit_s(timeout_s), self._metadata)

    def watch(self, service: str, timeout_s: float | None) -> Generator[str, None, None]:
        """The health of a service as it changes."""
        limit_s = self._limit_s(timeout_s)
        return watch(self._channel, service, timeout_s=limit_s, metadata=self._metadata)

    def infer(
        self, model: str, inputs: Inputs, **options: Unpack[wire.InferOptions]
    ) -> wire.Call[Answer]:
        """The call of `ModelInfer`."""
        named = self.named(model, options.get("version", ""), inputs)
        return wire.infer(wire.infer_request(model, named, **options))

    def named(self, model: str, version: wire.Version, inputs: Inputs) -> Mapping[str, ArrayLike]:
        """Arrays by the names of the model's inputs."""
        if isinstance(inputs, Mapping):
            return inputs
        return wire.only_input(self.metadata_of(model, version), inputs)

    def metadata_of(self, model: str, version: wire.Version) -> ModelMetadata:
        """A model's tensors, asked for once per client."""
        key = (model, str(version))
        if key not in self._known:
            self._known[key] = self.unary(calls.metadata(model, version))
        return self._known[key]

    def rank(
        self, model: str, inputs: Inputs, *, top: int, output: str, version: wire.Version
    ) -> wire.Call[list[list[Class]]]:
        """The call for the best classes of each row."""
        output = output or wire.ranked_output(self.metadata_of(model, version))
        named = self.named(model, version, inputs)
        return wire.rank(model, named, top=top, output=output, version=version)

    def _limit_s(self, timeout_s: float | None) -> float | None:
        return wire.limit(timeout_s, self._timeout_s)
