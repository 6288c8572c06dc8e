"""The program of `make demo`: train, export, serve and call four networks, as a user does.

LeNet-5 and a small Inception learn scikit-learn's handwritten digits. A GRU learns the stress of
English words, an encoder-decoder their pronunciation, both from the CMU Pronouncing Dictionary.
Nothing needs a download. Runs, bundles, pictures and the commands' output land in `.demo/`.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

import weir
from weir.training.data import load

FOLDER = Path(".demo")
RUNS, MODELS, PICTURES, LOG = (FOLDER / name for name in ("runs", "models", "pictures", "log.txt"))
WORDS = {
    "photograph": "F OW T AH G R AE F",
    "photographic": "F OW T AH G R AE F IH K",
}
"""Words of one family whose stress moves, and their phonemes."""

console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Network:
    """One network of the demo.

    Attributes:
        recipe: of `weir train`, and the name of the model.
        task: shown in the table.
        data: of `weir train` and `weir evaluate`.
        least_accuracy: on the test set; the demo fails below it.
        train_flags: further flags of `weir train`.
        evaluate_flags: further flags of `weir evaluate`.
    """

    recipe: str
    task: str
    data: str
    least_accuracy: float
    train_flags: Sequence[str] = ()
    evaluate_flags: Sequence[str] = ()


NETWORKS = (
    Network("lenet5", "digits of tensors", "digits", 0.98),
    Network("inception-v1", "digits of PNG files", "digits", 0.98),
    Network("stress", "stress of words", "cmudict-stress", 0.94, ["--quick"]),
    Network(
        "pronounce", "letters to phonemes", "cmudict-pronounce", 0.5,
        ["--quick"], ["--quick"],
    ),
)  # fmt: skip


def main() -> None:
    """Train and export each network, serve all of them, evaluate and call each."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    console.print("[bold]1. Train[/]: each command below leaves a run directory with weights.")
    for network in NETWORKS:
        out = str(RUNS / network.recipe)
        run("train", network.recipe, "--data", network.data, *network.train_flags, "--out", out)
    console.print(
        "\n[bold]2. Export[/]: a run becomes an ONNX bundle, "
        "if ONNX Runtime computes what PyTorch computes."
    )
    for network in NETWORKS:
        run("export", str(RUNS / network.recipe), "--to", str(MODELS))
    console.print(
        "\n[bold]3. Serve[/]: one process loads the four bundles, replays their recorded answers "
        "and listens."
    )
    with serving() as target:
        console.print(
            "\n[bold]4. Evaluate[/]: every row of the test sets goes through the server; "
            "its accuracy must be the one of training."
        )
        for network in NETWORKS:
            bundle = str(MODELS / network.recipe / "1")
            run("evaluate", network.recipe, "--data", network.data, *network.evaluate_flags,
                "--bundle", bundle, "--target", target)  # fmt: skip
        console.print("\n[bold]5. Call[/]: one call each, by the Python client.")
        calls = call(target)
    console.print(results(calls))
    console.print(
        f"\nThe output of every command is in {LOG}. Next, in two terminals:\n\n"
        f"  .venv/bin/weir serve {MODELS}\n"
        f"  .venv/bin/weir classify {PICTURES} --model inception-v1\n"
    )


def run(*arguments: str) -> None:
    """Run one `weir` command, its output into the log; end the demo if it fails."""
    line = " ".join(("weir", *arguments))
    started_s = time.monotonic()
    with console.status(line), LOG.open("a") as log:
        log.write(f"\n$ {line}\n")
        log.flush()
        done = subprocess.run([_weir(), *arguments], stdout=log, stderr=log, check=False)
    console.print(f"  {line}  [dim]{time.monotonic() - started_s:.1f} s[/]", soft_wrap=True)
    if done.returncode:
        console.print("".join(LOG.read_text().splitlines(keepends=True)[-20:]), markup=False)
        sys.exit(f"demo: `{line}` ended with exit code {done.returncode}")


@contextmanager
def serving() -> Iterator[str]:
    """`weir serve` as a process of its own; its gRPC address once all models are ready."""
    arguments = ["serve", str(MODELS), "--port", "0", "--metrics-port", "0"]
    started_s = time.monotonic()
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            [_weir(), *arguments], stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            line = process.stdout.readline() if process.stdout else ""
            target = dict(word.split("=") for word in line.split() if "=" in word)["grpc"]
            with weir.Client(target) as client:
                client.wait_ready(timeout_s=60)
            seconds = time.monotonic() - started_s
            console.print(f"  weir {' '.join(arguments)}  [dim]ready after {seconds:.1f} s[/]")
            yield target
        finally:
            process.send_signal(signal.SIGTERM)
    if process.returncode:
        sys.exit(f"demo: the server ended with exit code {process.returncode}")


def call(target: str) -> dict[str, str]:
    """Call each model once: the input and the answer of each, by recipe."""
    digits = load("digits", split="test")
    PICTURES.mkdir()
    for number, image in enumerate(digits.images[:4]):
        Image.fromarray(image[:, :, 0]).save(PICTURES / f"digit-{number}.png")
    with weir.Client(target) as client:
        answer = client.infer("lenet5", {"image": digits.images[:1]})["probabilities"][0]
        best = client.classify("inception-v1", [PICTURES / "digit-0.png"], top=1)[0][0]
        tagged = client.tag("stress", list(WORDS.values()))
        spoken = client.generate("pronounce", "banana").result().hypotheses[0]
    stressed = (
        f"{word}: {' '.join(token.text + token.tag.replace('-', '') for token in tokens)}"
        for word, tokens in zip(WORDS, tagged, strict=True)
    )
    return {
        "lenet5": f"one digit → {answer.argmax()} ({answer.max():.0%})",
        "inception-v1": f"digit-0.png → {best.label} ({best.score:.0%})",
        "stress": "\n".join(stressed),
        "pronounce": f"banana → {spoken.text}",
    }


def results(calls: dict[str, str]) -> Table:
    """The table at the end; ends the demo if an accuracy is too low."""
    table = Table("model", "task", "accuracy", "one call")
    for network in NETWORKS:
        record = json.loads((RUNS / network.recipe / "run.json").read_text())
        accuracy = record["test_accuracy"]
        if accuracy < network.least_accuracy:
            sys.exit(
                f"demo: {network.recipe}: expected an accuracy of {network.least_accuracy:.0%} "
                f"or more, got {accuracy:.2%}"
            )
        table.add_row(network.recipe, network.task, f"{accuracy:.2%}", calls[network.recipe])
    return table


def _weir() -> str:
    """The command beside this Python."""
    return str(Path(sys.executable).with_name("weir"))


if __name__ == "__main__":
    main()
