"""A model told in the protocol's words: metadata, configuration, statistics."""

from collections.abc import Mapping, Sequence

from weir.protocol import inference_pb2 as pb
from weir.protocol import model_config_pb2 as config_pb
from weir.protocol.datatypes import DATATYPES
from weir.server.generation.served import ServedPair
from weir.server.repository.served_model import ServedModel
from weir.server.runtime.signature import Signature, TensorSpec
from weir.server.telemetry.model_stats import Duration

# Triton's name for ONNX models; some clients look at it.
PLATFORM = "onnxruntime_onnx"


def metadata(model: ServedModel | ServedPair, versions: Sequence[str]) -> pb.ModelMetadataResponse:
    """Names, datatypes and shapes, the batch axis included; and every version that answers."""
    return pb.ModelMetadataResponse(
        name=model.name,
        versions=versions,
        platform=PLATFORM,
        inputs=[_tensor(spec) for spec in model.signature.inputs.values()],
        outputs=[_tensor(spec) for spec in model.signature.outputs.values()],
    )


def config(model: ServedModel | ServedPair, versions: Sequence[str] = ()) -> config_pb.ModelConfig:
    """The same, without the batch axis, and the limits of batching; and the versions that answer, if several."""
    has_rows = model.signature.has_rows
    labels = _label_files(model)
    described = config_pb.ModelConfig(
        name=model.name,
        platform=PLATFORM,
        backend="onnxruntime",
        default_model_filename=model.file,
        max_batch_size=model.policy.max_rows if has_rows else 0,
        input=[_input(spec, model.signature) for spec in model.signature.inputs.values()],
        output=[
            config_pb.ModelOutput(
                name=spec.name,
                data_type=_config_type(spec),
                dims=_dims(spec, has_rows=has_rows),
                label_filename=labels.get(spec.name, ""),
            )
            for spec in model.signature.outputs.values()
        ],
        instance_group=[
            config_pb.ModelInstanceGroup(
                name=model.name,
                count=model.settings.instances or 1,
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
    described.model_transaction_policy.decoupled = isinstance(model, ServedPair)
    if has_rows and (isinstance(model, ServedPair) or model.scheduler.is_batched):
        batching = described.dynamic_batching
        batching.max_queue_delay_microseconds = round(model.policy.max_queue_delay_s * 1e6)
        batching.default_queue_policy.max_queue_size = model.settings.max_queue_rows or 0
    return described


def statistics(model: ServedModel | ServedPair) -> pb.ModelStatistics:
    """Counts and durations since the model was first loaded."""
    metrics = model.metrics
    with metrics.lock:
        sizes = sorted(metrics.by_batch_size.items())
        computed = {
            part: _sum([getattr(size, part) for _, size in sizes])
            for part in ("compute_input", "compute_infer", "compute_output")
        }
        return pb.ModelStatistics(
            name=model.name,
            version=model.version,
            last_inference=round(metrics.last_inference_epoch_s * 1000),
            inference_count=metrics.rows,
            execution_count=metrics.batches,
            inference_stats=pb.InferStatistics(
                success=_duration(metrics.success),
                fail=_duration(metrics.failure),
                queue=_duration(metrics.queue),
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


def _label_files(model: ServedModel | ServedPair) -> Mapping[str, str]:
    if isinstance(model, ServedModel) and model.config is not None:
        return model.config.label_files
    return model.contract.labels if model.contract else {}


def _tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.wire_shape()
    )


def _input(spec: TensorSpec, signature: Signature) -> config_pb.ModelInput:
    return config_pb.ModelInput(
        name=spec.name,
        data_type=_config_type(spec),
        dims=_dims(spec, has_rows=signature.has_rows),
        optional=spec.name in signature.optional,
    )


def _dims(spec: TensorSpec, *, has_rows: bool) -> tuple[int, ...]:
    return spec.wire_shape()[1:] if has_rows else spec.wire_shape()


def _config_type(spec: TensorSpec) -> config_pb.DataType:
    return config_pb.DataType.Name(DATATYPES[spec.datatype].config)  # type: ignore[return-value]


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=round(duration.seconds * 1e9))


def _sum(durations: Sequence[Duration]) -> pb.StatisticDuration:
    total = Duration()
    for duration in durations:
        total.add(duration.seconds, duration.count)
    return _duration(total)
