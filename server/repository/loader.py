"""Loader: one version of a model, from its files to served models.

A version is served only after these steps, in this order:

    read         every file, hashed against the contract              (bundle)
    session      the graph, on the chosen provider                    (session)
    batch axis   of a plain model: rows may share a batch             (batch_axis)
    parallelism  threads and instances, by a short measurement        (parallelism)
    warm-up      batches of the sizes that the scheduler will make    (warmup)
    golden test  recorded inputs give the recorded outputs            (golden_test)

A version of two graphs is three models: `NAME.encoder`, `NAME.decoder`, and `NAME`, which decodes
step by step. All of them are served, or none.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from weir.bundle import reader
from weir.bundle.contract import FILE_NAME, Contract
from weir.bundle.errors import BundleError
from weir.bundle.escaping import short_list, short_repr
from weir.bundle.external_data import ExternalTensor
from weir.bundle.golden import Golden
from weir.bundle.repository_files import NO_LINKS, LinkRoots
from weir.server.config import ModelSettings
from weir.server.errors import ModelLoadError, ServerError
from weir.server.generation.encoder_decoder import (
    EncoderDecoder,
    EncoderDecoderModel,
    Graph,
    join_graphs,
)
from weir.server.generation.engine import Engine
from weir.server.preprocessing.detokenizer import Detokenizer, detokenizer_of
from weir.server.preprocessing.tokenizer import BundleTokenizer, tokenizer_of
from weir.server.protocol.response_encoder import STREAM_BYTES, RequestedOutput, ResponseEncoder
from weir.server.repository import (
    batch_axis,
    contract_check,
    golden_test,
    parallelism,
    plain_model,
    triton,
)
from weir.server.repository.batch_axis import BatchAxis
from weir.server.repository.parallelism import Measured, Parallelism, SessionSlot
from weir.server.repository.triton import TritonConfig
from weir.server.repository.warmup import recorded_rows, warm_up
from weir.server.runtime import cpu_priority
from weir.server.runtime.collate import paddings_of
from weir.server.runtime.sequence_rules import SequenceRules, rules_of
from weir.server.runtime.session import Session, choose_provider, hint_for
from weir.server.runtime.signature import Signature
from weir.server.scheduling.batching import max_rows, policy_of
from weir.server.scheduling.byte_budget import ByteBudget
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Model
from weir.server.scheduling.scheduler import Scheduler
from weir.server.scheduling.served_model import ServedModel
from weir.server.telemetry.metrics import Metrics
from weir.server.transport.wakeups import Wakeups

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """Files of one graph of a version.

    Attributes:
        part: `encoder` or `decoder` of a pair.
        external: initializers outside the graph; emptied when the session has copied them.
        contract: None for a plain model; of a pair the whole one, until `for_session`.
        detokenizer: of a pair's output tokens.
        pair_golden: the recorded inputs and outputs of both graphs together.
        config: of a plain model in Triton's layout.
        plain_file: the name of a plain model's file.
    """

    part: str | None
    graph: bytes
    external: list[ExternalTensor]
    contract: Contract | None
    golden: Golden | None
    labels: Mapping[str, Sequence[str]]
    tokenizer: BundleTokenizer | None = None
    detokenizer: Detokenizer | None = None
    pair_golden: Golden | None = None
    config: TritonConfig | None = None
    plain_file: str | None = None

    @property
    def file(self) -> str:
        """The name of the graph's file."""
        return self.plain_file or f"{self.part or 'model'}.onnx"

    @property
    def label_files(self) -> Mapping[str, str]:
        """The file with the labels of each output, as the model's configuration names it."""
        if self.config is not None:
            return self.config.label_files
        return self.contract.labels if self.contract else {}

    def for_session(self, session: Session) -> "GraphFiles":
        """The files with the part of contract and labels that is about the session's graph."""
        if self.contract is None or self.contract.decoding is None:
            return self
        outputs = {spec.name for spec in session.outputs}
        return replace(
            self,
            contract=self.contract.of_graph({spec.name for spec in session.inputs}),
            labels={name: lines for name, lines in self.labels.items() if name in outputs},
        )


