"""Import specification: the facts that an ONNX file does not contain; each has a default."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from weir.bundle.contract import Batching
from weir.export.accuracy import DEFAULT_MAX_DROP
from weir.export.errors import ExportError

Array = NDArray[Any]

# The contract's integers have 64 bits.
_MOST = 2.0**62
# A server takes pictures of 32 million pixels at most, also after the resize.
_MOST_SIDE = 5000
_MOST_PIXEL = 255
# Some write 1/255 as 0.0039, some scale by 1/256.
_ROUNDED = 1.05
# A row of so many integers takes 128 MiB.
_MOST_ENTRIES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Conversion of pictures for an input of the graph.

    The bundle takes uint8 pixels; the import puts this in front of the graph:
    (pixel * scale - mean) / std, for each channel.

    Attributes:
        input: the input that takes pictures.
        height, width: of the input, where its axes are free.
        short_side: pixels of the short side before the centre crop; None: pictures are stretched.
        layout: of the input's axes; None: from the place of its channels.
        is_bgr: whether the channels are blue, green, red.
        scale: of a pixel's value; the mean and the deviation are on this scale.
        mean, std: one number, or one for each channel.
        output: the classes' scores; None: the only output of floats [batch, classes].
        has_softmax: whether probabilities are the softmax of the scores; None: unless the scores
            are probabilities.
    """

    input: str
    height: int | None = None
    width: int | None = None
    short_side: int | None = None
    layout: Literal["nchw", "nhwc"] | None = None
    is_bgr: bool = False
    scale: float = 1.0 / 255.0
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    output: str | None = None
    has_softmax: bool | None = None

    def __post_init__(self) -> None:
        for name in ("height", "width", "short_side"):
            side = getattr(self, name)
            if side is not None and not 1 <= side <= _MOST_SIDE:
                raise ExportError(
                    f"{name.replace('_', ' ')}: expected 1 to {_MOST_SIDE} pixels, got {side}"
                )
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ExportError(f"scale: expected a number other than 0, got {self.scale:g}")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if not all(map(math.isfinite, numbers)):
                raise ExportError(f"{name}: expected finite numbers, got {list(numbers)}")
        most, greatest = _MOST_PIXEL * self.scale, max(self.mean, default=0.0)
        # Every value would be negative; a scale that is written with few digits is no such case.
        if self.scale > 0 and greatest > most * _ROUNDED:
            hint = f"; add --scale 1 for values of 0 to {_MOST_PIXEL}" if self.scale < 1 else ""
            raise ExportError(
                f"mean: expected values of scaled pixels, 0 to {most:g}, got {greatest:g}{hint}"
            )
        if not all(self.std):
            raise ExportError(f"std: expected numbers other than 0, got {list(self.std)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8:
    """Data of static quantisation: rows to take the activations' ranges from.

    Without answers, accuracy is the share of rows with the class of the FP32 graph.

    Attributes:
        calibration: rows of every input, by name.
        calibration_from: a description of them, for the record.
        output: the scores; None: those of the pictures, or the only output of floats with labels.
        max_drop: the accuracy that may be lost, in percentage points.
    """

    calibration: Mapping[str, Array]
    calibration_from: str
    output: str | None = None
    max_drop: float = DEFAULT_MAX_DROP


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSpec:
    """Specification of an import.

    Attributes:
        is_batched: whether the first axis is the batch; None: if that can be proved.
        pictures: the conversion of pictures; None: tensors only.
        time_axes: by input, the position of the axis along which rows differ in length.
        lengths: the input of the rows' lengths.
        mask: the input that is 1 for an entry of the row and 0 for padding.
        maximum: the most entries along that axis; None: 512, or as many as the graph takes.
        tokenizer: a tokenizer.json that makes token ids of texts; the graph then has inputs of ids,
            and the mask and token types if they are named as in the library `transformers`.
        padding: by input, the value that fills short rows; 0 by default.
        ranges: by input, the least and the greatest value.
        labels: a text for each index of an output's last axis, by output; the name "" is the only
            output that can have labels.
        golden: inputs, and outputs to compare with, by name.
        golden_from: a description of them, for the record.
        tolerance: two numbers agree if they differ by at most this much of the value and of the
            largest output; None: by the type of the weights.
        int8: the data for INT8; None: the precision of the file.
        batching: limits of the server's batches.
        command: of the import, for the record.
    """

    is_batched: bool | None = None
    pictures: Pictures | None = None
    time_axes: Mapping[str, int] = field(default_factory=dict)
    lengths: str | None = None
    mask: str | None = None
    maximum: int | None = None
    tokenizer: Path | str | None = None
    padding: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    golden: Mapping[str, Array] = field(default_factory=dict)
    golden_from: str = "given by the caller"
    tolerance: float | None = None
    int8: Int8 | None = None
    batching: Batching = field(default_factory=Batching)
    command: str | None = None

    def __post_init__(self) -> None:
        if self.lengths is not None and self.mask is not None:
            raise ExportError("lengths: expected lengths or a mask, got both")
        if self.maximum is not None and not 1 <= self.maximum <= _MOST_ENTRIES:
            raise ExportError(
                f"max length: expected 1 to {_MOST_ENTRIES} entries, got {self.maximum}"
            )
        if self.tolerance is not None and not (0 <= self.tolerance < math.inf):
            raise ExportError(f"tolerance: expected a finite number from 0, got {self.tolerance:g}")
        for name, (low, high) in self.ranges.items():
            if not -_MOST <= low <= high <= _MOST:
                raise ExportError(
                    f"range of {name!r}: expected MIN <= MAX within {_MOST:g}, "
                    f"got {low:g} and {high:g}"
                )

    @property
    def needs_batch_axis(self) -> bool:
        """Whether the specification says that there is a batch axis."""
        return bool(
            self.is_batched
            or self.pictures
            or self.time_axes
            or self.lengths
            or self.mask
            or self.tokenizer
        )
