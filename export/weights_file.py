"""Weights as training scripts save them: the state dict in a file, under the network's names.

Rules:
- No code of the file runs. torch reads it with `weights_only`, and each class that torch does not
  know is replaced by an inert one. safetensors cannot hold code.
- The state dict may lie in dictionaries, as `{"state_dict": ..., "epoch": ...}`. If there are
  several, the one with most of the network's names counts, and an average (EMA) before others.
- Names may have the prefixes of wrappers, as DataParallel's `module.`, anywhere, and of a module
  that held the network. Tensors outside that module are left out.
- What was taken is said in one line, `StateDict.note`.
"""

import re
import shlex
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from weir.bundle.escaping import short_list
from weir.export.errors import ExportError

_MOST_LEVELS = 4
_MOST_CLASSES = 100
_UNKNOWN_CLASS = re.compile(r"Unsupported global: GLOBAL (\S+) was not an allowed global")
# torch's first format keeps the source of modules in this way.
_OLD_MODULE = "Only persistent_load of storage is allowed"
# Beside the weights, `AveragedModel` saves how many it averaged.
_COUNTER = "n_averaged"
# DataParallel, torch.compile, FSDP and activation checkpointing.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors by the network's names, and what was taken of the file; empty if all of it."""

    tensors: dict[str, Tensor]
    note: str = ""