def read(path: Path, name: str | None = None, links: LinkRoots = NO_LINKS) -> list[GraphFiles]:
    """Read a version: its graph, or each of its two; a bundle's files are verified.

    Args:
        path: its directory, or its ONNX file.
        name: in requests; None for that of the model's directory.

    Raises:
        BundleError, ModelLoadError: a file is missing, malformed or changed.
    """
    # A link that leads nowhere is a contract too, and refused as one.
    if not os.path.lexists(path / FILE_NAME):
        plain = plain_model.read(path, name, links)
        graph = plain.graph
        files = GraphFiles(None, graph.model, [*graph.external], None, None, plain.labels)
        return [replace(files, config=plain.config, plain_file=plain.file)]
    bundle = reader.read(path, links)
    labels = {output: bundle.labels(output) or [] for output in bundle.contract.labels}
    tokenizer, detokenizer = tokenizer_of(bundle), detokenizer_of(bundle)
    parts = (None,) if bundle.contract.decoding is None else tuple(bundle.graphs)
    return [
        GraphFiles(
            part,
            bundle.graphs[part or "model"].model,
            [*bundle.graphs[part or "model"].external],
            bundle.contract,
            bundle.golden(part),
            labels,
            tokenizer,
            detokenizer,
            bundle.golden() if part else None,
        )
        for part in parts
    ]


def _device(session: Session) -> Session | None:
    """The session, if IO binding spares it copies.

    On a CPU it costs 10 to 12 µs instead: a step of `pronounce` takes 23 µs without and 34 with it
    for 1 row, 85 and 97 for 32.
    """
    return session if session.provider != "cpu" and session.can_bind else None


def served_name(name: str, part: str | None) -> str:
    """The name of a graph in requests: the model's, with the part of a pair after it."""
    return name if part is None else f"{name}.{part}"


@dataclass(frozen=True, slots=True)
class CheckedGraph:
    """A graph that fits its contract or configuration, before its session is chosen.

    Attributes:
        settings: the operator's, then those of a `config.pbtxt`.
    """

    files: GraphFiles
    settings: ModelSettings
    axis: BatchAxis
    signature: Signature
    rules: SequenceRules


