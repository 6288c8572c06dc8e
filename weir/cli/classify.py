"""`weir classify` and `weir classify-text`: the most probable classes of pictures and texts."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from weir.cli.error_hints import connect
from weir.cli.fan_out import TaskVerb
from weir.cli.figures import visible
from weir.cli.options import (
    AsJson,
    Concurrency,
    Model,
    ServerOptions,
    Texts,
    Timeout,
    Version,
    model_name,
    takes_server,
)
from weir.cli.text_inputs import read_texts
from weir.client import defaults
from weir.client.errors import UsageError

if TYPE_CHECKING:
    from weir.client.results import Class, ClassifiedText

_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")
# Pictures that the server does not read.
_OTHER_SUFFIXES = (
    ".heic", ".heif", ".avif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jp2", ".dng",
)  # fmt: skip


@takes_server
def classify(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PICTURES", help="JPEG or PNG files, or folders of them."),
    ],
    *,
    model: Annotated[str, typer.Option(help="The model's name.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes per picture.")] = 5,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="Pictures in flight.")
    ] = 16,
    version: Version = "",
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Classify pictures.

    A picture that fails is reported and skipped. Exit code 1 if a picture failed.
    """
    files = _files(paths)
    with connect(server, timeout) as client:
        _PICTURES.run(
            lambda path: client.classify(model, [path], top=top, version=version)[0],
            files,
            client=client,
            model=model,
            concurrency=concurrency,
            as_json=as_json,
        )


@takes_server
def classify_text(
    texts: Texts,
    *,
    model: Model = "",
    top: Annotated[int, typer.Option(min=1, help="Number of classes per text.")] = 5,
    concurrency: Concurrency = 16,
    version: Version = "",
    server: ServerOptions,
    timeout: Timeout = defaults.TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Classify texts.

    A text that fails is reported and skipped. Exit code 1 if a text failed.
    """
    given = read_texts(texts)
    with connect(server, timeout) as client:
        name = model_name(client, model)
        _TEXTS.run(
            lambda text: client.classify_text(name, [text], top=top, version=version)[0],
            given,
            client=client,
            model=name,
            concurrency=concurrency,
            as_json=as_json,
        )


def _files(paths: Iterable[Path]) -> list[Path]:
    """The files of the arguments; a folder stands for its pictures, sorted by name."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            listed = [file for file in sorted(path.rglob("*")) if _is_visible(file, path)]
            found = [file for file in listed if file.suffix.lower() in _SUFFIXES]
            others = [file for file in listed if file.suffix.lower() in _OTHER_SUFFIXES]
            if not found:
                also = f"; {_describe(others)}" if others else ""
                raise UsageError(f"{path}: no pictures there ({', '.join(_SUFFIXES)}){also}")
            if others:
                typer.echo(f"weir: {path}: {_describe(others)}", err=True)
            files += found
        else:
            files.append(path)
    return files


def _is_visible(file: Path, folder: Path) -> bool:
    is_hidden = any(
        part.startswith(".") or part == "__MACOSX" for part in file.relative_to(folder).parts
    )
    return not is_hidden and file.is_file()


def _describe(others: Sequence[Path]) -> str:
    """Count the pictures of other formats by their endings."""
    counts = Counter(file.suffix.lower() for file in others)
    endings = ", ".join(f"{count} {ending}" for ending, count in counts.most_common())
    return f"skipped {endings}: convert them to JPEG or PNG"


def _classes_to_json(classes: "Sequence[Class]") -> dict[str, object]:
    return {
        "classes": [
            {"label": each.label, "index": each.index, "probability": each.score}
            for each in classes
        ]
    }


def _class_rows(item: str, classes: "Sequence[Class]") -> Iterator[tuple[str, str, str]]:
    for rank, chosen in enumerate(classes):
        label = escape(chosen.label or str(chosen.index))
        yield "" if rank else item, label, f"{chosen.score:.4f}"


def _text_to_json(result: "ClassifiedText") -> dict[str, object]:
    return {**_classes_to_json(result.classes), "unknown": list(result.unknown)}


def _text_rows(text: str, result: "ClassifiedText") -> Iterator[tuple[str, ...]]:
    unknown = f"[yellow]{escape(' '.join(map(visible, result.unknown)))}[/]"
    for rank, cells in enumerate(_class_rows(text, result.classes)):
        yield *cells, "" if rank else unknown


_HEADS = ("class", "probability")
_PICTURES = TaskVerb(
    "classify", "picture", "classifying", "classified",
    ("picture", *_HEADS), _class_rows, _classes_to_json,
)  # fmt: skip
_TEXTS = TaskVerb(
    "classify-text", "text", "classifying", "classified",
    ("text", *_HEADS, "never seen"), _text_rows, _text_to_json,
)  # fmt: skip
