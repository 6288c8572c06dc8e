"""The asyncio client: the methods of `weir.Client`, awaited.

Requests, results and the handling of failures are those of `Client`. A client belongs to the event
loop that it was made in.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import aclosing
from typing import Self, Unpack

import grpc

from weir.client import defaults, errors, results, rpc, tasks
from weir.client.balancing import Servers
from weir.client.connection import AsyncConnection, CallContext
from weir.client.credentials import StrPath, Tls
from weir.client.generation import GENERATE, AsyncGeneration, GenerateOptions, generate_request
from weir.client.streaming import stream_answers_async
from weir.protocol import inference_pb2 as pb


class AsyncClient:
    """An asyncio client of the Open Inference Protocol; close it, or use it in an `async with`.

    Arguments, errors and deadlines are those of `weir.Client`. The constructor resolves the names
    of a list of servers, and blocks the event loop until the DNS answers. Addresses and
    `dns:///HOST:PORT` need no such lookup.
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
        self._connection = AsyncConnection(context, max_message_bytes)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls still running are cancelled."""
        await self._connection.close()

    async def infer(
        self,
        model: str,
        inputs: rpc.Inputs,
        *,
        timeout_s: float | None = None,
        **options: Unpack[rpc.InferOptions],
    ) -> results.Answer:
        """Run a model on arrays by input name, or on one array if the model has one input."""
        request = await self._request(model, inputs, **options)
        return await self._connection.unary(rpc.infer(request), timeout_s)

    def stream(
        self,
        model: str,
        requests: Iterable[rpc.Inputs] | AsyncIterable[rpc.Inputs],
        *,
        timeout_s: float = math.inf,
        in_flight: int = 64,
        **options: Unpack[rpc.InferOptions],
    ) -> AsyncGenerator[results.Answer, None]:
        """Send many requests over one stream and yield their answers in the requests' order.

        At most `in_flight` requests are read from `requests` ahead of the next answer. The error of
        a request raises when its answer is due, and ends the stream: as the leaf of its status, or
        as Unknown if the server sends no status. The client sets the requests' ids.
        """

        async def build(inputs: rpc.Inputs) -> pb.ModelInferRequest:
            return await self._request(model, inputs, **options)

        return stream_answers_async(
            self._connection, requests, build, timeout_s=timeout_s, in_flight=in_flight
        )

    async def classify(
        self,
        model: str,
        pictures: Iterable[tasks.Picture],
        *,
        top: int = 5,
        version: rpc.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.Class]]:
        """The `top` most probable classes of each picture, best first, in one call."""
        # Files are read on a thread: a slow disk must not hold up the event loop.
        messages = await asyncio.to_thread(tasks.picture_messages, pictures)
        call = tasks.classify(model, messages, top=top, version=version)
        return await self._connection.unary(call, timeout_s)

    async def tag(
        self,
        model: str,
        texts: Iterable[tasks.Text],
        *,
        version: rpc.Version = "",
        timeout_s: float | None = None,
    ) -> list[list[results.TaggedToken]]:
        """The tag of every token of each text, in one call."""
        return await self._connection.unary(tasks.tag(model, texts, version=version), timeout_s)

    async def classify_text(
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
        return await self._connection.unary(call, timeout_s)

    def generate(
        self,
        model: str,
        text: tasks.Text,
        *,
        timeout_s: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGeneration:
        """Generate from a text: `async for` its tokens, or await its `result()`.

        This method itself is not awaited.
        """
        body = generate_request(model, text, **options)
        call = self._connection.unary_stream(GENERATE, body, timeout_s)
        return AsyncGeneration(call, self._connection.context)

    async def forecast(
        self,
        model: str,
        columns: tasks.Columns,
        *,
        horizon: int = 0,
        version: rpc.Version = "",
        timeout_s: float | None = None,
    ) -> results.Forecast:
        """Forecast the next `horizon` values of a series; 0 takes the model's own horizon."""
        call = tasks.forecast(model, columns, horizon=horizon, version=version)
        return await self._connection.unary(call, timeout_s)

    async def rank(
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
        output = output or rpc.ranked_output(await self._connection.metadata_of(model, version))
        named = await self._connection.named(model, version, inputs)
        call = rpc.rank(model, named, top=top, output=output, version=version)
        return await self._connection.unary(call, timeout_s)

    async def metadata(self, model: str, version: rpc.Version = "") -> results.ModelMetadata:
        """Names, datatypes and shapes of a model's tensors."""
        return await self._connection.unary(rpc.metadata(model, version))

    async def server_metadata(self) -> pb.ServerMetadataResponse:
        """The server's name, version and extensions, as the protocol's message."""
        return await self._connection.unary(rpc.server_metadata())

    async def config(self, model: str, version: rpc.Version = "") -> pb.ModelConfigResponse:
        """A model's configuration, as the protocol's message."""
        return await self._connection.unary(rpc.config(model, version))

    async def statistics(
        self, model: str = "", version: rpc.Version = ""
    ) -> pb.ModelStatisticsResponse:
        """Counts and durations of one model or of all, as the protocol's message."""
        return await self._connection.unary(rpc.statistics(model, version))

    async def index(self, *, ready: bool = False) -> tuple[results.IndexEntry, ...]:
        """Every model of the repository index, or only the ready ones."""
        return await self._connection.unary(rpc.index(ready=ready))

    async def models(self) -> list[results.ModelInfo]:
        """Every model with its versions: states, labels, parity. An extension of Weir's servers."""
        return await self._connection.unary(rpc.models())

    async def server_info(self) -> results.ServerInfo:
        """Versions and choices of the process that answers. An extension of Weir's servers."""
        return await self._connection.unary(rpc.server_info())

    async def load(
        self, model: str, *, reload: bool = False, timeout_s: float = defaults.LOADING_S
    ) -> None:
        """Load a model's versions from disk; with `reload` unchanged versions too."""
        self._connection.context.target.require_one("load")
        await self._connection.unary(rpc.load(model, reload=reload), timeout_s)

    async def unload(self, model: str, *, timeout_s: float = defaults.LOADING_S) -> None:
        """Unload a model; requests already admitted are answered."""
        self._connection.context.target.require_one("unload")
        await self._connection.unary(rpc.unload(model), timeout_s)

    async def set_label(
        self, model: str, label: str, version: int | None, *, timeout_s: float = defaults.LOADING_S
    ) -> results.LabelChange:
        """Give a label to a version, which is loaded first if need be; None removes the label.

        The server writes it to the model's `versions.toml` where it can.
        """
        self._connection.context.target.require_one("set_label")
        return await self._connection.unary(rpc.set_label(model, label, version), timeout_s)

    async def is_live(self) -> bool:
        """Whether the server is live."""
        return await self._connection.holds(rpc.server_live())

    async def is_ready(self) -> bool:
        """Whether the server is ready."""
        return await self._connection.holds(rpc.server_ready())

    async def model_ready(self, model: str, version: rpc.Version = "") -> bool:
        """Whether a model is ready; False for an unknown model."""
        return await self._connection.holds(rpc.model_ready(model, version))

    async def health(self, service: str = "") -> str:
        """The health of a model by name, or of the server: SERVING or NOT_SERVING."""
        return await self._connection.unary(rpc.health(service))

    def watch(self, service: str = "", *, timeout_s: float = math.inf) -> AsyncGenerator[str, None]:
        """Yield a service's health, now and at each change; waits until the server is reachable."""
        return self._connection.watch(service, timeout_s)

    async def wait_ready(self, model: str = "", *, timeout_s: float = 60.0) -> None:
        """Wait until a model, or the server, is ready; DeadlineExceeded at the timeout."""
        async with aclosing(self.watch(model, timeout_s=timeout_s)) as changes:
            async for status in changes:
                if status == rpc.SERVING:
                    return
        raise errors.Unavailable(f"{self.target}: the server stopped before it was ready")

    async def _request(
        self, model: str, inputs: rpc.Inputs, **options: Unpack[rpc.InferOptions]
    ) -> pb.ModelInferRequest:
        named = await self._connection.named(model, options.get("version", ""), inputs)
        return rpc.infer_request(model, named, **options)
