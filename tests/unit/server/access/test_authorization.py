"""The check of a call's token, and the log of refusals."""

import logging
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.unit.server.conftest import Clock, FakeCall
from weir.server.access.authorization import Authorizer, Caller, check_model, may_use
from weir.server.access.file_watcher import FileWatcher
from weir.server.access.tokens import TokensFile
from weir.server.errors import PermissionDenied, Unauthenticated

ALL, ONE = "token-of-all-0123456789", "token-of-one-0123456789"
FILE = f"""
[tokens.all]
token = "{ALL}"
calls = ["infer", "read", "control"]

[tokens.one]
token = "{ONE}"
models = ["lenet5"]
"""
INFER, INDEX, LOAD, LIVE = (
    f"/inference.GRPCInferenceService/{name}"
    for name in ("ModelInfer", "RepositoryIndex", "RepositoryModelLoad", "ServerLive")
)
NEW = "/weir.v1.Models/AddedWithoutAKind"

Make = Callable[..., Authorizer]


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Make:
    file = tmp_path / "tokens.toml"
    file.write_text(FILE)
    file.chmod(0o600)

    def make(*, opens_health: bool = False) -> Authorizer:
        tokens = TokensFile(file, FileWatcher())
        return Authorizer(tokens, {INFER, NEW}, opens_health=opens_health, clock=clock)

    return make


def call(method: str, token: str | None = None) -> FakeCall:
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    return FakeCall(metadata, method=method)


def admitted(authorizer: Authorizer, method: str, token: str | None = None) -> Caller | None:
    made = call(method, token)
    authorizer.check(made)
    assert made.caller is None or isinstance(made.caller, Caller)
    return made.caller


def test_served_method_without_a_kind_is_denied_for_every_token(make: Make) -> None:
    with pytest.raises(PermissionDenied):
        admitted(make(opens_health=True), NEW, ALL)


def test_method_that_is_not_served_is_left_to_the_transport_for_a_known_token(make: Make) -> None:
    assert admitted(make(), "/any.Service/Method", ONE) is None
    with pytest.raises(Unauthenticated):
        admitted(make(), "/any.Service/Method")


def test_open_health_opens_health_alone(make: Make) -> None:
    with pytest.raises(Unauthenticated):
        admitted(make(), LIVE)
    assert admitted(make(opens_health=True), LIVE) is None
    with pytest.raises(Unauthenticated):
        admitted(make(opens_health=True), INDEX)


def test_kind_is_checked_by_the_headers_and_the_model_later(make: Make) -> None:
    authorizer = make()

    with pytest.raises(PermissionDenied, match="of the kind control"):
        admitted(authorizer, LOAD, ONE)
    caller = admitted(authorizer, INFER, ONE)

    assert caller and caller.name == "one"
    check_model(caller, "lenet5")
    with pytest.raises(PermissionDenied, match="may not use model 'lenet'"):
        check_model(caller, "lenet")
    assert may_use(caller, "lenet5") and not may_use(caller, "lenet")


def test_without_tokens_nothing_is_checked() -> None:
    check_model(None, "any")

    assert may_use(None, "any")


def test_scrape_needs_a_token_that_reads_all_models(make: Make) -> None:
    check = make().check_scrape

    assert check(f"Bearer {ALL}", "peer") is HTTPStatus.OK
    assert check(f"Bearer {ONE}", "peer") is HTTPStatus.FORBIDDEN
    assert check(None, "peer") is check("Bearer x", "peer") is HTTPStatus.UNAUTHORIZED


def refused(authorizer: Authorizer, method: str, token: str | None = None) -> None:
    with pytest.raises((Unauthenticated, PermissionDenied)):
        admitted(authorizer, method, token)


def fields(record: logging.LogRecord) -> Any:
    return record.fields  # type: ignore[attr-defined]


def test_refusals_are_logged_ten_in_a_second_and_the_rest_is_counted(
    make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    authorizer = make()

    for _ in range(50):
        refused(authorizer, INFER, "wrong-token-0123456789")
    clock.advance(1.0)
    refused(authorizer, LOAD, ONE)

    assert len(caplog.records) == 11
    assert fields(caplog.records[0]) == {"reason": "token", "peer": "fake", "method": INFER}
    assert fields(caplog.records[10]) == {
        "reason": "kind", "token": "one", "peer": "fake", "method": LOAD, "suppressed": 40,
    }  # fmt: skip
    for secret in (ALL, ONE, "wrong-token"):
        assert secret not in caplog.text


def test_logged_names_are_shortened(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caller = admitted(make(), INFER, ONE)
    with pytest.raises(PermissionDenied) as caught:
        check_model(caller, "m" * 100_000)

    assert len(str(caught.value)) < 200
    assert len(fields(caplog.records[0])["model"]) == 128
