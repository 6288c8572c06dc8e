from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClassifyRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "pictures", "top_k")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PICTURES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    pictures: _containers.RepeatedCompositeFieldContainer[Picture]
    top_k: int
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., pictures: _Optional[_Iterable[_Union[Picture, _Mapping]]] = ..., top_k: _Optional[int] = ...) -> None: ...

class Picture(_message.Message):
    __slots__ = ("encoded", "raw")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    raw: Pixels
    def __init__(self, encoded: _Optional[bytes] = ..., raw: _Optional[_Union[Pixels, _Mapping]] = ...) -> None: ...

class Pixels(_message.Message):
    __slots__ = ("height", "width", "channels", "values")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    channels: int
    values: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., channels: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "results")
    class Result(_message.Message):
        __slots__ = ("classes",)
        CLASSES_FIELD_NUMBER: _ClassVar[int]
        classes: _containers.RepeatedCompositeFieldContainer[ClassifyResponse.Class]
        def __init__(self, classes: _Optional[_Iterable[_Union[ClassifyResponse.Class, _Mapping]]] = ...) -> None: ...
    class Class(_message.Message):
        __slots__ = ("label", "index", "probability")
        LABEL_FIELD_NUMBER: _ClassVar[int]
        INDEX_FIELD_NUMBER: _ClassVar[int]
        PROBABILITY_FIELD_NUMBER: _ClassVar[int]
        label: str
        index: int
        probability: float
        def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., probability: _Optional[float] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    results: _containers.RepeatedCompositeFieldContainer[ClassifyResponse.Result]
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[ClassifyResponse.Result, _Mapping]]] = ...) -> None: ...

class Text(_message.Message):
    __slots__ = ("text", "tokens")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: Tokens
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Union[Tokens, _Mapping]] = ...) -> None: ...

class Tokens(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tokens: _Optional[_Iterable[str]] = ...) -> None: ...

class ClassifyTextRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "texts", "top_k")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    texts: _containers.RepeatedCompositeFieldContainer[Text]
    top_k: int
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., texts: _Optional[_Iterable[_Union[Text, _Mapping]]] = ..., top_k: _Optional[int] = ...) -> None: ...

class ClassifyTextResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "results")
    class Result(_message.Message):
        __slots__ = ("classes", "unknown")
        CLASSES_FIELD_NUMBER: _ClassVar[int]
        UNKNOWN_FIELD_NUMBER: _ClassVar[int]
        classes: _containers.RepeatedCompositeFieldContainer[ClassifyResponse.Class]
        unknown: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, classes: _Optional[_Iterable[_Union[ClassifyResponse.Class, _Mapping]]] = ..., unknown: _Optional[_Iterable[str]] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    results: _containers.RepeatedCompositeFieldContainer[ClassifyTextResponse.Result]
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[ClassifyTextResponse.Result, _Mapping]]] = ...) -> None: ...

class TagRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "texts")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    texts: _containers.RepeatedCompositeFieldContainer[Text]
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., texts: _Optional[_Iterable[_Union[Text, _Mapping]]] = ...) -> None: ...

class TagResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "results")
    class Result(_message.Message):
        __slots__ = ("tokens",)
        TOKENS_FIELD_NUMBER: _ClassVar[int]
        tokens: _containers.RepeatedCompositeFieldContainer[TagResponse.Token]
        def __init__(self, tokens: _Optional[_Iterable[_Union[TagResponse.Token, _Mapping]]] = ...) -> None: ...
    class Token(_message.Message):
        __slots__ = ("text", "tag", "probability", "is_unknown")
        TEXT_FIELD_NUMBER: _ClassVar[int]
        TAG_FIELD_NUMBER: _ClassVar[int]
        PROBABILITY_FIELD_NUMBER: _ClassVar[int]
        IS_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
        text: str
        tag: str
        probability: float
        is_unknown: bool
        def __init__(self, text: _Optional[str] = ..., tag: _Optional[str] = ..., probability: _Optional[float] = ..., is_unknown: _Optional[bool] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    results: _containers.RepeatedCompositeFieldContainer[TagResponse.Result]
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[TagResponse.Result, _Mapping]]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "text", "max_tokens", "greedy", "beam", "sample", "n_best", "attention")
    class Greedy(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Beam(_message.Message):
        __slots__ = ("width", "length_power")
        WIDTH_FIELD_NUMBER: _ClassVar[int]
        LENGTH_POWER_FIELD_NUMBER: _ClassVar[int]
        width: int
        length_power: float
        def __init__(self, width: _Optional[int] = ..., length_power: _Optional[float] = ...) -> None: ...
    class Sample(_message.Message):
        __slots__ = ("temperature", "top_k", "seed")
        TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
        TOP_K_FIELD_NUMBER: _ClassVar[int]
        SEED_FIELD_NUMBER: _ClassVar[int]
        temperature: float
        top_k: int
        seed: int
        def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ...) -> None: ...
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GREEDY_FIELD_NUMBER: _ClassVar[int]
    BEAM_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    N_BEST_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    text: Text
    max_tokens: int
    greedy: GenerateRequest.Greedy
    beam: GenerateRequest.Beam
    sample: GenerateRequest.Sample
    n_best: int
    attention: bool
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., text: _Optional[_Union[Text, _Mapping]] = ..., max_tokens: _Optional[int] = ..., greedy: _Optional[_Union[GenerateRequest.Greedy, _Mapping]] = ..., beam: _Optional[_Union[GenerateRequest.Beam, _Mapping]] = ..., sample: _Optional[_Union[GenerateRequest.Sample, _Mapping]] = ..., n_best: _Optional[int] = ..., attention: _Optional[bool] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("token", "result")
    class Token(_message.Message):
        __slots__ = ("token", "text", "log_probability")
        TOKEN_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
        token: str
        text: str
        log_probability: float
        def __init__(self, token: _Optional[str] = ..., text: _Optional[str] = ..., log_probability: _Optional[float] = ...) -> None: ...
    class Result(_message.Message):
        __slots__ = ("model_name", "model_version", "id", "hypotheses", "source", "unknown")
        MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
        MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        HYPOTHESES_FIELD_NUMBER: _ClassVar[int]
        SOURCE_FIELD_NUMBER: _ClassVar[int]
        UNKNOWN_FIELD_NUMBER: _ClassVar[int]
        model_name: str
        model_version: str
        id: str
        hypotheses: _containers.RepeatedCompositeFieldContainer[GenerateResponse.Hypothesis]
        source: _containers.RepeatedScalarFieldContainer[str]
        unknown: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., hypotheses: _Optional[_Iterable[_Union[GenerateResponse.Hypothesis, _Mapping]]] = ..., source: _Optional[_Iterable[str]] = ..., unknown: _Optional[_Iterable[str]] = ...) -> None: ...
    class Hypothesis(_message.Message):
        __slots__ = ("text", "tokens", "log_probability", "score", "is_complete", "attention")
        TEXT_FIELD_NUMBER: _ClassVar[int]
        TOKENS_FIELD_NUMBER: _ClassVar[int]
        LOG_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
        SCORE_FIELD_NUMBER: _ClassVar[int]
        IS_COMPLETE_FIELD_NUMBER: _ClassVar[int]
        ATTENTION_FIELD_NUMBER: _ClassVar[int]
        text: str
        tokens: _containers.RepeatedScalarFieldContainer[str]
        log_probability: float
        score: float
        is_complete: bool
        attention: _containers.RepeatedCompositeFieldContainer[GenerateResponse.Attention]
        def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Iterable[str]] = ..., log_probability: _Optional[float] = ..., score: _Optional[float] = ..., is_complete: _Optional[bool] = ..., attention: _Optional[_Iterable[_Union[GenerateResponse.Attention, _Mapping]]] = ...) -> None: ...
    class Attention(_message.Message):
        __slots__ = ("weights",)
        WEIGHTS_FIELD_NUMBER: _ClassVar[int]
        weights: _containers.RepeatedScalarFieldContainer[float]
        def __init__(self, weights: _Optional[_Iterable[float]] = ...) -> None: ...
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    token: GenerateResponse.Token
    result: GenerateResponse.Result
    def __init__(self, token: _Optional[_Union[GenerateResponse.Token, _Mapping]] = ..., result: _Optional[_Union[GenerateResponse.Result, _Mapping]] = ...) -> None: ...

class ForecastRequest(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "columns", "horizon")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    horizon: int
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., horizon: _Optional[int] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class ForecastResponse(_message.Message):
    __slots__ = ("model_name", "model_version", "id", "name", "values", "lower", "upper", "level")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    LOWER_FIELD_NUMBER: _ClassVar[int]
    UPPER_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    model_version: str
    id: str
    name: str
    values: _containers.RepeatedScalarFieldContainer[float]
    lower: _containers.RepeatedScalarFieldContainer[float]
    upper: _containers.RepeatedScalarFieldContainer[float]
    level: float
    def __init__(self, model_name: _Optional[str] = ..., model_version: _Optional[str] = ..., id: _Optional[str] = ..., name: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ..., lower: _Optional[_Iterable[float]] = ..., upper: _Optional[_Iterable[float]] = ..., level: _Optional[float] = ...) -> None: ...
