from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from weir.server.config import ModelSettings, Settings, load
from weir.server.errors import ConfigError

MODELS = {"models_dir": "models"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "weir.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def settings(**given_settings: Any) -> Settings:
    return load({**MODELS, **given_settings}, {}, None)


def test_every_setting_but_the_models_has_a_default() -> None:
    defaults = settings()

    assert defaults.models_dir == Path("models")
    assert (defaults.host, defaults.port, defaults.metrics_port) == ("127.0.0.1", 8001, 8002)
    assert defaults.provider == "auto"
    assert defaults.max_message_bytes == 32 * 1024 * 1024
    assert (defaults.threads, defaults.instances) == ("auto", "auto")


def test_missing_models_argument_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^MODELS: expected a model repository, .*, got none$"):
        load({}, {}, None)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        pytest.param({"flag", "environment", "file"}, 1, id="flag first"),
        pytest.param({"environment", "file"}, 2, id="then environment"),
        pytest.param({"file"}, 3, id="then file"),
        pytest.param(set(), 8001, id="then default"),
    ],
)
def test_first_source_with_a_value_wins(
    sources: set[str], expected: int, write: Callable[..., Path]
) -> None:
    flags = {**MODELS, "port": 1} if "flag" in sources else MODELS
    environment = {"WEIR_PORT": "2"} if "environment" in sources else {}
    file = write("port = 3") if "file" in sources else None

    assert load(flags, environment, file).port == expected


def test_sources_are_merged_setting_by_setting(write: Callable[..., Path]) -> None:
    file = write('port = 1\nhost = "::1"\nmodels_dir = "of the file"')

    merged = load({"port": 2}, {"WEIR_GRACE_S": "3.5", "WEIR_REFLECTION": "false"}, file)

    assert (merged.port, merged.host, merged.grace_s) == (2, "::1", 3.5)
    assert merged.models_dir == Path("of the file")
    assert merged.reflection is False


