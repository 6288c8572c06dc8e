import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.bundle.versions import VersionPolicy
from weir.server.errors import ModelLoadError
from weir.server.repository import triton
from weir.server.repository.triton import MAX_BYTES, TritonConfig, TritonTensor

# As people write them: comments, both list syntaxes, commas or none, either kind of quotes.
DENSENET = b"""
# From the quick start.
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, 224 ]
    # fits the graph's
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 1000 ]
    label_filename: "densenet_labels.txt"
  }
]
"""
BERT = b"""
backend: 'onnxruntime', max_batch_size: 16;
input { name: "input_ids" data_type: TYPE_INT64 dims: -1 }
input { name: "mask"; data_type: TYPE_INT64; dims: [-1] }
output < name: "logits" data_type: TYPE_FP32 dims: [ -1, 768 ] >
default_model_filename: "bert" ".onnx"
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 2500
  default_queue_policy { max_queue_size: 64 }
}
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }, { kind: KIND_CPU } ]
version_policy: { specific: { versions: [ 1, 3 ] } }
optimization { execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt"
  parameters { key: "precision_mode" value: "FP16" } } ] } graph { level: 1 } }
parameters: { key: "intra_op_thread_count" value: { string_value: "4" } }
parameters { key: "other" value { string_value: "} # no comment {" } }
model_warmup [ { name: "once" inputs { key: "input_ids" value: { dims: [ 8 ] zero_data: true } } } ]
response_cache { enable: true }
model_transaction_policy { decoupled: False }
"""

FILES = {
    "empty": (b"", TritonConfig()),
    "comments alone": (b"# nothing\n\n   # yet", TritonConfig()),
    "densenet": (
        DENSENET,
        TritonConfig(
            max_batch_size=0,
            inputs=(TritonTensor("data_0", "FP32", (3, 224, 224)),),
            outputs=(TritonTensor("fc6_1", "FP32", (1000,), label_file="densenet_labels.txt"),),
        ),
    ),
    "bert": (
        BERT,
        TritonConfig(
            max_batch_size=16,
            inputs=(
                TritonTensor("input_ids", "INT64", (-1,)),
                TritonTensor("mask", "INT64", (-1,)),
            ),
            outputs=(TritonTensor("logits", "FP32", (-1, 768)),),
            file="bert.onnx",
            max_queue_delay_s=0.0025,
            instances=3,
            providers=frozenset({"cpu", "cuda"}),
            policy=VersionPolicy(specific=(1, 3)),
            # In the order of the field numbers.
            unused=(
                "instance_group.gpus",
                "dynamic_batching.preferred_batch_size",
                "dynamic_batching.default_queue_policy",
                "optimization.graph",
                "optimization.execution_accelerators",
                "parameters",
                "model_warmup",
                "response_cache",
            ),
        ),
    ),
    "latest": (
        b"version_policy: { latest { num_versions: 2 } }",
        TritonConfig(policy=VersionPolicy(latest=2)),
    ),
    "all": (b"version_policy: { all: {} }", TritonConfig(policy=VersionPolicy())),
    "instances on any device": (
        b"instance_group [ { count: 2 }, { count: 3 kind: KIND_AUTO } ]",
        TritonConfig(instances=5),
    ),
    "batching without limits": (b"dynamic_batching { }", TritonConfig()),
    "tensors without a batch size": (
        b'input [ { name: "x" } ]',
        TritonConfig(max_batch_size=0, inputs=(TritonTensor("x"),)),
    ),
    "strings": (
        b'input [ { name: "x" data_type: TYPE_STRING dims: [1] } ]',
        TritonConfig(max_batch_size=0, inputs=(TritonTensor("x", "BYTES", (1,)),)),
    ),
    "windows": (b"\xef\xbb\xbfmax_batch_size: 4\r\n", TritonConfig(max_batch_size=4)),
    "undeclared": (
        b'max_batch_size: 4\nmax_batch_sise: 8 unheard { of: 1 } 77: "x"',
        TritonConfig(max_batch_size=4, undeclared="max_batch_sise (line 2)"),
    ),
    "undeclared number": (b'77: "x"', TritonConfig(undeclared="77 (line 1)")),
    "undeclared in a message": (
        b"optimization {\n graph { levle: 1 } }",
        TritonConfig(unused=("optimization.graph",), undeclared="levle (line 2)"),
    ),
    "contents that nothing reads": (
        b"model_metrics { metric_control: [ { metric_identifier { family: 'x' } } ] }",
        TritonConfig(unused=("model_metrics",)),
    ),
    "zero alone": (b"max_batch_size: 0", TritonConfig(max_batch_size=0)),
}


@pytest.mark.parametrize("name", FILES)
def test_file_is_read(name: str) -> None:
    data, expected = FILES[name]

    assert triton.parse(data, "densenet_onnx") == expected


def test_label_files_are_by_output() -> None:
    config = triton.parse(DENSENET, "densenet_onnx")

    assert config.label_files == {"fc6_1": "densenet_labels.txt"}


