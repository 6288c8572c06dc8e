"""The Open Inference Protocol over HTTP: `/v2`, with Triton's extensions.

Binary tensors, classification, configuration, statistics, and model control.
"""

import zlib
from functools import partial
from typing import Any

from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weir.client import defaults, rpc
from weir.client.errors import InvalidArgument, Unavailable, Unimplemented
from weir.gateway import body
from weir.gateway.body import kind_of
from weir.gateway.endpoint import Endpoint, Handler, route
from weir.gateway.errors import JSON, json_response
from weir.gateway.tensors import (
    HEADER_LENGTH,
    WantedForm,
    read_raw_request,
    read_request,
    write_response,
)
from weir.gateway.upstream import Gateway
from weir.protocol import inference_pb2 as pb

_HEADER_LENGTH = HEADER_LENGTH.lower().encode()
_BINARY = "application/octet-stream"
# A smaller body gains nothing.
_MIN_COMPRESSED_BYTES = 1024
_COMPRESSION_LEVEL = 1
# zlib's `wbits` of each encoding.
_ENCODINGS = {"gzip": 31, "deflate": 15}

# Triton's extensions that only make sense on the server's machine or in Triton.
_NOT_OFFERED = (
    "/v2/logging",
    "/v2/trace/setting",
    "/v2/models/{name}/trace/setting",
    "/v2/systemsharedmemory/{rest:path}",
    "/v2/cudasharedmemory/{rest:path}",
)


def routes(gateway: Gateway) -> list[Route]:
    """The routes of `/v2`."""
    service = _Service(gateway)

    def own(path: str, handler: Handler, *methods: str) -> Route:
        return route(path, handler, gateway, *methods)

    def of_model(suffix: str, handler: Handler, *methods: str) -> list[Route]:
        return [
            own("/v2/models/{name}" + version + suffix, handler, *methods)
            for version in ("", "/versions/{version}")
        ]

    found = [
        *of_model("/infer", service.infer, "POST"),
        own("/v2", service.server_metadata),
        own("/v2/health/live", service.live),
        own("/v2/health/ready", service.ready),
        own("/v2/models/stats", service.statistics),
        *of_model("", service.model_metadata),
        *of_model("/ready", service.model_ready),
        *of_model("/config", service.config),
        *of_model("/stats", service.statistics),
        own("/v2/repository/index", service.index, "POST"),
        own("/v2/repository/models/{name}/load", service.load, "POST"),
        own("/v2/repository/models/{name}/unload", service.unload, "POST"),
        *(own(path, service.not_offered, "GET", "POST") for path in _NOT_OFFERED),
    ]
    # Also with a slash at the end: a redirect would need the scheme and host of a proxy in front.
    return found + [Route(f"{each.path}/", each.endpoint, methods=each.methods) for each in found]


def infer(gateway: Gateway) -> Endpoint:
    """The endpoint of inference alone."""
    return Endpoint(_Service(gateway).infer, gateway, "/v2/models/{name}/infer")


