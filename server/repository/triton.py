"""Triton's `config.pbtxt`, which describes a plain model beside its version directories.

Rules:

- Fields without effect are named in one warning. Of the fields that `model_config.proto` does not
  declare, the first is named.
- A field is refused if without it requests would have other shapes, or other numbers of responses.
- A file that describes inputs or outputs and no `max_batch_size` means 0, as in Triton.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path

from google.protobuf import text_format
from google.protobuf.message import Message

from weir.bundle import reader
from weir.bundle.escaping import printable
from weir.bundle.repository_files import NO_LINKS, LinkRoots
from weir.bundle.versions import VersionPolicy, is_version
from weir.protocol import model_config_pb2 as pb
from weir.protocol.datatypes import DATATYPES
from weir.server.config import AUTO, ModelSettings
from weir.server.errors import ModelLoadError
from weir.server.runtime.signature import MAX_RANK

logger = logging.getLogger(__name__)

FILE_NAME = "config.pbtxt"
MAX_BYTES = 1 << 20

# The parser copies the line that it is in for every value: 1 MiB of values on one took it 110 s.
_MAX_LINE = 16_384
_MAX_ROWS = 1_000_000
_MAX_DELAY_US = 86_400 * 10**6
# Each is a thread; an operator may set more.
_MAX_INSTANCES = 1024
_MAX_QUOTED = 120
_DATATYPES = {row.config: row.name for row in DATATYPES.values()}
_PROVIDERS = {pb.ModelInstanceGroup.KIND_GPU: "cuda", pb.ModelInstanceGroup.KIND_CPU: "cpu"}
_KINDS = {"cuda": "KIND_GPU", "cpu": "KIND_CPU"}
_BACKENDS = ("", "onnxruntime")
_PLATFORMS = ("", "onnxruntime_onnx")

_REFUSED = {
    "sequence_batching": "sequences of requests are not supported",
    "ensemble_scheduling": "ensembles are not supported",
    "batch_input": "inputs that the server makes of a batch are not supported",
    "batch_output": "outputs that the server cuts out of a batch are not supported",
}
_USED = frozenset(
    (
        "name", "platform", "backend", "max_batch_size", "default_model_filename",
        "input.name", "input.data_type", "input.format", "input.dims", "input.reshape",
        "input.optional", "input.allow_ragged_batch",
        "output.name", "output.data_type", "output.dims", "output.reshape", "output.label_filename",
        "dynamic_batching.max_queue_delay_microseconds",
        "instance_group.count", "instance_group.kind",
        "version_policy.latest.num_versions", "version_policy.all",
        "version_policy.specific.versions", "model_transaction_policy.decoupled",
    )
)  # fmt: skip
# Messages whose fields are named one by one.
_ENTERED = frozenset(
    ("optimization", *(path.rsplit(".", end)[0] for path in _USED for end in (1, 2)))
)
_PLACE = re.compile(r"\d+:\d+ : (?:'.*': )?", re.DOTALL)
_UNDECLARED = re.compile(r'Message type "([\w.]+)" has no field named "(\w+)"')


@dataclass(frozen=True, slots=True)
class TritonTensor:
    """An input or output in the configuration; None where the configuration says nothing.

    Attributes:
        datatype: in the protocol's words.
        dims: without the batch axis where the model has one; -1 is any size.
        reshape: the shape that the graph has where requests have `dims`.
        is_optional: whether a request may leave the input out.
        label_file: beside the version directories; of an output.
    """

    name: str
    datatype: str | None = None
    dims: tuple[int, ...] | None = None
    reshape: tuple[int, ...] | None = None
    is_optional: bool = False
    label_file: str | None = None


@dataclass(frozen=True, slots=True)
class TritonConfig:
    """Configuration of a plain model; None where the file says nothing.

    Attributes:
        max_batch_size: 0: the model has no batch axis, and its dims are whole shapes.
        file: the graph's, in the version directory.
        instances: of all groups together.
        providers: of the groups, `cpu` or `cuda`.
        unused: declared fields without effect, as dotted paths.
        undeclared: the first field that is not declared, with its line.
        message: the file as parsed, without contents that are not declared.
    """

    max_batch_size: int | None = None
    inputs: tuple[TritonTensor, ...] = ()
    outputs: tuple[TritonTensor, ...] = ()
    file: str = reader.MODEL
    max_queue_delay_s: float | None = None
    instances: int | None = None
    providers: frozenset[str] = frozenset()
    policy: VersionPolicy | None = None
    unused: tuple[str, ...] = ()
    undeclared: str | None = None
    message: pb.ModelConfig = dataclass_field(default_factory=pb.ModelConfig, compare=False)

    @property
    def label_files(self) -> dict[str, str]:
        """The file with the labels of each output that has some."""
        return {one.name: one.label_file for one in self.outputs if one.label_file is not None}


def read_config(
    model_directory: Path, name: str | None = None, links: LinkRoots = NO_LINKS
) -> TritonConfig | None:
    """Read a model's `config.pbtxt`; None if there is none. Raises as `read` does.

    Args:
        name: in requests; under another name than the directory's, the file may have any name.
    """
    data = reader.read_model_file(model_directory, FILE_NAME, MAX_BYTES, links)
    if data is None:
        return None
    is_renamed = name not in (None, model_directory.name)
    return parse(data, None if is_renamed else model_directory.name)


def parse(data: bytes, model_name: str | None) -> TritonConfig:
    """Parse the bytes of a model's `config.pbtxt`; `model_name` None: it may have any name.

    Raises:
        ModelLoadError: they are malformed, contradict themselves, or need an unsupported feature.
    """
    config, undeclared = _parse_text(data)
    found = dict.fromkeys(_paths(config))
    _check_supported(config, found, model_name)
    max_batch_size = _within("max_batch_size", config.max_batch_size, 0, _MAX_ROWS)
    is_sized = config.HasField("max_batch_size") or bool(config.input or config.output)
    delay_us = _within(
        "dynamic_batching.max_queue_delay_microseconds",
        config.dynamic_batching.max_queue_delay_microseconds,
        0,
        _MAX_DELAY_US,
    )
    providers = (_PROVIDERS.get(group.kind) for group in config.instance_group)
    return TritonConfig(
        max_batch_size=max_batch_size if is_sized else None,
        inputs=_tensors("input", config.input),
        outputs=_tensors("output", config.output),
        file=_file("default_model_filename", config.default_model_filename) or reader.MODEL,
        max_queue_delay_s=delay_us / 1e6 if delay_us else None,
        instances=_instances(config.instance_group),
        providers=frozenset(provider for provider in providers if provider is not None),
        policy=_policy(config.version_policy),
        unused=tuple(path for path in found if path not in _USED),
        undeclared=undeclared,
        message=_declared(config),
    )


def with_config(settings: ModelSettings, config: TritonConfig | None) -> ModelSettings:
    """Settings of a model; the configuration's values where the operator sets none."""
    if config is None:
        return settings
    own = {
        "max_batch_rows": config.max_batch_size or None,
        "max_queue_delay_s": config.max_queue_delay_s,
        "instances": config.instances,
    }
    unset = {
        name: value
        for name, value in own.items()
        if value is not None and getattr(settings, name) in (None, AUTO)
    }
    return settings.model_copy(update=unset)


