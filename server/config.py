"""The server's settings: read once, into one object that checks itself.

Sources, in order of precedence: flags, environment (`WEIR_` + the name in capitals), the TOML file
of `--config`, the default. An unknown key is an error in every source.

Settings of one model have the same sources: `--model-setting NAME.SETTING=VALUE`, the variable
`WEIR_MODELS__NAME__SETTING`, and the table `[models.NAME]`. A variable's name lacks most characters
that a model's may have, so it is compared without case, and with `-` and `.` as `_`.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from weir.bundle.escaping import short_list
from weir.bundle.repository_files import LinkRoots
from weir.server.errors import ConfigError

_PREFIX = "WEIR_"
# Read by other parts of Weir, or set by Kubernetes for a service named "weir".
_NOT_SETTINGS = re.compile(
    r"WEIR_(DATA|TARGET|TLS|CA|CERT|KEY|SERVER_NAME|TOKEN_FILE|HEADER|CONFIG|"
    r"(\w+_)?SERVICE_(HOST|PORT\w*)|(\w+_)?PORT_\d+_\w+)"
)
_SERVICE_LINK = re.compile(r"(tcp|udp)://")
_MODEL_PREFIX = "WEIR_MODELS__"
_OPTIONS = "provider_options"
# An instance is a thread too; 100,000 of them take minutes to start.
_MAX_THREADS = 1024
# Of the path of a model's table in pydantic's errors: models, its number, settings.
_TABLE_DEPTH = 3
_GRAPHS_OF_A_PAIR = (".encoder", ".decoder")

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Timeout = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Rate = Annotated[float, Field(ge=0, le=1)]
Host = Annotated[
    # An IPv6 address may stand in brackets, as in a URL.
    str, AfterValidator(lambda host: host.removeprefix("[").removesuffix("]"))
]
Bytes = Annotated[int, Field(ge=4096, le=2**50)]
Tokens = Annotated[int, Field(ge=1, le=2**31 - 1)]


AUTO: Literal["auto"] = "auto"


def _count_or_auto(value: object) -> object:
    if value == AUTO:
        return value
    try:
        # From the text: int() of the value itself takes true and 2.5.
        count = int(str(value))
    except ValueError:
        count = 0
    if not 1 <= count <= _MAX_THREADS:
        raise ValueError(f"expected auto or a number from 1 to {_MAX_THREADS}")
    return count


CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]


def _directories(value: object) -> object:
    """The list of a flag or a variable, which separate by commas."""
    return value.split(",") if isinstance(value, str) else value


Directories = Annotated[tuple[Path, ...], BeforeValidator(_directories)]


def _unset(default: str, description: str) -> Any:
    """A setting that has no value of its own by default; `default` describes what holds then."""
    return Field(None, description=description, json_schema_extra={"default": default})


class ProviderOptions(BaseModel):
    """Options of the CUDA execution provider, by ONNX Runtime's names; absent: Weir's defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device_id: Annotated[
        Annotated[int, Field(ge=0, le=1023)] | None,
        Field(description="Number of the GPU; default 0."),
    ] = None
    gpu_mem_limit: Annotated[
        Annotated[int, Field(ge=2**20, le=2**50)] | None,
        Field(description="Maximum bytes of the model's arena on the GPU; default no limit."),
    ] = None
    arena_extend_strategy: Annotated[
        Literal["kNextPowerOfTwo", "kSameAsRequested"] | None,
        Field(
            description="How the arena grows: kNextPowerOfTwo (default) or kSameAsRequested, which "
            "takes less memory."
        ),
    ] = None
    cudnn_conv_algo_search: Annotated[
        Literal["DEFAULT", "HEURISTIC", "EXHAUSTIVE"] | None,
        Field(
            description="How cuDNN chooses algorithms of convolutions: DEFAULT (default), "
            "HEURISTIC or EXHAUSTIVE. The last two are faster for batches of one size, and slow "
            "for each new one."
        ),
    ] = None


