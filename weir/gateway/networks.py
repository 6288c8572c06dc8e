"""The page's networks: layers, first kernels, and the feature maps of a picture.

The files are those of the setting `models_dir`. Each request first makes a call of the server that
the caller's token must allow for the model, and takes the version from its answer. So a token
protects the files as it protects the model.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from weir.client import rpc
from weir.client.errors import InvalidArgument, NotFound, Unimplemented
from weir.gateway import body, model_files
from weir.gateway.endpoint import route
from weir.gateway.errors import JSON
from weir.gateway.inspection_sandbox import Inspection, InspectionSandbox
from weir.gateway.model_files import ModelFiles
from weir.gateway.upstream import Gateway

_MOST_CACHED = 64
_PAIR_SUFFIXES = (".encoder", ".decoder")


def routes(gateway: Gateway) -> list[Route]:
    """The routes of a model's network; none if the page is off."""
    if not gateway.settings.serves_page:
        return []
    networks = _Networks(gateway)

    path = "/page/models/{name}/"
    return [
        route(f"{path}network", networks.network, gateway),
        route(f"{path}kernels", networks.kernels, gateway),
        route(f"{path}feature-maps", networks.feature_maps, gateway, "POST"),
    ]


@dataclass(frozen=True, slots=True)
class _Served:
    """A version as the server serves it, with its files."""

    name: str
    version: int
    files: ModelFiles
    outputs: tuple[str, ...]


class _Networks:
    """The handlers, over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._sandbox = InspectionSandbox()
        self._cached: OrderedDict[tuple[str, str, int], tuple[ModelFiles, bytes]] = OrderedDict()

    async def network(self, request: Request) -> Response:
        return await self._view(request, "network")

    async def kernels(self, request: Request) -> Response:
        return await self._view(request, "kernels")

    async def feature_maps(self, request: Request) -> Response:
        served = await self._served(request)
        picture = await body.read(request, self._gateway)
        if not picture:
            raise InvalidArgument("body: expected a PNG or a JPEG, got nothing")
        inspection = Inspection("feature-maps", served.files, served.outputs)
        async with self._sandbox.turn():
            return _response(served, await self._sandbox.run(inspection, picture))

    async def _view(self, request: Request, view: str) -> Response:
        """The response of a view, from the cache if the files are the same."""
        served = await self._served(request)
        content = self._find(view, served)
        if content is None:
            async with self._sandbox.turn():
                # Another caller may have had it made meanwhile.
                content = self._find(view, served)
                if content is None:
                    content = await self._sandbox.run(
                        Inspection(view, served.files, served.outputs)
                    )
                    self._keep(view, served, content)
        return _response(served, content)

    def _find(self, view: str, served: _Served) -> bytes | None:
        files, content = self._cached.get((view, served.name, served.version), (None, b""))
        return content if files == served.files else None

    def _keep(self, view: str, served: _Served, content: bytes) -> None:
        key = (view, served.name, served.version)
        self._cached[key] = served.files, content
        self._cached.move_to_end(key)
        if len(self._cached) > _MOST_CACHED:
            self._cached.popitem(last=False)

    async def _served(self, request: Request) -> _Served:
        """The version that a request means, once the server has answered for it."""
        name = request.path_params["name"]
        label = request.query_params.get("version", "")
        models = self._gateway.settings.models_dir
        answer = await self._gateway.upstream.unary(request, rpc.config(name, label))
        if models is None:
            raise Unimplemented(
                "networks: the gateway has no files of models; start it with --models PATH, what "
                "the servers serve"
            )
        version = await self._version(request, name, label)
        config = answer.config
        files = await asyncio.to_thread(
            model_files.find, Path(models), name, version, config.default_model_filename
        )
        return _Served(name, version, files, tuple(each.name for each in config.output))

    async def _version(self, request: Request, name: str, label: str) -> int:
        """The number of a version; of the one that answers if the request names none."""
        if label.isascii() and label.isdecimal():
            return int(label)
        known = {
            model.name: model for model in await self._gateway.upstream.unary(request, rpc.models())
        }
        candidates = (name, *(name.removesuffix(suffix) for suffix in _PAIR_SUFFIXES))
        for model in (known[each] for each in candidates if each in known):
            for version in model.versions:
                if version.version == (label or model.answering) or label in version.labels:
                    return int(version.version)
        raise NotFound(f"{name}: no version answers")


def _response(served: _Served, view: bytes) -> Response:
    """A view with the model that it is of."""
    head = orjson.dumps({"model": served.name, "version": str(served.version)})
    return Response(head[:-1] + b"," + view[1:], media_type=JSON)