MALFORMED = {
    "unclosed": (b'input {\n name: "x"\n', r"line \d: .*Expected"),
    "unopened": (b"max_batch_size: 8\n}", r"line 2: .*Expected"),
    "no colon": (b"\n\nmax_batch_size 3", r'line 3: Expected ":"'),
    "no integer": (b"max_batch_size: eight", r"line 1: Couldn't parse integer: eight"),
    "long line": (b"\na: [" + b"1, " * 6000 + b"1]", "line 2: expected at most 16384 characters"),
    "huge integer": (b"max_batch_size: " + b"9" * 5000, "line 1: .*9{9}"),
    "string for a number": (b'max_batch_size: "8"', "line 1: Couldn't parse integer"),
    "unknown datatype": (b"input [ { data_type: FP32 } ]", "line 1: .*no value named FP32"),
    "number of no datatype": (
        b'input [ { name: "x" data_type: 77 } ]',
        "input 'x': data_type: expected a known one, got 77",
    ),
    "trailing comma": (b'input [ { name: "x" }, ]', r'line 1: Expected "\{"'),
    "twice": (b'backend: "onnxruntime"\nbackend: "python"', "line 2: .*multiple"),
    "two policies": (b"version_policy { all {} latest { num_versions: 1 } }", "line 1: .*latest"),
    "unended string": (b'name: "affine\nmax_batch_size: 1', "line 1: "),
    "in an undeclared field": (b"strange: \x1b", r"a field without effect: .*\\x1b"),
    "no utf-8": (b'# ok\nname: "\xff"', "line 2: expected UTF-8"),
    "escaped bytes": (b'name: "\\xff"', "line 1: .*utf-8"),
    "deep": (b"a {\n" * 100_000, "expected fewer levels of nesting"),
    "deep lists": (b"a: [[" * 1000, r"a field without effect: Invalid field value: \["),
    "deep and closed": (b"input { a {" * 300 + b"}}" * 300, "expected fewer levels of nesting"),
    "large": (b" " * (MAX_BYTES + 1), f"expected at most {MAX_BYTES} bytes, got {MAX_BYTES + 1}"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_file_is_refused_with_its_place(name: str) -> None:
    data, reason = MALFORMED[name]

    with pytest.raises(ModelLoadError, match=f"^config.pbtxt: {reason}") as failure:
        triton.parse(data, "affine")

    assert len(str(failure.value)) < 250
    assert str(failure.value).isprintable()


REFUSED = {
    "another name": ('name: "other"', "name: expected 'affine' as the directory's, got 'other'"),
    "another backend": ('backend: "python"', "backend: expected 'onnxruntime'.* got 'python'"),
    "another platform": ('platform: "tensorrt_plan"', "platform: expected 'onnxruntime_onnx'"),
    "an ensemble": (
        "ensemble_scheduling { step [ { } ] }",
        "ensemble_scheduling: .* not supported",
    ),
    "sequences": ("sequence_batching { oldest { } }", "sequence_batching: .* not supported"),
    "decoupled": ("model_transaction_policy { decoupled: true }", "decoupled: .* not supported"),
    "made inputs": ("batch_input [ { kind: BATCH_ELEMENT_COUNT } ]", "batch_input: "),
    "cut outputs": ("batch_output [ { } ]", "batch_output: "),
    "ragged": ('input { name: "x" allow_ragged_batch: true }', "'x': allow_ragged_batch: "),
    "reshape alone": ('output { name: "x" reshape: { } }', "'x': reshape: expected dims too"),
    "reshape of more": (
        'input { name: "x" dims: [ 3, -1, 4 ] reshape { shape: [ -1, 12 ] } }',
        r"'x': reshape: expected as many elements as dims \[3, -1, 4\] has, got \[-1, 12\]",
    ),
    "reshape of free to fixed": (
        'output { name: "x" dims: [ -1 ] reshape { shape: [ 1 ] } }',
        r"reshape: expected as many .* \[-1\] has, got \[1\]",
    ),
    "reshape to none": (
        'input { name: "x" dims: [ 2 ] reshape { shape: [ ] } }',
        r"reshape: expected as many .* \[2\] has, got \[\]",
    ),
    "reshape of no size": (
        'input { name: "x" dims: [ 1 ] reshape { shape: [ 0 ] } }',
        "reshape: expected sizes from 1, or -1, got 0",
    ),
    "negative batch": ("max_batch_size: -1", "max_batch_size: expected 0 to 1000000, got -1"),
    "huge batch": ("max_batch_size: 2147483647", "max_batch_size: expected 0 to 1000000"),
    "no name": ("input { dims: [1] }", "input: expected a name, got none"),
    "a name twice": ('output { name: "y" } output { name: "y" }', "output 'y' is described twice"),
    "size of none": ('input { name: "x" dims: [3, 0] }', "'x': dims: expected .* got 0"),
    "too many sizes": (f'input {{ name: "x" dims: {[1] * 33} }}', "at most 32 sizes, got 33"),
    "size below": ('input { name: "x" dims: -2 }', "'x': dims: expected .* got -2"),
    "endless delay": (
        "dynamic_batching { max_queue_delay_microseconds: 86400000001 }",
        "max_queue_delay_microseconds: expected 0 to 86400000000, got 86400000001",
    ),
    "negative count": ("instance_group { count: -1 }", "count: expected 0 to 1024, got -1"),
    "huge sum": (
        "instance_group [ { count: 1000 }, { count: 1000 } ]",
        "of all groups: expected 1 to 1024, got 2000",
    ),
    "no versions": ("version_policy { latest { } }", "num_versions: expected 1 .* got 0"),
    "no such version": ("version_policy { specific { versions: [1, 0] } }", r"got \[1, 0\]"),
    "versions of none": ("version_policy { specific { } }", "expected versions from 1, got"),
    "file elsewhere": ('default_model_filename: "../x.onnx"', "without directories, got '../x"),
    "directory": ('default_model_filename: ".."', "without directories"),
    "labels elsewhere": (
        'output { name: "y" label_filename: "/etc/passwd" }',
        "'y': label_filename",
    ),
    "null": ('default_model_filename: "a\\000b"', "default_model_filename: .* got 'a.x00b'"),
}


RESHAPES = {
    "of nothing": ("[ 1 ] reshape { }", (1,), ()),
    "scalar": ("[ 1 ] reshape { shape: [ ] }", (1,), ()),
    "of ones": (
        "[ 3, 224, 224 ] reshape { shape: [ 1, 3, 224, 224 ] }",
        (3, 224, 224),
        (1, 3, 224, 224),
    ),
    "around free sizes": (
        "[ 2, 4, -1, 6 ] reshape { shape: [ 8, -1, 1, 6 ] }",
        (2, 4, -1, 6),
        (8, -1, 1, 6),
    ),
}


@pytest.mark.parametrize("name", RESHAPES)
def test_reshape_is_read(name: str) -> None:
    text, dims, shape = RESHAPES[name]

    config = triton.parse(
        f'input {{ name: "x" dims: {text} }} output {{ name: "y" dims: {text} }}'.encode(), "affine"
    )

    assert config.inputs == (TritonTensor("x", dims=dims, reshape=shape),)
    assert config.outputs == (TritonTensor("y", dims=dims, reshape=shape),)
    assert not config.unused


def test_input_may_be_optional() -> None:
    config = triton.parse(b'input [ { name: "x" optional: true }, { name: "y" } ]', "affine")

    assert [tensor.is_optional for tensor in config.inputs] == [True, False]
    assert not config.unused


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_or_impossible_value_is_refused_with_its_name(name: str) -> None:
    text, reason = REFUSED[name]

    with pytest.raises(ModelLoadError, match=f"^config.pbtxt: .*{reason}"):
        triton.parse(text.encode(), "affine")


def test_undeclared_field_is_named_up_to_a_bound() -> None:
    undeclared = triton.parse(b"long" * 1000 + b": 1", "affine").undeclared

    assert undeclared is not None
    assert undeclared.startswith("longlong") and len(undeclared) < 140


names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
values: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["1", "-1", "-2.5", "TRUE", '"a {b}: # c"', "'d' \"e\"", "[1, 2]", "[]"]),
    lambda inner: st.one_of(
        st.lists(st.tuples(names, inner), max_size=3).map(lambda f: "{" + _text(f) + "}"),
        st.lists(st.tuples(names, inner), max_size=3).map(lambda f: "[{" + _text(f) + "}]"),
    ),
    max_leaves=8,
)


