"""What `make demo` runs: train, export, serve and call a real network, each as a user would.

LeNet-5 learns scikit-learn's handwritten digits, which need no download. Everything lands in
`.demo/`: the run in `.demo/runs/digits`, the bundle in `.demo/models/lenet5/1`.
"""

import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.rule import Rule

import weir
from training.data import load

FOLDER = Path(".demo")
RUN, MODELS = FOLDER / "runs" / "digits", FOLDER / "models"
LEAST_ACCURACY = 0.98
_SHADES = " .:-=+*#%@"
_METRICS = ("weir_requests_total", "weir_rows_total", "weir_batches_total", "weir_model_ready")

console = Console()


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server of the demo listens."""

    target: str
    metrics: str


def main() -> None:
    """The four steps, and a word on what was shown."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    run("train", "lenet5", "--data", "digits", "--out", str(RUN))
    run("export", str(RUN), "--to", str(MODELS))
    with serving(MODELS) as server:
        accuracy = classify(server)
        show_metrics(server)
    console.print(
        f"\n[green]done[/]: {accuracy:.2%} of the held-out digits are right; see {FOLDER}/"
    )


def run(*arguments: str) -> None:
    """Run one `weir` command, and stop the demo if it fails."""
    console.print(Rule("weir " + " ".join(arguments)))
    started_s = time.monotonic()
    subprocess.run([_weir(), *arguments], check=True)
    console.print(f"[dim]{time.monotonic() - started_s:.1f} s[/]")


@contextmanager
def serving(models: Path) -> Iterator[Server]:
    """`weir serve` as its own process, stopped as an operator stops it."""
    command = [_weir(), "serve", str(models), "--port", "0", "--metrics-port", "0"]
    console.print(Rule("weir serve " + str(models)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            console.print(line.strip())
            places = dict(word.split("=") for word in line.split() if "=" in word)
            yield Server(places["grpc"], places["metrics"])
        finally:
            process.send_signal(signal.SIGTERM)
    if process.returncode:
        sys.exit(f"the server ended with exit code {process.returncode}")
    console.print("server stopped cleanly")


def classify(server: Server) -> float:
    """Send every held-out digit through the client; the share that comes back right."""
    digits = load("digits", split="test")
    with weir.Client(server.target) as client:
        client.wait_ready("lenet5")
        started_s = time.monotonic()
        answers = [client.submit("lenet5", {"image": image[None]}) for image in digits.images]
        probabilities = np.concatenate([answer.result()["probabilities"] for answer in answers])
        seconds = time.monotonic() - started_s
    guesses = probabilities.argmax(axis=1)
    accuracy = float((guesses == digits.labels).mean())
    for index in range(3):
        draw(digits.images[index], int(guesses[index]), float(probabilities[index].max()))
    console.print(
        f"{len(guesses)} held-out digits, one a call, {len(guesses) / seconds:,.0f} calls/s: "
        f"accuracy {accuracy:.2%}"
    )
    if accuracy < LEAST_ACCURACY:
        sys.exit(f"expected an accuracy of {LEAST_ACCURACY:.0%} or more, got {accuracy:.2%}")
    return accuracy


def draw(image: np.ndarray, label: int, probability: float) -> None:
    """A picture in characters, two a pixel, and what the network takes it for."""
    for row in image[::2, :, 0]:
        line = "".join(_SHADES[int(pixel) * len(_SHADES) // 256] for pixel in row)
        console.print(line, highlight=False, markup=False)
    console.print(f"[bold]{label}[/] with probability {probability:.4f}\n")


def show_metrics(server: Server) -> None:
    """A few lines of what Prometheus would scrape."""
    console.print(Rule(f"http://{server.metrics}/metrics"))
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as response:
        for line in response.read().decode().splitlines():
            if line.startswith(_METRICS):
                console.print(line, highlight=False, markup=False)


def _weir() -> str:
    """The command beside this Python."""
    return str(Path(sys.executable).with_name("weir"))


if __name__ == "__main__":
    main()
