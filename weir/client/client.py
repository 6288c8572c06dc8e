"""The blocking client: numpy in, numpy out, over one channel that stays open.

Several threads may share a client. gRPC's own threads send and receive; this module starts none.
In `stream`, gRPC reads the caller's iterable on a thread of its own.
"""

import math
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import closing
from typing import Self, Unpack

import grpc

from weir.client import defaults, errors, results, rpc, tasks
from weir.client.balancing import Servers
from weir.client.connection import CallContext, Connection
from weir.client.credentials import StrPath, Tls
from weir.client.generation import GENERATE, GenerateOptions, Generation, generate_request
from weir.client.streaming import stream_answers
from weir.protocol import inference_pb2 as pb


class Client:
    """A blocking client of the Open Inference Protocol; close it, or use it in a `with`.

    Args:
        target: `host:port`, or any name gRPC resolves. A sequence of `host:port`, and
            `dns:///host:port`, are several servers, over which gRPC balances the calls.
        timeout_s: default timeout of a call; None for no deadline.
        max_message_bytes: the largest message sent or received.
        metadata: request metadata of each call.
        tls: True for TLS with the public authorities, or a `weir.Tls`; False for plaintext, also
            for a token to another machine.
        token: sent as `authorization: Bearer TOKEN` with each call.
        token_file: a file with the token, which is read again when it changes.
        credentials: instead of `tls`, credentials of gRPC for the channel.

    Each method raises a leaf of `weir.CallError` that mirrors the status of the call. Where a
    method takes `timeout_s`, None means the client's default and `math.inf` no deadline.
    """

    def __init__(
        self,
        target: Servers = defaults.TARGET,
        *,
        timeout_s: float | None = defaults.TIMEOUT_S,
        max_message_bytes: int = defaults.MAX_MESSAGE_BYTES,
        metadata: Mapping[str, str] | None = None,
        tls: bool | Tls | None = None,
        token: str | None = None,
        token_file: StrPath | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        context = CallContext(
            target,
            timeout_s=timeout_s,
            metadata=metadata,
            tls=tls,
            token=token,
            token_file=token_file,
            credentials=credentials,
        )
        self.target = context.target.text
        self._connection = Connection(context, max_message_bytes)

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
        inputs: rpc.Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[rpc.InferOptions],
    ) -> results.Answer:
        """Run a model on arrays by input name, or on one array if the model has one input."""
        request = self._request(model, inputs, **options)
        return self._connection.unary(rpc.infer(request), timeout_s)

    def submit(
        self,
        model: str,
        inputs: rpc.Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[rpc.InferOptions],
    ) -> Future[results.Answer]:
        """Like `infer`, without waiting; cancelling the future cancels the call."""
        request = self._request(model, inputs, **options)
        return self._connection.submit(rpc.infer(request), timeout_s)

    def stream(
        self,
        model: str,
        requests: Iterable[rpc.Inputs],
        *,
        timeout_s: float = math.inf,
        in_flight: int = 64,
        **options: Unpack[rpc.InferOptions],
    ) -> Generator[results.Answer, None, None]:
        """Send many requests over one stream and yield their answers in the requests' order.

        At most `in_flight` requests are read from `requests` ahead of the next answer. The error of
        a request raises when its answer is due, and ends the stream: as the leaf of its status, or
        as Unknown if the server sends no status. The client sets the requests' ids.
        """
        built = (self._request(model, inputs, **options) for inputs in requests)
        return stream_answers(self._connection, built, timeout_s=timeout_s, in_flight=in_flight)

    def classify(
        self,
        model: str,
        pictures: Iterable[tasks.Picture],
        *,
        top: int = 5,
        version: rpc.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.Class]]:
        """The `top` most probable classes of each picture, best first, in one call.

        A picture is a path, the bytes of a JPEG or PNG, or an array of pixels. The server
        preprocesses it as the model's bundle says; `rank` takes preprocessed arrays.
        """
        messages = tasks.picture_messages(pictures)
        call = tasks.classify(model, messages, top=top, version=version)
        return self._connection.unary(call, timeout_s)

    def tag(
        self,
        model: str,
        texts: Iterable[tasks.Text],
        *,
        version: rpc.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.TaggedToken]]:
        """The tag of every token of each text, in one call; a text is a string or its tokens."""
        return self._connection.unary(tasks.tag(model, texts, version=version), timeout_s)

    def classify_text(
        self,
        model: str,
        texts: Iterable[tasks.Text],
        *,
        top: int = 5,
        version: rpc.Version = "",
        timeout_s: float | None = None,
    ) -> list[results.ClassifiedText]:
        """The `top` most probable classes of each text, best first, in one call; texts as `tag`."""
        call = tasks.classify_text(model, texts, top=top, version=version)
        return self._connection.unary(call, timeout_s)

    def generate(
        self,
        model: str,
        text: tasks.Text,
        *,
        timeout_s: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation:
        """Generate from a text: iterate over the tokens, or take the `result()`."""
        body = generate_request(model, text, **options)
        call = self._connection.unary_stream(GENERATE, body, timeout_s)
        return Generation(call, self._connection.context)

    def forecast(
        self,
        model: str,
        columns: tasks.Columns,
        *,
        horizon: int = 0,
        version: rpc.Version = "",
        timeout_s: float | None = None,
    ) -> results.Forecast:
        """Forecast the next `horizon` values of a series; 0 takes the model's own horizon.

        Columns are given by name, the oldest value first; one array is enough for a model that
        reads one column.
        """
        call = tasks.forecast(model, columns, horizon=horizon, version=version)
        return self._connection.unary(call, timeout_s)

    def rank(
        self,
        model: str,
        inputs: rpc.Inputs,
        *,
        top: int = 5,
        output: str = "",
        version: rpc.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.Class]]:
        """The `top` classes of each row, best first, ranked by `output` or `probabilities`."""
        output = output or rpc.ranked_output(self._connection.metadata_of(model, version))
        named = self._connection.named(model, version, inputs)
        call = rpc.rank(model, named, top=top, output=output, version=version)
        return self._connection.unary(call, timeout_s)

    def metadata(self, model: str, version: rpc.Version = "") -> results.ModelMetadata:
        """Names, datatypes and shapes of a model's tensors."""
        return self._connection.unary(rpc.metadata(model, version))

    def server_metadata(self) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions, as the protocol's message."""
        return self._connection.unary(rpc.server_metadata())

    def config(self, model: str, version: rpc.Version = "") -> pb.ModelConfigResponse:
        """A model's configuration, as the protocol's message."""
        return self._connection.unary(rpc.config(model, version))

    def statistics(self, model: str = "", version: rpc.Version = "") -> pb.ModelStatisticsResponse:
        """Counts and durations of one model or of all, as the protocol's message."""
        return self._connection.unary(rpc.statistics(model, version))

    def index(self, *, ready: bool = False) -> tuple[results.IndexEntry, ...]:
        """Every model of the repository index, or only the ready ones."""
        return self._connection.unary(rpc.index(ready=ready))

    def models(self) -> list[results.ModelInfo]:
        """Every model with its versions: states, labels, parity. An extension of Weir's servers."""
        return self._connection.unary(rpc.models())

    def server_info(self) -> results.ServerInfo:
        """Versions and choices of the process that answers. An extension of Weir's servers."""
        return self._connection.unary(rpc.server_info())

    def load(
        self, model: str, *, reload: bool = False, timeout_s: float = defaults.LOADING_S
    ) -> None:
        """Load a model's versions from disk; with `reload` unchanged versions too."""
        self._connection.context.target.require_one("load")
        self._connection.unary(rpc.load(model, reload=reload), timeout_s)

    def unload(self, model: str, *, timeout_s: float = defaults.LOADING_S) -> None:
        """Unload a model; requests already admitted are answered."""
        self._connection.context.target.require_one("unload")
        self._connection.unary(rpc.unload(model), timeout_s)

    def set_label(
        self, model: str, label: str, version: int | None, *, timeout_s: float = defaults.LOADING_S
    ) -> results.LabelChange:
        """Give a label to a version, which is loaded first if need be; None removes the label.

        The server writes it to the model's `versions.toml` where it can.
        """
        self._connection.context.target.require_one("set_label")
        return self._connection.unary(rpc.set_label(model, label, version), timeout_s)

    def is_live(self) -> bool:
        """Whether the server is live."""
        return self._connection.holds(rpc.server_live())

    def is_ready(self) -> bool:
        """Whether the server is ready."""
        return self._connection.holds(rpc.server_ready())

    def model_ready(self, model: str, version: rpc.Version = "") -> bool:
        """Whether a model is ready; False for an unknown model."""
        return self._connection.holds(rpc.model_ready(model, version))

    def health(self, service: str = "") -> str:
        """The health of a model by name, or of the server: SERVING or NOT_SERVING."""
        return self._connection.unary(rpc.health(service))

    def watch(
        self, service: str = "", *, timeout_s: float = math.inf
    ) -> Generator[str, None, None]:
        """Yield a service's health, now and at each change; waits until the server is reachable."""
        return self._connection.watch(service, timeout_s)

    def wait_ready(self, model: str = "", *, timeout_s: float = 60.0) -> None:
        """Wait until a model, or the server, is ready; DeadlineExceeded at the timeout."""
        with closing(self.watch(model, timeout_s=timeout_s)) as changes:
            if rpc.SERVING not in changes:
                raise errors.Unavailable(f"{self.target}: the server stopped before it was ready")

    def _request(
        self, model: str, inputs: rpc.Inputs, **options: Unpack[rpc.InferOptions]
    ) -> pb.ModelInferRequest:
        named = self._connection.named(model, options.get("version", ""), inputs)
        return rpc.infer_request(model, named, **options)
