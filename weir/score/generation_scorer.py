"""Scoring with an encoder-decoder: texts to texts.

A decoder batch works through several batches' texts; a text takes the place of one that is done.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from weir.client.errors import UsageError
from weir.score.batching import Failures, cut_by_length, score_rows
from weir.score.binding import Binding
from weir.score.rows import Part, PreparedPart, Scores, part_rows
from weir.score.sources.lines import TEXT
from weir.score.texts import SORTED_ROWS, Texts, texts_of
from weir.server.errors import InvalidRequest, ServerError
from weir.server.generation.decoder_batch import Row
from weir.server.generation.encoder_decoder import EncoderDecoderModel
from weir.server.generation.sampling_parameters import SearchParameters
from weir.server.runtime.session import version as onnxruntime_version
from weir.server.scheduling.batching import BatchPolicy

SCORE = "score"
"""The column of the hypothesis' score."""

_FAILURES = Failures(refused=(InvalidRequest,), failed=(ServerError,))
# Rows that one decoder batch works through, in batches' rows.
_BATCHES = 8


class GenerationScorer:
    """An encoder-decoder, texts to texts; see `rows.Scorer`."""

    def __init__(
        self,
        model: EncoderDecoderModel,
        digest: str,
        binding: Binding,
        *,
        outputs: Sequence[str],
        parallel: int,
        width: int,
    ) -> None:
        if binding.kind != "text" or model.tokenizer is None:
            raise UsageError(f"model {model.name!r}: expected texts, got {binding.kind}")
        self.model = model
        self.tokenizer = model.tokenizer
        self.search = SearchParameters(width=width)
        try:
            model.check_search(self.search)
        except ServerError as error:
            raise UsageError(f"--beam-width: {error}") from error
        self.rows = model.policy.max_rows
        self.parallel = parallel
        self.part_rows = part_rows(SORTED_ROWS, binding.row_bytes)
        self._binding = binding
        known = {TEXT: pa.string(), SCORE: pa.float32()}
        if strays := [name for name in outputs if name not in known]:
            raise UsageError(f"--outputs {strays[0]}: expected one of {', '.join(known)}")
        self.schema = pa.schema([(name, known[name]) for name in outputs or known])
        self.identity: Mapping[str, object] = {
            "model": digest,
            "provider": model.provider,
            "onnxruntime": onnxruntime_version(),
            "batch_rows": self.rows,
            "beam_width": width,
            "outputs": self.schema.names,
        }

    def stop(self) -> None:
        """Nothing waits."""

    def prepare(self, part: Part) -> PreparedPart:
        """Cut a part into batches."""
        errors = dict(part.errors)
        texts = texts_of(part, self._binding.columns[TEXT], self.tokenizer, errors)
        batches = cut_by_length(texts.lengths, BatchPolicy(self.rows * _BATCHES))
        return PreparedPart(part, [GenerationBatch(self, texts, rows) for rows in batches], errors)


@dataclass(frozen=True, slots=True)
class GenerationBatch:
    """Texts that one decoder batch works through; a text takes the place of one that is done."""

    scorer: GenerationScorer
    texts: Texts
    rows: slice

    def score(self) -> Scores:
        """Generate the texts."""
        return score_rows(self.texts.positions[self.rows].tolist(), _FAILURES, self._score)

    def _score(self, chosen: slice) -> Mapping[str, pa.Array]:
        model, first = self.scorer.model, self.rows.start
        texts = self.texts.inputs(slice(first + chosen.start, first + chosen.stop))
        inputs = model.graphs.encoder.signature.cast(texts)
        rows = model.graphs.rows(inputs, self.scorer.search)
        self._decode(rows)
        best = [row.hypotheses[0] for row in rows]
        columns = {
            TEXT: pa.array([model.detokenizer.text(each.tokens) for each in best], pa.string()),
            SCORE: pa.array([each.score for each in best], pa.float32()),
        }
        return {name: columns[name] for name in self.scorer.schema.names}

    def _decode(self, rows: Sequence[Row]) -> None:
        batch = self.scorer.model.graphs.decoder_batch(self.scorer.rows)
        waiting = deque(rows)
        while waiting or batch.is_busy:
            if waiting and batch.wants_rows:
                count = min(self.scorer.rows, len(waiting))
                batch.add(batch.encode([waiting.popleft() for _ in range(count)]))
            batch.join()
            for error in batch.step().failed.values():
                raise error
