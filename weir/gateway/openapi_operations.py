"""The operations of the gateway's HTTP interface: what `/openapi.json` says of each route."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from weir.gateway.openapi_schemas import Schema, array, reference

JSON = "application/json"
BINARY = "application/octet-stream"
FORM = "multipart/form-data"
EVENTS = "text/event-stream"
HTML = "text/html"
TEXT = "text/plain"

TAGS: Final = {
    "Tasks": "Pictures, texts and series in; classes, tags, texts and forecasts out.",
    "Inference": "The Open Inference Protocol (KServe v2) with Triton's extensions.",
    "Health": "Whether the gateway and a server answer.",
    "Model control": "Loading and unloading, where the server allows it.",
    "Metrics": "Measured values of the gateway.",
    "Page": "The page, and the data that it polls.",
    "Documentation": "This document.",
    "Not offered": "Triton's extensions that need the server's machine, or Triton: always 501.",
}
"""Each group of operations, in the order of the documentation."""

# A seven, 28 x 28.
_DIGIT = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcAQAAAABaduI5AAAAP0lEQVR42nXNoRHCQAAAweV4EUk5kZSeUlIC8gXD"
    "R6BzYu1x25piiC/sYoq3+MCpPw/ikOBJBllkIz/yuv+5AB3EChPInHg3AAAAAElFTkSuQmCC"
)


@dataclass(frozen=True, slots=True)
class Content:
    """A body of one media type, with examples by their titles."""

    media_type: str
    schema: Schema
    examples: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path.

    Attributes:
        name: in snake case; unique.
        path: as its route has it, without the type of a path parameter.
        examples: values of the path parameters.
        query: query parameters with their descriptions.
        accepts: the forms of a body; none if the operation reads no body.
        is_body_required: whether a request without a body is refused.
        answers: the forms of a body with the code 200.
        others: schemas of JSON answers with other codes, beside errors.
        calls_server: whether it makes a call of a server, with the caller's token.
        refuses: codes of its own refusals.
        is_answered: whether it ever answers with 200.
    """

    name: str
    method: str
    path: str
    tag: str
    summary: str
    description: str = ""
    examples: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    accepts: tuple[Content, ...] = ()
    is_body_required: bool = True
    answers: tuple[Content, ...] = ()
    others: Mapping[int, Schema | None] = field(default_factory=dict)
    calls_server: bool = True
    refuses: frozenset[int] = frozenset()
    is_answered: bool = True


def operations() -> list[Operation]:
    """Every operation."""
    return [
        *_tasks(),
        *_inference(),
        *_health(),
        *_control(),
        *_metrics(),
        *_page(),
        *_documentation(),
        *_not_offered(),
    ]


def _json(name: str, **examples: Any) -> Content:
    titled = {title.replace("_", " "): value for title, value in examples.items()}
    return Content(JSON, reference(name), titled)


def _tasks() -> list[Operation]:
    labels = {"label": "7", "index": 7, "probability": 0.98}
    form = Content(
        FORM,
        {
            "type": "object",
            "properties": {
                "picture": array({"type": "string", "contentMediaType": BINARY}),
                "top": {"type": "integer", "minimum": 1, "maximum": 2**32 - 1},
                "version": {"type": "string"},
            },
            "required": ["picture"],
            "additionalProperties": False,
        },
    )
    events = Content(
        EVENTS,
        reference("GenerateEvent"),
        {
            "a stream": 'event: token\ndata: {"token":"HH","text":"HH","log_probability":-0.1}\n\n'
            'event: token\ndata: {"token":"AY","text":" AY","log_probability":-0.2}\n\n'
            'event: result\ndata: {"model":"pronounce","version":"1","source":["h","i"],'
            '"unknown":[],"hypotheses":[{"text":"HH AY","tokens":["HH","AY"],'
            '"log_probability":-0.4,"score":-0.4,"is_complete":true,"attention":null}]}\n\n'
        },
    )

    def task(verb: str, model: str, summary: str, *accepts: Content, **more: Any) -> Operation:
        return Operation(
            verb.replace("-", "_"),
            "POST",
            f"/v1/models/{{name}}:{verb}",
            "Tasks",
            summary,
            examples={"name": model},
            accepts=accepts,
            **more,
        )

    return [
        task(
            "classify",
            "lenet5",
            "Classify pictures",
            _json(
                "ClassifyRequest",
                one_digit={"pictures": [{"base64": _DIGIT}], "top": 3},
            ),
            form,
            description="Pictures are files of PNG or JPEG, in JSON or as fields of a form.",
            answers=(
                _json(
                    "ClassifyResponse",
                    one_digit={
                        "model": "lenet5",
                        "version": "1",
                        "results": [{"classes": [labels]}],
                    },
                ),
            ),
        ),
        task(
            "classify-text",
            "sentiment",
            "Classify texts",
            _json(
                "ClassifyTextRequest",
                two_texts={"texts": ["A fine film.", ["a", "dull", "one"]], "top": 2},
            ),
            answers=(_json("ClassifyTextResponse"),),
        ),
        task(
            "tag",
            "tagger",
            "Tag the tokens of texts",
            _json("TagRequest", one_sentence={"texts": ["The cat sat."]}),
            answers=(
                _json(
                    "TagResponse",
                    one_word={
                        "model": "tagger",
                        "version": "1",
                        "results": [
                            {
                                "tokens": [
                                    {
                                        "text": "cat",
                                        "tag": "NOUN",
                                        "probability": 0.99,
                                        "is_unknown": False,
                                    }
                                ]
                            }
                        ],
                    },
                ),
            ),
        ),
        task(
            "generate",
            "pronounce",
            "Generate a text, token by token",
            _json(
                "GenerateRequest",
                greedy={"text": "hello"},
                beam_search={"text": "hello", "beam": {"width": 4}, "n_best": 2},
                sampling={"text": "hello", "sample": {"temperature": 0.8, "seed": 7}},
            ),
            description="A failure before the first event has its HTTP code. A later one is the "
            "event `error`. Beam search sends its tokens at the end.",
            answers=(events,),
        ),
        task(
            "forecast",
            "narx",
            "Forecast a series",
            _json(
                "ForecastRequest",
                one_column={"values": [5.0, 11.0, 16.0, 23.0, 36.0, 58.0], "horizon": 3},
                named_columns={"columns": {"sales": [5.0, 11.0, 16.0], "price": [2.0, 2.5, 2.5]}},
            ),
            description="Expects either `values` or `columns`.",
            answers=(_json("ForecastResponse"),),
        ),
    ]


