"""One version of a model, from its files to a session that has proved itself.

A version is served only after all of this, in this order:

    read      every file, hashed against the contract            (bundle)
    session   the graph, on the provider that was asked for      (session)
    warm-up   batches of the sizes that the scheduler will cut   (no first request pays for it)
    golden    recorded inputs give the recorded outputs          (on this very provider)

A version of two graphs is three models: `NAME.encoder`, `NAME.decoder`, and `NAME`, which decodes step by step. All
are served, or none.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from weir.bundle.errors import BundleError
from weir.server.config import ModelSettings
from weir.server.errors import ModelLoadError, ServerError
from weir.server.generation.encoder_decoder import (
    EncoderDecoder,
    EncoderDecoderModel,
    Graph,
    join_graphs,
)
from weir.server.generation.engine import Engine
from weir.server.preprocessing.detokenizer import Detokenizer
from weir.server.protocol.response_encoder import STREAM_BYTES, RequestedOutput, ResponseEncoder
from weir.server.repository import agreement, batch_axis, golden_test, triton
from weir.server.repository.golden_test import Files
from weir.server.repository.warmup import warm_up
from weir.server.runtime.collate import paddings_of
from weir.server.runtime.sequence_rules import rules_of
from weir.server.runtime.session import Session
from weir.server.runtime.signature import Signature
from weir.server.scheduling.batching import max_rows, policy_of
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.request import Model
from weir.server.scheduling.scheduler import Scheduler
from weir.server.scheduling.served_model import ServedModel
from weir.server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads versions, all in the same way.

    Attributes:
        provider: `cpu` or `cuda`.
        threads: inside one operator.
        max_message_bytes: of an answer.
        settings: by model name.
    """

    provider: str
    threads: int
    max_message_bytes: int
    settings: Callable[[str], ModelSettings]
    deadlines: Deadlines
    metrics: Metrics
    clock: Callable[[], float] = time.monotonic

    def load(self, name: str, version: str, directory: Path) -> list[Model]:
        """The models of a version, started: one, or encoder, decoder and the pair of them.

        Raises:
            ModelLoadError: the reason why it cannot be served; nothing is started then.
        """
        started_s = self.clock()
        try:
            models = self._load(name, version, directory)
        except (BundleError, ServerError) as error:
            raise ModelLoadError.of(error) from error
        for model in models:
            model.scheduler.start()
            with model.metrics.lock:
                model.metrics.load_seconds = self.clock() - started_s
                model.metrics.provider = model.provider
        return models

    def _load(self, name: str, version: str, directory: Path) -> list[Model]:
        graphs = golden_test.read(directory)
        golden_test.check_provider(graphs[0], self.provider)
        loaded = [self._prove(name, version, files) for files in graphs]
        # Of a pair, the encoder reads the texts.
        agreement.check_texts(graphs[0].tokenizer, loaded[0][0].signature)
        agreement.check_pair(graphs[0].contract, [model.signature for model, _ in loaded])
        models: list[Model] = [model for model, _ in loaded]
        if graphs[0].contract is not None and graphs[0].contract.decoding is not None:
            encoder, decoder = (
                Graph(session.run, model.signature, model.rules) for model, session in loaded
            )
            pair = join_graphs(graphs[0].contract, encoder, decoder)
            models.append(
                _serve_pair(
                    pair,
                    graphs[0],
                    name,
                    version,
                    golden=max(model.golden or 0.0 for model, _ in loaded),
                    settings=self.settings(name),
                    provider=self.provider,
                    max_message_bytes=self.max_message_bytes,
                    deadlines=self.deadlines,
                    metrics=self.metrics,
                    clock=self.clock,
                )
            )
        return models

    def _prove(self, name: str, version: str, files: Files) -> tuple[ServedModel, Session]:
        """The model of one graph, and its session; of a pair, what fails names the graph."""
        name = served_name(name, files.part)
        try:
            session = Session(
                files.graph,
                provider=self.provider,
                threads=self.threads,
                has_few_shapes=files.contract is not None and not files.contract.padded_axes,
            )
            files = golden_test.of_graph(files, session)
            model = self._assemble(name, version, files, session)
            golden_test.check_inputs(files.golden, model.signature, model.rules)
            warm_up(
                session,
                model.signature,
                files,
                name=name,
                policy=model.policy,
                paddings=paddings_of(files.contract, session.inputs, session.outputs),
                clock=self.clock,
            )
            model = replace(model, golden=golden_test.replay(session, files))
        except ServerError as error:
            raise ModelLoadError.of(error, files.part) from error
        return model, session

    def _assemble(self, name: str, version: str, files: Files, session: Session) -> ServedModel:
        settings = triton.with_config(self.settings(name), files.config)
        if files.config is not None:
            triton.warn(name, files.config, self.provider)
        tensors = batch_axis.tensors_of(files.contract, files.config, session)
        rows = max_rows(settings, files.contract)
        is_batched = True
        has_named_axis = tensors.batch_axis is not None and bool(tensors.inputs)
        if files.contract is None and has_named_axis and rows > 1:
            is_configured = files.config is not None and bool(files.config.max_batch_size)
            is_batched = batch_axis.is_proved(
                name,
                files.graph,
                session,
                tensors.inputs,
                tensors.outputs,
                is_configured=is_configured,
                max_rows=rows,
            )
            if not is_batched and not is_configured:
                # Without a configuration nothing but the name says that there are rows at all.
                tensors = replace(tensors, batch_axis=None)
        agreement.check_labels(files.labels, session)
        rules = rules_of(files.contract, {spec.name: spec for spec in session.inputs})
        paddings = paddings_of(files.contract, session.inputs, session.outputs)
        signature = Signature(
            tensors.inputs,
            tensors.outputs,
            batch_axis=tensors.batch_axis,
            max_rows=rows,
            maxima=rules.maxima,
            optional=[lengths.name for lengths in rules.lengths],
            length_axis=rules.lengths[0].axis if rules.lengths else None,
        )
        agreement.check_preprocessing(files.contract, signature)
        agreement.check_series(files.contract, signature)
        policy = policy_of(
            settings, files.contract, rows=signature.max_rows, provider=session.provider
        )
        metrics = self.metrics.model(name, version)
        scheduler = Scheduler(
            name,
            session.run,
            policy=policy,
            max_queue_rows=settings.max_queue_rows or 1,
            instances=settings.instances or 1,
            has_rows=signature.has_rows,
            # Only a contract promises that.
            has_fixed_rows=files.contract is not None,
            is_batched=is_batched,
            paddings=paddings,
            deadlines=self.deadlines,
            observer=metrics.batch_ran,
            clock=self.clock,
        )
        return ServedModel(
            name=name,
            version=version,
            contract=files.contract,
            file=files.config.file if files.config else f"{files.part or 'model'}.onnx",
            signature=signature,
            rules=rules,
            labels=files.labels,
            label_files=_label_files(files),
            tokenizer=files.tokenizer if files.part is None else None,
            all_outputs=[RequestedOutput(spec.name, spec.datatype) for spec in session.outputs],
            encoder=ResponseEncoder(name, version, max_bytes=self.max_message_bytes - STREAM_BYTES),
            policy=policy,
            settings=settings,
            provider=session.provider,
            scheduler=scheduler,
            metrics=metrics,
        )


