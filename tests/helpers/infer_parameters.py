"""Hypothesis strategies of request parameters."""

from hypothesis import strategies as st

from weir.protocol import inference_pb2 as pb

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

keys = st.sampled_from(
    [
        "timeout",
        "priority",
        "sequence_id",
        "sequence_start",
        "sequence_end",
        "triton_enable_empty_final_response",
        "triton_x",
        "shared_memory_x",
        "own",
    ]
)
values = st.one_of(
    st.builds(pb.InferParameter, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(pb.InferParameter, uint64_param=st.integers(0, 2**64 - 1)),
    st.builds(pb.InferParameter, bool_param=st.booleans()),
    st.builds(pb.InferParameter, double_param=st.floats()),
    st.builds(pb.InferParameter, string_param=texts),
    st.just(pb.InferParameter()),
)
