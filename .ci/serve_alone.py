"""Serve the demo's bundles from an environment of the extra `server` alone, and call them."""

import importlib.util
import io
import subprocess
import sys

import numpy as np
from PIL import Image

from weir import Client


def main(weir: str, models: str) -> None:
    """Start `weir serve MODELS` as its own process; send a tensor and an image."""
    for package in ("torch", "onnx", "sklearn", "matplotlib", "opentelemetry"):
        if importlib.util.find_spec(package):
            sys.exit(f"expected no {package} beside the server")
    command = [weir, "serve", models, "--port", "0", "--metrics-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            target = line.split("grpc=")[1].split()[0]
            with Client(target) as client:
                client.wait_ready()
                image = np.zeros((1, 28, 28, 1), np.uint8)
                answer = client.infer("lenet5", {"image": image})
                file = io.BytesIO()
                Image.fromarray(image[0, :, :, 0]).save(file, "PNG")
                (best,) = client.classify("inception-v1", [file.getvalue()], top=1)
            print(f"served alone: a black picture is a {best[0].label}")
            print(f"served alone: probabilities sum to {answer['probabilities'].sum():.4f}")
        finally:
            server.terminate()
    if server.returncode != 0:
        sys.exit(f"expected exit code 0, got {server.returncode}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
