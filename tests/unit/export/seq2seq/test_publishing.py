"""Encoder-decoders as two graphs, through three gates."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import weir.export
from tests.helpers.encoder_decoders import SOURCE, TARGET, network, sources
from weir.bundle.errors import VersionExists
from weir.bundle.reader import Bundle, read
from weir.bundle.sequences import Tokenisation
from weir.export import graph, runtime
from weir.export.errors import ExportError, ParityError
from weir.export.seq2seq import publishing
from weir.export.seq2seq.graphs import EncoderGraph, decode
from weir.export.seq2seq.publishing import publish_pair
from weir.export.seq2seq.spec import PairSpec
from weir.export.spec import ExportSpec
from weir.training.models.decoder import Memory, Step
from weir.training.models.seq2seq import EncoderDecoder
from weir.training.seq2seq.search import greedy, stepper_of

SPEC = PairSpec(
    architecture="gru",
    maximum_source_steps=24,
    maximum_steps=12,
    source_vocabulary=SOURCE,
    target_vocabulary=TARGET,
    tokenisation=Tokenisation(rule="letters", unknown=1),
    detokenisation="letters",
)
PARITY = 2e-6
"""Sums of 32 float32 products in another order, then a softmax over 14 words."""

FORMS: dict[str, dict[str, object]] = {
    "gru": {},
    "deep lstm": {"cell": "lstm", "layers": 2, "decoder_layers": 2},
    "one direction": {"bidirectional": False},
    "no attention": {"attends": False},
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def examples(rows: int = 60) -> dict[str, Tensor]:
    return dict(zip(("tokens", "lengths"), sources(rows), strict=True))


Publish = Callable[..., Bundle]


@pytest.fixture(scope="module")
def publish(tmp_path_factory: pytest.TempPathFactory) -> Publish:
    """Publish a form of the network, once."""
    made: dict[str, Bundle] = {}

    def publish(**form: object) -> Bundle:
        key = str(form)
        if key not in made:
            to = tmp_path_factory.mktemp("models")
            published = publish_pair(network(**form), examples(), SPEC, to=to, name="pair")
            made[key] = read(published.path)
        return made[key]

    return publish


def axes(values: list[onnx.ValueInfoProto]) -> dict[str, list[str | int]]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in values
    }


@every_form
def test_parity(form: dict[str, object], publish: Publish) -> None:
    parity = publish(**form).contract.parity

    assert parity is not None
    assert parity.max_absolute < PARITY and parity.sequences == 60
    assert parity.batch_sizes == [1, 2, 3, 8, 32] and parity.rows > 150


def test_graphs_with_attention(publish: Publish) -> None:
    graphs = {
        name: onnx.load_model_from_string(graph.model).graph
        for name, graph in publish().graphs.items()
    }

    assert axes(list(graphs["encoder"].input)) == {
        "tokens": ["batch", "time"],
        "lengths": ["batch"],
    }
    memory = {"memory": ["batch", "time", 10], "keys": ["batch", "time", 5], "state": ["batch", 5]}
    assert axes(list(graphs["encoder"].output)) == memory
    assert axes(list(graphs["decoder"].input)) == {
        "previous": ["batch"],
        **memory,
        "lengths": ["batch"],
    }
    assert axes(list(graphs["decoder"].output)) == {
        "log_probabilities": ["batch", len(TARGET)],
        "next_state": ["batch", 5],
        "attention": ["batch", "time"],
    }


def test_graphs_without_attention(publish: Publish) -> None:
    graphs = publish(attends=False).graphs
    encoder, decoder = (onnx.load_model_from_string(graphs[name].model).graph for name in graphs)

    passed = {"context": ["batch", 10], "state": ["batch", 5]}
    assert axes(list(encoder.output)) == passed
    assert axes(list(decoder.input)) == {"previous": ["batch"], **passed}
    assert list(axes(list(decoder.output))) == ["log_probabilities", "next_state"]


@every_form
def test_no_search_in_the_graphs(form: dict[str, object], publish: Publish) -> None:
    layers = form.get("layers", 1)

    for name, made in publish(**form).graphs.items():
        model = onnx.load_model_from_string(made.model)
        counts = Counter(node.op_type for node in model.graph.node)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
        assert not counts["Loop"] + counts["If"] + counts["Scan"]
        assert counts["GRU"] + counts["LSTM"] == (layers if name == "encoder" else 0)


def test_contract_says_how_they_work_together(publish: Publish) -> None:
    contract = publish().contract

    assert contract.task == "sequence-to-sequence" and contract.decoding is not None
    assert set(contract.decoding.from_encoder) == {"state", "memory", "keys"}
    assert contract.decoding.from_step == {"state": "next_state"}
    assert contract.padded_axes["time"].padding == {"tokens": 0, "memory": 0, "keys": 0}
    assert contract.value_ranges["previous"].maximum == len(TARGET) - 1
    assert {"torch", "onnx", "onnxruntime"} <= set(contract.versions)
    plain = publish(attends=False).contract
    assert plain.decoding is not None and plain.decoding.lengths is None
    assert set(plain.decoding.from_encoder) == {"state", "context"}
    assert plain.padded_axes["time"].padding == {"tokens": 0}


@every_form
def test_golden_outputs_replay(form: dict[str, object], publish: Publish) -> None:
    bundle = publish(**form)
    sessions = {name: runtime.open_session(graph.model) for name, graph in bundle.graphs.items()}

    for name, session in sessions.items():
        recorded = bundle.golden(name)
        assert recorded is not None
        outputs = session.run(list(recorded.outputs), dict(recorded.inputs))
        assert len(recorded.outputs) == len(session.get_outputs())
        for actual, expected in zip(outputs, recorded.outputs.values(), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    whole = bundle.golden()
    assert whole is not None and bundle.contract.decoding is not None
    inputs = {name: torch.from_numpy(array) for name, array in whole.inputs.items()}
    answers = decode(sessions["encoder"], sessions["decoder"], bundle.contract.decoding, inputs)
    for row, answer in enumerate(answers):
        count = whole.outputs["output_lengths"][row]
        assert answer.tokens == tuple(whole.outputs["output_tokens"][row, :count])


@every_form
def test_padding_changes_nothing_in_the_graphs(form: dict[str, object], publish: Publish) -> None:
    """Answers of the graphs to whole batches, against PyTorch's to each row alone."""
    bundle, model, batch = publish(**form), network(**form), examples(12)
    sessions = [runtime.open_session(bundle.graphs[name].model) for name in ("encoder", "decoder")]
    assert bundle.contract.decoding is not None

    together = decode(sessions[0], sessions[1], bundle.contract.decoding, batch)

    for row, length in enumerate(batch["lengths"].tolist()):
        own = (batch["tokens"][row : row + 1, :length], batch["lengths"][row : row + 1])
        with torch.no_grad():
            memory = model.encode(*own)
        (alone,) = greedy(stepper_of(model, memory, own[1]), memory.state, torch.tensor([12]))
        assert together[row].tokens == alone.tokens
        if alone.attention is not None:
            looked = together[row].attention
            assert looked is not None and not looked[:, length:].any()
            torch.testing.assert_close(looked[:, :length], alone.attention, atol=1e-5, rtol=0)


