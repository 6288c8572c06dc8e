"""What the unmodified `tritonclient` sees of a repository that was made for Triton, as JSON.

A program of its own, as `triton_client.py` is.

    python triton_repository.py HOST:PORT
"""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

NAMES = ("colours", "sum_of_steps", "free")


def main(target: str) -> None:
    with triton.InferenceServerClient(target) as client:
        found = {
            "ready": {name: client.is_model_ready(name) for name in NAMES},
            "metadata": {name: client.get_model_metadata(name, as_json=True) for name in NAMES},
            "config": {
                name: client.get_model_config(name, as_json=True)["config"] for name in NAMES
            },
            "index": client.get_model_repository_index(as_json=True)["models"],
            "classes": classes(client),
            "sum": infer(client, "sum_of_steps", "x", np.ones((3, 2), np.float32)),
            "free": infer(client, "free", "x", np.arange(6, dtype=np.float32).reshape(2, 3)),
            "refused": {
                "rows": refusal(client, "free", np.zeros((5, 3), np.float32)),
                "dims": refusal(client, "free", np.zeros((1, 4), np.float32)),
                "shape": refusal(client, "sum_of_steps", np.zeros((3, 4), np.float32)),
            },
        }
        json.dump(found, sys.stdout)


def classes(client: Any) -> Any:
    """The two best classes of a red and of a blue picture."""
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    pictures[0, ..., 0], pictures[0, ..., 1] = 3, 1
    pictures[1, ..., 2], pictures[1, ..., 0] = 3, 1
    wanted = triton.InferRequestedOutput("probabilities", class_count=2)
    answer = client.infer("colours", [as_input("image", pictures, "UINT8")], outputs=[wanted])
    return [[entry.decode() for entry in row] for row in answer.as_numpy("probabilities")]


def infer(client: Any, model: str, name: str, values: Any) -> Any:
    return client.infer(model, [as_input(name, values, "FP32")]).as_numpy("y").tolist()


def refusal(client: Any, model: str, values: Any) -> Any:
    try:
        infer(client, model, "x", values)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return "no error"


def as_input(name: str, values: Any, datatype: str) -> Any:
    tensor = triton.InferInput(name, values.shape, datatype)
    tensor.set_data_from_numpy(values)
    return tensor


if __name__ == "__main__":
    main(sys.argv[1])
