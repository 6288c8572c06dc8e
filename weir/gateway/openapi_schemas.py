"""JSON schemas of the gateway's bodies: the components of `/openapi.json`.

Schemas of the tasks, of protocol buffers and of the page's models are derived from the classes that
write the JSON. Only the others are written here.
"""

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from weir.client.results import ModelInfo, ServerInfo
from weir.gateway import task_schemas
from weir.gateway.errors import HTTP_CODES
from weir.protocol import inference_pb2 as pb
from weir.protocol.datatypes import DATATYPES

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/{model}"
_ASKED: Final = (
    task_schemas.ClassifyRequest,
    task_schemas.ClassifyTextRequest,
    task_schemas.TagRequest,
    task_schemas.GenerateRequest,
    task_schemas.ForecastRequest,
)
_ANSWERED: Final = (
    task_schemas.ClassifyResponse,
    task_schemas.ClassifyTextResponse,
    task_schemas.TagResponse,
    task_schemas.TokenEvent,
    task_schemas.ResultEvent,
    task_schemas.ForecastResponse,
)
_MESSAGES: Final = (
    pb.ServerMetadataResponse,
    pb.ModelMetadataResponse,
    pb.ModelConfigResponse,
    pb.ModelStatisticsResponse,
    pb.RepositoryIndexResponse,
)
# An answer that the gateway unwraps has no schema of its own.
_UNWRAPPED = {"ModelConfigResponse", "RepositoryIndexResponse"}
_INTEGERS = {
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
}
_NUMBER_OR_NULL: Final = {
    "type": ["number", "null"],
    "description": "null stands for NaN and for infinity.",
}


def components() -> dict[str, Schema]:
    """Every schema by its name."""
    return {**_written(), **_of_tasks(), **_of_messages(), **_of_page()}


def reference(name: str) -> Schema:
    """A reference to a schema of the components."""
    return {"$ref": _REFERENCE.format(model=name)}


def array(items: Schema) -> Schema:
    """The schema of an array."""
    return {"type": "array", "items": items}


def fields(
    required: dict[str, Schema],
    optional: dict[str, Schema] | None = None,
    *,
    description: str = "",
    is_closed: bool = False,
) -> Schema:
    """The schema of an object."""
    schema: Schema = {"type": "object", "properties": required | (optional or {})}
    if description:
        schema["description"] = description
    if required:
        schema["required"] = list(required)
    if is_closed:
        schema["additionalProperties"] = False
    return schema