def test_module_is_left_in_its_mode(tmp_path: Path) -> None:
    model = network(dropout=0.5).train()

    publish_pair(model, examples(8), SPEC, to=tmp_path, name="pair")

    assert model.training and model.decoder.dropout.training


class Nosy(EncoderDecoder):
    """Its decoder looks at the padding too."""

    def step(self, previous: Tensor, state: Tensor, memory: Memory, lengths: Tensor) -> Step:
        assert memory.states is not None
        full = torch.full_like(lengths, 1) * memory.states.shape[1]
        return super().step(previous, state, memory, full)


class Diverging(nn.Module):
    """An exporter's fault, played."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.inner(x)
        return values * 1.001 if torch.onnx.is_in_onnx_export() else values


def test_attention_to_padding_closes_the_gate(tmp_path: Path) -> None:
    model = network()
    model.__class__ = Nosy

    with pytest.raises(ParityError, match="rows of unequal length may not share a batch"):
        publish_pair(model, examples(8), SPEC, to=tmp_path, name="pair")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("part", ["first", "decoder.readout"])
def test_fault_in_either_graph_closes_the_gate(part: str, tmp_path: Path) -> None:
    model = network()
    owner, _, name = part.rpartition(".")
    setattr(model.get_submodule(owner), name, Diverging(model.get_submodule(part)))

    with pytest.raises(ParityError, match="differ by"):
        publish_pair(model, examples(8), SPEC, to=tmp_path, name="pair")

    assert list(tmp_path.iterdir()) == []


def test_other_tokens_close_the_gate(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = {name: found.model for name, found in publish().graphs.items()}
    # The graphs of the same network, exported before.
    monkeypatch.setattr(
        graph,
        "convert",
        lambda module, *_: graphs["encoder" if isinstance(module, EncoderGraph) else "decoder"],
    )
    monkeypatch.setattr(publishing, "decode", lambda *given: decode(*given)[::-1])

    with pytest.raises(ParityError, match=r"example 0: PyTorch decodes \["):
        publish_pair(network(), examples(8), SPEC, to=tmp_path, name="pair")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("inputs", "changes", "message"),
    [
        pytest.param(["tokens"], {}, "expected tokens and lengths, got", id="inputs"),
        pytest.param(None, {"begin": 3}, "different ids for padding, begin and end", id="marks"),
        pytest.param(
            None, {"target_vocabulary": ["a"]}, "previous: expected 14 entries", id="vocabulary"
        ),
        pytest.param(
            None,
            {"target_vocabulary": (), "detokenisation": "spaces"},
            "expected a vocabulary of 'previous'",
            id="text without words",
        ),
        pytest.param(None, {"maximum_source_steps": 5}, "from 1 to 5", id="too long"),
    ],
)
def test_arguments_that_do_not_fit(
    inputs: list[str] | None, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    given = examples(8)
    chosen = {name: given[name] for name in inputs or given}
    settings = {key: getattr(SPEC, key) for key in SPEC.__dataclass_fields__}

    with pytest.raises(ExportError, match=message):
        publish_pair(
            network(), chosen, PairSpec(**{**settings, **changes}), to=tmp_path, name="pair"
        )


def test_taken_version_is_known_beforehand(tmp_path: Path) -> None:
    (tmp_path / "pair" / "1").mkdir(parents=True)

    with pytest.raises(VersionExists):
        publish_pair(network(), {}, SPEC, to=tmp_path, name="pair", version=1)


def test_one_graph_cannot_have_the_task() -> None:
    with pytest.raises(ExportError, match="got sequence-to-sequence; use `publish_pair`"):
        ExportSpec(architecture="a", outputs=["b"], task="sequence-to-sequence")


def test_public_face() -> None:
    assert weir.export.publish_pair is publish_pair and weir.export.PairSpec is PairSpec
