"""A bundle of two graphs: what its contract must say, and what a reader makes of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weir.bundle import golden
from weir.bundle.contract import Contract, parse
from weir.bundle.decoding import Decoding
from weir.bundle.errors import BrokenBundle
from weir.bundle.golden import Golden
from weir.bundle.reader import Bundle, is_pair, read
from weir.bundle.writer import write

DECODING: dict[str, Any] = {
    "lengths": "lengths",
    "attention": "attention",
    "from_encoder": {"state": "state", "memory": "memory", "keys": "keys"},
    "from_step": {"state": "next_state"},
    "begin": 2,
    "end": 3,
    "maximum_steps": 40,
    "detokenisation": "letters",
}
PAIR: dict[str, Any] = {
    "format": 1,
    "task": "sequence-to-sequence",
    "architecture": "gru",
    "tolerance": {"absolute": 1e-5, "relative": 1e-5},
    "padded_axes": {
        "time": {
            "maximum": 64,
            "lengths": "lengths",
            "padding": {"tokens": 0, "memory": 0, "keys": 0},
        }
    },
    "value_ranges": {"tokens": {"maximum": 99}, "previous": {"maximum": 49}},
    "vocabularies": {"tokens": "vocabulary.tokens.txt", "previous": "vocabulary.previous.txt"},
    "tokenisation": {"rule": "letters", "unknown": 1},
    "decoding": DECODING,
}


def parsed(**changes: object) -> Contract:
    return parse(json.dumps({**PAIR, **changes}).encode())


def changed(**changes: object) -> Contract:
    return parsed(decoding={**DECODING, **changes})


def test_what_is_written_is_read_back() -> None:
    contract = parsed()

    assert contract.decoding is not None
    assert contract.decoding.previous == "previous" and contract.decoding.padding == 0
    assert contract.decoding.from_step == {"state": "next_state"}
    assert parse(contract.model_dump_json().encode()) == contract


def test_without_attention_there_is_nothing_to_look_at() -> None:
    contract = changed(
        lengths=None, attention=None, from_encoder={"state": "state", "context": "context"}
    )

    assert contract.decoding is not None
    assert contract.decoding.attention is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"unknown": 1}, "decoding.unknown: unknown key", id="unknown key"),
        pytest.param({"begin": "2"}, "decoding.begin: expected a valid integer", id="text"),
        pytest.param({"end": 2}, "different ids for padding, begin and end, got 0, 2, 2", id="ids"),
        pytest.param(
            {"begin": 50}, "begin: expected 0 to 49, the range of 'previous', got 50", id="range"
        ),
        pytest.param({"maximum_steps": 0}, "decoding.maximum_steps: expected", id="no steps"),
        pytest.param({"extra_steps": 3}, "expected steps_per_token too, got 3", id="extra"),
        pytest.param({"previous": "token"}, "expected a value range of 'token'", id="no range"),
        pytest.param({"from_step": {}}, "decoding.from_step: ", id="no state"),
        pytest.param(
            {"from_step": {"cell": "next"}},
            r"from_step: expected inputs of from_encoder, got \['cell'\]",
            id="state without a beginning",
        ),
        pytest.param(
            {"from_encoder": {"state": "state", "lengths": "counts"}},
            r"from_encoder: expected inputs other than previous and lengths, got \['lengths'\]",
            id="two sources",
        ),
        pytest.param(
            {"from_step": {"state": "attention"}}, "a different output for each", id="one output"
        ),
        pytest.param({"detokenisation": "bytes"}, "decoding.detokenisation: expected", id="join"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BrokenBundle, match=message):
        changed(**changes)


def test_task_and_decoding_go_together() -> None:
    with pytest.raises(BrokenBundle, match="decoding: expected with sequence-to-sequence alone"):
        parsed(decoding=None)
    with pytest.raises(BrokenBundle, match="decoding: expected with sequence-to-sequence alone"):
        parsed(task="tagging")


def test_a_text_needs_a_vocabulary() -> None:
    with pytest.raises(BrokenBundle, match="decoding: expected a vocabulary of 'previous'"):
        parsed(vocabularies={"tokens": "vocabulary.tokens.txt"})


@pytest.mark.parametrize(
    ("changes", "limits"),
    [
        pytest.param({}, {1: 40, 64: 40}, id="absolute"),
        pytest.param({"steps_per_token": 1.5, "extra_steps": 5}, {1: 7, 10: 20, 64: 40}, id="both"),
        pytest.param({"steps_per_token": 0.0}, {5: 1}, id="at least 1"),
    ],
)
def test_limit_of_steps(changes: dict[str, Any], limits: dict[int, int]) -> None:
    decoding = Decoding(**{**DECODING, **changes})

    assert {source: decoding.limit(source) for source in limits} == limits


def test_each_graph_has_its_own_part() -> None:
    contract = parsed()

    encoder = contract.of_graph({"tokens", "lengths"})
    decoder = contract.of_graph({"previous", "state", "memory", "keys", "lengths"})
    plain = contract.of_graph({"previous", "state", "context"})
    unmeasured = contract.of_graph({"previous", "state", "memory", "keys"})

    assert encoder.padded_axes["time"].padding == {"tokens": 0}
    assert decoder.padded_axes["time"].padding == {"memory": 0, "keys": 0}
    assert (encoder.padded_axes["time"].lengths, unmeasured.padded_axes["time"].lengths) == (
        "lengths",
        None,
    )
    assert plain.padded_axes == {}
    assert list(encoder.value_ranges) == list(encoder.vocabularies) == ["tokens"]
    assert list(decoder.value_ranges) == list(decoder.vocabularies) == ["previous"]
    for part in (encoder, decoder, plain, unmeasured):
        assert part.decoding is None and part.tokenisation is None
        assert parse(part.model_dump_json().encode()) == part


@pytest.fixture
def pair_files(files: dict[str, bytes]) -> dict[str, bytes]:
    whole = Golden({"tokens": np.array([[1]])}, {"output_tokens": np.array([[4]])})
    return {
        "encoder.onnx": files["model.onnx"],
        "decoder.onnx": files["model.onnx"],
        "golden.npz": golden.encode(whole),
        "golden.decoder.npz": files["golden.npz"],
        "vocabulary.tokens.txt": b"a\n",
        "vocabulary.previous.txt": b"b\n",
    }


def published(tmp_path: Path, files: dict[str, bytes]) -> Bundle:
    return read(write(files, parsed(), tmp_path, "pair"))


def test_two_graphs_are_written_and_read(tmp_path: Path, pair_files: dict[str, bytes]) -> None:
    bundle = published(tmp_path, pair_files)

    assert {name: graph.model for name, graph in bundle.graphs.items()} == {
        "encoder": pair_files["encoder.onnx"],
        "decoder": pair_files["decoder.onnx"],
    }
    whole, step = bundle.golden(), bundle.golden("decoder")
    assert whole is not None and whole.outputs["output_tokens"].tolist() == [[4]]
    assert step is not None and list(step.inputs) == ["image"]
    assert bundle.golden("encoder") is None
    assert bundle.vocabulary("previous") == ["b"]
    with pytest.raises(BrokenBundle, match=r"a bundle of encoder\.onnx and decoder\.onnx"):
        _ = bundle.model


@pytest.mark.parametrize(
    ("dropped", "added"),
    [("decoder.onnx", ()), ("encoder.onnx", ("model.onnx",)), (None, ("model.onnx",))],
    ids=["half", "half and one", "three"],
)
def test_a_pair_is_two_graphs(
    dropped: str | None, added: tuple[str, ...], tmp_path: Path, pair_files: dict[str, bytes]
) -> None:
    graph = pair_files["encoder.onnx"]
    files = {name: data for name, data in pair_files.items() if name != dropped}

    with pytest.raises(BrokenBundle, match=r"expected decoder\.onnx and encoder\.onnx among them"):
        published(tmp_path, {**files, **dict.fromkeys(added, graph)})


def test_one_graph_is_no_pair(publish: Callable[..., Path], files: dict[str, bytes]) -> None:
    with pytest.raises(BrokenBundle, match=r"expected model\.onnx among them"):
        publish({"encoder.onnx": files["model.onnx"]})


@pytest.mark.parametrize("lost", ["encoder.onnx", "decoder.onnx", None])
def test_pair_is_known_by_its_names(
    lost: str | None, tmp_path: Path, pair_files: dict[str, bytes]
) -> None:
    directory = write(pair_files, parsed(), tmp_path, "pair")
    if lost is not None:
        (directory / lost).unlink()

    assert is_pair(directory)


def test_one_graph_or_none_is_not_known_as_a_pair(
    directory: Path, tmp_path: Path, files: dict[str, bytes]
) -> None:
    plain = tmp_path / "plain" / "1"
    plain.mkdir(parents=True)
    # Without a contract, whatever else lies there is nothing of ours.
    for name in ("model.onnx", "encoder.onnx"):
        (plain / name).write_bytes(files["model.onnx"])

    assert not is_pair(directory)
    assert not is_pair(plain)
    assert not is_pair(tmp_path / "nowhere")


def test_damaged_golden_file_is_named(tmp_path: Path, pair_files: dict[str, bytes]) -> None:
    bundle = published(tmp_path, {**pair_files, "golden.encoder.npz": b"no archive"})

    with pytest.raises(BrokenBundle, match=r"golden\.encoder\.npz: expected an archive"):
        bundle.golden("encoder")


def test_single_graphs_are_as_they_were(directory: Path, files: dict[str, bytes]) -> None:
    bundle = read(directory)

    assert list(bundle.graphs) == ["model"] and bundle.contract.decoding is None
    assert bundle.model == files["model.onnx"]
