"""What a `config.pbtxt` of Triton says of a plain model, as far as Weir heeds it.

Rules:

- A field that is there and not heeded is named (`unused`), whether `model_config.proto` declares it or not.
- What would change the shapes of requests or the number of their answers, and is not offered, is refused.
- A file that describes inputs or outputs and no `max_batch_size` means 0, as in Triton.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from google.protobuf import text_format

from weir.bundle.reader import MODEL
from weir.bundle.versions import Policy, is_version
from weir.bundle.wording import printable
from weir.protocol import model_config_pb2 as pb
from weir.protocol.datatypes import DATATYPES
from weir.server.config import ModelSettings
from weir.server.errors import ModelLoadError
from weir.server.repository.triton_fields import paths, unused, with_colons
from weir.server.runtime.signature import MAX_RANK

FILE_NAME = "config.pbtxt"
MAX_BYTES = 1 << 20

_MAX_ROWS = 1_000_000
_MAX_DELAY_US = 86_400 * 10**6
# Each is a thread; an operator may set more.
_MAX_INSTANCES = 1024
_MAX_QUOTED = 120
_DATATYPES = {row.config: row.name for row in DATATYPES.values()}
_KINDS = {pb.ModelInstanceGroup.KIND_GPU: "cuda", pb.ModelInstanceGroup.KIND_CPU: "cpu"}
_BACKENDS = ("", "onnxruntime")
_PLATFORMS = ("", "onnxruntime_onnx")

_REFUSED = {
    "sequence_batching": "sequences of requests are not offered",
    "ensemble_scheduling": "ensembles are not offered",
    "batch_input": "inputs that the server makes of a batch are not offered",
    "batch_output": "outputs that the server cuts out of a batch are not offered",
    "input.reshape": "reshaping is not offered, and without it the graph gets other shapes",
    "output.reshape": "reshaping is not offered, and without it the client gets other shapes",
}
_PLACE = re.compile(r"\d+:\d+ : (?:'.*': )?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TritonTensor:
    """What is said of an input or output; what is None is not said.

    Attributes:
        name: of the graph's tensor.
        datatype: in the protocol's words.
        dims: without the batch axis where the model has one; -1 is any size.
        label_file: beside the version directories; of an output.
    """

    name: str
    datatype: str | None = None
    dims: tuple[int, ...] | None = None
    label_file: str | None = None


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """What the file says; what is None is not said, and left to the graph or to defaults.

    Attributes:
        max_batch_size: 0: the model has no batch axis, and its dims are whole shapes.
        file: the graph's, in the version directory.
        instances: of all groups together.
        providers: that groups ask for, `cpu` or `cuda`.
        policy: which versions are served.
        unused: fields that are there and not heeded, as dotted paths.
    """

    max_batch_size: int | None = None
    inputs: tuple[TritonTensor, ...] = ()
    outputs: tuple[TritonTensor, ...] = ()
    file: str = MODEL
    max_queue_delay_s: float | None = None
    instances: int | None = None
    providers: frozenset[str] = frozenset()
    policy: Policy | None = None
    unused: tuple[str, ...] = ()

    @property
    def label_files(self) -> dict[str, str]:
        """The file with the labels of each output that has some."""
        return {one.name: one.label_file for one in self.outputs if one.label_file is not None}


def parse(data: bytes, model_name: str) -> TritonConfig:
    """What the bytes of a model's `config.pbtxt` say.

    Raises:
        ModelLoadError: they are malformed, contradict themselves, or ask for what is not offered.
    """
    config, found = _read(data)
    _check_offered(config, found, model_name)
    max_batch_size = _within("max_batch_size", config.max_batch_size, 0, _MAX_ROWS)
    is_sized = "max_batch_size" in found or bool(config.input or config.output)
    asked = (_KINDS.get(group.kind) for group in config.instance_group)
    return TritonConfig(
        max_batch_size=max_batch_size if is_sized else None,
        inputs=_tensors("input", config.input),
        outputs=_tensors("output", config.output),
        file=_file("default_model_filename", config.default_model_filename) or MODEL,
        max_queue_delay_s=_delay_s(config),
        instances=_instances(config.instance_group),
        providers=frozenset(provider for provider in asked if provider is not None),
        policy=_policy(config.version_policy),
        unused=unused(found),
    )


def with_config(settings: ModelSettings, config: TritonConfig | None) -> ModelSettings:
    """The operator's word, and that of a `config.pbtxt` where the operator has none."""
    if config is None:
        return settings
    own = {
        "max_batch_rows": config.max_batch_size or None,
        "max_queue_delay_s": config.max_queue_delay_s,
        "instances": config.instances,
    }
    unset = {name: value for name, value in own.items() if getattr(settings, name) is None}
    return settings.model_copy(update=unset)


