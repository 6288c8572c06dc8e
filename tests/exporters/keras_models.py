"""Models of Keras, written by tf2onnx, with Keras's own predictions.

A program of its own: TensorFlow takes long to import and writes to standard error.

    python -m tests.exporters.keras_models MODELS PREDICTIONS
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf2onnx

from tests.helpers.onnx_models import write_plain

OPSET = 17


def main(models: Path, predictions: Path) -> None:
    """Write a repository of two models, and a file with inputs and predictions of each."""
    keras.utils.set_random_seed(0)
    pictures = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    sentences = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(20, 4),
            keras.layers.GRU(5),
            keras.layers.Dense(2),
        ]
    )
    chance = np.random.default_rng(0)
    inputs = {
        "pictures": chance.normal(size=(5, 8, 8, 3)).astype(np.float32),
        "sentences": chance.integers(20, size=(5, 7), dtype=np.int32),
    }
    found = {}
    for name, model in (("pictures", pictures), ("sentences", sentences)):
        array = inputs[name]
        shape = (None, *array.shape[1:]) if name == "pictures" else (None, None)
        signature = [tf.TensorSpec(shape, array.dtype, name="x")]
        function = tf.function(lambda x, model=model: {"y": model(x)}, input_signature=signature)
        written, _ = tf2onnx.convert.from_function(function, signature, opset=OPSET)
        write_plain(models, name, written.SerializeToString())
        found[f"{name}_x"], found[f"{name}_y"] = array, model.predict(array, verbose=0)
    np.savez(predictions, allow_pickle=False, **found)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