def test_environment_names_the_file_too(write: Callable[..., Path]) -> None:
    environment = {"WEIR_CONFIG": str(write("port = 7"))}

    assert load(MODELS, environment, None).port == 7
    assert load(MODELS, environment, write("port = 8", "other.toml")).port == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("prot = 1", "prot: no such setting; the nearest is port", id="unknown key"),
        pytest.param("[server]\nport = 1", "server: no such setting$", id="unknown table"),
        pytest.param(
            "[model.lenet]\nthreads = 1",
            "model: no such setting; the nearest is models$",
            id="table of models misspelt",
        ),
        pytest.param(
            "[models.fast.net]\nthreads = 1",
            r'models\.fast\.net: no such setting; .*: \[models\."fast\.net"\]$',
            id="name with a dot and no quotes",
        ),
        pytest.param(
            "[models.lenet.provider_option]\ndevice_id = 1",
            r"models\.lenet\.provider_option: no such setting; the nearest is provider_options$",
            id="unknown table of a model",
        ),
        pytest.param(
            "[models.lenet]\nmax_rows = 1",
            r"models\.lenet\.max_rows: no such setting; the nearest is max_.*_rows",
            id="unknown key of a model",
        ),
        pytest.param(
            "port = 70000",
            "port: expected less than or equal to 65535, got 70000",
            id="out of bounds",
        ),
        pytest.param('port = "x"', "port: .*integer.*, got 'x'", id="wrong type"),
        pytest.param(
            "[models]\nlenet = 3",
            r"models\.lenet: expected a table \[models\.lenet\], got 3",
            id="no table of a model",
        ),
        pytest.param(
            "[models.lenet]\nprovider_options = 3",
            r"models\.lenet\.provider_options: expected a table, got 3",
            id="no table of options",
        ),
        pytest.param(
            "models = 3", r"models: expected tables \[models.NAME\], got 3", id="no table"
        ),
        pytest.param(
            "[models.lenet]\ninstances = 0",
            r"models\.lenet\.instances: expected auto or a number from 1 to 1024, got 0",
            id="out of bounds of a model",
        ),
    ],
)
@pytest.mark.parametrize("name", ["weir.toml", "settings"])
def test_wrong_key_of_a_file_is_refused_with_file_and_path(
    text: str, expected: str, name: str, write: Callable[..., Path]
) -> None:
    file = write(text, name)

    with pytest.raises(ConfigError, match=f"^{file}: {expected}$"):
        load(MODELS, {}, file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param("port = ", "expected TOML", id="no TOML"),
        pytest.param("port = 1\nport = 2", "expected TOML", id="key twice"),
    ],
)
def test_file_that_cannot_be_read_is_refused(
    text: str | None, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "weir.toml"
    if text is not None:
        file.write_text(text)

    with pytest.raises(ConfigError, match=f"{file}: {expected}"):
        load(MODELS, {}, file)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weir.toml"
    file.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="expected TOML"):
        load(MODELS, {}, file)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param(
            {"WEIR_PROT": "1"}, "^WEIR_PROT: no such setting; .* WEIR_PORT$", id="unknown"
        ),
        pytest.param({"WEIR_MODELS": "x"}, "^WEIR_MODELS: no such setting", id="tables"),
        pytest.param({"WEIR_PORT": "x"}, "^WEIR_PORT: .*integer.*, got 'x'$", id="wrong type"),
        pytest.param(
            {"WEIR_LOG_FORMAT": "xml"}, "^WEIR_LOG_FORMAT: expected text or json, got", id="choice"
        ),
    ],
)
def test_wrong_variable_is_refused_by_its_name(environment: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(MODELS, environment, None)


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"WEIR_PORT": "", "WEIR_PROT": ""}, id="empty"),
        pytest.param({"WEIR_CONFIG": ""}, id="empty name of a file"),
        pytest.param(
            {f"WEIR_{name.upper()}": "" for name in Settings.model_fields}, id="all empty"
        ),
        pytest.param(
            {
                "WEIR_SERVICE_HOST": "10.0.0.7",
                "WEIR_SERVICE_PORT": "8001",
                "WEIR_SERVICE_PORT_GRPC": "8001",
                "WEIR_PORT": "tcp://10.0.0.7:8001",
                "WEIR_PORT_8001_TCP": "tcp://10.0.0.7:8001",
                "WEIR_PORT_8001_TCP_PROTO": "tcp",
                "WEIR_PORT_8001_TCP_PORT": "8001",
                "WEIR_PORT_8001_TCP_ADDR": "10.0.0.7",
            },
            id="service weir",
        ),
        pytest.param(
            {
                "WEIR_METRICS_SERVICE_HOST": "10.0.0.8",
                "WEIR_METRICS_SERVICE_PORT": "8002",
                "WEIR_METRICS_SERVICE_PORT_HTTP_METRICS": "8002",
                "WEIR_METRICS_PORT": "tcp://10.0.0.8:8002",
                "WEIR_METRICS_PORT_8002_TCP": "tcp://10.0.0.8:8002",
                "WEIR_METRICS_PORT_8002_TCP_PROTO": "tcp",
                "WEIR_METRICS_PORT_8002_TCP_PORT": "8002",
                "WEIR_METRICS_PORT_8002_TCP_ADDR": "10.0.0.8",
            },
            id="service weir-metrics",
        ),
        pytest.param({"WEIR_PORT": "udp://10.0.0.7:53"}, id="udp"),
        pytest.param({"WEIR_DATA": "/data", "WEIR_TARGET": "somewhere"}, id="other parts of Weir"),
        pytest.param(
            dict.fromkeys(
                (
                    "WEIR_TLS",
                    "WEIR_CA",
                    "WEIR_CERT",
                    "WEIR_KEY",
                    "WEIR_SERVER_NAME",
                    "WEIR_TOKEN_FILE",
                    "WEIR_HEADER",
                ),
                "x",
            ),
            id="of the client",
        ),
        pytest.param({"PORT": "1", "WEIRD": "2", "HOME": "/"}, id="other programs"),
    ],
)
def test_variables_that_are_no_settings_are_left_alone(environment: dict[str, str]) -> None:
    assert load(MODELS, environment, None) == settings()


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        pytest.param("port", -1, "^--port: .*got -1", id="port"),
        pytest.param("metrics_port", 65536, "^--metrics-port: .*65535", id="metrics port"),
        pytest.param(
            "provider", "tpu", "^--provider: expected auto, cpu or cuda, got", id="provider"
        ),
        pytest.param("threads", 0, "^--threads", id="threads"),
        pytest.param("threads", 1025, "^--threads: .* 1 to 1024, got 1025$", id="many threads"),
        pytest.param("instances", 0, "^--instances", id="instances"),
        pytest.param(
            "instances", 1025, "^--instances: .* 1 to 1024, got 1025$", id="many instances"
        ),
        pytest.param("max_batch_rows", 0, "^--max-batch-rows", id="batch"),
        pytest.param("max_batch_tokens", 0, "^--max-batch-tokens", id="tokens"),
        pytest.param("max_queue_rows", -5, "^--max-queue-rows", id="queue"),
        pytest.param("max_queue_delay_s", -0.1, "^--max-queue-delay-s", id="negative delay"),
        pytest.param("max_queue_delay_s", float("nan"), "^--max-queue-delay-s", id="delay NaN"),
        pytest.param("grace_s", float("inf"), "^--grace-s", id="endless grace"),
        pytest.param("default_deadline_s", 0, "^--default-deadline-s", id="no time at all"),
        pytest.param("max_message_bytes", 100, "^--max-message-bytes", id="tiny messages"),
        pytest.param("max_message_bytes", 2**31, "^--max-message-bytes", id="huge messages"),
        pytest.param("max_concurrent_streams", 0, "^--max-concurrent-streams", id="streams"),
        pytest.param("nonsense", 1, "^--nonsense: no such setting$", id="unknown"),
    ],
)
def test_wrong_flag_is_refused_by_its_name(flag: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        settings(**{flag: value})


def test_every_problem_gets_a_line() -> None:
    with pytest.raises(ConfigError) as refused:
        load({**MODELS, "port": -1, "threads": 0}, {"WEIR_HOST": "h", "WEIR_GRACE_S": "-1"}, None)

    lines = str(refused.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["--port", "--threads", "WEIR_GRACE_S"]


def test_unknown_variables_get_a_line_each() -> None:
    with pytest.raises(ConfigError) as refused:
        load({**MODELS, "port": -1}, {"WEIR_A": "1", "WEIR_B": "2"}, None)

    assert {"WEIR_A: no such setting", "WEIR_B: no such setting"} <= set(
        str(refused.value).splitlines()
    )


def test_two_services_do_not_share_a_port() -> None:
    with pytest.raises(ConfigError, match="port and metrics_port are both 9000"):
        settings(port=9000, metrics_port=9000)

    assert settings(port=0, metrics_port=0).port == 0


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        settings().port = 1


TABLES = """
models_dir = "models"
max_batch_rows = 16
max_batch_tokens = 512
max_queue_delay_s = 0.5
instances = 2

[models.lenet]
max_batch_rows = 4
max_batch_tokens = 64
max_queue_delay_s = 0.0

[models."dotted.name"]
max_queue_rows = 9
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("lenet", (4, 64, 0.0, 1024, 2), id="own table, zero counts"),
        pytest.param("dotted.name", (16, 512, 0.5, 9, 2), id="dotted name"),
        pytest.param("other", (16, 512, 0.5, 1024, 2), id="no table"),
    ],
)
def test_own_table_of_a_model_comes_first(
    name: str, expected: tuple[object, ...], write: Callable[..., Path]
) -> None:
    own = load({}, {}, write(TABLES)).for_model(name)

    assert (
        own.max_batch_rows, own.max_batch_tokens, own.max_queue_delay_s, own.max_queue_rows,
        own.instances,
    ) == expected  # fmt: skip


def test_absent_settings_are_left_to_the_bundle() -> None:
    own = settings().for_model("any")

    assert own == ModelSettings(
        max_batch_rows=None,
        max_batch_tokens=None,
        max_queue_delay_s=None,
        max_queue_rows=1024,
        threads="auto",
        instances="auto",
    )


names = st.from_regex(r"WEIR_[A-Z_]{0,12}", fullmatch=True)


@given(st.dictionaries(names, st.text(max_size=9), max_size=3))
def test_any_environment_is_settings_or_a_config_error(environment: Mapping[str, str]) -> None:
    environment = {key: value for key, value in environment.items() if key != "WEIR_CONFIG"}

    try:
        loaded = load(MODELS, environment, None)
    except ConfigError:
        return

    assert loaded.models_dir == Path("models")


MODEL_TABLES = """
models_dir = "models"
threads = 2

[models.big]
threads = "auto"
instances = 3
provider = "cuda"

[models.big.provider_options]
device_id = 1
gpu_mem_limit = 2_000_000_000

[models.pair]
threads = 4
instances = 5

[models."pair.decoder"]
threads = 1
"""


def test_settings_of_a_model_come_from_all_sources(write: Callable[..., Path]) -> None:
    environment = {
        "WEIR_MODELS__BIG__INSTANCES": "4",
        "WEIR_MODELS__BIG__MAX_BATCH_ROWS": "8",
        "WEIR_MODELS__BIG__PROVIDER_OPTIONS__GPU_MEM_LIMIT": "3000000000",
        "WEIR_MODELS__BIG__THREADS": "",
    }
    flags = ["big.instances=6", "big.provider_options.cudnn_conv_algo_search=HEURISTIC"]

    own = load({}, environment, write(MODEL_TABLES), flags).for_model("big")

    assert (own.threads, own.instances, own.max_batch_rows, own.provider) == ("auto", 6, 8, "cuda")
    assert own.provider_options.model_dump(exclude_none=True) == {
        "device_id": 1,
        "gpu_mem_limit": 3_000_000_000,
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def test_graphs_of_a_pair_run_as_the_pair_is_set(write: Callable[..., Path]) -> None:
    loaded = load({}, {}, write(MODEL_TABLES))

    encoder, decoder = (loaded.for_model(f"pair.{part}") for part in ("encoder", "decoder"))

    assert (encoder.threads, encoder.instances) == (4, "auto")
    assert decoder.threads == 1
    assert loaded.for_model("pairs.encoder").threads == 2


@pytest.mark.parametrize("name", ["res-net.50", "Res_Net-50", "RES_NET_50"])
def test_variable_names_a_model_without_case_and_marks(name: str) -> None:
    loaded = load(MODELS, {"WEIR_MODELS__RES_NET_50__INSTANCES": "2"}, None)

    assert loaded.for_model(name).instances == 2
    assert loaded.for_model("resnet50").instances == "auto"


def test_variable_of_a_name_with_two_underscores() -> None:
    loaded = load(MODELS, {"WEIR_MODELS__A__B__PROVIDER_OPTIONS__DEVICE_ID": "1"}, None)

    assert loaded.for_model("a__b").provider_options.device_id == 1


def test_flag_names_a_model_with_dots_exactly() -> None:
    loaded = load(MODELS, {}, None, ["a.b.instances=2", "a.b.provider_options.device_id=3"])

    assert loaded.for_model("a.b").instances == 2
    assert loaded.for_model("a.b").provider_options.device_id == 3
    assert loaded.for_model("A.B").instances == "auto"


def test_variable_about_two_models_is_refused() -> None:
    loaded = load(MODELS, {"WEIR_MODELS__A_B__INSTANCES": "2"}, None)

    loaded.check_names(["a-b", "other"])
    with pytest.raises(
        ConfigError, match=r"^WEIR_MODELS__A_B__INSTANCES: expected one model.*a\.b"
    ):
        loaded.check_names(["a-b", "a.b", "other"])


def test_unknown_models_with_settings_are_listed(write: Callable[..., Path]) -> None:
    loaded = load(
        {}, {"WEIR_MODELS__GONE__THREADS": "1"}, write(MODEL_TABLES), ["away.instances=1"]
    )

    found = loaded.for_unknown_models(["big", "pair", "pair.decoder"])
    assert [(table.name, table.source_of()) for table in found] == [
        ("GONE", "WEIR_MODELS__GONE__THREADS"),
        ("away", "--model-setting away.instances"),
    ]


def test_table_of_an_unknown_model_is_named_with_its_file(write: Callable[..., Path]) -> None:
    file = write('[models."a{b}"]\nthreads = 1')

    (found,) = load(MODELS, {}, file).for_unknown_models(["other"])

    assert found.source_of() == f"{file}: models.a{{b}}"
    assert found.source_of("threads") == f"{file}: models.a{{b}}.threads"


@pytest.mark.parametrize(
    ("environment", "flags", "expected"),
    [
        pytest.param(
            {"WEIR_MODELS__LENET5__INSTANCE": "2"},
            [],
            "^WEIR_MODELS__LENET5__INSTANCE: no such setting; the nearest is instances$",
            id="unknown setting of a variable",
        ),
        pytest.param(
            {"WEIR_MODELS__LENET5__INSTANCES": "many"},
            [],
            "^WEIR_MODELS__LENET5__INSTANCES: expected auto or a number.*, got 'many'$",
            id="value of a variable",
        ),
        pytest.param(
            {"WEIR_MODELS__LENET5": "2"},
            [],
            "^WEIR_MODELS__LENET5: expected WEIR_MODELS__NAME__SETTING$",
            id="variable without a setting",
        ),
        pytest.param(
            {"WEIR_MODELS__A__PROVIDER_OPTIONS__DEVICE": "2"},
            [],
            "^WEIR_MODELS__A__PROVIDER_OPTIONS__DEVICE: no such setting; the nearest is device_id$",
            id="unknown option of a variable",
        ),
        pytest.param(
            {},
            ["lenet5.instance=2"],
            r"^--model-setting lenet5\.instance: no such setting; the nearest is instances$",
            id="unknown setting of a flag",
        ),
        pytest.param(
            {},
            ["lenet5.threads=0"],
            r"^--model-setting lenet5\.threads: expected auto or a number.*, got '0'$",
            id="value of a flag",
        ),
        pytest.param(
            {},
            ["lenet5.provider_options.gpu_mem_limit=1"],
            r"^--model-setting lenet5\.provider_options\.gpu_mem_limit: .*1048576, got '1'$",
            id="option of a flag",
        ),
        pytest.param(
            {},
            ["lenet5.provider=tpu"],
            r"^--model-setting lenet5\.provider: expected auto, cpu or cuda, got 'tpu'$",
            id="provider of a flag",
        ),
        pytest.param(
            {},
            ["lenet5.threads=1", "lenet5.instances=1", "lenet5.threads=2"],
            r"^--model-setting lenet5\.threads: expected once, got '1' and '2'$",
            id="flag given twice",
        ),
        *(
            pytest.param(
                {},
                [flag],
                f"^--model-setting: expected NAME.SETTING=VALUE, got {flag!r}$",
                id=f"form {flag!r}",
            )
            for flag in ("lenet5", "instances=2", "lenet5.instances", "")
        ),
    ],
)
def test_wrong_setting_of_a_model_is_refused_with_its_source(
    environment: dict[str, str], flags: list[str], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(MODELS, environment, None, flags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "[models.big.provider_options]\ntunable = 1",
            r"models\.big\.provider_options\.tunable: no such setting",
            id="unknown option",
        ),
        pytest.param(
            '[models.big.provider_options]\narena_extend_strategy = "small"',
            r"models\.big\.provider_options\.arena_extend_strategy: .*kSameAsRequested.*'small'",
            id="value of an option",
        ),
        pytest.param(
            "[models]\nbig = 3", r"models\.big: expected a table .*, got 3", id="no table"
        ),
    ],
)
def test_wrong_table_of_a_model_is_refused_with_file_and_path(
    text: str, expected: str, write: Callable[..., Path]
) -> None:
    file = write(text)

    with pytest.raises(ConfigError, match=f"^{file}: {expected}$"):
        load(MODELS, {}, file)
