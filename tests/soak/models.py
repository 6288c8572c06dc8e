"""The repository of the soak: models whose answers `oracle` knows, and versions that are broken."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from tests.helpers import onnx_models, pairs
from tests.soak import oracle
from weir.bundle.contract import Batching, Contract, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.sequences import PaddedAxis
from weir.bundle.writer import write

HUNGRY_WIDTH = 640
"""Width of a row of `hungry` whose run needs a gibibyte."""

SETTINGS = """
threads = 1
instances = 1

[models.fingerprint]
max_queue_delay_s = 0.002

[models.lengths]
max_queue_delay_s = 0.002
"""
"""Rows wait a little, so that a batch has rows of several clients at a moderate rate too."""

_EXACT = Tolerance(absolute=0.0, relative=0.0)


def write_repository(root: Path) -> None:
    """Write every model of `oracle.MODELS`."""
    write_fingerprint(root, 1)
    _write_lengths(root)
    # Plain: a graph with a loop is not batched then, so a request takes as long as it asks for.
    onnx_models.write_plain(root, "burner", onnx_models.burner())
    onnx_models.write_plain(root, "hungry", onnx_models.cube())
    _write_pair(root)


def write_fingerprint(root: Path, version: int) -> Path:
    """A version of `fingerprint`; its number is in every row that it answers."""
    contract = Contract(
        task="other", architecture="soak", batching=Batching(max_rows=16), tolerance=_EXACT
    )
    return write(_fingerprint_files(version), contract, root, "fingerprint", version)


def write_broken(root: Path, version: int) -> Path:
    """A version with a flipped bit."""
    directory = write_fingerprint(root, version)
    path = directory / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return directory


def write_half(root: Path, version: int) -> Path:
    """A version of which half a file was copied."""
    directory = write_fingerprint(root, version)
    path = directory / "model.onnx"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (directory / GOLDEN).unlink()
    return directory


def remove(directory: Path) -> None:
    """Remove a version."""
    shutil.rmtree(directory)


def _fingerprint_files(version: int) -> dict[str, bytes]:
    rows = np.array([[1, 2, 3], [4, 5, 6]])
    golden = Golden(
        {"row": rows},
        {"echo": rows, "hash": oracle.hash_of(rows), "version": np.full(2, version)},
    )
    return {"model.onnx": onnx_models.fingerprint(version), GOLDEN: encode(golden)}


def _write_lengths(root: Path) -> None:
    """`fingerprint` over rows of unequal lengths, padded with zeros."""
    contract = Contract(
        task="other",
        architecture="soak",
        padded_axes={"n": PaddedAxis(maximum=oracle.MAX_LENGTH, padding={"row": 0})},
        batching=Batching(max_rows=16),
        tolerance=_EXACT,
    )
    write(_fingerprint_files(1), contract, root, "lengths")


def _write_pair(root: Path) -> None:
    """An encoder-decoder that answers with the digits of a hash of its source."""
    digits = oracle.BASE**oracle.MAX_SOURCE
    encoder = _parsed(
        f"""encoder (int64[batch, time] tokens, int64[batch] lengths)
            => (float[batch, time, 1] memory, float[batch, 2] state)
        <int64[1] last = {{-1}}, int64 zero = {{0}}, int64 one = {{1}}, int64 factor = {{37}},
         int64 digits = {{{digits}}}>
        {{
            deep = Unsqueeze(tokens, last)
            memory = Cast <to = 1> (deep)
            width = Shape <start = 1, end = 2> (tokens)
            scalar = Squeeze(width)
            position = Range(zero, scalar, one)
            place = Add(position, one)
            weighted = Mul(tokens, place)
            sum = ReduceSum <keepdims = 1> (weighted, last)
            scaled = Mul(sum, factor)
            value = Mod(scaled, digits)
            tall = Unsqueeze(lengths, last)
            both = Concat <axis = 1> (tall, value)
            state = Cast <to = 1> (both)
        }}"""
    )
    # The likeliest token is the digit until the count of the state is 0, and then 3, the end.
    decoder = _parsed(
        f"""decoder (
            int64[batch] previous, float[batch, 2] state, float[batch, time, 1] memory,
            int64[batch] lengths
        ) => (
            float[batch, 8] log_probabilities, float[batch, 2] next_state,
            float[batch, time] attention
        )
        <
            int64[1] last = {{-1}}, float one = {{1.0}}, float zero = {{0.0}},
            float base = {{{oracle.BASE}.0}}, float first = {{{oracle.FIRST_TOKEN}.0}},
            float end = {{3.0}}, float[8] tokens = {{0, 1, 2, 3, 4, 5, 6, 7}},
            int64[2] halves = {{1, 1}}
        >
        {{
            left, value = Split <axis = 1> (state, halves)
            next_left = Sub(left, one)
            ratio = Div(value, base)
            next_value = Floor(ratio)
            rounded = Mul(next_value, base)
            digit = Sub(value, rounded)
            token = Add(digit, first)
            goes_on = Greater(left, zero)
            chosen = Where(goes_on, token, end)
            difference = Sub(tokens, chosen)
            distance = Abs(difference)
            log_probabilities = Neg(distance)
            next_state = Concat <axis = 1> (next_left, next_value)
            attention = Squeeze(memory, last)
        }}"""
    )
    tokens, counts = np.array([[5, 6, 7], [8, 0, 0]]), np.array([3, 1])
    answers = [oracle.answer_of([5, 6, 7]), oracle.answer_of([8])]
    padded = np.array([answers[0], [answers[1][0], 0, 0]])
    memory, state = tokens[..., None].astype(np.float32), _run(encoder, tokens, counts)["state"]
    steps = {"previous": np.array([2, 2]), "state": state, "memory": memory, "lengths": counts}
    assert pairs.CONTRACT.decoding is not None
    contract = pairs.CONTRACT.model_copy(
        update={
            "decoding": pairs.CONTRACT.decoding.model_copy(
                update={"maximum_steps": oracle.MAX_SOURCE + 2}
            ),
            "batching": Batching(max_rows=8),
        }
    )
    sources = {"tokens": tokens, "lengths": counts}
    goldens = {
        "golden.npz": Golden(sources, {"output_tokens": padded, "output_lengths": counts}),
        "golden.encoder.npz": Golden(sources, _run(encoder, tokens, counts)),
        "golden.decoder.npz": Golden(steps, _outputs(decoder, steps)),
    }
    files = {
        "encoder.onnx": encoder,
        "decoder.onnx": decoder,
        **{name: encode(golden) for name, golden in goldens.items()},
    }
    write(files, contract, root, "pair")


def _run(graph: bytes, tokens: oracle.Array, counts: oracle.Array) -> dict[str, oracle.Array]:
    return _outputs(graph, {"tokens": tokens, "lengths": counts})


def _outputs(graph: bytes, inputs: dict[str, oracle.Array]) -> dict[str, oracle.Array]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _parsed(graph: str) -> bytes:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{graph}')
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
