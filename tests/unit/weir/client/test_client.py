import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import weir
from tests.unit.weir import fake_server
from tests.unit.weir.fake_server import FakeServer
from weir import Client
from weir.client import errors
from weir.protocol import inference_pb2 as pb
from weir.protocol import models_pb2 as models_pb

PAIR = np.array([[3, 4]])


@pytest.fixture
def client(fake: FakeServer) -> Iterator[Client]:
    with Client(fake.target, timeout_s=5, metadata={"authorization": "Bearer me"}) as client:
        yield client


def test_arrays_by_name_come_back_as_arrays_by_name(client: Client) -> None:
    answer = client.infer("sum", {"a": PAIR, "b": PAIR}, request_id="seven")

    np.testing.assert_array_equal(answer["y"], [[6, 8]])
    assert (answer.model, answer.version, answer.id) == ("sum", "1", "seven")
    assert list(answer) == ["y"] and len(answer) == 1


def test_one_array_is_enough_for_a_model_of_one_input(client: Client) -> None:
    np.testing.assert_array_equal(client.infer("echo", PAIR)["y"], PAIR)


def test_one_array_for_a_model_of_two_inputs_is_refused_naming_them(client: Client) -> None:
    with pytest.raises(weir.InvalidArgument, match=r"by name \(a, b\)"):
        client.infer("sum", PAIR)


def test_strings_travel_as_bytes(client: Client) -> None:
    answer = client.infer("echo", {"x": np.array(["weir", "Stauwehr"])})

    assert answer["y"].tolist() == [b"weir", b"Stauwehr"]


def test_metadata_of_the_client_goes_with_each_call(client: Client, fake: FakeServer) -> None:
    client.infer("echo", PAIR)

    assert fake.metadata["authorization"] == "Bearer me"


@pytest.mark.parametrize("status", sorted(errors.BY_STATUS.keys() - {"CANCELLED"}))
def test_each_status_raises_its_own_leaf(client: Client, status: str) -> None:
    with pytest.raises(errors.BY_STATUS[status], match=f"refused with {status}") as caught:
        client.infer("refuse", PAIR, parameters={"status": status})

    assert caught.value.retry_after_s == 0.25


def test_a_call_that_the_server_cancelled_is_not_one_that_the_caller_cancelled(
    client: Client,
) -> None:
    with pytest.raises(weir.Unavailable, match=r"the server ended the call .*refused with"):
        client.infer("refuse", PAIR, parameters={"status": "CANCELLED"})


def test_an_answer_that_is_no_message_is_internal(client: Client) -> None:
    with pytest.raises(weir.Internal, match="ModelInferResponse"):
        client.infer("mute", PAIR)


def test_a_call_ends_at_its_deadline(client: Client, fake: FakeServer) -> None:
    with pytest.raises(weir.DeadlineExceeded):
        client.infer("stuck", {"x": PAIR}, timeout_s=0.05)

    assert fake.cancelled.wait(5)


def test_without_a_server_a_call_is_unavailable_and_nothing_is_live(nobody: str) -> None:
    with Client(nobody) as client:
        assert not client.is_live()
        assert not client.is_ready()
        with pytest.raises(weir.Unreachable, match=f"no server answers at {nobody}"):
            client.metadata("echo")


def test_submitted_calls_run_side_by_side(client: Client) -> None:
    futures = [client.submit("echo", {"x": PAIR + n}) for n in range(50)]

    for n, future in enumerate(futures):
        np.testing.assert_array_equal(future.result(5)["y"], PAIR + n)


def test_a_submitted_call_that_fails_gives_its_error_to_the_future(client: Client) -> None:
    future = client.submit("nobody", {"x": PAIR})

    assert isinstance(future.exception(5), weir.NotFound)


def test_cancelling_a_submitted_call_reaches_the_server(client: Client, fake: FakeServer) -> None:
    future = client.submit("stuck", {"x": PAIR})
    assert fake.started.wait(5)

    assert future.cancel()

    assert fake.cancelled.wait(5)
    with pytest.raises(CancelledError):
        future.result(5)


def test_closing_the_client_ends_submitted_calls(fake: FakeServer) -> None:
    client = Client(fake.target)
    future = client.submit("stuck", {"x": PAIR})

    client.close()

    assert isinstance(future.exception(5), weir.Cancelled)


def test_answers_of_a_stream_come_in_the_order_of_the_requests(client: Client) -> None:
    requests = (PAIR + n for n in range(7))

    answers = list(client.stream("echo", requests, in_flight=2))

    assert [int(answer["y"][0, 0]) for answer in answers] == [3, 4, 5, 6, 7, 8, 9]


def test_a_stream_reads_no_further_ahead_than_it_may(client: Client) -> None:
    read = []

    def requests() -> Iterator[np.ndarray]:
        for n in range(100):
            read.append(n)
            yield PAIR

    answers = client.stream("echo", requests(), in_flight=4)
    next(answers)

    assert len(read) <= 6
    answers.close()


def test_a_request_refused_on_a_stream_raises_its_leaf(client: Client) -> None:
    with pytest.raises(weir.NotFound, match="refused"):
        list(client.stream("refuse", [PAIR, PAIR]))


