"""Formats of models other than ONNX, known by the suffix of their files.

The server remarks on such a file, and import refuses it.
"""

from pathlib import PurePath

_KINDS = {
    ".bin": "a file of another format",
    ".caffemodel": "a Caffe file",
    ".ckpt": "a checkpoint",
    ".engine": "a TensorRT file",
    ".gguf": "a GGUF file",
    ".h5": "a Keras file",
    ".joblib": "a pickle",
    ".keras": "a Keras file",
    ".mlmodel": "a Core ML file",
    ".ort": "a file of the ORT format",
    ".pb": "a TensorFlow file",
    ".pickle": "a pickle",
    ".pkl": "a pickle",
    ".plan": "a TensorRT file",
    ".pt": "a PyTorch file",
    ".pt2": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".safetensors": "weights without a graph",
    ".tflite": "a TensorFlow Lite file",
    ".torchscript": "a PyTorch file",
    ".trt": "a TensorRT file",
}


def model_format(name: str) -> str | None:
    """The format of a model that a file's suffix stands for, in words; None for ONNX and others."""
    return _KINDS.get(PurePath(name).suffix.lower())


def is_model_file(name: str) -> bool:
    """Whether a file has the suffix of a model in another format than ONNX."""
    return model_format(name) is not None