def _read(data: bytes) -> tuple[pb.ModelConfig, Collection[str]]:
    """The message, and the path of every field that is there, declared or not."""
    if len(data) > MAX_BYTES:
        raise _failed(f"expected at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8-sig")
        found = dict.fromkeys(paths(text))
        message = pb.ModelConfig()
        return text_format.Parse(with_colons(text), message, allow_unknown_field=True), found
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _failed(f"line {line}: expected UTF-8, {error.reason}") from error
    except text_format.ParseError as error:
        # Of a field it does not know, the parser tells no line.
        place = error.GetLine()
        where = "a field without effect" if place is None else f"line {place}"
        raise _failed(f"{where}: {_shown(_PLACE.sub('', str(error), count=1))}") from error


def _check_offered(config: pb.ModelConfig, found: Collection[str], model_name: str) -> None:
    if config.name not in ("", model_name):
        raise _failed(
            f"name: expected {model_name!r} as the directory's, got {_quote(config.name)}"
        )
    for field, known in (("backend", _BACKENDS), ("platform", _PLATFORMS)):
        value = getattr(config, field)
        if value not in known:
            raise _failed(
                f"{field}: expected {known[1]!r}, as only ONNX models are served, got {_quote(value)}"
            )
    for path, reason in _REFUSED.items():
        if path in found:
            raise _failed(f"{path}: {reason}")
    if config.model_transaction_policy.decoupled:
        raise _failed(
            "model_transaction_policy.decoupled: several answers a request are not offered"
        )
    for tensor in config.input:
        if tensor.allow_ragged_batch:
            raise _failed(
                f"input {_quote(tensor.name)}: allow_ragged_batch: rows of unequal shapes are not joined"
            )


def _tensors(
    field: str, told: Sequence[pb.ModelInput] | Sequence[pb.ModelOutput]
) -> tuple[TritonTensor, ...]:
    tensors: dict[str, TritonTensor] = {}
    for each in told:
        where = f"{field} {_quote(each.name)}"
        if not each.name:
            raise _failed(f"{field}: expected a name, got none")
        if each.name in tensors:
            raise _failed(f"{where} is described twice")
        if each.data_type and each.data_type not in _DATATYPES:
            raise _failed(f"{where}: data_type: expected a known one, got {each.data_type}")
        if strays := [size for size in each.dims if size < 1 and size != -1]:
            raise _failed(f"{where}: dims: expected sizes from 1, or -1, got {strays[0]}")
        if len(each.dims) > MAX_RANK:
            raise _failed(f"{where}: dims: expected at most {MAX_RANK} sizes, got {len(each.dims)}")
        tensors[each.name] = TritonTensor(
            name=each.name,
            datatype=_DATATYPES.get(each.data_type),
            dims=tuple(each.dims) or None,
            label_file=_file(f"{where}: label_filename", getattr(each, "label_filename", "")),
        )
    return tuple(tensors.values())


def _delay_s(config: pb.ModelConfig) -> float | None:
    field = "dynamic_batching.max_queue_delay_microseconds"
    delay_us = _within(
        field, config.dynamic_batching.max_queue_delay_microseconds, 0, _MAX_DELAY_US
    )
    return delay_us / 1e6 if delay_us else None


def _instances(groups: Sequence[pb.ModelInstanceGroup]) -> int | None:
    """A group without a count is one instance."""
    if not groups:
        return None
    counts = [_within("instance_group.count", group.count, 0, _MAX_INSTANCES) for group in groups]
    total = sum(count or 1 for count in counts)
    return _within("instance_group.count of all groups", total, 1, _MAX_INSTANCES)


def _policy(policy: pb.ModelVersionPolicy) -> Policy | None:
    match policy.WhichOneof("policy_choice"):
        case "latest":
            field, latest = "version_policy.latest.num_versions", policy.latest.num_versions
            return Policy(latest=_within(field, latest, 1, 2**32 - 1))
        case "specific":
            versions = tuple(policy.specific.versions)
            if not versions or not all(map(is_version, versions)):
                expected = "version_policy.specific.versions: expected versions from 1"
                raise _failed(f"{expected}, got {_shown(str(list(versions)))}")
            return Policy(specific=versions)
        case "all":
            return Policy()
    return None


def _file(field: str, name: str) -> str | None:
    """A plain name in a directory that is known; None for none."""
    if name in (".", "..") or re.search(r"[/\\\0]", name):
        raise _failed(
            f"{field}: expected the name of a file, without directories, got {_quote(name)}"
        )
    return name or None


def _within(field: str, number: int, least: int, most: int) -> int:
    if not least <= number <= most:
        raise _failed(f"{field}: expected {least} to {most}, got {number}")
    return number


def _failed(problem: str) -> ModelLoadError:
    return ModelLoadError(f"{FILE_NAME}: {problem}")


def _quote(text: str) -> str:
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}...")


def _shown(text: str) -> str:
    """As it may stand in a reason: on one line, and short."""
    line = printable(text[:_MAX_QUOTED])
    return line if len(text) <= _MAX_QUOTED else f"{line}..."