def test_a_refusal_on_a_stream_without_a_status_is_unknown(client: Client) -> None:
    with pytest.raises(weir.Unknown, match="refused"):
        list(client.stream("whisper", [PAIR, PAIR]))


def test_what_the_callers_iterable_raises_reaches_the_caller(client: Client) -> None:
    def requests() -> Iterator[np.ndarray]:
        yield PAIR
        raise KeyError("mine")

    answers = client.stream("echo", requests())

    assert next(answers)["y"].tolist() == PAIR.tolist()
    with pytest.raises(KeyError, match="mine"):
        next(answers)


def test_the_classes_of_each_row_are_ranked(client: Client) -> None:
    rows = client.rank("echo", np.array([[1, 9], [8, 2]]), top=1)

    assert rows == [[weir.Class(9.0, 1, "n1")], [weir.Class(8.0, 0, "n0")]]


def test_pictures_are_classified_in_one_call(
    client: Client, fake: FakeServer, tmp_path: Path
) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"four")
    array = np.zeros((2, 3, 3), np.uint8)

    rows = client.classify("threes", [file, str(file), b"three", array], top=1, version="1")

    assert rows == [
        [weir.Class(0.75, 3, f"of {size} bytes")] for size in (4, 4, 5, 18)
    ]  # fmt: skip
    (request,) = fake.pictures
    assert (request.model_name, request.model_version, request.top_k) == ("threes", "1", 1)


def test_a_picture_that_is_refused_raises_naming_its_position(client: Client) -> None:
    with pytest.raises(weir.InvalidArgument, match=r"pictures\[1\]: the JPEG is damaged"):
        client.classify("threes", [b"good", b"broken"])


def test_questions_about_models_are_answered(client: Client) -> None:
    assert client.metadata("echo").inputs == (weir.TensorMetadata("x", "INT64", (-1, 2)),)
    assert client.config("echo").config.name == "echo"
    assert client.statistics().model_stats[0].inference_count == 3
    assert client.server_metadata().name == "fake"
    assert [entry.name for entry in client.index()] == ["echo", "broken"]
    assert client.index(ready=True) == (weir.IndexEntry("echo", "1", "READY", ""),)


def test_readiness_and_health_are_reported(client: Client) -> None:
    assert client.is_live() and client.is_ready()
    assert client.model_ready("echo") and not client.model_ready("nobody")
    assert client.health("echo") == "SERVING"
    with pytest.raises(weir.NotFound):
        client.health("nobody")


def test_a_watch_yields_each_change(client: Client) -> None:
    assert list(client.watch()) == ["NOT_SERVING", "SERVING"]


def test_wait_ready_returns_when_the_model_serves(client: Client) -> None:
    client.wait_ready("echo", timeout_s=5)


def test_wait_ready_fails_if_the_server_goes_first(client: Client, fake: FakeServer) -> None:
    fake.health = ["NOT_SERVING"]

    with pytest.raises(weir.Unavailable, match="before it was ready"):
        client.wait_ready(timeout_s=5)


def test_a_client_may_be_used_from_several_threads(client: Client) -> None:
    wrong: list[int] = []

    def call(n: int) -> None:
        if client.infer("echo", PAIR + n)["y"].tolist() != (PAIR + n).tolist():
            wrong.append(n)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


@pytest.mark.parametrize(("version", "sent"), [(2, "2"), ("2", "2"), ("canary", "canary")])
def test_a_version_is_a_number_or_a_label(
    client: Client, fake: FakeServer, version: str | int, sent: str
) -> None:
    client.infer("echo", PAIR, version=version)
    client.rank("echo", PAIR, version=version)
    client.tag("shouts", ["a"], version=version)
    client.classify_text("moods", ["a"], version=version)
    client.classify("threes", [b"a"], version=version)
    client.forecast("rising", [1.0], version=version)
    client.generate("reverse", "a", version=version).result()

    assert [each.model_version for each in fake.requests] == [sent, sent]
    assert {each.model_version for each in fake.tasks.requests} == {sent}
    assert fake.pictures[-1].model_version == sent


REFUSED = {"status": "INVALID_ARGUMENT"}
FAILING: dict[str, Callable[[Client], object]] = {
    "infer": lambda client: client.infer("refuse", PAIR, parameters=REFUSED),
    "submit": lambda client: client.submit("refuse", PAIR, parameters=REFUSED).result(5),
    "stream": lambda client: list(client.stream("refuse", [PAIR])),
    "stream of no server's model": lambda client: list(client.stream("nobody", [PAIR])),
    "generate": lambda client: client.generate("nobody", "a").result(),
    "watch": lambda client: list(client.watch("stuck", timeout_s=-1)),
    "broken answer": lambda client: client.infer("mute", PAIR),
}


@pytest.mark.parametrize("fail", FAILING.values(), ids=FAILING.keys())
def test_a_failed_call_of_any_kind_empties_the_metadata_cache(
    client: Client,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[Client], object],
) -> None:
    client.infer("echo", PAIR)
    monkeypatch.setitem(fake_server.MODELS, "echo", ["renamed"])
    client.infer("echo", PAIR)
    with pytest.raises(weir.CallError):
        fail(client)
    client.infer("echo", PAIR)

    sent = [each.inputs[0].name for each in fake.requests if each.model_name == "echo"]
    assert sent == ["x", "x", "renamed"]