def _written() -> dict[str, Schema]:
    text, whole, flag = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
    count = {"type": "integer", "minimum": 0}
    parameters = {
        "type": "object",
        "additionalProperties": {"type": ["boolean", "number", "string"]},
    }
    optional_parameters = {**parameters, "type": ["object", "null"]}
    datatype = {"type": "string", "enum": list(DATATYPES)}
    shape = {"type": "array", "items": count, "maxItems": 32}
    base64 = {"type": "string", "contentEncoding": "base64", "description": "Bytes in base64."}
    model = {"model": text, "version": text}
    layer = {
        "name": text,
        "kind": text,
        "output": array({"type": ["integer", "string"]}),
        "parameters": count,
        "connections": {"type": ["integer", "null"]},
        "sharing": {"type": ["number", "null"]},
    }
    return {
        "Error": fields(
            {
                "error": {"type": "string", "description": "What is wrong, for a person."},
                "status": {
                    "type": "string",
                    "enum": list(HTTP_CODES),
                    "description": "The status of gRPC, for a program.",
                },
            },
            description="An expected failure.",
            is_closed=True,
        ),
        "Live": fields({"live": flag}),
        "Ready": fields({"ready": flag}),
        "ModelReady": fields({"name": text, "ready": flag}),
        "GenerateEvent": fields(
            {
                "event": {"type": "string", "enum": ["token", "result", "error"]},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [
                            reference(each) for each in ("TokenEvent", "ResultEvent", "Error")
                        ]
                    },
                },
            },
            description="Each server-sent event. The last one is `result` or `error`.",
        ),
        "InferRequest": fields(
            {"inputs": array(reference("InferInput"))},
            {
                "id": {"type": ["string", "null"], "description": "Repeated by the answer."},
                "parameters": optional_parameters
                | {"description": "binary_data_output: true asks for all outputs in binary form."},
                "outputs": {
                    "type": ["array", "null"],
                    "items": reference("InferOutput"),
                    "description": "The outputs to answer; all of them by default.",
                },
                "model_name": {"description": "Ignored: the path names the model."},
                "model_version": {"description": "Ignored: the path names the version."},
            },
            description="An inference request of the Open Inference Protocol.",
            is_closed=True,
        ),
        "InferInput": fields(
            {"name": text, "datatype": datatype, "shape": shape},
            {
                "data": {
                    "type": ["array", "null"],
                    "description": "The values in row-major order, flat or nested.",
                },
                "parameters": optional_parameters
                | {
                    "description": "binary_data_size: the bytes of this input behind the JSON, "
                    "in place of data."
                },
            },
            description="An input tensor.",
            is_closed=True,
        ),
        "InferOutput": fields(
            {"name": text},
            {
                "parameters": optional_parameters
                | {
                    "description": "binary_data: true asks for the binary form. classification: "
                    "N asks for the N best classes."
                }
            },
            description="A requested output.",
            is_closed=True,
        ),
        "InferResponse": fields(
            {"model_name": text, "model_version": text, "outputs": array(reference("Output"))},
            {"id": text, "parameters": parameters},
            description="The answer of an inference request.",
        ),
        "Output": fields(
            {"name": text, "datatype": datatype, "shape": shape},
            {
                "data": {
                    "type": "array",
                    "items": {"type": ["boolean", "number", "string"]},
                    "description": "The values in row-major order, flat. Values that are not "
                    "finite stand as NaN, Infinity and -Infinity.",
                },
                "parameters": parameters
                | {"description": "binary_data_size: the bytes of this output behind the JSON."},
            },
            description="An output tensor.",
        ),
        "RepositoryIndexRequest": fields(
            {}, {"ready": {**flag, "description": "Whether to list only models that are ready."}}
        ),
        "RepositoryRequest": fields(
            {},
            {
                "parameters": {
                    "type": ["object", "null"],
                    "additionalProperties": {"type": ["boolean", "integer", "string"]},
                }
            },
        ),
        "Metrics": fields(
            {
                "time_s": {"type": "number", "description": "Seconds since 1970."},
                "problem": text,
                "servers": array(reference("ServerMetrics")),
            },
            description="Counts of the servers' metrics since their start.",
        ),
        "ServerMetrics": fields(
            {
                "address": text,
                "problem": text,
                "started_s": {"type": ["number", "null"]},
                "models": array(fields(model)),
            },
            description="The counts of a server by model and version.",
        ),
        "Network": fields(
            {**model, "graphs": array(reference("Graph"))},
            {
                "trained": {"type": ["object", "null"]},
                "picture": {"type": ["object", "null"]},
            },
            description="The layers of each graph, for one row.",
        ),
        "Graph": fields(
            {
                "name": text,
                "layers": array(fields(layer)),
                "parameters": count,
                "connections": {"type": ["integer", "null"]},
                "sharing": {"type": ["number", "null"]},
                "repeated": whole,
                "constants": count,
                "uncounted": {"type": "object", "additionalProperties": count},
            },
            {
                name: array(fields({"name": text, "shape": {"type": ["array", "null"]}}))
                for name in ("inputs", "outputs")
            },
            description="A graph with its layers and their sums.",
        ),
        "Kernels": fields(
            {
                **model,
                "convolution": {
                    "anyOf": [
                        fields(
                            {
                                "layer": text,
                                "shape": array(count),
                                "shown": array(count),
                                "minimum": {"type": "number"},
                                "maximum": {"type": "number"},
                                "largest": {"type": "number"},
                                "values": base64,
                            }
                        ),
                        {"type": "null"},
                    ]
                },
            },
            description="The kernels of the first convolution; null if there is none.",
        ),
        "FeatureMaps": fields(
            {
                **model,
                "picture": fields({"shape": array(count), "values": base64}),
                "blocks": array(
                    fields(
                        {
                            "layer": text,
                            "operator": text,
                            "operators": array(text),
                            "shape": array(count),
                            "shown": array(count),
                            "ranges": array(array({"type": "number"})),
                            "values": base64,
                        }
                    )
                ),
            },
            description="The feature maps of a picture after each block.",
        ),
    }


