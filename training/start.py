"""From an order to a run: settles recipe and directory, begins or resumes."""

from dataclasses import dataclass, field
from pathlib import Path

from training.checkpoint import CHECKPOINT, read_checkpoint
from training.data import DATA_SETS, PAIR_SETS, TEXT_SETS
from training.data.series import SERIES_SETS
from training.device import DeviceName, choose_device
from training.errors import RecipeError, RunError
from training.recipe import Setting
from training.recipes import MADE_FOR, AnyRecipe, change_recipe, make_recipe, quicken
from training.run import RECORD, RunRecord, read_record
from training.sequences.gradient_log import log_gradients
from training.sequences.recipe import SequenceRecipe
from training.train import Watcher, train


@dataclass(frozen=True, slots=True)
class Order:
    """What the caller wants; what they left out is none, and the recipe or the checkpoint decides it."""

    recipe: str
    data: str | None = None
    out: Path | None = None
    device: DeviceName = "auto"
    resume: bool = False
    overwrite: bool = False
    quick: bool = False
    log_gradients: bool = False
    changes: dict[str, Setting] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Where the run goes; of a recipe there is not, nothing does."""
        data = self.data or MADE_FOR.get(self.recipe, ("",))[0]
        return self.out or Path("runs") / f"{self.recipe}-{Path(data).name}"


def start(order: Order, watch: Watcher) -> RunRecord:
    """Train as ordered; an order to resume a finished run gives its record.

    Raises:
        TrainingError: as `training.train` says, and
        RunError: the directory is in use, or there is nothing in it to resume;
        RecipeError: settings that differ from those of the run to resume.
    """
    where = choose_device(order.device)
    out = order.directory
    if order.resume and (out / RECORD).is_file() and not (out / CHECKPOINT).is_file():
        record = read_record(out)
        _agree(order, record.recipe)
        return record
    if not order.resume and not order.overwrite:
        _require_free(out)
    resumed = read_checkpoint(out) if order.resume else None
    recipe = _agree(order, resumed.note.recipe) if resumed else _settle(order)
    if not order.log_gradients:
        return train(recipe, out, where, watch, resumed)
    if not isinstance(recipe, SequenceRecipe):
        raise RecipeError(f"{recipe.name}: gradients by time lag are of sequences only")
    record = train(recipe, out, where, watch, resumed)
    log_gradients(recipe, out)
    return record


def _settle(order: Order) -> AnyRecipe:
    data = _locate(order.data) if order.data else None
    recipe = make_recipe(order.recipe, data)
    if order.quick:
        recipe = quicken(recipe)
    return change_recipe(recipe, **order.changes)


def _locate(data: str) -> str:
    """A folder or file by its full path, so that the run can be read from anywhere."""
    named = (*DATA_SETS, *TEXT_SETS, *PAIR_SETS, *SERIES_SETS)
    return data if data in named else str(Path(data).resolve())


def _agree(order: Order, began: AnyRecipe) -> AnyRecipe:
    """The recipe the run began with, unless the order asks for another."""
    data = {"data": _locate(order.data)} if order.data else {}
    asked = change_recipe(began, name=order.recipe, **data, **order.changes)
    before, now = began.model_dump(), asked.model_dump()
    for key, value in before.items():
        if now[key] != value:
            raise RecipeError(
                f"{order.directory}: the run began with {key} {value}, asked for {now[key]}; a resumed run keeps its settings"
            )
    return began


def _require_free(out: Path) -> None:
    taken = [name for name in (RECORD, CHECKPOINT) if (out / name).exists()]
    if taken:
        raise RunError(
            f"{out}: holds a run already ({taken[0]}); name another --out, or add --resume or --overwrite"
        )
