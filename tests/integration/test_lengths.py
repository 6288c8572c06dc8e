"""Sentences of unequal length in one batch of a real server."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import weir
from tests.helpers.sequence_networks import CLASSES, Recurrent, examples, recurrent_spec
from tests.integration.harness import Server, running
from weir.export.publishing import publish

SETTINGS = """
[models.patient]
max_batch_rows = 3
max_queue_delay_s = 86400

[models.counted]
max_batch_rows = 32
max_batch_tokens = 40
max_queue_delay_s = 86400
"""
"""One waits for three rows, the other for forty tokens, without a limit."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recurrent tagger under three names."""
    models = tmp_path_factory.mktemp("lengths")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        publish(Recurrent().eval(), examples(), recurrent_spec(), to=models, name="tagger")
    for name in ("patient", "counted"):
        shutil.copytree(models / "tagger", models / name)
    (models / "weir.toml").write_text(SETTINGS)
    return models


@pytest.fixture(scope="module")
def server(
    repository: Path, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp(transport) / "log"
    flags = ("--transport", transport, "--config", str(repository / "weir.toml"))
    with running(repository, log, *flags) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    ("model", "lengths", "computed"),
    [
        pytest.param("patient", (20, 19, 18), 60, id="three rows"),
        pytest.param("counted", (20, 19, 2), 40, id="forty tokens"),
    ],
)
def test_each_request_of_a_batch_gets_the_answer_that_it_gets_alone(
    model: str, lengths: tuple[int, ...], computed: int, server: Server
) -> None:
    sentences = [np.arange(length)[None] % 19 + 1 for length in lengths]
    batch = sentences[: computed // 20]
    before = server.counts(model)

    with weir.Client(server.target) as client:
        alone = [client.infer("tagger", {"tokens": tokens}) for tokens in batch]
        asked = [client.submit(model, {"tokens": tokens}) for tokens in sentences]
        answers = [answer.result() for answer in asked[: len(batch)]]
        for left in asked[len(batch) :]:
            left.cancel()

    server.wait_for_metric(0, "weir_queue_requests", model=model)
    grown = {"rows": len(batch), "batches": 1, "OK": len(batch)}
    cancelled = len(sentences) - len(batch)
    server.wait_for_counts(
        model, before, **grown, **({"CANCELLED": cancelled} if cancelled else {})
    )
    assert server.metric("weir_input_tokens_total", model=model) == sum(lengths[: len(batch)])
    assert server.metric("weir_padded_tokens_total", model=model) == computed
    for answer, expected, tokens in zip(answers, alone, batch, strict=True):
        assert answer["logits"].shape == (1, tokens.size, len(CLASSES))
        assert answer["tag_ids"].shape == (1, tokens.size)
        actual, wanted = (each["logits"].astype(np.float32) for each in (answer, expected))
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)