def warn(model_name: str, config: TritonConfig, provider: str) -> None:
    """Log the parts of a configuration that have no effect."""
    if config.unused:
        logger.warning(
            "config.pbtxt has fields without effect model=%s fields=%s",
            model_name, ", ".join(config.unused),
        )  # fmt: skip
    if config.undeclared:
        logger.warning(
            "config.pbtxt has unknown fields model=%s first=%s", model_name, config.undeclared
        )
    for other in sorted(config.providers - {provider}):
        logger.warning(
            "config.pbtxt asks for another device model=%s instance_group.kind=%s provider=%s",
            model_name, _KINDS[other], provider,
        )  # fmt: skip


def _parse_text(data: bytes) -> tuple[pb.ModelConfig, str | None]:
    """The message, and the first field that is not declared, with its line."""
    if len(data) > MAX_BYTES:
        raise _failed(f"expected at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _failed(f"line {line}: expected UTF-8, {error.reason}") from error
    for number, content in enumerate(text.split("\n"), 1):
        if len(content) > _MAX_LINE:
            raise _failed(f"line {number}: expected at most {_MAX_LINE} characters")
    try:
        return text_format.Parse(text, pb.ModelConfig()), None
    except text_format.ParseError as error:
        refusal = error
    try:
        message = text_format.Parse(text, pb.ModelConfig(), allow_unknown_field=True)
    except text_format.ParseError as error:
        # The parser gives no line for a field that is not declared.
        place = error.GetLine()
        where = "a field without effect" if place is None else f"line {place}"
        raise _failed(f"{where}: {_shown(_PLACE.sub('', str(error), count=1))}") from error
    except RecursionError:
        raise _failed("expected fewer levels of nesting") from None
    return message, _undeclared(refusal)


def _undeclared(refusal: text_format.ParseError) -> str | None:
    """The field that the strict parser refused; None in contents that are not declared at all."""
    match = _UNDECLARED.search(str(refusal))
    if match is None or match[1] == pb.Unread.DESCRIPTOR.full_name:
        return None
    return f"{_shown(match[2])} (line {refusal.GetLine()})"


def _declared(config: pb.ModelConfig) -> pb.ModelConfig:
    """A copy without the messages whose contents are not declared."""
    copy = pb.ModelConfig()
    copy.CopyFrom(config)
    _clear_unread(copy)
    return copy


def _clear_unread(message: Message) -> None:
    for each, value in message.ListFields():
        if each.message_type is pb.Unread.DESCRIPTOR:
            message.ClearField(each.name)
        elif each.message_type is not None and not each.message_type.GetOptions().map_entry:
            for part in value if each.is_repeated else (value,):
                _clear_unread(part)


def _paths(message: Message, prefix: str = "") -> Iterator[str]:
    """The dotted path of each field that is set."""
    for field, value in message.ListFields():
        path = prefix + field.name
        if path in _USED or path not in _ENTERED:
            yield path
        else:
            for each in value if field.is_repeated else (value,):
                yield from _paths(each, f"{path}.")


def _check_supported(config: pb.ModelConfig, found: Iterable[str], model_name: str | None) -> None:
    if model_name is not None and config.name not in ("", model_name):
        raise _failed(
            f"name: expected {model_name!r} as the directory's, got {_quote(config.name)}"
        )
    for field, known in (("backend", _BACKENDS), ("platform", _PLATFORMS)):
        value = getattr(config, field)
        if value not in known:
            raise _failed(
                f"{field}: expected {known[1]!r}, as only ONNX models are served, "
                f"got {_quote(value)}"
            )
    for path, reason in _REFUSED.items():
        if path in found:
            raise _failed(f"{path}: {reason}")
    if config.model_transaction_policy.decoupled:
        raise _failed(
            "model_transaction_policy.decoupled: several responses to a request are not supported"
        )
    for tensor in config.input:
        if tensor.allow_ragged_batch:
            raise _failed(
                f"input {_quote(tensor.name)}: allow_ragged_batch: rows of unequal shapes are "
                "not joined"
            )


def _tensors(
    field: str, configured: Sequence[pb.ModelInput] | Sequence[pb.ModelOutput]
) -> tuple[TritonTensor, ...]:
    tensors: dict[str, TritonTensor] = {}
    for each in configured:
        where = f"{field} {_quote(each.name)}"
        if not each.name:
            raise _failed(f"{field}: expected a name, got none")
        if each.name in tensors:
            raise _failed(f"{where} is described twice")
        if each.data_type and each.data_type not in _DATATYPES:
            raise _failed(f"{where}: data_type: expected a known one, got {each.data_type}")
        _check_sizes(f"{where}: dims", each.dims)
        dims = tuple(each.dims) or None
        tensors[each.name] = TritonTensor(
            name=each.name,
            datatype=_DATATYPES.get(each.data_type),
            dims=dims,
            reshape=_reshape(where, dims, each.reshape.shape) if each.HasField("reshape") else None,
            is_optional=isinstance(each, pb.ModelInput) and each.optional,
            label_file=_file(f"{where}: label_filename", getattr(each, "label_filename", "")),
        )
    return tuple(tensors.values())


def _reshape(where: str, dims: tuple[int, ...] | None, shape: Sequence[int]) -> tuple[int, ...]:
    """A `reshape`, as Triton takes it: between two axes of any size there are as many elements."""
    _check_sizes(f"{where}: reshape", shape)
    if dims is None:
        raise _failed(f"{where}: reshape: expected dims too, got none")
    if _elements(dims) != _elements(shape):
        raise _failed(
            f"{where}: reshape: expected as many elements as dims {list(dims)} has, "
            f"got {list(shape)}"
        )
    return tuple(shape)


def _elements(sizes: Sequence[int]) -> list[int]:
    """The elements before, between and after the axes of any size."""
    counts = [1]
    for size in sizes:
        if size == -1:
            counts.append(1)
        else:
            counts[-1] *= size
    return counts


def _check_sizes(where: str, sizes: Sequence[int]) -> None:
    if strays := [size for size in sizes if size < 1 and size != -1]:
        raise _failed(f"{where}: expected sizes from 1, or -1, got {strays[0]}")
    if len(sizes) > MAX_RANK:
        raise _failed(f"{where}: expected at most {MAX_RANK} sizes, got {len(sizes)}")


def _instances(groups: Sequence[pb.ModelInstanceGroup]) -> int | None:
    """A group without a count is one instance."""
    if not groups:
        return None
    counts = [_within("instance_group.count", group.count, 0, _MAX_INSTANCES) for group in groups]
    total = sum(count or 1 for count in counts)
    return _within("instance_group.count of all groups", total, 1, _MAX_INSTANCES)


def _policy(policy: pb.ModelVersionPolicy) -> VersionPolicy | None:
    match policy.WhichOneof("policy_choice"):
        case "latest":
            field, latest = "version_policy.latest.num_versions", policy.latest.num_versions
            return VersionPolicy(latest=_within(field, latest, 1, 2**32 - 1))
        case "specific":
            numbers = tuple(policy.specific.versions)
            if not numbers or not all(map(is_version, numbers)):
                expected = "version_policy.specific.versions: expected versions from 1"
                raise _failed(f"{expected}, got {_shown(str(list(numbers)))}")
            return VersionPolicy(specific=numbers)
        case "all":
            return VersionPolicy()
    return None


def _file(field: str, name: str) -> str | None:
    """A file name without directories; None for no name."""
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
    """The text on one line, shortened."""
    line = printable(text[:_MAX_QUOTED])
    return line if len(text) <= _MAX_QUOTED else f"{line}..."
