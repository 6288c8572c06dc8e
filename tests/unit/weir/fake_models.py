"""Model control of the fake server; the models' names say how their calls end.

`good` loads and unloads, `flop` fails to load, another caller loads `busy`, any other is unknown.
"""

from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2 as models_pb

SINCE_MS = 1_795_000_000_250


def listing() -> models_pb.ListModelsResponse:
    """One model with all there is to tell, one that fails, and one of which none is loaded."""
    answer = models_pb.ListModelsResponse()
    good = answer.models.add(name="good", task="image-classification", answering="2")
    good.on_disk.extend(["3", "2", "1"])
    good.versions.add(
        version="3",
        labels=["canary", "next"],
        state="UNAVAILABLE",
        reason="golden.npz: logits: expected [1 2], got 7",
        since_ms=SINCE_MS,
    )
    good.versions.add(
        version="2",
        labels=["stable"],
        state="READY",
        since_ms=SINCE_MS,
        provider="cpu",
        parity=2.5e-06,
        golden=0.0,
        batched=False,
        batching_reason="output 'y' [-1] has no first axis of any size",
        unserved_outputs=["maps: seq(map(int64,tensor(float)))"],
        threads=2,
        instances=1,
    )
    flop = answer.models.add(name="flop", on_disk=["1"])
    flop.versions.add(version="1", state="UNAVAILABLE", reason="no graph", since_ms=SINCE_MS)
    answer.models.add(name="away", on_disk=["7"])
    return answer


def server_info() -> models_pb.GetServerInfoResponse:
    """A server that runs as it should."""
    return models_pb.GetServerInfoResponse(
        version="1.2.3",
        grpcio="1.85.1",
        onnxruntime="1.31.1",
        provider="cpu",
        transport="completion-queue",
        metrics_address="127.0.0.1:8002",
        process_id=4242,
        started_ms=SINCE_MS,
        usable_cores=8,
        shares_port=True,
    )


@dataclass
class FakeModels:
    """What was asked; a server that is not Weir knows the protocol only."""

    is_weir: bool = True
    takes_control: bool = True
    asked: list[Any] = field(default_factory=list)
    time_left_s: float = 0.0
    listing: models_pb.ListModelsResponse = field(default_factory=listing)
    info: models_pb.GetServerInfoResponse = field(default_factory=server_info)
    # Versions that get no label, as they cannot be loaded.
    broken: tuple[int, ...] = ()
    # What it holds once something was changed.
    after: models_pb.ListModelsResponse | None = None
    label_response: models_pb.SetLabelResponse = field(
        default_factory=lambda: models_pb.SetLabelResponse(written=True)
    )

    def list_models(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        if not self.is_weir:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown service weir.v1.Models")
        return self.listing.SerializeToString()

    def get_server_info(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        if not self.is_weir:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown service weir.v1.Models")
        return self.info.SerializeToString()

    def load(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = pb.RepositoryModelLoadRequest.FromString(body)
        self._take(request, request.model_name, context)
        return pb.RepositoryModelLoadResponse().SerializeToString()

    def unload(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = pb.RepositoryModelUnloadRequest.FromString(body)
        self._take(request, request.model_name, context)
        return pb.RepositoryModelUnloadResponse().SerializeToString()

    def set_label(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = models_pb.SetLabelRequest.FromString(body)
        if request.version > 3:
            context.abort(grpc.StatusCode.NOT_FOUND, f"good: no version {request.version}")
        if request.version in self.broken:
            self.asked.append(request)
            where = f"model {request.model_name!r} version {request.version}"
            what = f"label {request.label!r} stays: {where}: no graph"
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, what)
        self._take(request, request.model_name, context)
        return self.label_response.SerializeToString()

    def _take(self, request: Message, name: str, context: grpc.ServicerContext) -> None:
        if not self.takes_control:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        self.asked.append(request)
        self.time_left_s = context.time_remaining() or 0.0
        match name:
            case "good":
                self.listing = self.after or self.listing
                return
            case "flop":
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION, "model 'flop': version 1:\n  no graph"
                )
            case "busy":
                context.abort(grpc.StatusCode.UNAVAILABLE, "busy: is being loaded")
        context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {name!r}")

    def inference_handlers(self) -> dict[str, "grpc.RpcMethodHandler[bytes, bytes]"]:
        """Those of the protocol, by name."""
        unary = grpc.unary_unary_rpc_method_handler
        return {
            "RepositoryModelLoad": unary(self.load),
            "RepositoryModelUnload": unary(self.unload),
        }

    def handlers(self) -> dict[str, "grpc.RpcMethodHandler[bytes, bytes]"]:
        """Those of Weir's own service, by name."""
        unary = grpc.unary_unary_rpc_method_handler
        return {
            "ListModels": unary(self.list_models),
            "GetServerInfo": unary(self.get_server_info),
            "SetLabel": unary(self.set_label),
        }
