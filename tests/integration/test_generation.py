"""Encoder-decoders over the wire: whole answers, and streams of tokens."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.integration.generation import LISTENED, Stream, asking, recorded
from tests.integration.harness import Client, Server, arrays, failure, running, tensor
from weir.protocol import inference_pb2 as pb

PROGRAM = Path(__file__).with_name("triton_generation.py")


@pytest.fixture
def client(generating: Server) -> Iterator[Client]:
    with Client(generating.target) as client:
        yield client


@pytest.mark.parametrize("name", ["pair", "plain"])
def test_rows_of_unequal_length_get_the_answers_of_pytorch(
    client: Client, encoder_decoders: Path, name: str
) -> None:
    tokens, lengths, wanted = recorded(encoder_decoders, name)

    answer = client.infer(name, tensor("tokens", tokens), tensor("lengths", lengths))

    counts = answer["output_lengths"].tolist()
    rows = zip(answer["output_tokens"].tolist(), counts, strict=True)
    assert [row[:count] for row, count in rows] == wanted
    assert answer["output_tokens"].shape[1] == max(counts)
    assert len(set(lengths.tolist())) > 1 and len(set(counts)) > 1
    assert answer["scores"].shape == (len(wanted),) and (answer["scores"] < 0).all()


def test_unary_client_that_leaves_frees_its_row(generating: Server, client: Client) -> None:
    call = client.send(asking("endless", [9]))
    generating.wait_for_metric(1, "weir_generation_active_rows", model="endless")

    call.cancel()

    generating.wait_for_metric(0, "weir_generation_active_rows", model="endless")


def test_unary_refusals_name_the_parameter(client: Client) -> None:
    error = failure(client.send(asking("pair", [4], temperature=1.0, beam_width=2)))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "beam_width" in str(error.details())


def test_model_is_described_as_decoupled_and_counted(generating: Server, client: Client) -> None:
    before = client.ask(
        "ModelStatistics", pb.ModelStatisticsRequest(name="pair"), pb.ModelStatisticsResponse
    ).model_stats[0]
    client.infer("pair", tensor("tokens", np.array([[4, 5], [6, 7]])))
    generating.settle()

    config = client.ask(
        "ModelConfig", pb.ModelConfigRequest(name="pair"), pb.ModelConfigResponse
    ).config
    metadata = client.ask(
        "ModelMetadata", pb.ModelMetadataRequest(name="pair"), pb.ModelMetadataResponse
    )
    after = client.ask(
        "ModelStatistics", pb.ModelStatisticsRequest(name="pair"), pb.ModelStatisticsResponse
    ).model_stats[0]

    assert config.model_transaction_policy.decoupled
    assert [each.name for each in metadata.outputs] == ["output_tokens", "output_lengths", "scores"]
    assert after.inference_count == before.inference_count + 2
    assert after.execution_count > before.execution_count
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert client.health("pair") == "SERVING"
    for part in ("first_token", "token"):
        assert generating.metric(f"weir_generation_{part}_seconds_count", model="pair") > 0


def test_tokens_of_sources_are_counted(generating: Server, client: Client) -> None:
    names = ("weir_input_tokens_total", "weir_padded_tokens_total")
    before = [generating.metric(name, model="pair") for name in names]

    client.infer(
        "pair",
        tensor("tokens", np.array([[4, 5, 6], [6, 0, 0]])),
        tensor("lengths", np.array([3, 1])),
    )

    after = [generating.metric(name, model="pair") for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [3 + 1, 2 * 3]


def test_tritonclient_sees_a_response_a_token_and_the_final_flag(
    generating: Server, encoder_decoders: Path
) -> None:
    tokens, lengths, wanted = recorded(encoder_decoders, "pair")
    row = max(range(len(wanted)), key=lambda each: len(wanted[each]))
    source = json.dumps(tokens[row, : lengths[row]].tolist())

    result = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, generating.target, source],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    told = [[[token], [1], False] for token in wanted[row]] + [[[], [0], True]]
    assert seen["decoupled"] == [True, False]
    assert seen["whole"] == [[wanted[row]], [len(wanted[row])]]
    assert seen["streamed"] == seen["with_empty_final"] == told
    assert seen["several"] == {str(number): wanted[row] for number in range(5)}
    assert seen["cancelled"] == [[[4], [1], False]] * 3
    generating.wait_for_metric(0, "weir_generation_active_rows", model="endless")


def test_stopping_server_finishes_answers(
    encoder_decoders: Path, transport: str, tmp_path: Path
) -> None:
    flags = ("--transport", transport, "--grace-s", "30")
    with (
        running(encoder_decoders, tmp_path / "log", *flags) as server,
        Client(server.target) as client,
    ):
        call = client.send(asking("endless", [9], max_tokens=20_000))
        server.wait_for_metric(1, "weir_generation_active_rows", model="endless")

        server.process.send_signal(signal.SIGTERM)

        assert arrays(call.result())["output_lengths"].tolist() == [20_000]
        assert server.ended() == 0


def test_stopping_server_ends_streams_after_its_grace(
    encoder_decoders: Path, transport: str, tmp_path: Path
) -> None:
    flags = ("--transport", transport, "--grace-s", "1")
    with (
        running(encoder_decoders, tmp_path / "log", *flags) as server,
        Client(server.target) as client,
        Stream(client) as stream,
    ):
        stream.ask("endless", [9], "endless")
        stream.read(LISTENED)

        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError):
            stream.finish()

        assert stream.call.code() is grpc.StatusCode.UNAVAILABLE
        assert server.ended() == 0
        assert "Traceback" not in server.log()
