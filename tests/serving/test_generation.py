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

from bundle.reader import read
from server.pb import inference_pb2 as pb
from tests.serving.generation import Stream, asking, publish
from tests.serving.harness import Client, Server, arrays, failure, request, running, tensor

PROGRAM = Path(__file__).with_name("triton_generation.py")
LISTENED = 5
"""Tokens read of an endless answer."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("generation")
    publish(models)
    return models


@pytest.fixture(scope="module")
def server(
    repository: Path, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp(transport) / "log"
    with running(repository, log, "--transport", transport) as server:
        yield server
        assert "Traceback" not in server.log()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


def recorded(repository: Path, name: str) -> tuple[np.ndarray, np.ndarray, list[list[int]]]:
    """Sources, their lengths, and what PyTorch answered."""
    golden = read(repository / name / "1").golden()
    assert golden is not None
    lengths = golden.outputs["output_lengths"]
    answers = zip(golden.outputs["output_tokens"].tolist(), lengths, strict=True)
    return (
        golden.inputs["tokens"],
        golden.inputs["lengths"],
        [tokens[:length] for tokens, length in answers],
    )


@pytest.mark.parametrize("name", ["pair", "plain"])
def test_rows_of_unlike_length_are_answered_as_by_pytorch(
    client: Client, repository: Path, name: str
) -> None:
    tokens, lengths, wanted = recorded(repository, name)

    answer = client.infer(name, tensor("tokens", tokens), tensor("lengths", lengths))

    counts = answer["output_lengths"].tolist()
    rows = zip(answer["output_tokens"].tolist(), counts, strict=True)
    assert [row[:count] for row, count in rows] == wanted
    assert answer["output_tokens"].shape[1] == max(counts)
    assert len(set(lengths.tolist())) > 1 and len(set(counts)) > 1
    assert answer["scores"].shape == (len(wanted),) and (answer["scores"] < 0).all()


@pytest.mark.parametrize("name", ["pair", "plain"])
def test_stream_tells_each_token_as_it_is_chosen_and_then_the_end(
    client: Client, repository: Path, name: str
) -> None:
    tokens, lengths, wanted = recorded(repository, name)
    row = max(range(len(wanted)), key=lambda each: len(wanted[each]))
    source = tokens[row, : lengths[row]].tolist()
    unary = client.infer(name, tensor("tokens", np.array([source])))

    with Stream(client) as stream:
        stream.ask(name, source, "one")
        stream.finish()

    told = stream.told["one"]
    assert told.tokens == wanted[row] == unary["output_tokens"][0].tolist()
    assert told.finals == [False] * len(wanted[row]) + [True]
    assert told.score == pytest.approx(float(unary["scores"][0]), abs=1e-5)
    assert stream.call.code() is grpc.StatusCode.OK


def test_requests_of_one_stream_are_told_side_by_side(client: Client, repository: Path) -> None:
    tokens, lengths, wanted = recorded(repository, "pair")
    rows = range(len(wanted))

    with Stream(client) as stream:
        for row in rows:
            stream.ask("pair", tokens[row, : lengths[row]].tolist(), str(row))
        stream.finish()

    assert [stream.told[str(row)].tokens for row in rows] == wanted


def test_short_answer_overtakes_an_endless_one(client: Client) -> None:
    with Stream(client) as stream:
        stream.ask("endless", [9], "endless")
        stream.read(LISTENED)
        stream.ask("endless", [5, 6, 7], "short")

        short = stream.read_until_ended("short")

    assert short.tokens == [4, 4] and short.finals == [False, False, True]
    assert set(stream.told["endless"].tokens) == {4} and True not in stream.told["endless"].finals


@pytest.mark.parametrize(
    "parameters",
    [{"beam_width": 3}, {"beam_width": 2, "length_power": 0.0}],
    ids=["beam", "short answers"],
)
def test_beam_is_told_in_one_piece(client: Client, parameters: dict[str, float]) -> None:
    message = pb.ModelInferRequest.FromString(asking("pair", [4, 5, 6], "beam", **parameters))
    unary = arrays(client.send(message).result())

    with Stream(client) as stream:
        stream.ask("pair", [4, 5, 6], "beam", **parameters)
        stream.finish()

    assert stream.told["beam"].finals == [True]
    assert stream.told["beam"].tokens == unary["output_tokens"][0].tolist()


def test_equal_seeds_are_told_equal_tokens_whoever_else_is_there(client: Client) -> None:
    with Stream(client) as stream:
        for number in range(6):
            seed = 7 if number < 3 else number
            stream.ask("pair", [4, 5, 6], str(number), seed=seed, temperature=3.0)
        stream.finish()

    told = [tuple(stream.told[str(number)].tokens) for number in range(6)]
    assert len(set(told[:3])) == 1 and len(set(told)) > 2


def test_most_tokens_cut_an_answer_off(client: Client) -> None:
    with Stream(client) as stream:
        stream.ask("endless", [9], "cut", max_tokens=7)
        stream.finish()

    assert stream.told["cut"].tokens == [4] * 7


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
def test_rows_of_a_stream_that_breaks_off_are_freed(
    server: Server, client: Client, how: str
) -> None:
    labels = {"model": "endless", "reason": how}
    before = server.metric("weir_generation_finished_total", **labels)

    with Stream(client, timeout=2.0 if how == "deadline" else 30.0) as stream:
        for number in range(3):
            stream.ask("endless", [9, number + 1], str(number))
        stream.read(LISTENED)
        server.wait_for_metric(3, "weir_generation_active_rows", model="endless")
        if how == "cancelled":
            stream.call.cancel()
        else:
            with pytest.raises(grpc.RpcError):
                stream.finish()

    server.wait_for_metric(0, "weir_generation_active_rows", model="endless")
    assert server.metric("weir_generation_finished_total", **labels) == before + 3


def test_unary_caller_who_leaves_frees_its_row(server: Server, client: Client) -> None:
    call = client.send(asking("endless", [9]))
    server.wait_for_metric(1, "weir_generation_active_rows", model="endless")

    call.cancel()

    server.wait_for_metric(0, "weir_generation_active_rows", model="endless")


def test_request_whose_time_is_over_ends_and_its_stream_goes_on(client: Client) -> None:
    with Stream(client) as stream:
        stream.ask("endless", [9], "late", timeout=300_000)
        late = stream.read_until_ended("late")
        stream.ask("endless", [5, 6, 7], "next")
        stream.finish()

    assert late.status == "DEADLINE_EXCEEDED" and late.tokens
    assert stream.told["next"].tokens == [4, 4]


def test_refused_request_is_told_and_its_stream_goes_on(client: Client) -> None:
    with Stream(client) as stream:
        stream.ask("endless", [99], "bad")
        stream.ask("endless", [5], "wide", beam_width=99)
        stream.ask("endless", [5, 6], "good")
        stream.finish()

    assert stream.told["bad"].status == stream.told["wide"].status == "INVALID_ARGUMENT"
    assert "beam_width: expected at most 4" in stream.told["wide"].error
    assert stream.told["good"].tokens == [4]


def test_unary_refusals_name_what_is_wrong(client: Client) -> None:
    error = failure(client.send(asking("pair", [4], temperature=1.0, beam_width=2)))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "beam_width" in str(error.details())


def test_model_is_described_as_decoupled_and_counted(server: Server, client: Client) -> None:
    before = client.ask(
        "ModelStatistics", pb.ModelStatisticsRequest(name="pair"), pb.ModelStatisticsResponse
    ).model_stats[0]
    client.infer("pair", tensor("tokens", np.array([[4, 5], [6, 7]])))
    server.settle()

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
        assert server.metric(f"weir_generation_{part}_seconds_count", model="pair") > 0


def test_tritonclient_sees_a_response_a_token_and_the_final_flag(
    server: Server, repository: Path
) -> None:
    tokens, lengths, wanted = recorded(repository, "pair")
    row = max(range(len(wanted)), key=lambda each: len(wanted[each]))
    source = json.dumps(tokens[row, : lengths[row]].tolist())

    result = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, server.target, source],
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
    server.wait_for_metric(0, "weir_generation_active_rows", model="endless")


def test_stopping_server_ends_answers_within_its_grace(
    repository: Path, transport: str, tmp_path: Path
) -> None:
    flags = ("--transport", transport, "--grace-s", "2")
    with running(repository, tmp_path / "log", *flags) as server, Client(server.target) as client:
        message = request("endless", tensor("tokens", np.array([[5, 9]])))
        message.parameters["max_tokens"].int64_param = 2000
        finishes = client.send(message)
        with Stream(client) as stream:
            stream.ask("endless", [9], "endless")
            stream.read(LISTENED)
            server.wait_for_metric(2, "weir_generation_active_rows", model="endless")

            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.RpcError):
                stream.finish()

            assert arrays(finishes.result())["output_lengths"].tolist() == [2000]
            assert stream.call.code() is grpc.StatusCode.UNAVAILABLE
        assert server.ended() == 0
        assert "Traceback" not in server.log()
