"""The client: numpy in, numpy out, over one channel that is kept.

A client may be used from several threads. gRPC's own threads send and receive; this module starts
none, except that `stream` lets gRPC read the caller's iterable on a thread of its own.
"""

import math
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from typing import Self, Unpack

import grpc

from weir.client import calls, defaults, errors, operations, results, wire
from weir.client.connection import Connection, Inputs
from weir.client.defaults import LOADING_S
from weir.client.generating import GENERATE, GenerateOptions, generate_request
from weir.client.generation import Generation
from weir.client.pictures import Picture, classify, load
from weir.client.series import Columns, forecast
from weir.client.texts import Text, classify_text, tag
from weir.protocol import inference_pb2 as pb


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
        self._connection = Connection(target, timeout_s, max_message_bytes, metadata, credentials)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        self._connection.close()

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[wire.InferOptions],
    ) -> results.Answer:
        """Run a model on arrays by input name, or on one array if it has one input."""
        return self._connection.unary(self._connection.infer(model, inputs, **options), timeout_s)

    def submit(
        self,
        model: str,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[wire.InferOptions],
    ) -> Future[results.Answer]:
        """Like `infer`, without waiting; cancelling the future cancels the call."""
        return self._connection.submit(self._connection.infer(model, inputs, **options), timeout_s)

    def stream(
        self,
        model: str,
        requests: Iterable[Inputs],
        *,
        timeout_s: float = math.inf,
        in_flight: int = 64,
        **options: Unpack[wire.InferOptions],
    ) -> Generator[results.Answer, None, None]:
        """Send many requests over one stream and yield their answers in the requests' order.

        At most `in_flight` requests are read from `requests` ahead of the answer being waited for.
        A request that fails raises when its turn comes, and that ends the stream: as the leaf of
        its status, or as Unknown if the server tells none. The requests get ids of their own.
        """
        return self._connection.exchange(model, requests, timeout_s, in_flight, **options)

    def classify(
        self,
        model: str,
        pictures: Iterable[Picture],
        *,
        top: int = 5,
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.Class]]:
        """The `top` most probable classes of each picture, best first, in one call.

        A picture is a path, the bytes of a JPEG or PNG, or an array of pixels; the server decodes
        and resizes it as the model's bundle says. `rank` takes arrays that are ready for the model.
        """
        call = classify(model, load(pictures), top=top, version=version)
        return self._connection.unary(call, timeout_s)

    def tag(
        self,
        model: str,
        texts: Iterable[Text],
        *,
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.TaggedToken]]:
        """The tag of every token of each text, in one call; a text is a string or its tokens."""
        return self._connection.unary(tag(model, texts, version=version), timeout_s)

    def classify_text(
        self,
        model: str,
        texts: Iterable[Text],
        *,
        top: int = 5,
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> list[results.ClassifiedText]:
        """The `top` most probable classes of each text, best first, in one call; texts as `tag`."""
        call = classify_text(model, texts, top=top, version=version)
        return self._connection.unary(call, timeout_s)

    def generate(
        self,
        model: str,
        text: Text,
        *,
        timeout_s: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation:
        """What an encoder-decoder makes of a text: iterate over its tokens, or take its `result()`."""
        body = generate_request(model, text, **options)
        return Generation(self._connection.stream(GENERATE, body, timeout_s))

    def forecast(
        self,
        model: str,
        columns: Columns,
        *,
        horizon: int = 0,
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> results.Forecast:
        """The `horizon` values that follow a series, by default as many as the model sees ahead.

        Columns go by name, the oldest moment first; of a model that reads one, its values will do.
        """
        call = forecast(model, columns, horizon=horizon, version=version)
        return self._connection.unary(call, timeout_s)

    def rank(
        self,
        model: str,
        inputs: Inputs,
        *,
        top: int = 5,
        output: str = "",
        version: wire.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.Class]]:
        """The `top` classes of each row, best first, of `probabilities` or the output named."""
        call = self._connection.rank(model, inputs, top=top, output=output, version=version)
        return self._connection.unary(call, timeout_s)

    def metadata(self, model: str, version: wire.Version = "") -> results.ModelMetadata:
        """Names, datatypes and shapes of a model's tensors."""
        return self._connection.unary(calls.metadata(model, version))

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions, in the protocol's own message."""
        return self._connection.unary(calls.server_metadata())

    def config(self, model: str, version: wire.Version = "") -> pb.ModelConfigResponse:
        """A model's configuration, in the protocol's own message."""
        return self._connection.unary(calls.config(model, version))

    def statistics(self, model: str = "", version: wire.Version = "") -> pb.ModelStatisticsResponse:
        """Counts and durations of a model, or of all, in the protocol's own message."""
        return self._connection.unary(calls.statistics(model, version))

    def index(self, *, ready: bool = False) -> tuple[results.IndexEntry, ...]:
        """Every model the server knows, or only those that are ready."""
        return self._connection.unary(calls.index(ready=ready))

    def models(self) -> list[results.ModelInfo]:
        """Every model with its versions: their states, labels and proofs. Only Weir tells that."""
        return self._connection.unary(operations.models())

    def load(self, model: str, *, reload: bool = False, timeout_s: float = LOADING_S) -> None:
        """Bring what is on disk of a model into service; with `reload` also what is unchanged."""
        self._connection.unary(operations.load(model, reload=reload), timeout_s)

    def unload(self, model: str, *, timeout_s: float = LOADING_S) -> None:
        """Take a model out of service; what it has been asked already is answered."""
        self._connection.unary(operations.unload(model), timeout_s)

    def set_label(
        self, model: str, label: str, version: int | None, *, timeout_s: float = LOADING_S
    ) -> None:
        """Give a label to a version, which is loaded first if it does not serve; None removes it."""
        self._connection.unary(operations.set_label(model, label, version), timeout_s)

    def is_live(self) -> bool:
        """Whether the server answers at all."""
        return self._connection.holds(calls.server_live())

    def is_ready(self) -> bool:
        """Whether the server takes work."""
        return self._connection.holds(calls.server_ready())

    def model_ready(self, model: str, version: wire.Version = "") -> bool:
        """Whether a model can answer now; an unknown one cannot."""
        return self._connection.holds(calls.model_ready(model, version))

    def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, of a model by name or of the server."""
        return self._connection.unary(calls.health(service))

    def watch(
        self, service: str = "", *, timeout_s: float = math.inf
    ) -> Generator[str, None, None]:
        """The health of a service, now and at each change; waits for a server not there yet."""
        return self._connection.watch(service, timeout_s)

    def wait_ready(self, model: str = "", *, timeout_s: float = 60.0) -> None:
        """Return once a model, or the server, serves; DeadlineExceeded if it does not in time."""
        with closing(self.watch(model, timeout_s=timeout_s)) as changes:
            if calls.SERVING not in changes:
                raise errors.Unavailable(f"{self.target}: the server stopped before it was ready")
