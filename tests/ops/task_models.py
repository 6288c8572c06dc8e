"""A small model of each task, for the playground and the calls that it shows."""

from pathlib import Path

from onnx import TensorProto

from tests.helpers import onnx_models, pairs, text_models
from tests.integration.generation import publish_endless
from weir.bundle import writer
from weir.bundle.golden import encode
from weir.bundle.sequences import PaddedAxis

_LONG = 200
TYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "text": TensorProto.STRING,
}
"""Of the models that give their input back."""


def publish(models: Path) -> None:
    """Write a repository; texts of `tagger` and `classifier` have up to 200 tokens."""
    time = {"time": PaddedAxis(maximum=_LONG, lengths="lengths", padding={"tokens": 0})}
    padding = {"tokens": 0, "characters": 0}
    text_models.write_classifier(models, padded_axes=time)
    text_models.write_tagger(
        models,
        padded_axes={
            "time": PaddedAxis(maximum=_LONG, lengths="lengths", padding=padding),
            "letters": PaddedAxis(maximum=_LONG, padding={"characters": 0}),
        },
    )
    text_models.write_forecaster(models)
    text_models.write_seasonal(models)
    text_models.write_seasonal(models, "awkward", target='it\'s "net", ü')
    files = {
        "encoder.onnx": pairs.encoder(),
        "decoder.onnx": pairs.decoder(),
        "golden.npz": encode(pairs.WHOLE_GOLDEN),
        "golden.encoder.npz": encode(pairs.ENCODER_GOLDEN),
        "golden.decoder.npz": encode(pairs.DECODER_GOLDEN),
        **pairs.VOCABULARIES,
    }
    writer.write(files, pairs.speaking(pairs.CONTRACT), models, "speller")
    publish_endless(models)
    for name, datatype in TYPES.items():
        onnx_models.write_plain(models, name, onnx_models.echo(datatype, ("batch", 2)))
