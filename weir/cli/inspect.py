"""`weir inspect`: the contract, files and weight sharing of a bundle, or of any ONNX file."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from weir.bundle.escaping import short_list
from weir.cli.error_hints import requires
from weir.client.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from weir.bundle.contract import Contract, Sharing
    from weir.bundle.decoding import Decoding
    from weir.bundle.external_data import ResolvedGraph
    from weir.bundle.reader import Bundle
    from weir.inspection.weight_sharing import Graph, GraphTensor


def inspect(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIRECTORY|FILE|NAME",
            help="models/lenet5, models/lenet5/1, any/model.onnx, or lenet5.",
        ),
    ],
    *,
    models: Annotated[
        Path, typer.Option(help="The folder that holds NAME.", envvar="WEIR_MODELS_DIR")
    ] = Path("models"),
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Show instead where the time of a run goes, and what of it is avoidable.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON.")] = False,
) -> None:
    """Show a bundle: contract, files, parity, and the parameters and connections of each graph.

    For an ONNX file without a contract: whether a server proves its batch axis. With --profile:
    time by operator and by node on one thread of the CPU, in batches of 1 row and of 32 or the
    model's most, on golden inputs or on generated ones.
    """
    from weir.bundle import reader
    from weir.bundle.errors import BundleError
    from weir.cli import profile_report
    from weir.cli.model_directory import find_bundle

    if as_json and not profile:
        raise UsageError("--json: expected with --profile")
    path, file = Path(model), reader.MODEL
    if path.is_file():
        directory, file = path.parent, path.name
    elif not (path.exists() or (models / model).exists()):
        raise UsageError(
            f"{model}: expected a bundle, an ONNX file or the name of a model in {models}, "
            "got no such file"
        )
    else:
        directory = find_bundle(path if path.is_dir() else models / model)
    console = Console()
    is_bundle = not path.is_file() and (directory / "model.json").exists()
    try:
        if profile:
            profile_report.report(console, directory, None if is_bundle else file, as_json=as_json)
            return
        if is_bundle:
            bundle = reader.read(directory)
            graphs, axis = bundle.graphs, bundle.contract.batch_axis
            sharing = bundle.contract.sharing
            _show_contract(console, directory, bundle)
        else:
            graphs, axis = {"model": reader.read_without_contract(directory, file)}, "batch"
            sharing = None
            shown = path if path.is_file() else directory
            console.print(
                f"{shown}: a plain model, without a contract", markup=False, soft_wrap=True
            )
            _show_batching(console, graphs["model"], shown)
    except BundleError as error:
        place = "" if directory == Path() else f"{directory}: "
        raise UsageError(f"{place}{error}") from error
    for name, graph in graphs.items():
        _show_graph(console, graph.model, axis, sharing, "" if name == "model" else f"{name}: ")


def _show_batching(console: Console, graph: "ResolvedGraph", path: Path) -> None:
    """Say whether a server would batch requests of a plain model, by its own proof."""
    # By name: the command imports the server only for a plain model.
    package = "weir.server"
    try:
        with requires("server"):
            batch_axis = importlib.import_module(f"{package}.repository.batch_axis")
    except MissingExtra as error:
        console.print(f"whether requests share batches: {error}", markup=False)
        return
    plain_model, triton, errors = (
        importlib.import_module(f"{package}.{name}")
        for name in ("repository.plain_model", "repository.triton", "errors")
    )
    try:
        # A file alone may have any name in its configuration.
        name = "" if path.is_file() else None
        config = triton.read_config(plain_model.config_directory(path), name)
        decision = batch_axis.inspect(graph, config)
    except errors.ServerError as error:
        console.print(f"a server does not load it: {error}", markup=False, soft_wrap=True)
    else:
        what = "batched" if decision.is_batched else "not batched"
        console.print(f"{what}: {decision.reason}", markup=False, soft_wrap=True)


def _show_contract(console: Console, directory: Path, bundle: "Bundle") -> None:
    contract = bundle.contract
    facts = Table(show_header=False, title=str(directory))
    for name, value in _facts(contract).items():
        facts.add_row(name, value)
    console.print(facts)
    files = Table("file", "bytes", "SHA-256", title="files, as listed and verified")
    for name, data in bundle.files.items():
        files.add_row(name, f"{len(data):,}", contract.files[name][:16] + "…")
    console.print(files)


def _facts(contract: "Contract") -> dict[str, str]:
    facts = {
        "task": contract.task,
        "architecture": contract.architecture,
        "batch axis": contract.batch_axis or "none: one request at a time",
        "batches": f"at most {contract.batching.max_rows} rows, "
        f"waiting at most {contract.batching.max_queue_delay_s:g} s",
        "tolerance": f"{contract.tolerance.absolute:g} + {contract.tolerance.relative:g} · |value|",
    }
    decoding = _decoding_facts(contract.decoding) if contract.decoding else {}
    return {**facts, **_input_facts(contract), **decoding, **_origin_facts(contract)}


def _input_facts(contract: "Contract") -> dict[str, str]:
    facts = {}
    if pictures := contract.preprocessing:
        how = (
            "stretched to"
            if pictures.short_side is None
            else f"short side to {pictures.short_side}, cut to the middle"
        )
        facts["pictures"] = f"{how} {pictures.height} x {pictures.width} x {pictures.channels}"
    for axis, padded in contract.padded_axes.items():
        counted = f", counted by {padded.length_input}" if padded.length_input else ""
        facts[f"axis {axis}"] = (
            f"1 to {padded.maximum} in {', '.join(padded.padding)}, padded to the longest{counted}"
        )
    for name, bounds in contract.value_ranges.items():
        words = "ids of its vocabulary, " if name in contract.vocabularies else ""
        facts[f"values of {name}"] = f"{words}{bounds.minimum} to {bounds.maximum}"
    if (texts := contract.tokenisation) and texts.rule == "tokenizer-json":
        facts["texts"] = f"tokenized by {texts.model} into {texts.tokens}"
    if series := contract.series:
        exogenous = f", beside {', '.join(series.exogenous)}" if series.exogenous else ""
        facts["series"] = (
            f"{series.target}, {series.horizon} ahead of the last {series.lags}{exogenous}"
        )
    return facts


def _origin_facts(contract: "Contract") -> dict[str, str]:
    facts = {}
    if parity := contract.parity:
        facts["parity"] = (
            f"at most {parity.max_absolute:.2e} absolute, {parity.max_relative:.2e} relative, "
            f"over {parity.rows:,} rows"
        )
        if parity.sequences is not None:
            facts["parity"] += f"; the same tokens for {parity.sequences:,} sequences"
        facts["parity against"] = parity.against
    if cost := contract.quantisation:
        facts["INT8"] = f"{cost.method}, accuracy {cost.before:.2%} before, {cost.after:.2%} after"
    if training := contract.training:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in training.metrics.items())
        facts["training"] = f"{training.recipe} on {training.data}, seed {training.seed}"
        facts["metrics"] = metrics or "none"
    if source := contract.source:
        files = ", ".join(f"{name} {digest[:16]}…" for name, digest in source.files.items())
        opsets = ", ".join(f"{domain} {number}" for domain, number in source.opsets.items())
        facts["imported from"] = f"{files}, by {source.producer}; opset {opsets}"
        facts["changed"] = "; ".join(source.changes) or "nothing"
        facts["proved"] = "; ".join(source.checks)
        if source.command is not None:
            facts["command"] = source.command
    facts["versions"] = ", ".join(f"{name} {text}" for name, text in contract.versions.items())
    facts["commit"] = contract.commit or "unknown"
    return facts


def _decoding_facts(decoding: "Decoding") -> dict[str, str]:
    lengths = [] if decoding.lengths is None else [f"{decoding.lengths} of the source"]
    begun = [f"{name} from {output}" for name, output in decoding.from_encoder.items()]
    changed = [f"{name} from {output}" for name, output in decoding.from_step.items()]
    steps = f"at most {decoding.maximum_steps}"
    if decoding.steps_per_token is not None:
        steps += (
            f", and {decoding.extra_steps} + {decoding.steps_per_token:g} for each token "
            "of the source"
        )
    return {
        "decoder begins with": ", ".join(
            [f"{decoding.previous} = {decoding.begin}", *begun, *lengths]
        ),
        "each next step": ", ".join([f"{decoding.previous} = the token chosen", *changed]),
        "chosen by": f"{decoding.log_probabilities}, but for {decoding.padding} "
        f"and {decoding.begin}",
        "ends with": f"{decoding.end}",
        "steps": steps,
        "attention": decoding.attention or "none",
        "detokenisation": decoding.detokenisation or "none: ids only",
    }


def _show_graph(
    console: Console, model: bytes, batch_axis: str | None, sharing: "Sharing | None", title: str
) -> None:
    try:
        with requires("export"):
            from weir.inspection.weight_sharing import read_graph
    except MissingExtra as error:
        console.print(f"layers cannot be counted: {error}", markup=False)
        return
    graph = read_graph(model, batch_axis)
    tensors = Table("tensor", "name", "type", "shape", title=f"{title}tensors")
    for kind, group in (("input", graph.inputs), ("output", graph.outputs)):
        for tensor in group:
            tensors.add_row(kind, tensor.name, tensor.dtype, _shape(tensor))
    tensors.caption = "\n".join(_remarks(graph)) or None
    console.print(tensors)
    console.print(_layers(graph, sharing, f"{title}weight sharing, for one row"))


def _shape(tensor: "GraphTensor") -> str:
    if tensor.shape is None:
        return "any" if tensor.is_tensor else "not served"
    return " x ".join(map(str, tensor.shape)) or "scalar"


def _remarks(graph: "Graph") -> list[str]:
    """What the table of tensors does not say."""
    remarks = []
    if graph.defaults:
        remarks.append(f"may be left out or sent: {short_list(list(graph.defaults))}")
    if any(tensor.dtype.startswith("seq(map(") for tensor in graph.outputs):
        remarks.append(
            "ZipMap's output is not served: export with zipmap=False, or cut it off with "
            "`weir import`"
        )
    return remarks


def _layers(graph: "Graph", trained: "Sharing | None", title: str) -> Table:
    """A table row per layer; connections / parameters is how often each weight is used for one row.

    The sums are those of the trained network if the contract records them.
    """
    table = Table("layer", "operator", "output", title=title, show_footer=True)
    for heading in ("parameters", "connections", "sharing"):
        table.add_column(heading, justify="right")
    for layer in graph.layers:
        shape = " x ".join(map(str, layer.output[1:])) or "?"
        known = layer.connections is not None
        connections = f"{layer.connections:,}" if known else f"{layer.parameters:,} a step"
        sharing = f"{layer.positions:,}x" if known else "each step"
        table.add_row(layer.name, layer.kind, shape, f"{layer.parameters:,}", connections, sharing)
    counted = graph if trained is None else trained
    table.columns[0].footer = "all layers" if trained is None else "as trained"
    table.columns[3].footer = f"{counted.parameters:,}"
    if counted.connections is not None and counted.parameters:
        table.columns[4].footer = f"{counted.connections:,}"
        table.columns[5].footer = f"{counted.connections / counted.parameters:.1f}x"
    table.caption = f"{graph.constants:,} constants outside layers" if graph.constants else None
    return table
