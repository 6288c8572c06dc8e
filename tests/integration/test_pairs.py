"""The two graphs of an encoder-decoder called step by step, as any client of the protocol can."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import weir
from tests.integration.harness import Client, Server, running
from weir.bundle.decoding import Decoding
from weir.bundle.reader import Bundle, read
from weir.protocol import inference_pb2 as pb

Array = NDArray[Any]

SETTINGS = """
[models."patient.decoder"]
max_batch_rows = 2
max_queue_delay_s = 86400
"""
"""A step waits for a second one, without a limit."""


@pytest.fixture(scope="module")
def repository(encoder_decoders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two equal encoder-decoders, and one with a broken decoder."""
    models = tmp_path_factory.mktemp("pairs")
    for name in ("pair", "patient", "broken"):
        shutil.copytree(encoder_decoders / "pair", models / name)
    (models / "broken" / "1" / "decoder.onnx").write_bytes(b"x")
    (models / "weir.toml").write_text(SETTINGS)
    return models


@pytest.fixture(scope="module")
def bundle(repository: Path) -> Bundle:
    return read(repository / "pair" / "1")


@pytest.fixture(scope="module")
def server(
    repository: Path, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp(transport) / "log"
    flags = ("--transport", transport, "--config", str(repository / "weir.toml"))
    with running(repository, log, *flags) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture
def client(server: Server) -> Iterator[weir.Client]:
    with weir.Client(server.target) as client:
        yield client


def begin(
    client: weir.Client, name: str, decoding: Decoding, inputs: Mapping[str, Array]
) -> dict[str, Array]:
    """The decoder's inputs for the first step."""
    encoded = client.infer(f"{name}.encoder", inputs)
    step: dict[str, Array] = {
        taken: np.asarray(encoded[output]) for taken, output in decoding.from_encoder.items()
    }
    if decoding.lengths is not None:
        step[decoding.lengths] = inputs["lengths"]
    step[decoding.previous] = np.full(len(inputs["lengths"]), decoding.begin)
    return step


def greedy(
    client: weir.Client, name: str, decoding: Decoding, inputs: Mapping[str, Array]
) -> list[list[int]]:
    """The answer to each row, by the contract and the protocol alone."""
    step = begin(client, name, decoding, inputs)
    rows = range(len(inputs["lengths"]))
    answers: list[list[int]] = [[] for _ in rows]
    limits = [decoding.limit(int(length)) for length in inputs["lengths"]]
    while any(decoding.end not in answers[row] and len(answers[row]) < limits[row] for row in rows):
        made = client.infer(f"{name}.decoder", step)
        scores = np.array(made[decoding.log_probabilities], np.float64)
        scores[:, [decoding.padding, decoding.begin]] = -np.inf
        chosen = scores.argmax(axis=1)
        for row in rows:
            answers[row].append(int(chosen[row]))
        step[decoding.previous] = chosen
        step |= {taken: np.asarray(made[output]) for taken, output in decoding.from_step.items()}
    return [_cut(answer, limit, decoding) for answer, limit in zip(answers, limits, strict=True)]


def _cut(answer: list[int], limit: int, decoding: Decoding) -> list[int]:
    answer = answer[:limit]
    return answer[: answer.index(decoding.end)] if decoding.end in answer else answer


def expected(bundle: Bundle) -> list[list[int]]:
    """PyTorch's answers to the recorded sources."""
    golden = bundle.golden()
    assert golden is not None
    tokens, lengths = golden.outputs["output_tokens"], golden.outputs["output_lengths"]
    return [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)]


def recorded(bundle: Bundle) -> tuple[Decoding, dict[str, Array]]:
    golden, decoding = bundle.golden(), bundle.contract.decoding
    assert golden is not None and decoding is not None
    return decoding, dict(golden.inputs)


def test_rows_of_unequal_length_decoded_together_answer_as_pytorch(
    client: weir.Client, bundle: Bundle
) -> None:
    decoding, inputs = recorded(bundle)

    answers = greedy(client, "pair", decoding, inputs)

    assert answers == expected(bundle)
    assert len(set(inputs["lengths"].tolist())) > 1 and any(answers)


