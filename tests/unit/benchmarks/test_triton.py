from benchmarks.lib.triton import Tensor, config


def test_a_graph_is_described_in_tritons_words() -> None:
    inputs = [Tensor("tokens", "tensor(int64)", [-1]), Tensor("lengths", "tensor(int64)", [])]
    outputs = [Tensor("logits", "tensor(float)", [-1, 17])]

    text = config("tagger", inputs, outputs, 32)

    assert text.splitlines() == [
        'name: "tagger"',
        'backend: "python"',
        "max_batch_size: 32",
        'input [ { name: "tokens" data_type: TYPE_INT64 dims: [ -1 ] } ]',
        # Triton has no name for an input that is the batch and nothing else.
        'input [ { name: "lengths" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } } ]',
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ -1, 17 ] } ]',
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        "dynamic_batching { }",
    ]
