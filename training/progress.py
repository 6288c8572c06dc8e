"""How far a run has come: plain numbers, written into each checkpoint as JSON."""

from pydantic import BaseModel, ConfigDict, Field

from weir.training.run_directory import EpochRecord


class Progress(BaseModel):
    """What the loop counts. Sums are over the targets of the epoch that runs."""

    model_config = ConfigDict(extra="forbid")

    epoch: int = Field(default=0, description="epochs that are finished")
    step: int = Field(default=0, description="steps of the running epoch that are finished")
    learning_rate: float = Field(default=0.0, description="of the last step")
    loss_sum: float = 0.0
    right: int = 0
    targets: int = 0
    rows: int = 0
    epoch_seconds: float = 0.0
    best_epoch: int = Field(default=0, description="from 1; 0 before the first")
    history: list[EpochRecord] = []

    @property
    def loss(self) -> float:
        """Mean training loss of the epoch so far."""
        return self.loss_sum / max(self.targets, 1)

    @property
    def accuracy(self) -> float:
        """Share of the epoch's targets that were right so far, as distorted."""
        return self.right / max(self.targets, 1)

    @property
    def seconds(self) -> float:
        """Time spent in training and validation, over all sittings."""
        return sum(record.seconds for record in self.history) + self.epoch_seconds

    def close_epoch(self, validation_loss: float, validation_accuracy: float | None) -> bool:
        """Write the running epoch into the history and begin the next; true when it is the best so far.

        Better means more right on the validation rows; among equals, and where there are no classes to be right
        about, the lower loss.
        """
        self.epoch += 1
        record = EpochRecord(
            epoch=self.epoch,
            learning_rate=self.learning_rate,
            loss=self.loss,
            accuracy=None if validation_accuracy is None else self.accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            seconds=self.epoch_seconds,
        )
        is_best = self.best_epoch == 0 or _is_better(record, self.history[self.best_epoch - 1])
        self.history.append(record)
        if is_best:
            self.best_epoch = self.epoch
        self.step, self.loss_sum, self.right, self.targets, self.rows = 0, 0.0, 0, 0, 0
        self.epoch_seconds = 0.0
        return is_best


def _is_better(record: EpochRecord, best: EpochRecord) -> bool:
    return (record.validation_accuracy or 0.0, -record.validation_loss) > (
        best.validation_accuracy or 0.0,
        -best.validation_loss,
    )
