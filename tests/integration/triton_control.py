"""What the unmodified `tritonclient` can change of a server, as JSON on standard output; see `triton_client`.

python triton_control.py HOST:PORT
"""

import json
import sys
from typing import Any

import tritonclient.grpc as triton  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]


def main(target: str) -> None:
    client = triton.InferenceServerClient(target)

    def told(method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(client, method)(*arguments, **options)
        except InferenceServerException as error:
            return [error.status(), error.message()]

    def index() -> list[list[str]]:
        models = client.get_model_repository_index(as_json=True)["models"]
        return [[model["name"], model.get("version", ""), model["state"]] for model in models]

    answers = {
        "index": index(),
        "unload": told("unload_model", "fingerprint", unload_dependents=True),
        "ready after unload": told("is_model_ready", "fingerprint"),
        "load": told("load_model", "fingerprint"),
        "ready after load": told("is_model_ready", "fingerprint"),
        "config": told("load_model", "fingerprint", config="{}"),
        "files": told("load_model", "fingerprint", config="{}", files={"file:1/model.onnx": b"x"}),
        "unknown": told("load_model", "unknown"),
        "unknown unload": told("unload_model", "unknown"),
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
