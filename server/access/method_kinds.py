"""The kind of each gRPC method: what a token must be allowed for a call of it.

A method without an entry is denied where tokens are on. A test compares this table with every
service of the descriptor pool, so that a new method gets an entry.
"""

from collections.abc import Mapping
from typing import Literal

from weir.protocol import inference_pb2, models_pb2, tasks_pb2

Kind = Literal["health", "read", "infer", "control"]
"""`health` is allowed for every token; the tokens file names the other three."""

_INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_MODELS = models_pb2.DESCRIPTOR.services_by_name["Models"].full_name
_TASKS = tasks_pb2.DESCRIPTOR.services_by_name["Tasks"].full_name
# By name: grpcio-health-checking and grpcio-reflection belong to the layer of services.
_HEALTH = "grpc.health.v1.Health"
_REFLECTION = "grpc.reflection.v1alpha.ServerReflection"

METHOD_KINDS: Mapping[str, Kind] = {
    f"/{_HEALTH}/Check": "health",
    f"/{_HEALTH}/Watch": "health",
    f"/{_INFERENCE}/ServerLive": "health",
    f"/{_INFERENCE}/ServerReady": "health",
    f"/{_INFERENCE}/ServerMetadata": "read",
    f"/{_INFERENCE}/ModelReady": "read",
    f"/{_INFERENCE}/ModelMetadata": "read",
    f"/{_INFERENCE}/ModelConfig": "read",
    f"/{_INFERENCE}/ModelStatistics": "read",
    f"/{_INFERENCE}/RepositoryIndex": "read",
    f"/{_INFERENCE}/ModelInfer": "infer",
    f"/{_INFERENCE}/ModelStreamInfer": "infer",
    f"/{_INFERENCE}/RepositoryModelLoad": "control",
    f"/{_INFERENCE}/RepositoryModelUnload": "control",
    f"/{_MODELS}/ListModels": "read",
    f"/{_MODELS}/GetServerInfo": "read",
    f"/{_MODELS}/SetLabel": "control",
    f"/{_REFLECTION}/ServerReflectionInfo": "read",
    f"/{_TASKS}/Classify": "infer",
    f"/{_TASKS}/ClassifyText": "infer",
    f"/{_TASKS}/Forecast": "infer",
    f"/{_TASKS}/Generate": "infer",
    f"/{_TASKS}/Tag": "infer",
}
"""By full name, `/package.Service/Method`."""