def _inference() -> list[Operation]:
    tensors = {
        "inputs": [
            {"name": "tokens", "datatype": "INT64", "shape": [1, 3], "data": [5, 9, 4]},
            {"name": "lengths", "datatype": "INT64", "shape": [1], "data": [3]},
        ],
        "outputs": [{"name": "tag_ids"}],
    }
    answer = {
        "model_name": "stress",
        "model_version": "1",
        "outputs": [{"name": "tag_ids", "datatype": "INT64", "shape": [1, 3], "data": [0, 0, 2]}],
    }
    binary = {"type": "string", "contentMediaType": BINARY}
    found = [
        Operation(
            "infer",
            "POST",
            "/v2/models/{name}/infer",
            "Inference",
            "Infer",
            "A request in JSON is answered in JSON. With Inference-Header-Content-Length: N, the "
            "first N bytes are JSON, and the contents of inputs with `binary_data_size` follow. "
            "With 0, the body is the contents of the model's only input. Accept-Encoding gzip or "
            "deflate compresses a large answer.",
            {"name": "stress"},
            accepts=(_json("InferRequest", three_tokens=tensors), Content(BINARY, binary)),
            answers=(_json("InferResponse", tensor=answer), Content(BINARY, binary)),
        ),
        Operation(
            "server_metadata",
            "GET",
            "/v2",
            "Inference",
            "Metadata of the server",
            answers=(_json("ServerMetadataResponse"),),
        ),
        Operation(
            "model_metadata",
            "GET",
            "/v2/models/{name}",
            "Inference",
            "Metadata of a model: its inputs and outputs",
            examples={"name": "lenet5"},
            answers=(_json("ModelMetadataResponse"),),
        ),
        Operation(
            "config",
            "GET",
            "/v2/models/{name}/config",
            "Inference",
            "Configuration of a model",
            "The parameter `weir.contract` is the bundle's description, as JSON.",
            {"name": "lenet5"},
            answers=(_json("ModelConfig"),),
        ),
        Operation(
            "model_ready",
            "GET",
            "/v2/models/{name}/ready",
            "Health",
            "Whether a model is ready",
            examples={"name": "lenet5"},
            answers=(_json("ModelReady", ready={"name": "lenet5", "ready": True}),),
            others={503: reference("ModelReady")},
        ),
        Operation(
            "model_statistics",
            "GET",
            "/v2/models/{name}/stats",
            "Inference",
            "Statistics of a model",
            examples={"name": "lenet5"},
            answers=(_json("ModelStatisticsResponse"),),
        ),
    ]
    of_version = [_of_version(each) for each in found if "{name}" in each.path]
    statistics = Operation(
        "statistics",
        "GET",
        "/v2/models/stats",
        "Inference",
        "Statistics of all models",
        answers=(_json("ModelStatisticsResponse"),),
    )
    return [*found, *of_version, statistics]


def _of_version(operation: Operation) -> Operation:
    return replace(
        operation,
        name=f"{operation.name}_of_version",
        path=operation.path.replace("{name}", "{name}/versions/{version}"),
        summary=f"{operation.summary}, of one version",
        examples={**operation.examples, "version": "1"},
    )