def test_rows_of_unequal_length_decoded_alone_answer_as_pytorch(
    client: weir.Client, bundle: Bundle
) -> None:
    decoding, inputs = recorded(bundle)
    lengths = inputs["lengths"]
    first, second = int(lengths.argmax()), int(lengths.argmin())

    answers = [
        greedy(
            client,
            "pair",
            decoding,
            {
                "tokens": inputs["tokens"][row : row + 1, : lengths[row]],
                "lengths": lengths[row : row + 1],
            },
        )
        for row in (first, second)
    ]

    assert lengths[first] != lengths[second]
    assert answers == [[expected(bundle)[first]], [expected(bundle)[second]]]


def test_steps_of_two_clients_share_a_batch(
    client: weir.Client, server: Server, bundle: Bundle
) -> None:
    decoding, inputs = recorded(bundle)
    one = {name: array[:1] for name, array in inputs.items()}
    steps = [begin(client, "patient", decoding, one) for _ in range(2)]
    alone = client.infer("pair.decoder", steps[0])
    server.settle()
    before = server.counts("patient.decoder")

    futures = [client.submit("patient.decoder", step) for step in steps]
    answers = [future.result() for future in futures]

    server.wait_for_counts("patient.decoder", before, OK=2, rows=2, batches=1)
    wanted: Any = alone[decoding.log_probabilities]
    for answer in answers:
        scores: Any = answer[decoding.log_probabilities]
        # A product of two rows may be summed in another order than that of one row.
        np.testing.assert_allclose(scores, wanted, atol=1e-5)


def test_values_out_of_range_are_refused(client: weir.Client, bundle: Bundle) -> None:
    decoding, inputs = recorded(bundle)
    step = begin(client, "pair", decoding, inputs)
    words = bundle.contract.value_ranges["previous"].maximum + 1
    steps = inputs["tokens"].shape[1]

    with pytest.raises(weir.InvalidArgument, match="'previous': expected values from 0 to"):
        client.infer("pair.decoder", {**step, "previous": np.full_like(step["previous"], words)})
    with pytest.raises(
        weir.InvalidArgument, match=f"'lengths': expected lengths from 1 to {steps}"
    ):
        client.infer("pair.decoder", {**step, "lengths": np.full_like(step["lengths"], steps + 1)})
    with pytest.raises(weir.InvalidArgument, match="'tokens': expected values from 0 to"):
        client.infer("pair.encoder", {**inputs, "tokens": np.full_like(inputs["tokens"], 99)})


def test_encoder_decoder_and_its_graphs_are_listed_everywhere(server: Server) -> None:
    pairs = ("pair", "patient")
    names = sorted(f"{pair}{part}" for pair in pairs for part in ("", ".decoder", ".encoder"))

    with Client(server.target) as client:
        index = client.ask(
            "RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse
        )
        statistics = client.ask(
            "ModelStatistics", pb.ModelStatisticsRequest(), pb.ModelStatisticsResponse
        )
        metadata = client.ask(
            "ModelMetadata",
            pb.ModelMetadataRequest(name="pair.decoder"),
            pb.ModelMetadataResponse,
        )
        health = {one.name: client.health(one.name) for one in index.models}

    assert [one.name for one in index.models if one.state == "READY"] == names
    assert [one.name for one in statistics.model_stats] == names
    assert metadata.name == "pair.decoder"
    assert {one.name for one in metadata.inputs} == {
        "previous", "state", "memory", "keys", "lengths",
    }  # fmt: skip
    assert {name for name, status in health.items() if status == "SERVING"} == set(names)
    for name in names:
        assert server.metric("weir_model_ready", model=name) == 1


def test_encoder_decoder_with_a_broken_graph_is_unavailable_as_a_whole(
    server: Server, client: weir.Client
) -> None:
    with Client(server.target) as raw:
        index = raw.ask("RepositoryIndex", pb.RepositoryIndexRequest(), pb.RepositoryIndexResponse)

    broken = {one.name: one for one in index.models if one.name.startswith("broken")}

    assert list(broken) == ["broken", "broken.decoder", "broken.encoder"]
    for name, one in broken.items():
        assert one.state == "UNAVAILABLE" and "decoder.onnx: expected SHA-256" in one.reason
        with pytest.raises(weir.Unavailable, match="is unavailable"):
            client.infer(name, {"tokens": np.array([[4]])}, timeout_s=5)