class ModelSettings(BaseModel):
    """Settings of one model; an absent one is taken from its bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_batch_rows: Count | None = None
    max_batch_tokens: Tokens | None = None
    max_queue_delay_s: Seconds | None = None
    max_queue_rows: Count | None = None
    max_inflight_bytes: Bytes | None = None
    threads: CountOrAuto | None = None
    instances: CountOrAuto | None = None
    provider: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        Field(
            description="Execution provider of this model: auto, cpu or cuda. Absent: the server's."
        ),
    ] = None
    provider_options: Annotated[
        ProviderOptions,
        Field(description="Options of the provider cuda, as in the table below."),
    ] = ProviderOptions()
    non_finite: Annotated[
        Literal["pass", "reject"],
        Field(
            description="What happens to inputs with NaN or infinity: pass computes with them, "
            "reject refuses the request."
        ),
    ] = "pass"
    batch_axis: Annotated[
        bool | None,
        Field(
            description="Whether requests share batches: true without the proof of the batch axis, "
            "if every tensor's first axis has any size; false never. Absent: as proved."
        ),
    ] = None


class ModelTable(BaseModel):
    """The settings that one source gives to a model.

    Attributes:
        name: of the model; of a variable, in capitals and with `_` for other characters.
        source: the place of a setting in words, with `{}` for its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    settings: ModelSettings
    source: str = "models.{}"
    is_variable: bool = False

    def source_of(self, setting: str = "") -> str:
        """The place of a setting of this table in words; without one, of the table."""
        return self.source.replace("{}", setting).removesuffix(".")

    def holds_for(self, name: str) -> bool:
        """Whether these settings are for the model of this name."""
        return variable_name(name) == self.name if self.is_variable else name == self.name


def variable_name(model: str) -> str:
    """A model's name as the name of an environment variable has it."""
    return model.upper().replace("-", "_").replace(".", "_")