def _health() -> list[Operation]:
    return [
        Operation(
            "live",
            "GET",
            "/v2/health/live",
            "Health",
            "Whether the gateway and a server are live",
            answers=(_json("Live", live={"live": True}),),
            others={503: reference("Live")},
        ),
        Operation(
            "ready",
            "GET",
            "/v2/health/ready",
            "Health",
            "Whether a server is ready",
            answers=(_json("Ready", ready={"ready": True}),),
            others={503: reference("Ready")},
        ),
    ]


def _control() -> list[Operation]:
    index = Content(
        JSON,
        array(reference("RepositoryIndexResponse.ModelIndex")),
        {"one model": [{"name": "lenet5", "version": "1", "state": "READY", "reason": ""}]},
    )
    found = [
        Operation(
            "repository_index",
            "POST",
            "/v2/repository/index",
            "Model control",
            "List the models",
            accepts=(_json("RepositoryIndexRequest", all={}, only_ready={"ready": True}),),
            is_body_required=False,
            answers=(index,),
        )
    ]
    for verb in ("load", "unload"):
        operation = Operation(
            f"repository_{verb}",
            "POST",
            f"/v2/repository/models/{{name}}/{verb}",
            "Model control",
            f"{verb.capitalize()} a model",
            "Refused unless the server is started with model control.",
            {"name": "lenet5"},
            accepts=(_json("RepositoryRequest", default={}),),
            is_body_required=False,
        )
        found.append(operation)
    return found


def _metrics() -> list[Operation]:
    text = Content(TEXT, {"type": "string", "description": "Prometheus's text format."})
    return [
        Operation(
            "metrics",
            "GET",
            "/metrics",
            "Metrics",
            "Metrics of the gateway",
            "Requests and seconds by route, and the bytes of bodies in memory.",
            answers=(text,),
        )
    ]


def _page() -> list[Operation]:
    version = {"version": "The number of a version, or a label of it."}
    html = Content(HTML, {"type": "string"})
    picture = {"type": "string", "contentMediaType": "image/png"}

    def view(name: str, summary: str, schema: str, **more: Any) -> Operation:
        return Operation(
            name.replace("-", "_"),
            more.pop("method", "GET"),
            f"/page/models/{{name}}/{name}",
            "Page",
            summary,
            "Refused with 501 unless the gateway is started with `--models`.",
            examples={"name": "lenet5"},
            query=version,
            answers=(_json(schema),),
            **more,
        )

    return [
        Operation(
            "page",
            "GET",
            "/",
            "Page",
            "The page",
            answers=(html,),
            others={304: None},
            calls_server=False,
        ),
        Operation(
            "static",
            "GET",
            "/static/{file}",
            "Page",
            "A file of the page",
            examples={"file": "style.css"},
            answers=(Content("*/*", {"type": "string"}),),
            others={304: None},
            calls_server=False,
            refuses=frozenset({404}),
        ),
        Operation(
            "page_models",
            "GET",
            "/page/models",
            "Page",
            "The server and its models with their versions",
            answers=(_json("Models"),),
        ),
        Operation(
            "page_metrics",
            "GET",
            "/page/metrics",
            "Page",
            "Counts of the servers' metrics",
            answers=(_json("Metrics"),),
        ),
        view("network", "The layers of a model", "Network"),
        view("kernels", "The kernels of a model's first convolution", "Kernels"),
        view(
            "feature-maps",
            "The feature maps of a picture",
            "FeatureMaps",
            method="POST",
            accepts=(Content("image/png", picture), Content("image/jpeg", picture)),
        ),
    ]


def _documentation() -> list[Operation]:
    return [
        Operation(
            "openapi",
            "GET",
            "/openapi.json",
            "Documentation",
            "This document",
            answers=(Content(JSON, {"type": "object"}),),
            calls_server=False,
        ),
        Operation(
            "docs",
            "GET",
            "/docs",
            "Documentation",
            "The document as a page",
            answers=(Content(HTML, {"type": "string"}),),
            others={304: None},
            calls_server=False,
        ),
    ]


def _not_offered() -> list[Operation]:
    paths = {
        "logging": "/v2/logging",
        "trace_setting": "/v2/trace/setting",
        "model_trace_setting": "/v2/models/{name}/trace/setting",
        "system_shared_memory": "/v2/systemsharedmemory/{rest}",
        "cuda_shared_memory": "/v2/cudasharedmemory/{rest}",
    }
    examples = {"name": "lenet5", "rest": "status"}
    return [
        Operation(
            f"{method.lower()}_{name}",
            method,
            path,
            "Not offered",
            name.replace("_", " ").capitalize(),
            examples={key: value for key, value in examples.items() if f"{{{key}}}" in path},
            calls_server=False,
            refuses=frozenset({501}),
            is_answered=False,
        )
        for name, path in paths.items()
        for method in ("GET", "POST")
    ]