class RacingName(str):
    """A model's name; each lookup of it lets a call of another thread fail first."""

    __slots__ = ("client",)
    client: Client

    def __hash__(self) -> int:
        def fail() -> None:
            with pytest.raises(weir.NotFound):
                self.client.health("nobody")

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        return super().__hash__()


def test_a_failed_call_in_one_thread_leaves_the_lookup_of_another_alone(client: Client) -> None:
    name = RacingName("echo")
    name.client = client

    for _ in range(3):
        np.testing.assert_array_equal(client.infer(name, PAIR)["y"], PAIR)


def test_models_are_listed_with_all_there_is_to_tell(client: Client) -> None:
    good, flop, away = client.models()

    assert (good.name, good.task, good.answering) == ("good", "image-classification", "2")
    assert good.on_disk == ("3", "2", "1")
    newest, answering = good.versions
    assert newest.labels == ("canary", "next") and newest.reason.startswith("golden.npz")
    assert (newest.parity, newest.golden) == (None, None)
    assert answering == weir.VersionInfo(
        version="2",
        labels=("stable",),
        state="READY",
        reason="",
        since=datetime(2026, 11, 18, 11, 6, 40, 250000, UTC),
        provider="cpu",
        parity=2.5e-06,
        golden=0.0,
        is_batched=False,
        batching_reason="output 'y' [-1] has no first axis of any size",
        unserved_outputs=("maps: seq(map(int64,tensor(float)))",),
        threads=2,
        instances=1,
    )
    assert newest.is_batched is None
    assert (flop.answering, away.versions) == ("", ())


def test_a_time_that_no_calendar_has_is_internal(client: Client, fake: FakeServer) -> None:
    fake.models.listing.models[0].versions[0].since_ms = 2**62

    with pytest.raises(weir.Internal, match="since_ms"):
        client.models()


def test_another_server_lists_no_models(client: Client, fake: FakeServer) -> None:
    fake.models.is_weir = False

    with pytest.raises(weir.Unimplemented):
        client.models()


def test_server_info_says_which_process_answers(client: Client, fake: FakeServer) -> None:
    assert client.server_info() == weir.ServerInfo(
        version="1.2.3",
        grpcio="1.85.1",
        onnxruntime="1.31.1",
        provider="cpu",
        transport="completion-queue",
        transport_problem="",
        metrics_address="127.0.0.1:8002",
        process_id=4242,
        started=datetime(2026, 11, 18, 11, 6, 40, 250000, UTC),
        usable_cores=8,
        shares_port=True,
    )
    fake.models.info.started_ms = 2**62
    with pytest.raises(weir.Internal, match="started_ms"):
        client.server_info()


def test_models_are_loaded_unloaded_and_labelled(client: Client, fake: FakeServer) -> None:
    client.load("good")
    client.load("good", reload=True)
    client.unload("good")
    written = client.set_label("good", "stable", 2)
    fake.models.label_response = models_pb.SetLabelResponse(reason="read-only")
    unwritten = client.set_label("good", "stable", None)

    assert written == weir.LabelChange(is_written=True, reason="")
    assert unwritten == weir.LabelChange(is_written=False, reason="read-only")
    reload = pb.ModelRepositoryParameter(bool_param=True)
    assert fake.models.asked == [
        pb.RepositoryModelLoadRequest(model_name="good"),
        pb.RepositoryModelLoadRequest(model_name="good", parameters={"reload": reload}),
        pb.RepositoryModelUnloadRequest(model_name="good"),
        models_pb.SetLabelRequest(model_name="good", label="stable", version=2),
        models_pb.SetLabelRequest(model_name="good", label="stable"),
    ]


def test_a_load_that_fails_raises_with_the_reason(client: Client) -> None:
    with pytest.raises(weir.FailedPrecondition, match=r"version 1:\s+no graph"):
        client.load("flop")
    with pytest.raises(weir.Unavailable, match="busy"):
        client.unload("busy")
    with pytest.raises(weir.NotFound):
        client.set_label("nobody", "stable", 1)


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_a_label_for_what_is_no_version_is_not_sent(client: Client, version: int) -> None:
    with pytest.raises(weir.UsageError, match=f"expected a number from 1, got {version}"):
        client.set_label("good", "stable", version)


def test_a_load_may_take_longer_than_an_inference(client: Client, fake: FakeServer) -> None:
    client.load("good")
    assert 60 < fake.models.time_left_s < 330

    client.set_label("good", "stable", 2, timeout_s=20)
    assert 0 < fake.models.time_left_s < 30


def test_each_client_has_a_connection_of_its_own(fake: FakeServer) -> None:
    with Client(fake.target) as one, Client(fake.target) as other:
        for client in (one, other):
            client.infer("echo", {"x": np.ones((1, 2), np.float32)})

    assert len(fake.peers) == 2