def _text(fields: list[tuple[str, str]]) -> str:
    return ", ".join(f"strange_{name}: {value}" for name, value in fields)


@given(st.lists(st.tuples(names, values), max_size=4))
def test_first_undeclared_field_is_named_and_nothing_else(fields: list[tuple[str, str]]) -> None:
    config = triton.parse(_text(fields).encode(), "affine")

    undeclared = f"strange_{fields[0][0]} (line 1)" if fields else None
    assert config == TritonConfig(undeclared=undeclared)


@given(st.binary(max_size=60) | st.text("ax:{}<>[]\"'#-1,;\n\\ ", max_size=40).map(str.encode))
def test_any_bytes_are_a_configuration_or_a_reason(data: bytes) -> None:
    reason = ""
    try:
        triton.parse(data, "affine")
    except ModelLoadError as error:
        reason = str(error)

    assert not reason or reason.startswith("config.pbtxt: ")


def test_fields_without_effect_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    config = TritonConfig(
        unused=("parameters", "optimization.graph"),
        undeclared="max_batch_sise (line 3)",
        providers=frozenset({"cpu", "cuda"}),
    )

    with caplog.at_level(logging.INFO):
        triton.warn("affine", config, "cpu")

    assert caplog.messages == [
        "config.pbtxt has fields without effect model=affine fields=parameters, optimization.graph",
        "config.pbtxt has unknown fields model=affine first=max_batch_sise (line 3)",
        (
            "config.pbtxt asks for another device model=affine instance_group.kind=KIND_GPU "
            "provider=cpu"
        ),
    ]


def test_configuration_that_has_its_effect_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        triton.warn("affine", TritonConfig(providers=frozenset({"cpu"})), "cpu")

    assert caplog.messages == []
