"""The clients and a verb against the real server: what the fake one only pretends."""

import asyncio
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import weir
from tests.helpers import onnx_models
from tests.integration.conftest import RGB, write_picture_bundle
from tests.integration.harness import Server, running
from weir.bench import generator
from weir.bench.plan import Plan
from weir.cli import main as cli
from weir.client.rpc import infer, infer_request

ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("served")
    onnx_models.write_plain(root / "models", "affine", onnx_models.affine(3))
    write_picture_bundle(root / "models", "colours", onnx_models.colours(), "probabilities", RGB)
    with running(root / "models", root / "log") as server:
        yield server


def test_an_answer_comes_back(server: Server) -> None:
    with weir.Client(server.target) as client:
        client.wait_ready("affine", timeout_s=10)
        answer = client.infer("affine", ROWS, request_id="me")

    np.testing.assert_array_equal(answer["y"], 2 * ROWS + 1)
    assert (answer.model, answer.version, answer.id) == ("affine", "1", "me")


def test_a_request_that_breaks_the_contract_is_refused_by_its_leaf(server: Server) -> None:
    with weir.Client(server.target) as client:
        with pytest.raises(weir.InvalidArgument, match="'x'"):
            client.infer("affine", {"x": ROWS[:, :2]})
        with pytest.raises(weir.NotFound, match="nobody"):
            client.infer("nobody", {"x": ROWS})


def test_a_stream_keeps_the_order(server: Server) -> None:
    with weir.Client(server.target) as client:
        answers = list(client.stream("affine", (ROWS + n for n in range(200))))

    for n, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["y"], 2 * (ROWS + n) + 1)


def test_answers_before_a_refusal_on_a_stream_arrive(server: Server) -> None:
    with weir.Client(server.target) as client:
        answers = client.stream("affine", [ROWS, ROWS, ROWS[:, :2]])

        assert len([next(answers), next(answers)]) == 2
        with pytest.raises(weir.CallError, match="'x'"):
            next(answers)


def test_the_asynchronous_client_does_the_same(server: Server) -> None:
    async def main() -> None:
        async with weir.AsyncClient(server.target) as client:
            await client.wait_ready("affine", timeout_s=10)
            answers = await asyncio.gather(*(client.infer("affine", ROWS + n) for n in range(100)))
            streamed = [one async for one in client.stream("affine", [ROWS] * 100)]
        for n, answer in enumerate(answers):
            np.testing.assert_array_equal(answer["y"], 2 * (ROWS + n) + 1)
        assert len(streamed) == 100

    asyncio.run(main())


def test_pictures_are_classified(server: Server) -> None:
    red = np.full((1, 20, 30, 3), (255, 0, 0), np.uint8)
    file = io.BytesIO()
    Image.fromarray(red[0]).save(file, "JPEG")

    with weir.Client(server.target) as client:
        client.wait_ready("colours", timeout_s=10)
        of_array = client.classify("colours", red, top=1)
        (of_file,) = client.classify("colours", [file.getvalue()])
        with pytest.raises(weir.InvalidArgument, match=r"pictures\[0\]: expected JPEG or PNG"):
            client.classify("colours", [b"GIF89a"])

    assert of_array == [[weir.Class(1.0, 0, "red")]]
    assert [each.label for each in of_file] == ["red", "green", "blue"]
    assert of_file[0].score > 0.99


def test_every_other_query_is_answered(server: Server) -> None:
    with weir.Client(server.target) as client:
        assert client.is_live() and client.is_ready() and client.model_ready("affine")
        assert client.metadata("affine").inputs == (weir.TensorMetadata("x", "FP32", (-1, 3)),)
        assert client.config("affine").config.name == "affine"
        assert client.statistics("affine").model_stats[0].name == "affine"
        assert [entry.state for entry in client.index()] == ["READY"] * 2
        assert client.health("affine") == "SERVING"
        assert client.server_metadata().name


