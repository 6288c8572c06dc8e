import numpy as np

from benchmarks.lib import load
from benchmarks.lib.http2 import messages
from benchmarks.lib.load_generator import Record
from weir.protocol import inference_pb2 as pb


def test_arrivals_are_a_poisson_process() -> None:
    due_s = np.array(load.due_times_s(50.0, 20_000, seed=1))
    gaps_s = np.diff(due_s)

    # Of exponential gaps mean and standard deviation are both 1 / rate.
    assert abs(gaps_s.mean() - 1 / 50) < 0.001 and abs(gaps_s.std() - 1 / 50) < 0.001
    assert (gaps_s > 0).all()


def test_the_same_seed_gives_the_same_arrivals() -> None:
    assert load.due_times_s(9.0, 5, seed=1) == load.due_times_s(9.0, 5, seed=1)
    assert load.due_times_s(9.0, 5, seed=1) != load.due_times_s(9.0, 5, seed=2)


def test_a_body_is_a_framed_request() -> None:
    tokens, lengths = np.array([[4, 5, 6]]), np.array([3])

    (message,) = messages(load.infer_body("tagger", tokens=tokens, lengths=lengths))
    request = pb.ModelInferRequest.FromString(message)

    assert request.model_name == "tagger"
    described = [(each.name, each.datatype, list(each.shape)) for each in request.inputs]
    assert described == [("tokens", "INT64", [1, 3]), ("lengths", "INT64", [1])]
    assert list(request.raw_input_contents) == [tokens.tobytes(), lengths.tobytes()]


def test_latency_counts_from_when_a_call_was_due() -> None:
    record = Record(
        began_s=np.array([0.0, 1.0]),
        sent_s=np.array([0.0, 1.5]),
        first_s=np.array([0.2, 1.9]),
        ended_s=np.array([0.25, 2.0]),
        answers=[b"a", b"b"],
        cpu_s=0.1,
    )

    sent = load.seen(record)

    assert sent.latencies_ms == [250.0, 1000.0]
    assert (sent.seconds, sent.cpu_s) == (2.0, 0.1)