@dataclass(frozen=True, slots=True)
class VerifiedVersion:
    """The models of a version, and the session of each graph."""

    models: list[Model]
    sessions: Sequence[Session]


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads versions.

    Attributes:
        provider: of models whose settings name none.
        source_of: the place that sets a setting for one model alone, by the names of both.
        cores: that a model may use.
        operator_library: the path of a library of custom operators.
        measured: the choice for each graph that was measured, by its name in requests.
    """

    provider: str
    max_message_bytes: int
    settings: Callable[[str], ModelSettings]
    deadlines: Deadlines
    metrics: Metrics
    links: LinkRoots = NO_LINKS
    operator_library: str | None = None
    wakeups: Wakeups = field(default_factory=Wakeups)
    budget: ByteBudget = field(default_factory=lambda: ByteBudget("the server"))
    source_of: Callable[[str, str], str | None] = lambda _name, _setting: None
    cores: int = 1
    measured: dict[str, Measured] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic

    def load(self, name: str, version: str, path: Path) -> list[Model]:
        """Load and start the models of a version: one, or encoder, decoder and the pair of them.

        Args:
            path: the version's directory, or its ONNX file.

        Raises:
            ModelLoadError: the version cannot be served; none of its models is started.
        """
        started_s = self.clock()
        models = self.verify(name, version, path).models
        self._start(models)
        for model in models:
            with model.stats.lock:
                model.stats.load_seconds = self.clock() - started_s
                model.stats.provider = model.provider
                model.stats.threads, model.stats.instances = model.threads, model.instances
        return models

    def verify(self, name: str, version: str, path: Path) -> VerifiedVersion:
        """Load and verify a version; its models are not started.

        Raises:
            ModelLoadError: it cannot be served.
        """
        try:
            return self._verify(name, version, path)
        except (BundleError, ServerError) as error:
            raise ModelLoadError.of(error) from error

    def _start(self, models: Sequence[Model]) -> None:
        """Start the schedulers; if one of them fails, close those that are started."""
        try:
            for model in models:
                model.scheduler.start()
        except BaseException:
            for model in models:
                model.scheduler.close()
                # `join` cannot: not all threads are started.
                self.deadlines.forget(model.scheduler)
            raise

    def _verify(self, name: str, version: str, path: Path) -> VerifiedVersion:
        graphs = read(path, name, self.links)
        contract = graphs[0].contract
        loaded = [self._load_graph(name, version, files) for files in graphs]
        # The first graph of a pair is the encoder, which takes the text.
        first = loaded[0][0]
        contract_check.check_tokenizer(graphs[0].tokenizer, first.signature, first.rules)
        contract_check.check_pair(contract, [model.signature for model, _ in loaded])
        models: list[Model] = [model for model, _ in loaded]
        if contract is not None and contract.decoding is not None:
            encoder, decoder = (
                Graph(session.run, model.signature, model.rules, _device(session))
                for model, session in loaded
            )
            pair = join_graphs(contract, encoder, decoder)
            own = [model for model, _ in loaded]
            models.append(self._serve_pair(name, version, graphs[0], pair, own))
        return VerifiedVersion(models, [session for _, session in loaded])

    def _load_graph(
        self, name: str, version: str, files: GraphFiles
    ) -> tuple[ServedModel, Session]:
        """The verified model of one graph, and its session; a failure names the graph of a pair."""
        name = served_name(name, files.part)
        settings = triton.with_config(self.settings(name), files.config)
        provider = settings.provider or self.provider
        if provider == "auto":
            provider = choose_provider(provider)
        has_few_shapes = files.contract is not None and not files.contract.padded_axes
        options = settings.provider_options.model_dump(exclude_none=True)

        def open_session(threads: int) -> Session:
            make = partial(
                Session,
                files.graph,
                provider=provider,
                threads=threads,
                has_few_shapes=has_few_shapes,
                external=files.external,
                operator_library=self.operator_library,
                provider_options={key: str(value) for key, value in options.items()},
            )
            # A graph gets several threads because its runs are long.
            return cpu_priority.lowered(make) if threads > 1 and provider == "cpu" else make()

        try:
            contract_check.check_provider(files.contract, provider)
            chosen = self._known_parallelism(name, files, settings, provider)
            started_s = self.clock()
            session = open_session(chosen.threads if chosen else 1)
            creation_s = self.clock() - started_s
            if chosen is not None:
                files.external.clear()
            graph = _check(name, files.for_session(session), session, settings)
            session = graph.axis.tensors.of(session)
            session.check_axes()
            golden_test.check_inputs(graph.files.golden, graph.signature, graph.rules)
            if chosen is None:
                tensors = graph.axis.tensors
                slot = SessionSlot(
                    lambda threads: tensors.of(open_session(threads)), session, creation_s
                )
                # Only the slot refers to it, so that it is freed before another is made.
                del session
                chosen = self._measure(name, graph, slot)
                session = slot.session
                files.external.clear()
            logger.info(
                "parallelism chosen model=%s version=%s threads=%d instances=%d reason=%s",
                name, version, chosen.threads, chosen.instances, chosen.reason,
            )  # fmt: skip
            if provider == "cpu" and max(chosen.threads, chosen.instances) > self.cores:
                logger.warning(
                    "more threads or instances than usable cores model=%s version=%s threads=%d "
                    "instances=%d cores=%d",
                    name, version, chosen.threads, chosen.instances, self.cores,
                )  # fmt: skip
            model = self._serve(name, version, graph, session, chosen)
            contract, golden = graph.files.contract, graph.files.golden
            warm_up(
                session,
                graph.signature,
                golden,
                name=name,
                is_plain=contract is None,
                policy=model.policy,
                measured=model.scheduler.expect_run,
                paddings=paddings_of(contract, session.inputs, session.outputs),
                clock=self.clock,
            )
            if contract is not None:
                difference = golden_test.replay(session, contract, golden)
                model = replace(model, golden=difference)
        except ServerError as error:
            raise ModelLoadError.of(error, files.part) from error
        return model, session

    def _known_parallelism(
        self, name: str, files: GraphFiles, settings: ModelSettings, provider: str
    ) -> Parallelism | None:
        """The parallelism that needs no measurement now."""
        chosen = parallelism.fixed(
            settings, provider=provider, cores=self.cores, is_of_pair=files.part is not None
        )
        if chosen is None and name in self.measured:
            measured = self.measured[name]
            if measured.network == parallelism.network_of(files.graph):
                return measured.parallelism
        return chosen

    def _measure(self, name: str, graph: CheckedGraph, slot: SessionSlot) -> Parallelism:
        """Measure a graph; the slot then holds the session to serve."""
        golden, signature = graph.files.golden, graph.signature
        paddings = paddings_of(graph.files.contract, slot.session.inputs, slot.session.outputs)
        # With inputs that are not recorded, a loop may never end.
        may_run = golden is not None or not slot.session.has_loop
        chosen = parallelism.measure(
            slot,
            lambda rows: recorded_rows(signature, golden, rows, paddings) if may_run else None,
            cores=self.cores,
            max_rows=signature.max_rows if graph.axis.decision.is_batched else 1,
        )
        self.measured[name] = Measured(parallelism.network_of(graph.files.graph), chosen)
        return chosen

    def _serve(
        self,
        name: str,
        version: str,
        graph: CheckedGraph,
        session: Session,
        chosen: Parallelism,
    ) -> ServedModel:
        """The model of one graph, not yet verified; its scheduler is not started."""
        files, settings, signature = graph.files, graph.settings, graph.signature
        policy = policy_of(
            settings, files.contract, rows=signature.max_rows, provider=session.provider
        )
        stats = self.metrics.model(name, version)
        scheduler = Scheduler(
            name,
            session.run,
            stoppable_run=session.run if session.has_loop else None,
            policy=policy,
            max_queue_rows=settings.max_queue_rows or 1,
            budget=self._budget_of(name, settings),
            instances=chosen.instances,
            has_rows=signature.has_rows,
            # Only a contract promises that.
            has_fixed_rows=files.contract is not None,
            decision=graph.axis.decision,
            paddings=paddings_of(files.contract, session.inputs, session.outputs),
            is_on_cpu=session.provider == "cpu",
            deadlines=self.deadlines,
            observer=stats.batch_ran,
            wakeups=self.wakeups,
            clock=self.clock,
        )
        return ServedModel(
            name=name,
            version=version,
            contract=files.contract,
            file=files.file,
            signature=signature,
            rules=graph.rules,
            labels=files.labels,
            label_files=files.label_files,
            stated_config=files.config.message if files.config else None,
            tokenizer=files.tokenizer if files.part is None else None,
            all_outputs=[RequestedOutput(spec.name, spec.datatype) for spec in session.outputs],
            encoder=self._encoder(name, version),
            policy=policy,
            settings=settings,
            provider=session.provider,
            threads=chosen.threads,
            instances=chosen.instances,
            scheduler=scheduler,
            stats=stats,
        )

    def _serve_pair(
        self,
        name: str,
        version: str,
        files: GraphFiles,
        pair: EncoderDecoder,
        graphs: Sequence[ServedModel],
    ) -> EncoderDecoderModel:
        """The verified model of a pair of graphs; its engine is not started."""
        decoder = graphs[1]
        settings = self.settings(name)
        rows = max_rows(settings, pair.contract)
        golden_test.replay_pair(pair, files.pair_golden, rows)
        policy = policy_of(settings, pair.contract, rows=rows, provider=decoder.provider)
        if source := self.source_of(name, "instances"):
            logger.warning(
                "setting without effect model=%s source=%s "
                "reason=an encoder-decoder has one engine",
                name, source,
            )  # fmt: skip
        engine = Engine(
            name,
            pair.decoder_batch(rows),
            policy=policy,
            max_queue_rows=settings.max_queue_rows or 1,
            budget=self._budget_of(name, settings),
            deadlines=self.deadlines,
            stats=self.metrics.generation(name, version),
            is_on_cpu=decoder.provider == "cpu",
            wakeups=self.wakeups,
            clock=self.clock,
        )
        return EncoderDecoderModel(
            name=name,
            version=version,
            contract=pair.contract,
            graphs=pair,
            signature=pair.signature(rows),
            rules=pair.encoder.rules,
            tokenizer=files.tokenizer,
            detokenizer=files.detokenizer or Detokenizer([], None),
            encoder=self._encoder(name, version),
            policy=policy,
            settings=settings,
            provider=decoder.provider,
            threads=decoder.threads,
            scheduler=engine,
            stats=self.metrics.model(name, version),
            golden=max(graph.golden or 0.0 for graph in graphs),
        )

    def _budget_of(self, name: str, settings: ModelSettings) -> ByteBudget:
        """A model's part of the bytes in flight: as set, or half of the server's."""
        limit_bytes = settings.max_inflight_bytes
        if limit_bytes is None and self.budget.limit_bytes is not None:
            limit_bytes = self.budget.limit_bytes // 2
        return ByteBudget(f"model {name!r}", limit_bytes, self.budget)

    def _encoder(self, name: str, version: str) -> ResponseEncoder:
        return ResponseEncoder(name, version, max_bytes=self.max_message_bytes - STREAM_BYTES)


def _warn_of_unserved(name: str, unserved: Mapping[str, str]) -> None:
    outputs = short_list([f"{short_repr(output)} ({kind})" for output, kind in unserved.items()])
    hints = [hint for hint in map(hint_for, unserved.values()) if hint is not None]
    logger.warning(
        "outputs that are no tensors are not served model=%s outputs=%s%s",
        name, outputs, f" hint={hints[0]}" if hints else "",
    )  # fmt: skip


def _check(name: str, files: GraphFiles, session: Session, settings: ModelSettings) -> CheckedGraph:
    """Find the batch axis of a graph, and check it against its contract or configuration."""
    if session.unserved:
        _warn_of_unserved(name, session.unserved)
    if files.config is not None:
        triton.warn(name, files.config, session.provider)
    rows = max_rows(settings, files.contract)
    axis = batch_axis.resolve(
        files.graph,
        session,
        files.contract,
        files.config,
        setting=settings.batch_axis,
        max_rows=rows,
    )
    batch_axis.log(name, axis.decision)
    signature, rules = _signature(files, axis, axis.tensors.of(session), rows)
    return CheckedGraph(files, settings, axis, signature, rules)


def _signature(
    files: GraphFiles, axis: BatchAxis, session: Session, rows: int
) -> tuple[Signature, SequenceRules]:
    """The signature of a graph and the rules of its values, checked against the contract."""
    contract_check.check_labels(files.labels, session)
    rules = rules_of(files.contract, {spec.name: spec for spec in session.inputs})
    signature = Signature(
        axis.tensors.inputs,
        axis.tensors.outputs,
        batch_axis=axis.tensors.batch_axis,
        max_rows=rows,
        only_proved=axis.only_proved,
        maxima=rules.maxima,
        optional=[lengths.name for lengths in rules.lengths],
        # A bundle's recorded answers are those of its own weights.
        defaults=() if files.contract else axis.tensors.defaults,
        described=axis.tensors.described,
        unserved=session.unserved,
        length_axis=rules.lengths[0].axis if rules.lengths else None,
    )
    contract_check.check_preprocessing(files.contract, signature)
    contract_check.check_series(files.contract, signature)
    return signature, rules