class Settings(BaseModel):
    """The server's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models_dir: Path = Field(
        description="The model repository; or one model: its directory, a bundle's directory, or "
        "an ONNX file."
    )
    name: str | None = _unset(
        "the name of its file or directory", "Name of the one model that is served."
    )
    host: Host = Field(
        "127.0.0.1",
        description="Address to listen on, for gRPC and metrics; 0.0.0.0 and :: are every address.",
    )
    port: Port = Field(8001, description="gRPC port; 0 picks a free one.")
    share_port: bool = Field(
        False,
        description="Let several server processes listen on the same gRPC port (SO_REUSEPORT). "
        "Each needs this setting, the same models, and a metrics port of its own.",
    )
    metrics_port: Port = Field(8002, description="HTTP port of /metrics; 0 picks a free one.")
    http_port: Port | None = _unset(
        "no HTTP",
        "HTTP port of REST and of the web page, by a gateway that the server starts; 0 picks a "
        "free one. Host, TLS and tokens are those of the gRPC port. Needs pip install "
        "'weir[gateway]'.",
    )
    tls_cert: Path | None = _unset(
        "plaintext",
        "PEM file of the server's certificate with its chain. With tls_key, both ports use TLS. A "
        "renewed file is used without a restart, as is one of the next three settings.",
    )
    tls_key: Path | None = _unset("none", "PEM file of the certificate's key, without passphrase.")
    tls_client_ca: Path | None = _unset(
        "clients need no certificate",
        "PEM file of certificate authorities. Clients need a certificate of one of them (mutual "
        "TLS), for both ports.",
    )
    tokens_file: Path | None = _unset(
        "every client may make every call",
        "TOML file of bearer tokens, each with the models and the calls that it is for; see "
        "operations.md. Calls and scrapes without a known token are refused.",
    )
    open_health: bool = Field(
        False, description="Answer health checks without a token, where tokens_file is set."
    )
    insecure: bool = Field(
        False,
        description="Listen beyond loopback although tls_cert, tls_key, and tokens_file or "
        "tls_client_ca are not all set.",
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="ONNX Runtime execution provider; auto takes cuda if it works."
    )
    transport: Literal["auto", "completion-queue", "grpc-server"] = Field(
        "auto",
        description="gRPC implementation; auto takes completion-queue (fast) if the grpcio version "
        "is a tested one, otherwise grpc-server (at most 512 open calls).",
    )
    custom_operators: Literal["none", "onnxruntime-extensions"] = Field(
        "none",
        description="Library of operators beside ONNX Runtime's own, for graphs that need it: none "
        "or onnxruntime-extensions (pip install onnxruntime-extensions).",
    )
    threads: CountOrAuto = Field(
        AUTO,
        description="Threads within one operator of a model; auto measures each model when it is "
        "loaded. A number for threads or instances skips that, and the other is then 1.",
    )
    instances: CountOrAuto = Field(
        AUTO,
        description="Batches of one model that run at the same time; auto takes the config.pbtxt's "
        "number, else it measures as for threads.",
        json_schema_extra={"default": "the config.pbtxt's, or auto"},
    )
    preprocessing_threads: Annotated[int, Field(ge=1, le=1024)] | None = _unset(
        "one per usable core",
        "Threads that preprocess pictures and texts; a picture of 32 million pixels takes up to "
        "0.5 GB meanwhile.",
    )
    max_batch_rows: Count | None = _unset(
        "the bundle's or the config.pbtxt's, or 32", "Maximum rows of a batch, and of a request."
    )
    max_batch_tokens: Tokens | None = _unset(
        "the bundle's, or no limit",
        "Maximum tokens of a batch of sequences: its rows times the padded length. A longer "
        "request runs alone.",
    )
    max_queue_delay_s: Seconds | None = _unset(
        "the bundle's or the config.pbtxt's, or 0", "Seconds that a batch may wait for more rows."
    )
    max_queue_rows: Count = Field(
        1024, description="Rows of a model that may wait; further requests are refused."
    )
    max_inflight_bytes: Bytes | None = _unset(
        "a quarter of the memory limit, and half of that for each model",
        "Bytes of the requests that wait and run: messages, decoded inputs, and answers of a known "
        "size. Further requests are refused; those below 8 KiB do not count.",
    )
    memory_watermark: Annotated[float, Field(ge=0.1, le=1)] | None = _unset(
        "0.9, or in a small container less, down to 0.6: eight messages of the maximum size fit "
        "above it",
        "Share of the memory limit (container, RLIMIT_AS or machine) from which on new calls are "
        "refused, before their message is received; 1 turns that off. It is never below half of "
        "what the server leaves free at rest.",
    )
    default_deadline_s: Timeout = Field(
        60.0,
        description="Seconds for a call whose client sets no deadline: from its headers to its "
        "answer, for a server stream to its first message, and for each request of "
        "ModelStreamInfer.",
    )
    max_deadline_s: Timeout = Field(
        3600.0,
        description="Maximum seconds of a request, and of a call whose message has not come, "
        "whatever deadline its client sets.",
    )
    load_timeout_s: Timeout = Field(
        120.0,
        description="Seconds for the trial load of a version that is loaded while others serve.",
    )
    load_memory_bytes: Annotated[int, Field(ge=2**20, le=2**50)] | None = _unset(
        "no limit", "Memory of that trial load (Linux, provider cpu)."
    )
    watchdog_timeout_s: Annotated[float, Field(ge=2, le=86_400)] = Field(
        60.0,
        description="Seconds after which a thread of the server that has work and makes no "
        "progress ends the process, with exit code 71.",
    )
    grace_s: Seconds = Field(25.0, description="Seconds for open requests when the server stops.")
    max_message_bytes: Annotated[int, Field(ge=4096, le=2**31 - 1)] = Field(
        32 * 1024 * 1024, description="Maximum size of a message, in either direction."
    )
    max_concurrent_streams: Count = Field(1024, description="Maximum open calls of one connection.")
    max_open_calls: Count = Field(
        10_000,
        description="Maximum open calls of the server; further calls are refused, and calls that "
        "have waited 0.25 s for their message give way first. A call without a message takes "
        "15 KB.",
    )
    max_connections: Count | None = _unset(
        "three quarters of the descriptors, at most 10000",
        "Maximum connections to the gRPC port; further ones are closed when they arrive.",
    )
    max_connections_per_peer: Count | None = _unset(
        "no limit",
        "Maximum connections of one address, checked once a second; the newest are closed.",
    )
    max_connection_idle_s: Seconds = Field(
        300.0,
        description="Seconds that a connection may have no open call before its client is told to "
        "go (GOAWAY); 0 is no limit.",
    )
    max_connection_age_s: Seconds = Field(
        0.0,
        description="Seconds after which a client is told to open a new connection (GOAWAY), so "
        "that a new replica gets its share; 0 is no limit.",
    )
    max_connection_age_grace_s: Timeout = Field(
        60.0,
        description="Seconds for the open calls of a connection that reached its age; then they "
        "are cancelled.",
    )
    keepalive_time_s: Timeout = Field(
        60.0, description="Seconds without a frame of the client, after which it is pinged."
    )
    keepalive_timeout_s: Timeout = Field(
        20.0,
        description="Seconds for the answer to that ping; then the connection is closed and its "
        "calls are cancelled.",
    )
    min_ping_interval_s: Seconds = Field(
        5.0,
        description="Minimum seconds between keepalive pings of a client; a connection with more "
        "is closed (too many pings).",
    )
    model_control: Literal["none", "poll", "explicit"] = Field(
        "none",
        description="What loads and unloads models after the start: none, poll (changes in the "
        "directory) or explicit (calls of clients).",
    )
    require_models: bool = Field(
        False,
        description="Not ready, for health checks and ServerReady, while no model is ready; "
        "without it, a server without any model is ready. The container images set it.",
    )
    poll_interval_s: Timeout = Field(
        5.0, description="Seconds between two scans of the directory, with model control poll."
    )
    triton_metrics: bool = Field(
        False, description="Export metrics under Triton's names too, for its dashboards."
    )
    reflection: bool | None = _unset(
        "True, or False with tokens_file",
        "Serve gRPC reflection, which tools such as grpcurl use.",
    )
    log_format: Literal["text", "json"] = Field("text", description="Format of a log line.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of a logged event."
    )
    access_log_sample_rate: Rate = Field(
        0.0, description="Share of requests with a line in the access log, from 0 to 1."
    )
    follow_links: bool = Field(
        False,
        description="Follow links in the repository, as ConfigMaps and Hugging Face's cache have "
        "them, if they lead into the repository or a link root.",
    )
    link_roots: Directories = Field(
        (),
        description="Directories outside the repository that links may lead into, separated by "
        "commas; in the TOML file a list. Needs follow_links.",
        json_schema_extra={"default": "none"},
    )
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[^/\s]+/?$")] | None = _unset(
        "no traces",
        "OpenTelemetry collector that traces are sent to, such as http://localhost:4317.",
    )
    trace_sample_rate: Rate = Field(
        1.0, description="Share of requests that are traced if their client does not decide it."
    )
    models: tuple[ModelTable, ...] = Field(
        (), description="Settings of single models, in rising precedence."
    )

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        ports = {name: getattr(self, name) for name in ("port", "metrics_port", "http_port")}
        for (name, port), (other, other_port) in combinations(ports.items(), 2):
            if port and port == other_port:
                raise ValueError(f"{name} and {other} are both {port}: choose two ports")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert, tls_key: expected both or none, got one")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("tls_client_ca: expected tls_cert and tls_key with it")
        return self

    @model_validator(mode="after")
    def _check_bind(self) -> Self:
        is_protected = self.tls_cert and (self.tokens_file or self.tls_client_ca)
        if not (self.insecure or is_protected or _is_loopback(self.host)):
            raise ValueError(
                f"host {self.host} is beyond loopback: expected one of: tls_cert, tls_key, and "
                "tokens_file (or tls_client_ca); or --insecure; or a loopback host, such as "
                "127.0.0.1"
            )
        return self

    @model_validator(mode="after")
    def _check_deadlines(self) -> Self:
        if self.default_deadline_s > self.max_deadline_s:
            raise ValueError(
                f"default_deadline_s: expected at most max_deadline_s, {self.max_deadline_s:g}, "
                f"got {self.default_deadline_s:g}"
            )
        return self

    @model_validator(mode="after")
    def _check_link_roots(self) -> Self:
        if self.link_roots and not self.follow_links:
            raise ValueError("link_roots: expected follow_links with them")
        return self

    @property
    def serves_reflection(self) -> bool:
        """Whether reflection is served: by default only without tokens."""
        return self.tokens_file is None if self.reflection is None else self.reflection

    @property
    def links(self) -> LinkRoots:
        """The directories that links may lead into."""
        # Of one file, its directory.
        root = self.models_dir if self.models_dir.is_dir() else self.models_dir.parent
        roots = (root, *self.link_roots) if self.follow_links else ()
        if self.models_dir.is_symlink() and self.models_dir.is_file():
            # The operator named this link, such as a file of Hugging Face's cache.
            roots = (*roots, root, self.models_dir.resolve().parent)
        return LinkRoots(roots)

    def for_model(self, name: str) -> ModelSettings:
        """The settings of one model: its own, then the general settings.

        The graphs of an encoder-decoder, NAME.encoder and NAME.decoder, take threads, provider and
        provider options from NAME, unless they have their own.
        """
        values: dict[str, Any] = {
            field: getattr(self, field)
            for field in ModelSettings.model_fields
            if field in Settings.model_fields and field != "provider"
        }
        for suffix in _GRAPHS_OF_A_PAIR:
            if name.endswith(suffix):
                both = self._own(name.removesuffix(suffix))
                for field in ("threads", "provider", _OPTIONS):
                    values |= {field: both[field]} if field in both else {}
        return ModelSettings.model_validate(_merged(values, self._own(name)))

    def _own(self, name: str) -> dict[str, Any]:
        """What is set for one model, over all sources."""
        values: dict[str, Any] = {}
        for table in self.models:
            if table.holds_for(name):
                values = _merged(values, table.settings.model_dump(exclude_unset=True))
        return values

    def source_of(self, name: str, setting: str) -> str | None:
        """The place, in words, that gives this setting to this model alone; None without one."""
        tables = [table for table in self.models if table.holds_for(name)]
        found = [table for table in tables if setting in table.settings.model_fields_set]
        return found[-1].source_of(setting) if found else None

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse an environment variable that stands for several of these models.

        Raises:
            ConfigError: it names a variable, and the models.
        """
        names = sorted(names)
        for table in self.models:
            found = [name for name in names if table.holds_for(name)]
            if len(found) > 1:
                raise ConfigError(
                    f"{table.source_of('*')}: expected one model of that name, "
                    f"got {short_list(found)}: use --model-setting or a table [models.NAME]"
                )

    def for_unknown_models(self, names: Iterable[str]) -> list[ModelTable]:
        """The settings of models that are not among these names."""
        known = list(names)
        return [table for table in self.models if not any(map(table.holds_for, known))]


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host; a name other than localhost is not resolved."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The values, replaced by those of `over`; provider options are replaced one by one."""
    merged = {**values, **over}
    if _OPTIONS in values and _OPTIONS in over:
        merged[_OPTIONS] = {**values[_OPTIONS], **over[_OPTIONS]}
    return merged


