"""A tiny encoder-decoder with known answers: its files and its contract."""

import numpy as np
import onnx

from weir.bundle.contract import Batching, Contract, Tolerance
from weir.bundle.decoding import Decoding
from weir.bundle.golden import Golden
from weir.bundle.sequences import PaddedAxis, Tokenisation, ValueRange

CONTRACT = Contract(
    task="sequence-to-sequence",
    architecture="made up",
    padded_axes={
        "time": PaddedAxis(maximum=16, lengths="lengths", padding={"tokens": 0, "memory": 0})
    },
    value_ranges={"tokens": ValueRange(maximum=9), "previous": ValueRange(maximum=7)},
    decoding=Decoding(
        lengths="lengths",
        attention="attention",
        from_encoder={"memory": "memory", "state": "state"},
        from_step={"state": "next_state"},
        begin=2,
        end=3,
        maximum_steps=9,
    ),
    batching=Batching(max_rows=4),
    tolerance=Tolerance(absolute=1e-6, relative=1e-6),
)

assert CONTRACT.decoding is not None
LONG_WINDED = CONTRACT.model_copy(
    update={"decoding": CONTRACT.decoding.model_copy(update={"maximum_steps": 10_000_000})}
)
"""For `long_winded_encoder`: whoever gives no limit is answered as long as somebody listens."""

VOCABULARIES = {
    "tokens.txt": b"<pad>\n<unk>\n<s>\n</s>\na\nb\nc\nd\ne\nz\n",
    "previous.txt": b"<pad>\n<unk>\n<s>\n</s>\nA\nB\nC\nD\n",
}
"""For `speaking`: z is the 9 of `long_winded_encoder`."""

_TOKENS, _LENGTHS = np.array([[5, 6, 7], [8, 0, 0]]), np.array([3, 1])
_MEMORY, _STATE = _TOKENS[..., None].astype(np.float32), np.array([[3], [1]], np.float32)

ENCODER_GOLDEN = Golden(
    inputs={"tokens": _TOKENS, "lengths": _LENGTHS}, outputs={"memory": _MEMORY, "state": _STATE}
)
DECODER_GOLDEN = Golden(
    inputs={
        "previous": np.array([2, 2]),
        "state": _STATE,
        "memory": _MEMORY,
        "lengths": _LENGTHS,
    },
    outputs={
        "log_probabilities": np.array(
            [[0, 0, 0, 0.5, 2, 0, 0, 0], [0, 0, 0, 0.5, 0, 0, 0, 0]], np.float32
        ),
        "next_state": _STATE - 1,
        "attention": _TOKENS.astype(np.float32),
    },
)

HEARING = CONTRACT.model_copy(
    update={
        "padded_axes": {
            "time": PaddedAxis(maximum=16, lengths="lengths", padding={"sounds": 0, "memory": 0})
        },
        "value_ranges": {"previous": ValueRange(maximum=7)},
    }
)
"""For `hearing_encoder`."""

WHOLE_GOLDEN = Golden(
    inputs=ENCODER_GOLDEN.inputs,
    outputs={
        "output_tokens": np.array([[4, 4], [0, 0]]),
        "output_lengths": np.array([2, 0]),
    },
)
"""What the two graphs make of these sources, greedily."""

_SOUNDS = {"sounds": _TOKENS.astype(np.float32), "lengths": _LENGTHS}
HEARING_GOLDENS = {
    "golden.npz": Golden(_SOUNDS, WHOLE_GOLDEN.outputs),
    "golden.encoder.npz": Golden(_SOUNDS, ENCODER_GOLDEN.outputs),
}


def speaking(contract: Contract) -> Contract:
    """The contract of a pair that takes letters, and answers with letters."""
    assert contract.decoding is not None
    return contract.model_copy(
        update={
            "vocabularies": {name.removesuffix(".txt"): name for name in VOCABULARIES},
            "tokenisation": Tokenisation(rule="letters", unknown=1),
            "decoding": contract.decoding.model_copy(update={"detokenisation": "letters"}),
        }
    )


def encoder() -> bytes:
    """The memory holds the tokens, the state how many there are."""
    return _parsed(
        """encoder (int64[batch, time] tokens, int64[batch] lengths)
            => (float[batch, time, 1] memory, float[batch, 1] state)
        <int64[1] last = {-1}>
        {
            deep = Unsqueeze(tokens, last)
            memory = Cast <to = 1> (deep)
            tall = Unsqueeze(lengths, last)
            state = Cast <to = 1> (tall)
        }"""
    )


def long_winded_encoder() -> bytes:
    """The same, but for sources with a 9 in them: their answers have ten million tokens."""
    return _parsed(
        """encoder (int64[batch, time] tokens, int64[batch] lengths)
            => (float[batch, time, 1] memory, float[batch, 1] state)
        <int64[1] last = {-1}, int64[1] nine = {9}, int64[1] many = {10000000}>
        {
            deep = Unsqueeze(tokens, last)
            memory = Cast <to = 1> (deep)
            greatest = ReduceMax <keepdims = 1> (tokens, last)
            has_nine = Div(greatest, nine)
            more = Mul(has_nine, many)
            tall = Unsqueeze(lengths, last)
            steps = Add(tall, more)
            state = Cast <to = 1> (steps)
        }"""
    )


def hearing_encoder() -> bytes:
    """The memory holds the sounds, which are numbers of any size."""
    return _parsed(
        """encoder (float[batch, time] sounds, int64[batch] lengths)
            => (float[batch, time, 1] memory, float[batch, 1] state)
        <int64[1] last = {-1}>
        {
            memory = Unsqueeze(sounds, last)
            tall = Unsqueeze(lengths, last)
            state = Cast <to = 1> (tall)
        }"""
    )


def decoder() -> bytes:
    """The state counts down. The likeliest token is 4 until it is 0, and then 3, the end.

    The attention is the memory; `previous` and `lengths` change nothing.
    """
    return _parsed(
        """decoder (
            int64[batch] previous, float[batch, 1] state, float[batch, time, 1] memory,
            int64[batch] lengths
        ) => (
            float[batch, 8] log_probabilities, float[batch, 1] next_state,
            float[batch, time] attention
        )
        <
            int64[1] last = {-1}, float one = {1.0},
            float[1, 8] four = {0, 0, 0, 0, 1, 0, 0, 0},
            float[1, 8] three = {0, 0, 0, 0.5, 0, 0, 0, 0}
        >
        {
            next_state = Sub(state, one)
            more = Mul(next_state, four)
            log_probabilities = Add(more, three)
            attention = Squeeze(memory, last)
        }"""
    )


def _parsed(graph: str) -> bytes:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{graph}')
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
