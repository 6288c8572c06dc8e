"""The example of rows of unequal length: published, served, and called by many at once."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import weir
from tests.integration.harness import Server, running

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_sequences.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    found = importlib.util.spec_from_file_location("own_sequences", EXAMPLE)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("models")
    command = [sys.executable, "-W", "error", str(EXAMPLE), str(models)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    with running(models, models.parent / "log", "--max-queue-delay-s", "0.05") as server:
        yield server


def test_rows_of_unequal_length_share_batches_and_keep_their_answers(
    example: ModuleType, server: Server
) -> None:
    torch.manual_seed(0)
    network = example.Classifier().eval()  # as the example makes it
    generator = np.random.default_rng(0)
    rows = [generator.integers(1, example.WORDS, (1, 1 + 3 * n)) for n in range(24)]

    with weir.Client(server.target, timeout_s=30) as client, ThreadPoolExecutor(24) as pool:
        answers = list(
            pool.map(lambda tokens: client.infer("classifier", {"tokens": tokens}), rows)
        )

    for tokens, answer in zip(rows, answers, strict=True):
        with torch.inference_mode():
            expected = network(torch.from_numpy(tokens), torch.tensor([tokens.shape[1]]))
        logits = torch.tensor(answer["logits"])
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0.0)
    counts = server.counts("classifier")
    assert counts["batches"] < counts["rows"] == len(rows)
