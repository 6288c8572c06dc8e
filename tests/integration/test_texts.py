"""Texts and series over the wire, by client and command, on both transports."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

import weir
from tests.helpers import text_models
from tests.integration.harness import ANSWER_S, TASKS, Client, Server, failure, tensor
from weir.cli import main as cli
from weir.protocol import tasks_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
def caller(house: Server) -> Iterator[weir.Client]:
    with weir.Client(house.target, timeout_s=ANSWER_S) as caller:
        yield caller


def test_tokens_are_tagged_and_unknown_ones_marked(caller: weir.Client) -> None:
    first, second = caller.tag("tagger", ["The cat, sat", ["cat", "a b"]])

    assert [(token.text, token.is_unknown) for token in first] == [
        ("The", False),
        ("cat", False),
        (",", True),
        ("sat", False),
    ]
    assert [(token.text, token.is_unknown) for token in second] == [("cat", False), ("a b", True)]
    assert first[1].tag == second[0].tag and first[1].tag in text_models.TAGS
    assert first[0].probability == pytest.approx(text_models.CERTAIN, rel=1e-6)


def test_texts_are_classified(caller: weir.Client) -> None:
    first, second = caller.classify_text("classifier", ["the cat the dog", "sat"], top=1)

    assert (first.classes[0].label, first.classes[0].score) == ("article", 0.5)
    assert first.unknown == ["dog"]
    assert (second.classes[0].label, second.unknown) == ("deed", [])


def test_series_is_forecast(caller: weir.Client) -> None:
    columns = {"price": np.array([9, 0.25, 0.5, 0.75]), "sales": np.array([9, 1, 2, 3])}

    found = caller.forecast("forecaster", columns, horizon=1)

    assert (found.name, found.values.tolist()) == ("sales", [3.75])
    with pytest.raises(weir.InvalidArgument, match="horizon: expected at most 2"):
        caller.forecast("forecaster", columns, horizon=3)


def test_texts_of_unequal_length_at_once_get_their_own_answers(house: Server) -> None:
    texts = [" ".join(["the", "cat", "sat"][: 1 + n % 3]) for n in range(90)]

    async def main() -> list[list[list[weir.TaggedToken]]]:
        async with weir.AsyncClient(house.target, timeout_s=ANSWER_S) as client:
            return await asyncio.gather(*(client.tag("tagger", [text]) for text in texts))

    for text, (tokens,) in zip(texts, asyncio.run(main()), strict=True):
        assert " ".join(token.text for token in tokens) == text


def test_texts_and_tensors_share_a_batch(
    house: Server, client: Client, caller: weir.Client
) -> None:
    before = house.counts("patient_tagger")
    inputs = {
        "tokens": np.array([[5]]),
        "characters": np.array([[[7, 8, 4]]]),
        "lengths": np.array([1]),
    }

    with ThreadPoolExecutor(1) as thread:
        tagged = thread.submit(caller.tag, "patient_tagger", ["cat"])
        house.wait_for_metric(1, "weir_queue_requests", model="patient_tagger")
        tensors = [tensor(name, array) for name, array in inputs.items()]
        logits = client.infer("patient_tagger", *tensors)["logits"]

    ((token,),) = tagged.result()
    assert token.tag == text_models.TAGS[int(logits[0, 0].argmax())]
    house.wait_for_counts("patient_tagger", before, OK=2, rows=2, batches=1)


@pytest.mark.parametrize(
    ("method", "payload"),
    [
        ("Tag", b"\xff\xff"),
        ("ClassifyText", b"\x22\x00" * 2_000_000),
        ("Tag", pb.TagRequest(model_name="tagger", texts=[pb.Text()] * 2000).SerializeToString()),
        ("Forecast", b"\x0a\x0aforecaster" + b"\x22\x00" * 2_000_000),
    ],
    ids=["noise", "parts", "texts", "columns"],
)
def test_invalid_or_oversized_message_is_refused(
    client: Client, method: str, payload: bytes
) -> None:
    error = failure(client.unary(method, TASKS).future(payload, timeout=ANSWER_S))

    assert error.code() is INVALID


@pytest.mark.parametrize(
    "text",
    ["a" * 15_000_000, "a" + "\u0301\u0323" * 3_000_000, "\u0344" * 100, "the " * 1_000_000],
    ids=["one word", "marks", "double marks", "many words"],
)
def test_expensive_text_is_refused_at_once(caller: weir.Client, text: str) -> None:
    with pytest.raises(weir.InvalidArgument, match=r"texts\[0\]: expected"):
        caller.tag("tagger", [text], timeout_s=ANSWER_S)


def test_model_of_another_task_is_refused_by_its_task(caller: weir.Client) -> None:
    for name, found in {"classifier": "sequence-classification", "colours": "image-cl"}.items():
        with pytest.raises(weir.InvalidArgument, match=f"expected the task tagging, got {found}"):
            caller.tag(name, ["the"])
    with pytest.raises(weir.InvalidArgument, match="none: it has no contract"):
        caller.tag("affine", ["the"])


def typed(capsys: pytest.CaptureFixture[str], house: Server, *arguments: str) -> object:
    """The JSON that a command prints."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "--json", "--target", house.target])
    assert not ended.value.code
    return json.loads(capsys.readouterr().out)


def test_commands_answer_like_the_client(
    house: Server, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("series") / "data.csv"
    data.write_text("day,sales,price\nmon,1,0.25\ntue,2,0.5\nwed,3,0.75\n")

    tags = typed(capsys, house, "tag", "the dog", "--model", "tagger")
    cut = typed(capsys, house, "tag", "--tokens", "the\ta b", "--model", "tagger")
    classes = typed(capsys, house, "classify-text", "cat", "--model", "classifier", "--top", "1")
    forecast = typed(capsys, house, "forecast", str(data), "--model", "forecaster")

    assert isinstance(tags, list) and tags[0]["tokens"][1]["is_unknown"]
    assert isinstance(cut, list)
    assert [token["text"] for token in cut[0]["tokens"]] == ["the", "a b"]
    assert classes == [
        {
            "text": "cat",
            "classes": [{"label": "animal", "index": 1, "probability": 1.0}],
            "unknown": [],
        }
    ]
    assert forecast == {"name": "sales", "values": [3.75, 1.0]}
