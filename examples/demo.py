"""What `make demo` runs: train, export, serve and call a real network, each as a user would.

LeNet-5 and a small Inception learn scikit-learn's handwritten digits; a GRU the stress of English words and an
encoder-decoder their pronunciation, from the CMU Pronouncing Dictionary. Nothing needs a download. LeNet-5 is then
sent tensors, Inception PNG files, the GRU phonemes, and the encoder-decoder letters, first step by step, then as a
stream. Everything lands in `.demo/`: runs, bundles, pictures.
"""

import io
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
from PIL import Image
from rich.console import Console
from rich.rule import Rule

import weir
from weir.training.data import load, load_pairs

FOLDER = Path(".demo")
RUNS, MODELS, PICTURES = FOLDER / "runs", FOLDER / "models", FOLDER / "pictures"
LEAST_ACCURACY = 0.98
_SHOWN_PICTURES = 4
_MOST_PHONEMES = 16
WORDS = {
    "photograph": "F OW T AH G R AE F",
    "photographer": "F AH T AA G R AH F ER",
    "photographic": "F OW T AH G R AE F IH K",
    "banana": "B AH N AE N AH",
}
"""One family of words whose stress moves, and their phonemes."""
_SHADES = " .:-=+*#%@"
_METRICS = ("weir_requests_total", "weir_rows_total", "weir_batches_total", "weir_model_ready")

console = Console()


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server of the demo listens."""

    target: str
    metrics: str


def main() -> None:
    """Train and export each network, then serve them all and call each its own way."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for recipe in ("lenet5", "inception-v1"):
        out = str(RUNS / recipe)
        run("train", recipe, "--data", "digits", "--out", out)
        run("export", out, "--to", str(MODELS))
    for recipe in ("stress", "pronounce"):
        out = str(RUNS / recipe)
        run("train", recipe, "--quick", "--out", out)
        run("export", out, "--to", str(MODELS))
    with serving(MODELS) as server:
        infer(server)
        classify(server)
        evaluate(server)
        words = pronounce(server)
        show_metrics(server)
        tag(server)
        speak(server, words[-1])
    console.print(f"\n[green]done[/]: see {FOLDER}/")


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


def infer(server: Server) -> None:
    """Send every held-out digit to LeNet-5 as a tensor, one a call."""
    digits = load("digits", split="test")
    with weir.Client(server.target) as client:
        client.wait_ready("lenet5")
        started_s = time.monotonic()
        answers = [client.submit("lenet5", {"image": image[None]}) for image in digits.images]
        probabilities = np.concatenate([answer.result()["probabilities"] for answer in answers])
        seconds = time.monotonic() - started_s
    guesses = probabilities.argmax(axis=1)
    for index in range(3):
        draw(digits.images[index], int(guesses[index]), float(probabilities[index].max()))
    console.print(f"one digit a call, {len(guesses) / seconds:,.0f} calls/s")
    require("lenet5", float((guesses == digits.labels).mean()))


def classify(server: Server) -> None:
    """Send every held-out digit to Inception as a PNG file; the server decodes and names it."""
    digits = load("digits", split="test")
    files = [encode_png(image) for image in digits.images]
    PICTURES.mkdir()
    for number, file in enumerate(files[:_SHOWN_PICTURES]):
        (PICTURES / f"digit-{number}.png").write_bytes(file)
    with weir.Client(server.target) as client:
        client.wait_ready("inception-v1")
        best = [client.classify("inception-v1", [file], top=1)[0][0] for file in files]
    run(
        *("classify", str(PICTURES), "--model", "inception-v1", "--top", "2"),
        *("--target", server.target),
    )
    right = [found.index == label for found, label in zip(best, digits.labels, strict=True)]
    require("inception-v1", float(np.mean(right)))