def _of_tasks() -> dict[str, Schema]:
    _, found = models_json_schema(
        [
            *((each, "validation") for each in _ASKED),
            *((each, "serialization") for each in _ANSWERED),
        ],
        ref_template=_REFERENCE,
    )
    return {name: _untitled(schema) for name, schema in found["$defs"].items()}


def _of_page() -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    for kind in (ServerInfo, ModelInfo):
        schema = TypeAdapter(kind).json_schema(ref_template=_REFERENCE, mode="serialization")
        found |= schema.pop("$defs", {})
        found[kind.__name__] = schema
    found = {name: _untitled(schema) for name, schema in found.items()}
    found["Models"] = fields(
        {
            "target": {"type": "string", "description": "The addresses of the servers."},
            "tls": {"type": "boolean", "description": "Whether clients call them over TLS."},
            "server": reference("ServerInfo"),
            "models": array(reference("ModelInfo")),
        },
        description="The server that answered, and its models.",
    )
    return found


def _of_messages() -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    for message in _MESSAGES:
        _collect(message.DESCRIPTOR, found)
    return {name: schema for name, schema in found.items() if name not in _UNWRAPPED}


def _collect(message: Any, found: dict[str, Schema]) -> None:
    """Add the schemas of a message and those within, as `open_inference.json_of` writes them."""
    name = _message_name(message)
    if name in found:
        return
    found[name] = {}
    required: dict[str, Schema] = {}
    optional: dict[str, Schema] = {}
    for field in message.fields:
        target = optional if field.has_presence else required
        target[field.name] = _of_field(field)
    found[name] = fields(required, optional)
    for inner in _inner_messages(message):
        _collect(inner, found)


def _inner_messages(message: Any) -> Iterable[Any]:
    for field in message.fields:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            kind = kind.fields_by_name["value"].message_type
        if kind is not None:
            yield kind


def _message_name(message: Any) -> str:
    """The name of a message's schema, without its package: ModelMetadataResponse.TensorMetadata."""
    name: str = message.full_name
    return name.removeprefix(f"{message.file.package}.")


def _of_field(field: FieldDescriptor) -> Schema:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {
            "type": "object",
            "additionalProperties": _of_value(kind.fields_by_name["value"]),
        }
    return array(_of_value(field)) if field.is_repeated else _of_value(field)


def _of_value(field: FieldDescriptor) -> Schema:
    if field.message_type is not None:
        return reference(_message_name(field.message_type))
    if field.enum_type is not None:
        return {"type": ["string", "integer"]}
    if field.type in _INTEGERS:
        return {"type": "integer"}
    match field.type:
        case FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        case FieldDescriptor.TYPE_STRING:
            return {"type": "string"}
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return dict(_NUMBER_OR_NULL)
    raise TypeError(f"{field.full_name}: no JSON schema of this type")


def _untitled(schema: Any) -> Any:
    """A schema without the titles that pydantic makes of its names."""
    if isinstance(schema, dict):
        return {
            key: _untitled(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_untitled(each) for each in schema] if isinstance(schema, list) else schema
