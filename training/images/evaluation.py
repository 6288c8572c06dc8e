"""What the finished network answers on a test set, class by class."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from weir.training.loop import Batch


@torch.inference_mode()
def count_confusions(
    network: nn.Module, batches: Iterable[Batch], classes: int
) -> NDArray[np.int64]:
    """Count how often class `row` was taken for class `column`: (classes, classes).

    The accuracy is the trace over the sum.
    """
    network.eval()
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    for batch in batches:
        logits: Tensor = network(*batch.inputs)
        cells = batch.targets * classes + logits.argmax(dim=1)
        counts += torch.bincount(cells.cpu(), minlength=classes * classes)
    return counts.view(classes, classes).numpy()
