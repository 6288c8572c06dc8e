"""Serve the demo's bundles with HTTP from an environment of `server` and `gateway`, and ask."""

import base64
import io
import json
import subprocess
import sys
import urllib.request

from PIL import Image

from weir import Client

WAIT_S = 60


def ask(url: str, body: object = None) -> bytes:
    """The answer to a GET, or to a POST of JSON."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=WAIT_S) as answer:  # noqa: S310 - of this machine
        content: bytes = answer.read()
    return content


def main(weir: str, models: str) -> None:
    """Start `weir serve MODELS --http-port 0` as its own process; ask for each part of HTTP."""
    command = [weir, "serve", models, "--port", "0", "--metrics-port", "0", "--http-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            fields = dict(part.split("=") for part in line.split()[2:])
            url = f"http://{fields['http']}"
            with Client(fields["grpc"]) as client:
                client.wait_ready()
            file = io.BytesIO()
            Image.new("L", (28, 28)).save(file, "PNG")
            picture = {"base64": base64.b64encode(file.getvalue()).decode()}
            answer = json.loads(ask(f"{url}/v1/models/lenet5:classify", {"pictures": [picture]}))
            best = answer["results"][0]["classes"][0]["label"]
            graphs = json.loads(ask(f"{url}/page/models/lenet5/network"))["graphs"]
            paths = json.loads(ask(f"{url}/openapi.json"))["paths"]
            if b"<title>Weir</title>" not in ask(url):
                sys.exit("expected the page at /")
            print(f"over HTTP: a black picture is a {best}, {len(paths)} paths")
            print(f"over HTTP: {len(graphs[0]['layers'])} layers of lenet5")
        finally:
            server.terminate()
    if server.returncode != 0:
        sys.exit(f"expected exit code 0, got {server.returncode}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
