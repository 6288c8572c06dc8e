"""A bundle or an ONNX file that scores rows in this process.

The version is loaded and verified as the server does it; requests, queues and gRPC are left out.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from weir.bundle.contract import FILE_NAME
from weir.client.errors import UsageError
from weir.score.binding import Binding, ModelInputs
from weir.score.errors import ScoringFailed
from weir.score.generation_scorer import GenerationScorer
from weir.score.graph_scorer import GraphScorer
from weir.score.rows import Scorer
from weir.server.config import ModelSettings
from weir.server.errors import ServerError
from weir.server.generation.encoder_decoder import EncoderDecoderModel
from weir.server.preprocessing.tokenizer import BundleTokenizer
from weir.server.repository.loader import Loader, VerifiedVersion
from weir.server.repository.model_source import open_source
from weir.server.runtime.session import choose_provider
from weir.server.scheduling.deadlines import Deadlines
from weir.server.scheduling.served_model import ServedModel
from weir.server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A verified version of a model.

    Attributes:
        digest: of its files.
    """

    name: str
    version: VerifiedVersion
    digest: str

    @property
    def encoder_decoder(self) -> EncoderDecoderModel | None:
        """The encoder-decoder, if it is one."""
        model = self.version.models[-1]
        return model if isinstance(model, EncoderDecoderModel) else None

    @property
    def graph(self) -> ServedModel:
        """The only graph, or the encoder of a pair."""
        model = self.version.models[0]
        if not isinstance(model, ServedModel):
            raise TypeError(f"expected a graph first, got {type(model).__name__}")
        return model

    def inputs(self) -> ModelInputs:
        """What it can read."""
        graph = self.graph
        # An encoder-decoder scores texts only.
        specs = [] if self.encoder_decoder else [*graph.signature.inputs.values()]
        contract = graph.contract
        return ModelInputs(
            self.name,
            [spec for spec in specs if not graph.signature.may_omit(spec.name)],
            [spec for spec in specs if graph.signature.may_omit(spec.name)],
            takes_texts=self._tokenizer is not None,
            takes_pictures=contract is not None and contract.preprocessing is not None,
        )

    @property
    def _tokenizer(self) -> BundleTokenizer | None:
        return self.encoder_decoder.tokenizer if self.encoder_decoder else self.graph.tokenizer

    def scorer(
        self,
        binding: Binding,
        *,
        outputs: Sequence[str],
        parallel: int,
        beam_width: int,
        folder: Path,
    ) -> Scorer:
        """The model as a scorer of the bound columns.

        Args:
            outputs: the names of the columns of the scores; empty: the default ones.
            folder: that relative names of pictures start from.
        """
        if self.encoder_decoder is not None:
            return GenerationScorer(
                self.encoder_decoder,
                self.digest,
                binding,
                outputs=outputs,
                parallel=parallel,
                width=beam_width,
            )
        if beam_width > 1:
            raise UsageError(f"--beam-width: expected an encoder-decoder, got {self.name!r}")
        (session,) = self.version.sessions
        return GraphScorer(
            self.graph,
            session,
            self.digest,
            binding,
            outputs=outputs,
            parallel=parallel,
            folder=folder,
        )


def load(
    path: Path,
    *,
    provider: str = "auto",
    batch_rows: int | None = None,
    operator_library: str | None = None,
) -> LocalModel:
    """Load and verify the newest version at a path, or the version that the path is.

    Args:
        provider: auto, cpu or cuda.
        batch_rows: the most rows of a batch; None: as the bundle says.

    Raises:
        UsageError, ScoringFailed: there is none, or it cannot be used.
    """
    try:
        models, _ = open_source(path).scan()
        if len(models) != 1:
            listed = ", ".join(sorted(models)) or "none"
            raise UsageError(f"{path}: expected one model, got {listed}: give its directory")
        ((name, directory),) = models.items()
        if not directory.versions:
            raise UsageError(f"{path}: expected a model, got no version of it")
        number = max(directory.versions)
        where = directory.version_path(number)
        settings = ModelSettings(threads=1, instances=1, max_batch_rows=batch_rows)
        loader = Loader(
            provider=choose_provider(provider),
            max_message_bytes=2**31 - 1,
            settings=lambda _: settings,
            deadlines=Deadlines(time.monotonic),
            metrics=Metrics(CollectorRegistry()),
            operator_library=operator_library,
        )
        return LocalModel(name, loader.verify(name, str(number), where), _digest(where))
    except ServerError as error:
        raise ScoringFailed(f"{path}: {error}") from error


def _digest(path: Path) -> str:
    """A digest of a bundle's contract, which has those of its files, or of an ONNX file."""
    contract = path / FILE_NAME
    files = [contract] if contract.is_file() else sorted(path.glob("*.onnx")) or [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