def _label_files(files: Files) -> Mapping[str, str]:
    if files.config is not None:
        return files.config.label_files
    return files.contract.labels if files.contract else {}


def served_name(name: str, part: str | None) -> str:
    """What a graph is asked by: the model's name, of a pair with the part's behind it."""
    return name if part is None else f"{name}.{part}"


def _serve_pair(
    pair: EncoderDecoder,
    files: Files,
    name: str,
    version: str,
    *,
    golden: float,
    settings: ModelSettings,
    provider: str,
    max_message_bytes: int,
    deadlines: Deadlines,
    metrics: Metrics,
    clock: Callable[[], float],
) -> EncoderDecoderModel:
    """A pair that gives its recorded answers, with an engine that is not started; see `Loader`.

    Raises:
        ModelLoadError: it gives other answers.
    """
    rows = max_rows(settings, pair.contract)
    golden_test.replay_pair(pair, files.whole, rows)
    policy = policy_of(settings, pair.contract, rows=rows, provider=provider)
    engine = Engine(
        name,
        pair.decoder_batch(rows),
        policy=policy,
        max_queue_rows=settings.max_queue_rows or 1,
        deadlines=deadlines,
        stats=metrics.generation(name, version),
        clock=clock,
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
        encoder=ResponseEncoder(name, version, max_bytes=max_message_bytes - STREAM_BYTES),
        policy=policy,
        settings=settings,
        provider=provider,
        scheduler=engine,
        metrics=metrics.model(name, version),
        golden=golden,
    )
