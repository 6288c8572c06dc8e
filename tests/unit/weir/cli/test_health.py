import pytest

from tests.unit.weir.cli.shell import Weir
from tests.unit.weir.fake_server import FakeServer
from tests.unit.weir.secure_server import serving
from weir.protocol import models_pb2 as models_pb


def test_the_exit_code_reports_health(weir: Weir, fake: FakeServer, nobody: str) -> None:
    serving = weir("health", "--target", fake.target)
    unknown = weir("health", "--service", "nobody", "--target", fake.target)
    fake.health = ["NOT_SERVING"]
    not_serving = weir("health", "--service", "echo", "--target", fake.target)
    assert not_serving.err == ""
    unreachable = weir("health", "--target", nobody)

    assert (serving.code, serving.out) == (0, "SERVING\n")
    assert (unknown.code, unknown.out) == (1, "SERVICE_UNKNOWN\n")
    assert (not_serving.code, not_serving.out) == (3, "NOT_SERVING\n")
    assert unreachable.code == 3 and unreachable.out.startswith("UNREACHABLE")


def test_each_address_of_a_list_is_asked(weir: Weir, fake: FakeServer, nobody: str) -> None:
    one = weir("health", "--target", f"{fake.target},{nobody}")
    fake.health = ["NOT_SERVING"]
    none = weir("health", "--target", f"{nobody},{fake.target}")
    watched = weir("health", "--watch", "--target", f"{nobody},{fake.target}")

    first, second = one.out.splitlines()
    assert one.code == 3
    assert first == f"{fake.target}  SERVING" and second.startswith(f"{nobody}  UNREACHABLE")
    assert none.code == 3 and none.out.splitlines()[1] == f"{fake.target}  NOT_SERVING"
    assert watched.code == 2 and "expected one server" in watched.err


def test_address_that_refuses_the_call_hides_no_other(weir: Weir, fake: FakeServer) -> None:
    with serving(tokens={"t0ken"}) as guarded:
        done = weir("health", "--target", f"{guarded.target},{fake.target}")

    first, second = done.out.splitlines()
    assert done.code == 1
    assert first.startswith(f"{guarded.target}  FAILED: authorization: expected a known bearer")
    assert second == f"{fake.target}  SERVING"


def test_a_watch_prints_each_change_and_ends_with_the_last(weir: Weir, fake: FakeServer) -> None:
    done = weir("health", "--watch", "--target", fake.target)

    assert (done.code, done.out) == (0, "NOT_SERVING\nSERVING\n")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("UNAVAILABLE", "weir: no model is ready: see `weir models`\n"),
        ("LOADING", "weir: the models are loading: see `weir models`\n"),
        ("READY", ""),
        (None, "weir: the server has no model\n"),
    ],
)
def test_a_server_that_does_not_serve_is_explained(
    weir: Weir, fake: FakeServer, state: str | None, told: str
) -> None:
    fake.health = ["NOT_SERVING"]
    listing = models_pb.ListModelsResponse()
    if state is not None:
        listing.models.add(name="m").versions.add(version="1", state=state)
    fake.models.listing = listing

    done = weir("health", "--target", fake.target)

    assert (done.code, done.out, done.err) == (3, "NOT_SERVING\n", told)


def test_a_server_that_is_not_weir_is_not_explained(weir: Weir, fake: FakeServer) -> None:
    fake.health = ["NOT_SERVING"]
    fake.models.is_weir = False

    assert weir("health", "--target", fake.target).err == ""


def test_verbose_prints_the_server_and_what_is_not_ready(weir: Weir, fake: FakeServer) -> None:
    done = weir("health", "--verbose", "--target", fake.target)

    server, *rest = done.out.splitlines()[1:]
    assert (done.code, done.err) == (0, "")
    assert server.startswith("server     weir 1.2.3, process 4242, started ")
    assert rest == [
        "machine    usable cores: 8; gRPC port: may be shared",
        "transport  completion-queue, grpcio 1.85.1",
        "runtime    ONNX Runtime 1.31.1, provider cpu",
        "metrics    127.0.0.1:8002",
        "models     1 of 2 ready",
        "           good version 3: UNAVAILABLE: golden.npz: logits: expected [1 2], got 7",
        "           flop version 1: UNAVAILABLE: no graph",
    ]


def test_verbose_names_the_reason_for_the_slower_transport(weir: Weir, fake: FakeServer) -> None:
    fake.models.info.transport = "grpc-server"
    fake.models.info.grpcio = "2.0.0"
    fake.models.info.shares_port = False
    fake.models.info.transport_problem = "expected grpcio>=1.81,<1.86, got 2.0.0"

    lines = weir("health", "--verbose", "--target", fake.target).out.splitlines()

    assert lines[2:5] == [
        "machine    usable cores: 8; gRPC port: not shared",
        "transport  grpc-server, grpcio 2.0.0",
        "           slower than completion-queue: expected grpcio>=1.81,<1.86, got 2.0.0",
    ]


def test_verbose_of_one_model_names_its_versions_only(weir: Weir, fake: FakeServer) -> None:
    lines = weir(
        "health", "--verbose", "--service", "echo", "--target", fake.target
    ).out.splitlines()

    assert lines[-1] == "models     0 of 0 ready"


def test_verbose_of_a_server_that_is_not_weir_reads_the_protocol(
    weir: Weir, fake: FakeServer
) -> None:
    fake.models.is_weir = False

    done = weir("health", "--verbose", "--target", fake.target)

    assert done.code == 0
    assert done.out.splitlines() == [
        "SERVING",
        "server     fake",
        "models     1 of 2 ready",
        "           broken version 2: UNAVAILABLE: no graph",
    ]


def test_verbose_of_an_unreachable_server_prints_that_alone(weir: Weir, nobody: str) -> None:
    done = weir("health", "--verbose", "--target", nobody)

    assert done.code == 3 and len(done.out.splitlines()) == 1


def test_verbose_does_not_watch(weir: Weir, nobody: str) -> None:
    done = weir("health", "--verbose", "--watch", "--target", nobody)

    assert done.code == 2 and "--verbose, --watch: expected one of them" in done.err