class _Service:
    """The handlers, over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def infer(self, request: Request) -> Response:
        name, version = _model(request)
        data = await body.read(request, self._gateway)
        header_length = body.header(request, _HEADER_LENGTH) or None
        if header_length == "0":
            metadata = await self._metadata(request)
            message, form = read_raw_request(name, version, data, metadata)
        else:
            read = partial(read_request, name, version, data, header_length)
            message, form = await body.parse_json(request, self._gateway, data, read, header_length)
        response = await self._unary(request, "ModelInfer", message, pb.ModelInferResponse)
        accepted = body.header(request, b"accept-encoding")
        return await body.run(response.ByteSize(), _infer_response, response, form, accepted)

    async def server_metadata(self, request: Request) -> Response:
        response = await self._unary(
            request, "ServerMetadata", pb.ServerMetadataRequest(), pb.ServerMetadataResponse
        )
        return json_response(json_of(response))

    async def live(self, request: Request) -> Response:
        """Whether the gateway and a server are live."""
        is_live = await self._holds(request, rpc.server_live())
        return json_response({"live": is_live}, 200 if is_live else 503)

    async def ready(self, request: Request) -> Response:
        is_ready = await self._holds(request, rpc.server_ready())
        return json_response({"ready": is_ready}, 200 if is_ready else 503)

    async def model_ready(self, request: Request) -> Response:
        name, version = _model(request)
        is_ready = await self._gateway.upstream.unary(request, rpc.model_ready(name, version))
        return json_response({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        return json_response(json_of(await self._metadata(request)))

    async def config(self, request: Request) -> Response:
        name, version = _model(request)
        message = pb.ModelConfigRequest(name=name, version=version)
        response = await self._unary(request, "ModelConfig", message, pb.ModelConfigResponse)
        return json_response(json_of(response.config))

    async def statistics(self, request: Request) -> Response:
        name, version = _model(request)
        message = pb.ModelStatisticsRequest(name=name, version=version)
        response = await self._unary(
            request, "ModelStatistics", message, pb.ModelStatisticsResponse
        )
        return json_response(json_of(response))

    async def index(self, request: Request) -> Response:
        fields = await self._optional_json(request)
        is_ready = fields.get("ready", False)
        if not isinstance(is_ready, bool):
            raise InvalidArgument(f"ready: expected a boolean, got {kind_of(is_ready)}")
        message = pb.RepositoryIndexRequest(ready=is_ready)
        response = await self._unary(
            request, "RepositoryIndex", message, pb.RepositoryIndexResponse
        )
        return json_response(json_of(response)["models"])

    async def load(self, request: Request) -> Response:
        message = pb.RepositoryModelLoadRequest(model_name=request.path_params["name"])
        await self._control(request, "RepositoryModelLoad", message)
        return Response(status_code=200)

    async def unload(self, request: Request) -> Response:
        message = pb.RepositoryModelUnloadRequest(model_name=request.path_params["name"])
        await self._control(request, "RepositoryModelUnload", message)
        return Response(status_code=200)

    async def not_offered(self, request: Request) -> Response:
        raise Unimplemented(f"{request.scope['path'][:256]}: not offered")

    async def _metadata(self, request: Request) -> pb.ModelMetadataResponse:
        name, version = _model(request)
        message = pb.ModelMetadataRequest(name=name, version=version)
        return await self._unary(request, "ModelMetadata", message, pb.ModelMetadataResponse)

    async def _control(
        self,
        request: Request,
        method: str,
        message: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest,
    ) -> None:
        fields = await self._optional_json(request)
        parameters = fields.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise InvalidArgument(f"parameters: expected an object, got {kind_of(parameters)}")
        for name, value in parameters.items():
            _set_repository_parameter(message.parameters[name], name, value)
        call = rpc.Call(f"/{rpc.SERVICE}/{method}", message.SerializeToString(), lambda _: None)
        await self._gateway.upstream.unary(request, call, defaults.LOADING_S)

    async def _optional_json(self, request: Request) -> dict[str, Any]:
        data = await body.read(request, self._gateway)
        if not data:
            return {}
        counted_bytes = await body.count_json(request, self._gateway, data)
        return await body.run(max(len(data), counted_bytes), body.json_object, data)

    async def _unary(
        self, request: Request, method: str, message: Message, kind: type[rpc.Received]
    ) -> rpc.Received:
        def read(data: bytes) -> rpc.Received:
            return rpc.parse(kind, data)

        call = rpc.Call(f"/{rpc.SERVICE}/{method}", message.SerializeToString(), read)
        return await self._gateway.upstream.unary(request, call)

    async def _holds(self, request: Request, call: rpc.Call[bool]) -> bool:
        try:
            return await self._gateway.upstream.unary(request, call)
        except Unavailable:
            return False


def json_of(message: Message) -> dict[str, Any]:
    """A message as JSON values: 64-bit numbers as numbers, unset fields as their defaults."""
    return {
        field.name: _json_field(message, field)
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _json_field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        return {str(key): _json_value(each, entry) for key, each in value.items()}
    if field.is_repeated:
        return [_json_value(each, field) for each in value]
    return _json_value(value, field)


def _json_value(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        return json_of(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value


def _model(request: Request) -> tuple[str, str]:
    """Name and version of the path, both empty if it has none."""
    return request.path_params.get("name", ""), request.path_params.get("version", "")


def _infer_response(response: pb.ModelInferResponse, form: WantedForm, accepted: str) -> Response:
    content, header_length = write_response(response, form)
    added = {} if header_length is None else {HEADER_LENGTH: str(header_length)}
    if accepted and len(content) >= _MIN_COMPRESSED_BYTES:
        encoding = _chosen_encoding(accepted)
        if encoding:
            stream = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, _ENCODINGS[encoding])
            content = stream.compress(content) + stream.flush()
            added["content-encoding"] = encoding
    return Response(content, 200, added, JSON if header_length is None else _BINARY)


def _chosen_encoding(accepted: str) -> str | None:
    """The first encoding of Accept-Encoding that the gateway knows and the client takes."""
    for each in accepted.lower().split(","):
        name, _, quality = each.strip().partition(";")
        if name.strip() in _ENCODINGS and quality.replace(" ", "") not in {"q=0", "q=0.0"}:
            return name.strip()
    return None


def _set_repository_parameter(
    parameter: pb.ModelRepositoryParameter, name: str, value: object
) -> None:
    where = f"parameters.{name[:64]}"
    match value:
        case bool():
            parameter.bool_param = value
        case int():
            try:
                parameter.int64_param = value
            except ValueError as error:
                raise InvalidArgument(f"{where}: expected 64 bits, got more") from error
        case str():
            parameter.string_param = value
        case _:
            raise InvalidArgument(
                f"{where}: expected a boolean, a whole number or a string, got {kind_of(value)}"
            )
