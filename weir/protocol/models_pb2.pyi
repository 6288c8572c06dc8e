from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "task", "answering", "versions", "on_disk")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ANSWERING_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ON_DISK_FIELD_NUMBER: _ClassVar[int]
    name: str
    task: str
    answering: str
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    on_disk: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., task: _Optional[str] = ..., answering: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., on_disk: _Optional[_Iterable[str]] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("version", "labels", "state", "reason", "since_ms", "provider", "parity", "golden", "batched", "batching_reason", "unserved_outputs", "threads", "instances")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    GOLDEN_FIELD_NUMBER: _ClassVar[int]
    BATCHED_FIELD_NUMBER: _ClassVar[int]
    BATCHING_REASON_FIELD_NUMBER: _ClassVar[int]
    UNSERVED_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    version: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    state: str
    reason: str
    since_ms: int
    provider: str
    parity: float
    golden: float
    batched: bool
    batching_reason: str
    unserved_outputs: _containers.RepeatedScalarFieldContainer[str]
    threads: int
    instances: int
    def __init__(self, version: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., since_ms: _Optional[int] = ..., provider: _Optional[str] = ..., parity: _Optional[float] = ..., golden: _Optional[float] = ..., batched: _Optional[bool] = ..., batching_reason: _Optional[str] = ..., unserved_outputs: _Optional[_Iterable[str]] = ..., threads: _Optional[int] = ..., instances: _Optional[int] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "grpcio", "onnxruntime", "provider", "transport", "transport_problem", "metrics_address", "process_id", "started_ms", "usable_cores", "shares_port")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GRPCIO_FIELD_NUMBER: _ClassVar[int]
    ONNXRUNTIME_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    USABLE_CORES_FIELD_NUMBER: _ClassVar[int]
    SHARES_PORT_FIELD_NUMBER: _ClassVar[int]
    version: str
    grpcio: str
    onnxruntime: str
    provider: str
    transport: str
    transport_problem: str
    metrics_address: str
    process_id: int
    started_ms: int
    usable_cores: int
    shares_port: bool
    def __init__(self, version: _Optional[str] = ..., grpcio: _Optional[str] = ..., onnxruntime: _Optional[str] = ..., provider: _Optional[str] = ..., transport: _Optional[str] = ..., transport_problem: _Optional[str] = ..., metrics_address: _Optional[str] = ..., process_id: _Optional[int] = ..., started_ms: _Optional[int] = ..., usable_cores: _Optional[int] = ..., shares_port: _Optional[bool] = ...) -> None: ...

class SetLabelRequest(_message.Message):
    __slots__ = ("model_name", "label", "version")
    MODEL_NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model_name: str
    label: str
    version: int
    def __init__(self, model_name: _Optional[str] = ..., label: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class SetLabelResponse(_message.Message):
    __slots__ = ("written", "reason")
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    written: bool
    reason: str
    def __init__(self, written: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...