class _Inert:
    """Stands for an object of a class that only the file knows; keeps its attributes."""

    name = ""

    def __new__(cls, *_arguments: object, **_named: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_arguments: object, **_named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    @property
    def is_module(self) -> bool:
        """Whether the object was a `torch.nn.Module`."""
        return "_parameters" in self.__dict__ and "_modules" in self.__dict__


def read_state_dict(file: Path, wanted: Sequence[str]) -> StateDict:
    """Read the tensors of a file.

    Args:
        file: by `torch.save`, or by safetensors with the suffix `.safetensors`.
        wanted: the names of the network's tensors.

    Raises:
        ExportError: the file holds no state dict; the message says what to do.
    """
    found = _load(file)
    if isinstance(found, _Inert):
        raise ExportError(_advise(file, found.name, ""))
    candidates = [_rename(path, tensors, wanted) for path, tensors in _state_dicts(found)]
    if not candidates:
        for path, each in _walk(found):
            if isinstance(each, _Inert) and each.is_module:
                raise ExportError(_advise(file, each.name, _keys(path)))
        raise ExportError(f"{file}: expected a state dict, tensors by name, got {_describe(found)}")
    # The first of equal ones counts.
    names = frozenset(wanted)
    best = max(candidates, key=lambda each: (len(names & each.tensors.keys()), each.is_average))
    others = [
        each.path for each in candidates if each.path != best.path and names & each.tensors.keys()
    ]
    return StateDict(best.tensors, best.describe(others))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A state dict of the file, renamed.

    path: the keys that lead to it.
    prefixes: what was cut off its names.
    left_out: names outside the module that held the network.
    """

    path: tuple[str, ...]
    tensors: dict[str, Tensor]
    prefixes: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def is_average(self) -> bool:
        return any("ema" in key.lower().split("_") or "average" in key for key in self.path)

    def describe(self, others: Sequence[tuple[str, ...]]) -> str:
        """One line on what was taken; empty if it is all of the file, as it is."""
        facts = []
        if self.path:
            also = f" (also there: {', '.join(map(_keys, others))})" if others else ""
            facts.append(f"of {_keys(self.path)}{also}")
        if self.prefixes:
            facts.append(f"without the prefix {' and '.join(self.prefixes)}")
        if self.left_out:
            facts.append(f"left out: {short_list(self.left_out)}")
        return f"weights: {', '.join(facts)}" if facts else ""


def _load(file: Path) -> Any:
    """The content of the file; objects of unknown classes are inert."""
    if file.suffix.lower() == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ExportError(f"{file}: expected safetensors: {error}") from error
    kind = _archive(file)
    if kind == "TorchScript":
        weights = f"torch.jit.load({str(file)!r}, map_location='cpu').state_dict()"
        raise ExportError(
            f"{file}: expected a state dict, got a TorchScript archive; {_run(file, weights)}"
        )
    unknown = get_unsafe_globals_in_checkpoint(file) if kind == "torch.save" else []
    while True:
        try:
            with safe_globals([_stand_in(name) for name in unknown]):
                return torch.load(file, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # torch raises many unrelated classes
            # Of its first format, torch names one class at a time.
            found = _UNKNOWN_CLASS.search(str(error))
            if found and found[1] not in unknown and len(unknown) < _MOST_CLASSES:
                unknown.append(found[1])
                continue
            if unknown and _OLD_MODULE in str(error):
                raise ExportError(_advise(file, unknown[-1], "")) from error
            known = f"; it holds {short_list(sorted(unknown))}" if unknown else ""
            raise ExportError(
                f"{file}: expected a state dict by torch.save, tensors and nothing else{known}"
            ) from error


def _archive(file: Path) -> str:
    """The kind of a zip archive of torch's; empty for another file."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except zipfile.BadZipFile:
        return ""
    if "constants.pkl" in names:
        return "TorchScript"
    return "torch.save" if "data.pkl" in names else ""


def _stand_in(name: str) -> tuple[Any, str]:
    """What torch uses instead of a class or function of the file."""
    if name == "collections.defaultdict":
        return _empty, name
    return type("_Inert", (_Inert,), {"name": name}), name


def _empty(*_arguments: object) -> dict[object, object]:
    """A plain dictionary in the place of one with a default."""
    return {}


def _walk(found: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """The object, and those in its dictionaries, with the keys that lead to each."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], object]] = [((), found)]
    while waiting:
        path, each = waiting.pop(0)
        yield path, each
        if isinstance(each, Mapping) and len(path) < _MOST_LEVELS and id(each) not in seen:
            seen.add(id(each))
            waiting += [
                ((*path, key), value) for key, value in each.items() if isinstance(key, str)
            ]


def _state_dicts(found: object) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    for path, each in _walk(found):
        if isinstance(each, Mapping) and each and all(map(_is_tensor, each.items())):
            yield path, dict(each)


def _is_tensor(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _rename(path: tuple[str, ...], tensors: dict[str, Tensor], wanted: Sequence[str]) -> _Candidate:
    """Cut the prefixes of wrappers off the names, then that of the module that held the network."""
    wrappers = {part for name in tensors for part in name.split(".")} & _WRAPPERS
    wrappers -= {part for name in wanted for part in name.split(".")}
    bare = {
        ".".join(part for part in name.split(".") if part not in wrappers): tensor
        for name, tensor in tensors.items()
    }
    if len(bare) < len(tensors):
        bare, wrappers = tensors, set()
    holder = _holder(bare, wanted)
    held = {
        name.removeprefix(holder): tensor
        for name, tensor in bare.items()
        if name.startswith(holder) and name != _COUNTER
    }
    prefixes = [f"{each}." for each in sorted(wrappers)] + ([holder] if holder else [])
    left_out = [name for name in bare if name.removeprefix(holder) not in held]
    return _Candidate(path, held, tuple(prefixes), tuple(left_out))


def _holder(names: Mapping[str, Tensor], wanted: Sequence[str]) -> str:
    """The prefix, ending with a dot, behind which most of the wanted names are; often empty."""
    known = frozenset(wanted)
    prefixes: Counter[str] = Counter()
    for name in names:
        prefixes[""] += name in known
        parts = name.split(".")
        for count in range(1, len(parts)):
            if ".".join(parts[count:]) in known:
                prefixes[".".join(parts[:count]) + "."] += 1
    return max(prefixes, key=lambda prefix: prefixes[prefix], default="")


def _advise(file: Path, name: str, keys: str) -> str:
    """Say how to save the weights of a whole module, which only its own code can load."""
    load = f"torch.load({str(file)!r}, map_location='cpu', weights_only=False){keys}.state_dict()"
    return (
        f"{file}: expected a state dict, got a whole pickled object ({name}), which runs "
        f"its own code when it is loaded; where that code is, and if you trust the file, "
        f"{_run(file, load)}"
    )


def _run(file: Path, state_dict: str) -> str:
    """The command that saves a state dict beside the file."""
    saved = str(file.with_name(f"{file.stem}-weights.pth"))
    code = f"import torch; torch.save({state_dict}, {saved!r})"
    quoted = shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'
    return f"run: python -c {quoted}; then name {saved}"


def _keys(path: Sequence[str]) -> str:
    return "".join(f"[{key!r}]" for key in path)


def _describe(found: object) -> str:
    if isinstance(found, Mapping):
        return f"a dictionary of {short_list([str(key) for key in found])}" if found else "none"
    return f"a {type(found).__name__}"
