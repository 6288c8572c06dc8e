"""One server per transport with every model the tests call, and a raw client of it."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.helpers import onnx_models, text_models
from tests.integration.generation import publish
from tests.integration.harness import Client, Server, running, tensor
from weir.bundle.contract import Batching, Contract, Preprocessing, Tolerance
from weir.bundle.golden import FILE_NAME as GOLDEN
from weir.bundle.golden import Golden, encode
from weir.bundle.sequences import PaddedAxis, ValueRange
from weir.bundle.writer import write

ECHOES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

RGB = b"red\ngreen\nblue\n"

# Models whose name starts with "patient" wait for a full batch, for as long as it takes: what is
# in their queue stays there until a test fills it, cancels it, or lets its time run out.
SETTINGS = """
[models.patient]
max_batch_rows = 2
max_queue_delay_s = 86400

[models.patient_fingerprint]
max_batch_rows = 4
max_queue_delay_s = 86400

[models.patient_burner]
max_batch_rows = 3
max_queue_delay_s = 86400

[models.patient_gather]
max_batch_rows = 3
max_queue_delay_s = 86400

[models.patient_colours]
max_batch_rows = 2
max_queue_delay_s = 86400

[models.patient_tagger]
max_batch_rows = 2
max_queue_delay_s = 86400

[models.strict]
non_finite = "reject"

[models.patient_full]
max_batch_rows = 9
max_queue_rows = 8
max_queue_delay_s = 86400
"""


@pytest.fixture(scope="session", params=["completion-queue", "grpc-server"])
def transport(request: pytest.FixtureRequest) -> str:
    """The name of a transport, as `--transport` takes it."""
    return str(request.param)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of plain models and bundles, one of them broken."""
    root = tmp_path_factory.mktemp("models")
    plain = {
        **{f"echo_{name}": onnx_models.echo(datatype) for name, datatype in ECHOES.items()},
        "affine": onnx_models.affine(),
        "arithmetic": onnx_models.arithmetic(),
        "counting": onnx_models.counting(),
        "fingerprint": onnx_models.fingerprint(7),
        "free": onnx_models.echo(TensorProto.FLOAT, ("batch", "time")),
        "gather": onnx_models.gather(),
        "patient": onnx_models.affine(),
        "patient_fingerprint": onnx_models.fingerprint(7),
        "patient_gather": onnx_models.gather(),
        "patient_full": onnx_models.affine(),
        "quotient": onnx_models.quotient(),
        "recurrent": onnx_models.recurrent("LSTM"),
        "sizer": onnx_models.sizer(),
        "strict": onnx_models.affine(),
        "without_rows": onnx_models.without_rows(),
    }
    for name, graph in plain.items():
        onnx_models.write_plain(root, name, graph, version=7)
    write_bundle(root, "labelled")
    for name in ("burner", "patient_burner"):
        write_burner(root, name)
    for name in ("colours", "counted_colours", "patient_colours"):
        write_picture_bundle(root, name, onnx_models.colours(), "probabilities", RGB)
    write_picture_bundle(root, "pixels", onnx_models.pixels(), "values")
    write_sentence_bundle(root, "sentences")
    for name in ("tagger", "patient_tagger"):
        text_models.write_tagger(root, name)
    text_models.write_classifier(root)
    text_models.write_forecaster(root)
    broken = write_bundle(root, "broken") / "model.onnx"
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    return root


def write_sentence_bundle(root: Path, name: str) -> Path:
    """A bundle of `y = 10 * tokens`, of 8 words and at most 16 of them."""
    tokens = np.array([[1, 2, 7], [3, 0, 0]])
    golden = Golden(inputs={"tokens": tokens}, outputs={"y": (10 * tokens).astype(np.float32)})
    contract = Contract(
        task="other",
        architecture="gather",
        padded_axes={"time": PaddedAxis(maximum=16, padding={"tokens": 0})},
        value_ranges={"tokens": ValueRange(maximum=7)},
        tolerance=Tolerance(absolute=1e-5, relative=1e-5),
    )
    files = {"model.onnx": onnx_models.gather(8), GOLDEN: encode(golden)}
    return write(files, contract, root, name)


