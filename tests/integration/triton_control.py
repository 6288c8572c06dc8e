"""Model control by the unmodified `tritonclient`, as JSON on standard output; see `triton_client`.

python triton_control.py HOST:PORT
"""

import json
import sys
from typing import Any

import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]


def main(target: str) -> None:
    client = triton.InferenceServerClient(target)

    def result_of(method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(client, method)(*arguments, **options)
        except InferenceServerException as error:
            return [error.status(), error.message()]

    def index() -> list[list[str]]:
        models = client.get_model_repository_index(as_json=True)["models"]
        return [[model["name"], model.get("version", ""), model["state"]] for model in models]

    answers = {
        "index": index(),
        "unload": result_of("unload_model", "fingerprint", unload_dependents=True),
        "ready after unload": result_of("is_model_ready", "fingerprint"),
        "load": result_of("load_model", "fingerprint"),
        "ready after load": result_of("is_model_ready", "fingerprint"),
        "config": result_of("load_model", "fingerprint", config="{}"),
        "files": result_of(
            "load_model", "fingerprint", config="{}", files={"file:1/model.onnx": b"x"}
        ),
        "unknown": result_of("load_model", "unknown"),
        "unknown unload": result_of("unload_model", "unknown"),
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
