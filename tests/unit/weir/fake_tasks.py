"""Text and series calls of the fake server; its models are named after their behaviour.

`shouts` tags a token LOUD or quiet, `moods` classifies a text by its number of tokens, `reverse`
generates a text's letters in reverse order, `rising` continues from the last value; `wide` with an
interval, `strict` only of the column `sales`. A token with
an x is unknown; for `generate` a space is too. The text "too long" is rejected; `generate` rejects
"crowded" once. `stuck` never ends, `short` ends without a result, `mute` answers with invalid
bytes, `good` has another task.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from weir.protocol import tasks_pb2 as pb

_REFUSALS = {
    "strict": "columns: expected 'sales', got no 'sales'",
    "exogenous": "columns: expected 'sales', 'rain', got no 'sales'",
    "unnamed": "columns: expected 'sales', 'rain', got one without a name",
    "long": "columns: expected 48 values or more, got 2",
}
"""How a server refuses columns without `sales`, by the model's name."""


@dataclass
class FakeTasks:
    """What was asked, and whether a stream was cancelled."""

    requests: list[Any] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def tag(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = pb.TagRequest.FromString(body)
        self._look(request, "shouts", context)
        if request.model_name == "mute":
            return b""
        answer = pb.TagResponse()
        for text in request.texts:
            _check(text, context)
            result = answer.results.add()
            for token in _cut(text):
                tag = "LOUD" if token.isupper() else "quiet"
                result.tokens.add(text=token, tag=tag, probability=0.75, is_unknown="x" in token)
        return answer.SerializeToString()

    def classify_text(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = pb.ClassifyTextRequest.FromString(body)
        self._look(request, "moods", context)
        if request.model_name == "mute":
            return b""
        answer = pb.ClassifyTextResponse()
        for text in request.texts:
            _check(text, context)
            tokens = _cut(text)
            unknown = [token for token in tokens if "x" in token]
            classes = answer.results.add(unknown=unknown).classes
            classes.add(label=f"of {len(tokens)} tokens", index=3, probability=0.75)
            classes.add(index=4, probability=0.25)
            del classes[request.top_k :]
        return answer.SerializeToString()

    def generate(self, body: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        request = pb.GenerateRequest.FromString(body)
        self._look(request, "reverse", context)
        # Here, as nobody goes on with this once the caller is gone.
        if not context.add_callback(self.cancelled.set):
            self.cancelled.set()
        if request.beam.width > 32:
            what = f"beam_width: expected at most 32, got {request.beam.width}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, what)
        if request.text.text == "too long":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected at most 1 tokens, got 2")
        if request.text.text == "crowded" and len(self.requests) < 2:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", "1"),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many wait")
        source = _cut(request.text, letters=True)
        tokens = source[::-1][: request.max_tokens or None]
        if not request.HasField("beam") and request.n_best == 1:
            for token in tokens:
                made = pb.GenerateResponse.Token(token=token, text=token, log_probability=-0.5)
                yield pb.GenerateResponse(token=made).SerializeToString()
        match request.model_name:
            case "short":
                return
            case "mute":
                yield b""
            case "stuck":
                self.cancelled.wait(10)
        yield pb.GenerateResponse(result=_result(request, source, tokens)).SerializeToString()

    def forecast(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        request = pb.ForecastRequest.FromString(body)
        wide = request.model_name in {"wide", "ragged"}
        refusal = _REFUSALS.get(request.model_name)
        is_kind = wide or refusal is not None
        self._look(request, request.model_name if is_kind else "rising", context)
        if refusal is not None and "sales" not in {c.name for c in request.columns}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        if request.model_name == "mute":
            return b"\xff"
        last = request.columns[0].values[-1]
        values = [last + step for step in range(1, (request.horizon or 3) + 1)]
        name = request.columns[0].name or "sales"
        response = pb.ForecastResponse(name=name, values=values)
        if wide:
            response.level = 0.8
            response.lower.extend(value - 1 for value in values)
            response.upper.extend(value + 2 for value in values)
        if request.model_name == "ragged":
            response.upper.pop()
        return response.SerializeToString()

    def handlers(self) -> dict[str, Any]:
        unary = grpc.unary_unary_rpc_method_handler
        return {
            "Tag": unary(self.tag),
            "ClassifyText": unary(self.classify_text),
            "Forecast": unary(self.forecast),
            "Generate": grpc.unary_stream_rpc_method_handler(self.generate),
        }

    def _look(self, request: Any, model: str, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        if request.model_name == "good":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "model 'good' is for something else")
        if request.model_name not in {model, "mute", "short", "stuck"}:
            context.abort(grpc.StatusCode.NOT_FOUND, f"unknown model {request.model_name!r}")


def _check(text: pb.Text, context: grpc.ServicerContext) -> None:
    if text.text == "too long":
        what = "texts[0]: expected at most 1 tokens, got 2"
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, what)


def _cut(text: pb.Text, *, letters: bool = False) -> list[str]:
    if text.WhichOneof("content") == "tokens":
        return list(text.tokens.tokens)
    return list(text.text) if letters else text.text.split()


def _result(
    request: pb.GenerateRequest, source: list[str], tokens: list[str]
) -> pb.GenerateResponse.Result:
    unknown = [token for token in source if "x" in token or token.isspace()]
    result = pb.GenerateResponse.Result(model_name="reverse", source=source, unknown=unknown)
    result.model_version = "1"
    for rank in range(request.n_best):
        one = result.hypotheses.add(
            text="".join(tokens), tokens=tokens, is_complete=not request.max_tokens
        )
        one.log_probability, one.score = -1.5 - rank, -0.5 - rank
        if request.attention:
            for step in range(len(tokens)):
                weights = [0.0] * len(source)
                weights[len(source) - 1 - step] = 1.0
                one.attention.add(weights=weights)
    return result
