"""Metadata, configuration and statistics of a model, as messages of the protocol."""

from collections.abc import Sequence

from weir.bundle.contract import CONTRACT_PARAMETER, LABELS_PARAMETER
from weir.protocol import inference_pb2 as pb
from weir.protocol import model_config_pb2 as config_pb
from weir.protocol.datatypes import DATATYPES
from weir.server.runtime.signature import TensorSpec
from weir.server.scheduling.request import Model
from weir.server.telemetry.model_stats import Duration, ModelStats

# Triton's name for ONNX models; some clients look at it.
PLATFORM = "onnxruntime_onnx"

# The labels of ImageNet have 21 KB; a configuration stays a small message.
_MAX_LABEL_BYTES = 1 << 16
_NOT_TOLD = {"files", "versions", "commit", "source", "parity", "sharing"}


def metadata(model: Model, versions: Sequence[str]) -> pb.ModelMetadataResponse:
    """Names, datatypes and shapes, the batch axis included, and the ready versions."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=versions,
        platform=PLATFORM,
        inputs=[_tensor(spec) for spec in model.signature.described_inputs],
        outputs=[_tensor(spec) for spec in model.signature.outputs.values()],
    )


def config(model: Model, versions: Sequence[str] = ()) -> config_pb.ModelConfig:
    """Tensors without the batch axis, batching limits, and the ready versions if several.

    For a model with a `config.pbtxt`, it also has the rest that the file states. For a bundle, its
    parameters have the contract and the labels.
    """
    has_rows = model.signature.has_rows
    formats = _formats(model)
    described = config_pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend="onnxruntime",
        default_model_filename=model.file,
        max_batch_size=model.policy.max_rows if has_rows else 0,
        input=[
            config_pb.ModelInput(
                name=spec.name,
                data_type=_config_type(spec),
                format=formats.get(spec.name),
                dims=_dims(spec, has_rows=has_rows),
                reshape=_reshape(spec, has_rows=has_rows),
                optional=model.signature.may_omit(spec.name),
            )
            for spec in model.signature.described_inputs
        ],
        output=[
            config_pb.ModelOutput(
                name=spec.name,
                data_type=_config_type(spec),
                dims=_dims(spec, has_rows=has_rows),
                reshape=_reshape(spec, has_rows=has_rows),
                label_filename=model.label_files.get(spec.name, ""),
            )
            for spec in model.signature.outputs.values()
        ],
        instance_group=[
            config_pb.ModelInstanceGroup(
                name=model.name,
                count=model.instances,
                kind=(
                    config_pb.ModelInstanceGroup.KIND_GPU
                    if model.provider == "cuda"
                    else config_pb.ModelInstanceGroup.KIND_CPU
                ),
            )
        ],
    )
    if len(versions) > 1:
        described.version_policy.specific.versions.extend(map(int, versions))
    else:
        described.version_policy.latest.num_versions = 1
    described.model_transaction_policy.decoupled = model.is_decoupled
    for name, text in _bundle_parameters(model).items():
        described.parameters[name].string_value = text
    if has_rows and model.scheduler.decision.is_batched:
        batching = described.dynamic_batching
        batching.max_queue_delay_microseconds = round(model.policy.max_queue_delay_s * 1e6)
        batching.default_queue_policy.max_queue_size = model.settings.max_queue_rows or 0
    return _with_stated(described, model.stated_config) if model.stated_config else described


def _bundle_parameters(model: Model) -> dict[str, str]:
    """What a client needs of the bundle to measure the model; empty for a plain model."""
    if model.contract is None:
        return {}
    contract = model.contract.model_dump_json(exclude=_NOT_TOLD, exclude_defaults=True)
    labels = {model.label_files[output]: "\n".join(lines) for output, lines in model.labels.items()}
    return {
        CONTRACT_PARAMETER: contract,
        **{
            f"{LABELS_PARAMETER}{file}": text
            for file, text in labels.items()
            if len(text.encode()) <= _MAX_LABEL_BYTES
        },
    }


def _with_stated(
    served: config_pb.ModelConfig, stated: config_pb.ModelConfig
) -> config_pb.ModelConfig:
    """The configuration as served, and what else a `config.pbtxt` states."""
    whole = config_pb.ModelConfig()
    whole.CopyFrom(stated)
    for field in ("input", "output", "instance_group", "version_policy"):
        whole.ClearField(field)
    if served.HasField("dynamic_batching"):
        for field in ("max_queue_delay_microseconds", "default_queue_policy"):
            whole.dynamic_batching.ClearField(field)
    else:
        whole.ClearField("dynamic_batching")
    whole.MergeFrom(served)
    return whole


def _formats(model: Model) -> dict[str, config_pb.ModelInput.Format]:
    """The layout of pictures, by input."""
    if model.stated_config is not None:
        return {tensor.name: tensor.format for tensor in model.stated_config.input}
    preprocessing = model.contract.preprocessing if model.contract else None
    return {preprocessing.input: config_pb.ModelInput.FORMAT_NHWC} if preprocessing else {}


def statistics(stats: ModelStats) -> pb.ModelStatistics:
    """Counts and durations of a version since it was first loaded."""
    with stats.lock:
        sizes = sorted(stats.by_batch_size.items())
        computed = {
            part: _sum([getattr(size, part) for _, size in sizes])
            for part in ("compute_input", "compute_infer", "compute_output")
        }
        return pb.ModelStatistics(
            name=stats.model,
            version=stats.version,
            last_inference=round(stats.last_inference_epoch_s * 1000),
            inference_count=stats.rows,
            execution_count=stats.batches,
            inference_stats=pb.InferStatistics(
                success=_duration(stats.success),
                fail=_duration(stats.failure),
                queue=_duration(stats.queue),
                **computed,
            ),
            batch_stats=[
                pb.InferBatchStatistics(
                    batch_size=rows,
                    compute_input=_duration(size.compute_input),
                    compute_infer=_duration(size.compute_infer),
                    compute_output=_duration(size.compute_output),
                )
                for rows, size in sizes
            ],
        )


def _tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.wire_shape()
    )


def _dims(spec: TensorSpec, *, has_rows: bool) -> tuple[int, ...]:
    # An output may lack the batch axis of the inputs.
    is_row = has_rows and not (spec.axes and isinstance(spec.axes[0], int))
    return spec.wire_shape()[1:] if is_row else spec.wire_shape()


def _reshape(spec: TensorSpec, *, has_rows: bool) -> config_pb.ModelTensorReshape | None:
    if spec.reshape is None:
        return None
    return config_pb.ModelTensorReshape(shape=spec.reshape[1:] if has_rows else spec.reshape)


def _config_type(spec: TensorSpec) -> config_pb.DataType:
    return config_pb.DataType.Name(DATATYPES[spec.datatype].config)  # type: ignore[return-value]


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=round(duration.seconds * 1e9))


def _sum(durations: Sequence[Duration]) -> pb.StatisticDuration:
    total = Duration()
    for duration in durations:
        total.add(duration.seconds, duration.count)
    return _duration(total)
