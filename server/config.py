"""Every setting of the server, read once, into one object that checks itself.

Sources, the first that speaks wins: flags, environment (`WEIR_` + the name in capitals), the TOML
file of `--config`, the default. A key nobody knows is refused, wherever it stands.
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from weir.server.errors import ConfigError

_PREFIX = "WEIR_"
# Read by other parts of Weir, or set by Kubernetes for a service that is called "weir".
_NOT_OURS = re.compile(
    r"WEIR_(DATA|TARGET|CONFIG|(\w+_)?SERVICE_(HOST|PORT\w*)|(\w+_)?PORT_\d+_\w+)"
)
_SERVICE_LINK = re.compile(r"(tcp|udp)://")

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]


class ModelSettings(BaseModel):
    """What an operator may say of one model; what is left out comes from its bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_rows: Count | None = None
    max_batch_tokens: Tokens | None = None
    max_queue_delay_s: Seconds | None = None
    max_queue_rows: Count | None = None
    instances: Count | None = None
    non_finite: Literal["pass", "reject"] = "pass"


class Settings(BaseModel):
    """The server's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models_dir: Path = Field(description="The model repository.")
    host: str = Field("127.0.0.1", description="Address to listen on, for gRPC and metrics.")
    port: Port = Field(8001, description="gRPC port; 0 picks a free one.")
    metrics_port: Port = Field(8002, description="Port of /metrics; 0 picks a free one.")
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="ONNX Runtime execution provider."
    )
    transport: Literal["auto", "completion-queue", "grpc-server"] = Field(
        "auto", description="auto takes completion-queue where grpcio is of a tested version."
    )
    threads: Count = Field(1, description="Threads inside one operator of a model.")
    instances: Count | None = Field(
        None,
        description="Batches of one model that may run side by side; default: its config.pbtxt's, or 1.",
    )
    preprocessing_threads: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Pictures and texts that may be made into rows side by side; default: one a core.",
    )
    max_batch_rows: Count | None = Field(
        None, description="Most rows of a batch, and of a request; default: the bundle's, or 32."
    )
    max_batch_tokens: Tokens | None = Field(
        None,
        description="Most entries of a batch of sequences, with what fills its rows up; "
        "default: the bundle's, or no limit.",
    )
    max_queue_delay_s: Seconds | None = Field(
        None, description="How long a batch may wait to fill; default: the bundle's, or 0."
    )
    max_queue_rows: Count = Field(1024, description="Rows of a model that may wait.")
    default_deadline_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        60.0, description="Time for a request whose client sets no deadline."
    )
    load_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        120.0, description="Time for the trial of a version that is loaded beside others."
    )
    load_memory_bytes: Annotated[int, Field(ge=2**20, le=2**50)] | None = Field(
        None, description="Memory that a version may take in that trial; default: no limit."
    )
    grace_s: Seconds = Field(25.0, description="Time for open requests at a stop.")
    max_message_bytes: Annotated[int, Field(ge=4096, le=2**31 - 1)] = Field(
        16 * 1024 * 1024, description="Largest message, in either direction."
    )
    max_concurrent_streams: Count = Field(1024, description="Open calls of one connection.")
    model_control: Literal["none", "poll", "explicit"] = Field(
        "none",
        description="What changes the models that are served: nothing, the directory, or calls.",
    )
    poll_interval_s: Annotated[float, Field(gt=0, le=86_400)] = Field(
        5.0, description="How often the directory is looked at, with model control poll."
    )
    triton_metrics: bool = Field(
        False, description="Tell /metrics under Triton's names too, for its dashboards."
    )
    reflection: bool = Field(True, description="Describe the services to grpcurl and the like.")
    log_format: Literal["text", "json"] = Field("text", description="Lines of text, or of JSON.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe event that is logged."
    )
    access_log_sample_rate: Share = Field(
        0.0, description="Share of requests with a line in the log, from 0 for none to 1 for all."
    )
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[^/\s]+/?$")] | None = Field(
        None,
        description="Send traces to this OpenTelemetry collector, such as http://localhost:4317.",
    )
    trace_sample_rate: Share = Field(
        1.0, description="Share of requests traced, of those whose caller does not say."
    )
    models: dict[str, ModelSettings] = Field(
        {}, description="Per model: [models.NAME] tables of the TOML file."
    )

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.port == self.metrics_port != 0:
            raise ValueError(f"port and metrics_port are both {self.port}: choose two ports")
        return self

    def for_model(self, name: str) -> ModelSettings:
        """The operator's word on one model: its own table first, the general settings then."""
        own = self.models.get(name, ModelSettings())
        return ModelSettings(
            max_batch_rows=own.max_batch_rows or self.max_batch_rows,
            max_batch_tokens=own.max_batch_tokens or self.max_batch_tokens,
            max_queue_delay_s=(
                self.max_queue_delay_s if own.max_queue_delay_s is None else own.max_queue_delay_s
            ),
            max_queue_rows=own.max_queue_rows or self.max_queue_rows,
            instances=own.instances or self.instances,
            non_finite=own.non_finite,
        )


def load(flags: Mapping[str, Any], environment: Mapping[str, str], config: Path | None) -> Settings:
    """Merge the sources.

    Args:
        flags: by field name; only those that were given.
        environment: usually `os.environ`.
        config: a TOML file, or None for `WEIR_CONFIG`, if set.

    Raises:
        ConfigError: a line for every setting that is unknown, malformed or out of bounds.
    """
    path = config or (Path(environment["WEIR_CONFIG"]) if "WEIR_CONFIG" in environment else None)
    from_file = _read_file(path) if path else {}
    from_environment = _read_environment(environment)
    values = {**from_file, **from_environment, **flags}
    sources = {
        **{key: f"{path}: {key}" for key in from_file},
        **{key: _variable(key) for key in from_environment},
        **{key: "--" + key.replace("_", "-") for key in flags},
    }
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = [_describe(dict(problem), sources) for problem in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from None


def _read_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Values by setting; a variable that is none stays under its own name, to be refused by it."""
    values = {}
    for name, value in environment.items():
        if (
            not value
            or not name.startswith(_PREFIX)
            or _NOT_OURS.fullmatch(name)
            or _SERVICE_LINK.match(value)
        ):
            continue
        key = name.removeprefix(_PREFIX).lower()
        is_setting = key in Settings.model_fields and key != "models"
        values[key if is_setting else name] = value
    return values


def _variable(key: str) -> str:
    return key if key.startswith(_PREFIX) else _PREFIX + key.upper()


def _describe(problem: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    keys = [str(key) for key in problem["loc"]]
    if problem["type"] == "missing":
        # The one setting without a default.
        return "MODELS: expected the model repository, as in `weir serve MODELS`, got none"
    where = ".".join([sources[keys[0]], *keys[1:]]) if keys else "settings"
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such setting"
    text = problem["msg"].removeprefix("Value error, ")
    got = "" if not keys else f", got {problem['input']!r}"
    return f"{where}: {text}{got}"