def is_switch(name: str) -> bool:
    """Whether a setting is on or off."""
    annotation = Settings.model_fields[name].annotation
    return bool in (annotation, *get_args(annotation))


def default_of(name: str) -> str:
    """The default of a setting, in words."""
    field = Settings.model_fields[name]
    if isinstance(field.json_schema_extra, dict):
        return str(field.json_schema_extra["default"])
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


def load(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    config: Path | None,
    model_settings: Sequence[str] = (),
) -> Settings:
    """Merge the sources.

    Args:
        flags: by field name; only those that were given.
        environment: usually `os.environ`. An empty variable counts as absent.
        config: a TOML file; None for the one of `WEIR_CONFIG`, if set.
        model_settings: of flags, each `NAME.SETTING=VALUE`.

    Raises:
        ConfigError: one line for each setting that is unknown, malformed or out of bounds.
    """
    named = environment.get("WEIR_CONFIG")
    path = config or (Path(named) if named else None)
    from_file = _read_file(path) if path else {}
    file_tables = from_file.pop("models", {})
    if not isinstance(file_tables, dict):
        raise ConfigError(f"{path}: models: expected tables [models.NAME], got {file_tables!r}")
    from_environment = _read_environment(environment)
    tables = [
        *(
            {"name": name, "source": f"{path}: models.{name}.{{}}", "settings": table}
            for name, table in file_tables.items()
        ),
        *_tables_of_variables(environment),
        *_tables_of_flags(model_settings),
    ]
    values = {**from_file, **from_environment, **flags, "models": tables}
    sources = {
        **{key: f"{path}: {key}" for key in from_file},
        **{key: _variable(key) for key in from_environment},
        **{key: "--" + key.replace("_", "-") for key in flags},
    }
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = [_describe(dict(problem), sources, tables) for problem in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from None


def _read_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Values by setting; an unknown variable keeps its own name, for the error message."""
    values = {}
    for name, value in environment.items():
        if (
            not value
            or not name.startswith(_PREFIX)
            or name.startswith(_MODEL_PREFIX)
            or _NOT_SETTINGS.fullmatch(name)
            or _SERVICE_LINK.match(value)
        ):
            continue
        key = name.removeprefix(_PREFIX).lower()
        is_setting = key in Settings.model_fields and key != "models"
        values[key if is_setting else name] = value
    return values


def _tables_of_variables(environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One table for each environment variable that sets something of one model."""
    for variable, value in sorted(environment.items()):
        if not value or not variable.startswith(_MODEL_PREFIX):
            continue
        name, _, setting = variable.removeprefix(_MODEL_PREFIX).rpartition("__")
        if not name:
            raise ConfigError(f"{variable}: expected {_MODEL_PREFIX}NAME__SETTING")
        options = f"__{_OPTIONS.upper()}"
        yield {
            "name": name.removesuffix(options).upper(),
            "source": variable,
            "is_variable": True,
            "settings": _nested(setting.lower(), value, is_option=name.endswith(options)),
        }


def _tables_of_flags(flags: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One table for each `--model-setting`."""
    values: dict[str, str] = {}
    for flag in flags:
        key, equals, value = flag.partition("=")
        name, _, setting = key.rpartition(".")
        options = f".{_OPTIONS}"
        if not (name.removesuffix(options) and equals):
            raise ConfigError(f"--model-setting: expected NAME.SETTING=VALUE, got {flag!r}")
        if key in values:
            raise ConfigError(
                f"--model-setting {key}: expected once, got {values[key]!r} and {value!r}"
            )
        values[key] = value
        yield {
            "name": name.removesuffix(options),
            "source": f"--model-setting {key}",
            "settings": _nested(setting, value, is_option=name.endswith(options)),
        }


def _nested(setting: str, value: str, *, is_option: bool) -> dict[str, Any]:
    return {_OPTIONS: {setting: value}} if is_option else {setting: value}


def _variable(key: str) -> str:
    return key if key.startswith(_PREFIX) else _PREFIX + key.upper()


def _describe(
    problem: Mapping[str, Any],
    sources: Mapping[str, str],
    tables: Sequence[Mapping[str, Any]],
) -> str:
    keys = [str(key) for key in problem["loc"]]
    if problem["type"] == "missing":
        # The only setting without a default.
        return "MODELS: expected a model repository, an ONNX file or a bundle, got none"
    if keys[:1] == ["models"]:
        table = tables[int(keys[1])]
        where = table["source"].replace("{}", ".".join(keys[3:])).removesuffix(".")
    else:
        where = ".".join([sources[keys[0]], *keys[1:]]) if keys else "settings"
    if problem["type"] == "extra_forbidden":
        is_table = isinstance(problem["input"], dict)
        advice = _nearest(keys, is_table=is_table)
        if is_table and not advice and len(keys) == _TABLE_DEPTH + 1:
            quoted = f'[models."{table["name"]}.{keys[-1]}"]'
            advice = f"; quote a model's name that has a dot: {quoted}"
        return f"{where}: no such setting{advice}"
    text = problem["msg"].removeprefix("Value error, ").replace("Input should be ", "expected ", 1)
    if problem["type"] == "model_type":
        is_model = keys[0] == "models" and len(keys) == _TABLE_DEPTH
        text = f"expected a table [models.{table['name']}]" if is_model else "expected a table"
    if problem["type"] == "literal_error":
        text = f"expected {problem['ctx']['expected'].replace(chr(39), '')}"
    got = "" if not keys else f", got {problem['input']!r}"
    return f"{where}: {text}{got}"


def _nearest(keys: Sequence[str], *, is_table: bool) -> str:
    """The setting whose name is most like that of the unknown one, for the error message."""
    known: Iterable[str] = {"models"} if is_table else Settings.model_fields.keys() - {"models"}
    wrong = keys[-1].removeprefix(_PREFIX).lower()
    is_variable = keys[-1].startswith(_PREFIX)
    if keys[0] == "models":
        known = (ProviderOptions if _OPTIONS in keys[:-1] else ModelSettings).model_fields
    found = get_close_matches(wrong, sorted(known), n=1)
    return f"; the nearest is {_variable(found[0]) if is_variable else found[0]}" if found else ""