def evaluate(server: Server) -> None:
    """Hold the served tagger against a test set of words."""
    run("evaluate", "stress", *("--data", "cmudict-stress"),
        *("--bundle", str(MODELS / "stress" / "1")), *("--target", server.target))  # fmt: skip


def pronounce(server: Server) -> list[str]:
    """Pronounce words of the held-out ones: the encoder once, then the decoder once for each phoneme.

    Returns the words.
    """
    bundle = MODELS / "pronounce" / "1"
    letters, phonemes = (
        (bundle / f"vocabulary.{name}.txt").read_text().splitlines()
        for name in ("tokens", "previous")
    )
    held_out = load_pairs("cmudict-pronounce", "test")
    short = [row for row, word in enumerate(held_out.sources) if 4 <= len(word) <= 6]
    rows = short[:: len(short) // 8][:8]
    spelt = [[letters.index(letter) for letter in held_out.sources[row]] for row in rows]
    with weir.Client(server.target) as client:
        client.wait_ready("pronounce.decoder")
        spoken = decode(client, spelt, begin=phonemes.index("<s>"), end=phonemes.index("</s>"))
    for row, ids in zip(rows, spoken, strict=True):
        said = " ".join(phonemes[number] for number in ids)
        expected = " or ".join(held_out.references[row])
        mark = "[green]right[/]" if said in held_out.references[row] else "[yellow]wrong[/]"
        console.print(f"{held_out.sources[row]:<9}{said:<22}{expected:<30}{mark}")
    return [held_out.sources[row] for row in rows]


def decode(client: weir.Client, spelt: list[list[int]], *, begin: int, end: int) -> list[list[int]]:
    """The likeliest token at every step, for all rows at once, up to each row's end."""
    lengths = np.array([len(row) for row in spelt])
    tokens = np.array([row + [0] * (lengths.max() - len(row)) for row in spelt])
    memory = client.infer("pronounce.encoder", {"tokens": tokens, "lengths": lengths})
    state, previous = memory["state"], np.full(len(spelt), begin)
    kept = {"memory": memory["memory"], "keys": memory["keys"], "lengths": lengths}
    steps = []
    for _ in range(_MOST_PHONEMES):
        step = client.infer("pronounce.decoder", {"previous": previous, "state": state, **kept})
        state, previous = step["next_state"], step["log_probabilities"].argmax(axis=1)
        steps.append(previous)
    answers = np.stack(steps, axis=1).tolist()
    return [row[: row.index(end)] if end in row else row for row in answers]


def tag(server: Server) -> None:
    """Ask where English words are stressed, all in one call: phonemes in, a tag for each out."""
    console.print(Rule("tags, by client.tag"))
    with weir.Client(server.target) as client:
        tagged = client.tag("stress", list(WORDS.values()))
    for word, tokens in zip(WORDS, tagged, strict=True):
        said = " ".join(each.text + each.tag.replace("-", "") for each in tokens)
        console.print(f"{word:<13}{said}", highlight=False)


def speak(server: Server, word: str) -> None:
    """Pronounce a word, phoneme by phoneme as the server makes them."""
    console.print(Rule("a stream, by client.generate"))
    console.print(f"{word}: ", end="", highlight=False)
    with weir.Client(server.target) as client, client.generate("pronounce", word) as spoken:
        for token in spoken:
            console.print(token.text, end="", highlight=False)
        best = spoken.result().hypotheses[0]
    console.print(f"  (score {best.score:.2f})", highlight=False)


def encode_png(image: np.ndarray) -> bytes:
    """A picture (height, width, 1) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0]).save(file, "PNG")
    return file.getvalue()


def require(model: str, accuracy: float) -> None:
    """Say how many of the held-out digits were right, and stop the demo if they were too few."""
    console.print(f"{model}: accuracy {accuracy:.2%} on the held-out digits, as served")
    if accuracy < LEAST_ACCURACY:
        sys.exit(f"expected an accuracy of {LEAST_ACCURACY:.0%} or more, got {accuracy:.2%}")


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
