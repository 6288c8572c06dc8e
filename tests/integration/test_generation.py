"""Encoder-decoders over the wire: whole answers, and streams of tokens."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.integration.generation import LISTENED, Stream, asking, recorded
from tests.integration.harness import Client, Server, arrays, failure, running, tensor
from tests.integration.triton_client import Answers, as_input
from weir.protocol import inference_pb2 as pb


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
    generating.settle()
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


@pytest.fixture
def neighbour(generating: Server) -> Iterator[triton.InferenceServerClient]:
    """Triton's client."""
    with triton.InferenceServerClient(generating.target) as client:
        yield client


@pytest.fixture
def longest(encoder_decoders: Path) -> tuple[Any, list[int]]:
    """The recorded source of the longest answer, as an input, and that answer."""
    tokens, lengths, wanted = recorded(encoder_decoders, "pair")
    row = max(range(len(wanted)), key=lambda each: len(wanted[each]))
    return source(tokens[row, : lengths[row]]), wanted[row]


def source(tokens: Any) -> triton.InferInput:
    return as_input("tokens", np.array([tokens], np.int64))


def streamed(answers: Answers) -> tuple[str, list[int], list[int], bool]:
    """Id, tokens, count and final flag of the next response."""
    result, error = answers.next()
    assert error is None, error
    response = result.get_response()
    return (
        response.id,
        result.as_numpy("output_tokens")[0].tolist(),
        result.as_numpy("output_lengths").tolist(),
        response.parameters["triton_final_response"].bool_param,
    )


def test_tritonclient_sees_which_model_is_decoupled(neighbour: Any) -> None:
    pair, encoder = (
        neighbour.get_model_config(name).config.model_transaction_policy.decoupled
        for name in ("pair", "pair.encoder")
    )

    assert (pair, encoder) == (True, False)


def test_tritonclient_gets_a_whole_answer(neighbour: Any, longest: Any) -> None:
    tokens, wanted = longest

    answer = neighbour.infer("pair", [tokens])

    assert answer.as_numpy("output_tokens").tolist() == [wanted]
    assert answer.as_numpy("output_lengths").tolist() == [len(wanted)]


@pytest.mark.parametrize("options", [{}, {"enable_empty_final_response": True}], ids=str)
def test_tritonclient_sees_a_response_a_token_and_the_final_flag(
    neighbour: Any, longest: Any, options: dict[str, bool]
) -> None:
    tokens, wanted = longest
    answers = Answers()

    neighbour.start_stream(answers)
    neighbour.async_stream_infer("pair", [tokens], request_id="one", **options)
    seen = [streamed(answers) for _ in range(len(wanted) + 1)]
    neighbour.stop_stream()

    assert seen == [*(("one", [token], [1], False) for token in wanted), ("one", [], [0], True)]
    assert answers.is_empty


def test_requests_of_tritonclient_share_a_stream(neighbour: Any, longest: Any) -> None:
    tokens, wanted = longest
    answers = Answers()

    neighbour.start_stream(answers)
    seen: dict[str, list[int]] = {str(number): [] for number in range(5)}
    for number in seen:
        neighbour.async_stream_infer("pair", [tokens], request_id=number)
    open_requests = len(seen)
    while open_requests:
        number, own, _, is_final = streamed(answers)
        seen[number] += own
        open_requests -= is_final
    neighbour.stop_stream()

    assert seen == dict.fromkeys(seen, wanted)


def test_stream_that_tritonclient_cancels_frees_its_row(generating: Server, neighbour: Any) -> None:
    answers = Answers()

    neighbour.start_stream(answers)
    neighbour.async_stream_infer("endless", [source([9])], request_id="endless")
    seen = [streamed(answers) for _ in range(3)]
    neighbour.stop_stream(cancel_requests=True)

    assert seen == [("endless", [4], [1], False)] * 3
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
