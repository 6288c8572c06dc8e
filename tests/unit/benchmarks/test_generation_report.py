import numpy as np

from benchmarks.lib.generation_report import Work, Workload, latencies, tokens_of
from benchmarks.lib.http2 import framed
from benchmarks.lib.load_generator import Record, Schedule
from weir.protocol import inference_pb2 as pb


def answer(tokens: list[int], padded_to: int = 5) -> bytes:
    response = pb.ModelInferResponse(model_name="pronounce")
    padded = np.array([tokens + [0] * (padded_to - len(tokens))])
    for name, array in (("output_lengths", np.array([len(tokens)])), ("output_tokens", padded)):
        response.outputs.add(name=name, datatype="INT64", shape=array.shape)
        response.raw_output_contents.append(array.tobytes())
    return framed(response.SerializeToString())


def record(answers: list[bytes], taken_s: list[float]) -> Record:
    due = np.arange(len(answers), dtype=np.float64)
    ended = due + np.array(taken_s)
    return Record(due, due + 0.002, ended, ended, answers, cpu_s=0.0)


def test_tokens_are_read_up_to_the_answers_length() -> None:
    assert tokens_of(answer([7, 8, 9])) == (7, 8, 9)


def test_answers_are_compared_by_source_where_both_servers_gave_one() -> None:
    workload = Workload("pronounce", [b"a", b"b", b"c"])
    schedule = Schedule("", "", workload.bodies, [2, 0, 1])
    workload.keep("whole", schedule, record([answer([1]), answer([2]), b""], [1, 1, 1]))
    workload.keep("steps", schedule, record([answer([1]), answer([3]), answer([4])], [1, 1, 1]))

    assert workload.differing("steps", "whole") == (1, 2)


def test_latency_covers_answered_calls_and_their_share_is_reported() -> None:
    found = latencies(record([answer([1]), b"", answer([2]), answer([3])], [0.1, 9.0, 0.2, 0.3]))

    assert (round(found["p50_ms"]), round(found["p99_ms"])) == (200, 300)
    assert found["answered"] == 0.75
    assert round(found["late_p99_ms"]) == 2


def test_idle_rows_are_those_that_made_neither_a_token_nor_an_end() -> None:
    before, after = Work(steps=10, rows=100, useful=90), Work(steps=14, rows=120, useful=105)

    assert before.until(after) == {"rows_a_step": 5, "idle_rows": 0.25}