def write_burner(root: Path, name: str) -> Path:
    """A bundle of the burner: without a contract, a graph with a loop is not batched."""
    one = np.array([[1]])
    golden = Golden(inputs={"iterations": one}, outputs={"echo": one, "steps": one})
    contract = Contract(
        task="other",
        architecture="burner",
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    files = {"model.onnx": onnx_models.burner(), GOLDEN: encode(golden)}
    return write(files, contract, root, name)


def write_bundle(root: Path, name: str) -> Path:
    """A bundle of `y = 2x + 1` over four labelled classes."""
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    files = {
        "model.onnx": onnx_models.affine(),
        "labels.txt": b"north\neast\nsouth\nwest\n",
        GOLDEN: encode(Golden(inputs={"x": x}, outputs={"y": 2 * x + 1})),
    }
    contract = Contract(
        task="other",
        architecture="affine",
        labels={"y": "labels.txt"},
        batching=Batching(max_rows=8),
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    return write(files, contract, root, name)


def write_picture_bundle(
    root: Path, name: str, graph: bytes, output: str, labels: bytes | None = None
) -> Path:
    """A bundle that takes pictures, stretched to 8 x 8 x 3."""
    contract = Contract(
        task="image-classification",
        architecture=name,
        labels={output: "labels.txt"} if labels else {},
        preprocessing=Preprocessing(
            input="image", height=8, width=8, channels=3, resize="stretch", output=output
        ),
        batching=Batching(max_rows=8),
        tolerance=Tolerance(absolute=0.0, relative=0.0),
    )
    files = {"model.onnx": graph, GOLDEN: encode(onnx_models.recorded(graph))}
    if labels:
        files["labels.txt"] = labels
    return write(files, contract, root, name)


# A fixture that depends on `transport` is torn down whenever the transport changes: twice per file
# if files are distributed over workers. So the servers are kept by fixtures that do not.


@pytest.fixture(scope="session")
def serve_house(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Server]]:
    """Gives the server of `models` on a transport, started at first use."""
    settings = tmp_path_factory.mktemp("settings") / "weir.toml"
    settings.write_text(SETTINGS)
    with one_by_transport(models, tmp_path_factory, "house", "--config", str(settings)) as serve:
        yield serve


@contextmanager
def one_by_transport(
    models: Path, tmp_path_factory: pytest.TempPathFactory, name: str, *flags: str
) -> Iterator[Callable[[str], Server]]:
    """Gives a server on a transport, started at first use, which serves until all tests ended."""
    with ExitStack() as stack:

        @functools.cache
        def serve(transport: str) -> Server:
            log = tmp_path_factory.mktemp(f"{name}-{transport}") / "log"
            return stack.enter_context(
                running_to_the_end(models, log, "--transport", transport, *flags)
            )

        yield serve


@contextmanager
def running_to_the_end(
    models: Path, log: Path, *flags: str, ready: bool = True
) -> Iterator[Server]:
    """A server process that must neither end nor log a traceback."""
    with running(models, log, *flags, ready=ready) as server:
        yield server
        assert server.process.poll() is None, f"the server died:\n{server.log()}"
        assert "Traceback" not in server.log()


@pytest.fixture(scope="session")
def house(serve_house: Callable[[str], Server], transport: str) -> Server:
    """A server of `models` for all tests of its transport."""
    return serve_house(transport)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of four models, quick to load."""
    root = tmp_path_factory.mktemp("few")
    for name in ("affine", "patient", "patient_full"):
        onnx_models.write_plain(root, name, onnx_models.affine())
    onnx_models.write_plain(root, "burner", onnx_models.burner())
    (root / "weir.toml").write_text(SETTINGS)
    return root


@pytest.fixture
def flags(transport: str, few: Path) -> tuple[str, ...]:
    """The flags of a server of `few`."""
    return ("--transport", transport, "--config", str(few / "weir.toml"))


@pytest.fixture(scope="session")
def encoder_decoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `generation.publish`."""
    root = tmp_path_factory.mktemp("encoder_decoders")
    publish(root)
    return root


@pytest.fixture(scope="session")
def serve_generating(
    encoder_decoders: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Server]]:
    """Gives the server of `encoder_decoders` on a transport, started at first use."""
    with one_by_transport(encoder_decoders, tmp_path_factory, "generating") as serve:
        yield serve


@pytest.fixture(scope="session")
def generating(serve_generating: Callable[[str], Server], transport: str) -> Server:
    """A server of `encoder_decoders` for all tests of its transport."""
    return serve_generating(transport)


@pytest.fixture
def client(house: Server) -> Iterator[Client]:
    """A client that leaves nothing uncounted for the next test."""
    with Client(house.target) as client:
        yield client
    house.settle()


@pytest.fixture(scope="session")
def iterations_per_s(serve_house: Callable[[str], Server]) -> int:
    """An upper bound of the burner's iterations in a second: so many take at least a second.

    Other tests may take the cores now and not later, so the server's time on a core counts.
    """
    house = serve_house("completion-queue")
    count, rates = 1000, [0.0]
    with Client(house.target) as client:
        while len(rates) < 4:
            started_s, cpu_s = time.monotonic(), house.cpu_s()
            client.infer("burner", tensor("iterations", np.array([[count]])))
            took_s = min(time.monotonic() - started_s, house.cpu_s() - cpu_s)
            if took_s < 0.1:
                count *= 4
            else:
                rates.append(count / took_s)
    house.settle()
    return int(max(rates))
