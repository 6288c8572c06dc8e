"""From an order to a run: settles recipe and directory, begins or resumes."""

from dataclasses import dataclass, field
from pathlib import Path

from weir.training.changes import require_heeded
from weir.training.checkpoint import CHECKPOINT, read_checkpoint
from weir.training.data import DATA_SETS, PAIR_SETS, TEXT_SETS
from weir.training.data.series import SERIES_SETS
from weir.training.device import DeviceName, choose_device
from weir.training.errors import RecipeError, RunError
from weir.training.recipe import Setting
from weir.training.recipes import MADE_FOR, AnyRecipe, change_recipe, make_recipe, quicken
from weir.training.run_directory import RECORD, RunRecord, read_record
from weir.training.text.experiment import SequenceProblem
from weir.training.text.gradient_log import log_gradients
from weir.training.text.recipe import SequenceRecipe
from weir.training.train import Watcher, learn, prepare


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
        TrainingError: as `weir.training.train` says, and
        RunError: the directory is in use, or there is nothing in it to resume;
        RecipeError: settings that differ from those of the run to resume, or that nothing would heed.
    """
    _require_new(order)
    where = choose_device(order.device)
    out = order.directory
    if order.resume and (out / RECORD).is_file() and not (out / CHECKPOINT).is_file():
        return _finished(order)
    if not order.resume and not order.overwrite:
        _require_free(out)
    resumed = read_checkpoint(out) if order.resume else None
    recipe = _agree(order, resumed.note.recipe) if resumed else _settle(order)
    if order.log_gradients and not isinstance(recipe, SequenceRecipe):
        raise RecipeError(f"{recipe.name}: gradients by time lag are of sequences only")
    problem = prepare(recipe)
    record = learn(problem, out, where, watch, resumed)
    if order.log_gradients and isinstance(problem, SequenceProblem):
        log_gradients(problem, out)
    return record


def _require_new(order: Order) -> None:
    for option, is_given in (("quick", order.quick), ("overwrite", order.overwrite)):
        if is_given and order.resume:
            raise RecipeError(
                f"--{option} goes with a run that begins, got --resume too; a resumed run keeps its settings"
            )


def _finished(order: Order) -> RunRecord:
    record = read_record(order.directory)
    _agree(order, record.recipe)
    if order.log_gradients:
        raise RunError(
            f"{order.directory}: --log-gradients goes with a training, this run is finished"
        )
    return record


def _settle(order: Order) -> AnyRecipe:
    data = _locate(order.data) if order.data else None
    recipe = make_recipe(order.recipe, data)
    if order.quick:
        recipe = quicken(recipe)
    recipe = change_recipe(recipe, **order.changes)
    require_heeded(recipe, order.changes)
    return recipe


def _locate(data: str) -> str:
    """A folder or file by its full path, so that the run can be read from anywhere."""
    named = (*DATA_SETS, *TEXT_SETS, *PAIR_SETS, *SERIES_SETS)
    return data if data in named else str(Path(data).resolve())


def _agree(order: Order, began: AnyRecipe) -> AnyRecipe:
    """The recipe the run began with, unless the order asks for another."""
    data = {"data": _locate(order.data)} if order.data else {}
    asked = change_recipe(began, name=order.recipe, **data, **order.changes)
    require_heeded(asked, order.changes)
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