@pytest.fixture
def controlled(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A server with model control, and its repository: two versions of a fingerprint model."""
    models = tmp_path / "models"
    for version in (1, 2):
        onnx_models.write_plain(models, "who", onnx_models.fingerprint(version), version=version)
    with running(models, tmp_path / "log", "--model-control", "explicit") as server:
        yield server, models


def answering(client: weir.Client, version: str | int = "") -> int:
    """The version in the answer's rows, which must equal the version of the response."""
    answer = client.infer("who", {"row": np.array([[1, 2]])}, version=version)
    assert answer.version == str(answer["version"][0])
    return int(answer.version)


def test_a_canary_is_called_by_its_label_and_promoted(controlled: tuple[Server, Path]) -> None:
    server, models = controlled
    with weir.Client(server.target) as client:
        client.wait_ready("who", timeout_s=30)
        client.set_label("who", "stable", 2)
        onnx_models.write_plain(models, "who", onnx_models.fingerprint(3), version=3)
        client.set_label("who", "canary", 3)

        assert (answering(client), answering(client, "canary"), answering(client, 2)) == (2, 3, 2)
        client.set_label("who", "stable", 3)
        client.set_label("who", "canary", None)

        assert answering(client) == answering(client, "stable") == 3
        with pytest.raises(weir.NotFound, match="canary"):
            answering(client, "canary")
        (model,) = client.models()
    assert (model.name, model.answering, model.on_disk) == ("who", "3", ("3", "2", "1"))
    assert [(each.version, each.labels, each.state) for each in model.versions if each.labels] == [
        ("3", ("stable",), "READY")
    ]
    assert abs(datetime.now(UTC) - model.versions[0].since) < timedelta(minutes=5)


def test_a_model_is_unloaded_and_loaded_by_call(controlled: tuple[Server, Path]) -> None:
    server, models = controlled
    with weir.Client(server.target) as client:
        client.wait_ready("who", timeout_s=30)
        client.unload("who")
        with pytest.raises(weir.Unavailable):
            answering(client)
        client.load("who")
        assert answering(client) == 2
        with pytest.raises(weir.NotFound):
            client.load("nobody")
        broken = models / "who" / "3"
        broken.mkdir()
        (broken / "model.onnx").write_bytes(b"no graph")
        with pytest.raises(weir.FailedPrecondition, match="version 3"):
            client.load("who")
        assert answering(client) == 2


def test_a_model_is_rolled_back_from_a_shell(
    controlled: tuple[Server, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server, _ = controlled
    with weir.Client(server.target) as client:
        client.wait_ready("who", timeout_s=30)
        with pytest.raises(SystemExit) as ended:
            cli.main(["rollback", "who", "--target", server.target])
        assert not ended.value.code and capsys.readouterr().out.startswith("who: 2 -> 1 (")
        assert answering(client) == 1
        with pytest.raises(SystemExit) as ended:
            cli.main(["models", "label", "who", "stable=", "--target", server.target])
        assert answering(client) == 2


def test_a_start_with_a_broken_version_is_rolled_back_past_the_next_broken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = tmp_path / "models"
    for version in (1, 2, 3):
        onnx_models.write_plain(models, "who", onnx_models.fingerprint(version), version=version)
    # A server says SERVING if one of its models does.
    onnx_models.write_plain(models, "affine", onnx_models.affine(3))
    for broken in ("2", "3"):
        (models / "who" / broken / "model.onnx").write_bytes(b"no graph")
    with (
        running(models, tmp_path / "log", "--model-control", "explicit") as server,
        weir.Client(server.target) as client,
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["rollback", "who", "--target", server.target])

        told = capsys.readouterr()
        assert not ended.value.code and told.out.startswith("who: none -> 1 (")
        assert told.err.startswith("weir: model 'who' version 2: ") and told.err.count("\n") == 1
        assert answering(client) == 1


def test_a_load_from_a_shell_says_what_it_did(
    controlled: tuple[Server, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    server, models = controlled
    with weir.Client(server.target) as client:
        client.wait_ready("who", timeout_s=30)
    onnx_models.write_plain(models, "who", onnx_models.fingerprint(3), version=3)
    for verb in ("load", "load", "reload", "unload", "unload"):
        with pytest.raises(SystemExit):
            cli.main(["models", verb, "who", "--target", server.target])

    assert capsys.readouterr().out.splitlines() == [
        "who: loaded 3, unloaded 2; 3 answers",
        "who: nothing to load; 3 answers",
        "who: reloaded 3; 3 answers",
        "who: unloaded 3; none answers",
        "who: nothing to unload; none answers",
    ]


def test_a_server_without_control_refuses_it(server: Server) -> None:
    with weir.Client(server.target) as client:
        with pytest.raises(weir.Unimplemented):
            client.load("affine")
        assert [model.name for model in client.models()] == ["affine", "colours"]


def test_a_load_is_answered_without_an_error(server: Server) -> None:

    call = infer(infer_request("affine", {"x": ROWS}))

    tally = generator.run_here(
        Plan(server.target, call.path, call.body, requests=500, warmup_s=0.05)
    )

    assert len(tally.latencies_s) == 500 and not tally.errors


def test_a_server_that_dies_under_a_load_fails_it(tmp_path: Path) -> None:
    onnx_models.write_plain(tmp_path / "models", "affine", onnx_models.affine(3))
    with running(tmp_path / "models", tmp_path / "log") as server:
        order = ["bench", "affine", "--target", server.target, "-c", "2", "-n", "20000"]
        load = subprocess.Popen(
            [sys.executable, "-m", "weir", *order], stderr=subprocess.PIPE, text=True
        )
        while server.metric("weir_requests_total", model="affine") < 100:
            assert load.poll() is None

        server.kill()
        _, error = load.communicate(timeout=60)

    assert load.returncode == 1
    assert re.fullmatch(r"weir: of 20,000 calls failed: .*UNAVAILABLE [\d,]+\n", error)
