"""tools.yaml into a ToolCatalog: every tool checked, compiled and ready to run.

The file is checked against tools.schema.json, then for what a schema cannot say (handlers exist, placeholders
name parameters, sources are of the right kind). All mistakes are reported together, each with its line.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.parser import ParsedResult
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry

from tornado_live import resources
from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.tools.answer import redacted_text
from tornado_live.tools.http import (
    BadTemplate,
    Endpoint,
    check_header,
    check_path,
    checked_address,
    is_allowed,
)
from tornado_live.tools.policy import DEFAULT_POLICY, CallPolicy
from tornado_live.tools.python import BUILTIN, Handler, HandlerNotFound, find_handler
from tornado_live.tools.result import Json, ToolError
from tornado_live.tools.schema import CannotDeclare, Change, declare, resolve
from tornado_live.yamlfile import YamlFile, YamlPath, dotted, read_yaml, walk

DEFAULT_TIMEOUT_S: Final = 10.0
LONGEST_TIMEOUT_S: Final = 600.0
LONGEST_CACHE_S: Final = 24 * 3600.0
DEFAULT_MAX_BYTES: Final = 16 * 1024
_LONGEST_DESCRIPTION: Final = 16_000

RetryOn: TypeAlias = Literal["connect", "429", "5xx"]
RETRY_ON: Final[frozenset[RetryOn]] = frozenset(["connect", "429", "5xx"])

logger = logging.getLogger(__name__)

_VARIABLE = re.compile(r"\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})?")
_SLOT_LIKE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_.-]*\}")
_DURATION = re.compile(r"([0-9.]+)(ms|s|m|h)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CREDENTIAL|DSN|PRIVATE", re.IGNORECASE)
_SHORTEST_SECRET = 6
_REQUEST_KEYS = frozenset(["headers", "query", "json", "form", "auth"])
_BOUND_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_LONGEST_S: Final = {
    "timeout": LONGEST_TIMEOUT_S,
    "slow_after": LONGEST_TIMEOUT_S,
    "cache": LONGEST_CACHE_S,
}

# Keys that tools.yaml will have and this version does not know: refused in words of their own.
_LATER: Final[Mapping[str, frozenset[str]]] = {"tool": frozenset(["mcp", "openapi"])}


@dataclass(frozen=True, slots=True)
class ResultRules:
    """What becomes of an answer: `select` (JMESPath) first, then `empty`, then the cap."""

    select: ParsedResult | None = None
    empty: str | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    max_items: int | None = None
    show_args: bool = True
    to_client: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` in all, the first one included; `on` says after which failures there is another."""

    attempts: int
    on: frozenset[RetryOn]


@dataclass(frozen=True, slots=True)
class CallLimits:
    """`per_minute` of one user, `per_session` in all, `concurrency` of everybody; None: no limit of its own."""

    per_minute: int | None = None
    per_session: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a parameter comes from that the model neither sees nor sets.

    `path` leads into the caller's claims, or is `("id",)` or `("user",)` of the session; `value` is that of the
    environment, read at load. `rule` is the parameter's JSON Schema, `{}` where the file gives none.
    """

    origin: Literal["claims", "session", "environment"]
    path: tuple[str, ...]
    rule: Mapping[str, Json]
    value: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Example:
    """A call and what its result must contain."""

    args: Mapping[str, Json]
    expect: Json


@dataclass(frozen=True, slots=True)
class Mock:
    """Canned answers; the first whose `when` is part of the arguments is given."""

    cases: tuple[tuple[Mapping[str, Json], Json], ...]

    def answer(self, arguments: Mapping[str, Json]) -> tuple[bool, Json]:
        """Whether there is an answer for `arguments`, and the answer."""
        for when, answer in self.cases:
            if all(name in arguments and arguments[name] == value for name, value in when.items()):
                return True, answer
        return False, None


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool, checked. `declaration` is Gemini's; `parameters` the full JSON Schema, without what `bind` sets.

    One of `handler` and `endpoint` is set, or none where the client runs it (`policy.client`). `changes` is what
    the declaration does not say any more. `requires`: roles or scopes, of which the caller must have all.
    """

    name: str
    description: str
    parameters: Mapping[str, Json]
    declaration: Mapping[str, Json]
    timeout_s: float
    handler: Handler | None
    endpoint: Endpoint | None
    options: Mapping[str, Json]
    result: ResultRules
    mock: Mock | None
    changes: tuple[Change, ...]
    policy: CallPolicy
    validator: Draft202012Validator = field(repr=False, compare=False)
    retry: Retry | None = None
    cache_s: float | None = None
    limits: CallLimits = field(default_factory=CallLimits)
    bind: Mapping[str, Bound] = field(default_factory=dict)
    requires: frozenset[str] = frozenset()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCatalog:
    """The tools of one file. `sources` are checked, each `{"kind": …}` with absolute paths.

    Where a collection of names is asked for, the names of `toolsets` stand for their tools, and None for every
    tool. `left_out` has the tools that Gemini cannot be told of, and why; `secrets` are values of the
    environment that must not be seen in results, logs or errors.
    """

    EMPTY: ClassVar[ToolCatalog]

    tools: Mapping[str, Tool] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    toolsets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[Problem, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def names(self, names: Collection[str] | None) -> tuple[str, ...] | None:
        """The names of the tools among `names`, in file order."""
        if names is None:
            return None
        wanted = {one for name in names for one in self.toolsets.get(name, (name,))}
        return tuple(name for name in self.tools if name in wanted)

    def _named(self, names: Collection[str] | None) -> Iterator[Tool]:
        wanted = self.names(names)
        return iter(self.tools.values()) if wanted is None else (self.tools[name] for name in wanted)

    def declarations(self, names: Collection[str] | None = None) -> list[dict[str, Json]]:
        """Gemini function declarations of the tools among `names` (None: all), in file order."""
        return [dict(tool.declaration) for tool in self._named(names)]

    def listing(self, names: Collection[str] | None = None) -> list[dict[str, Json]]:
        """What clients may know of the tools: `{name, description, parameters, behaviour}`."""
        return [
            {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
                "behaviour": tool.policy.wait,
            }
            for tool in self._named(names)
        ]

    def policy(self, name: str) -> CallPolicy:
        """How a conversation treats calls of `name`; the default for a tool that is not here."""
        tool = self.tools.get(name)
        return tool.policy if tool is not None else DEFAULT_POLICY


ToolCatalog.EMPTY = ToolCatalog()


@cache
def file_schema() -> dict[str, Json]:
    """The JSON Schema of tools.yaml that ships with the package."""
    read: dict[str, Json] = json.loads(
        files("tornado_live.tools").joinpath("tools.schema.json").read_text(encoding="utf-8")
    )
    return read


def load_catalog(
    path: Path,
    *,
    home: Path,
    data_dir: Path,
    environment: Mapping[str, str],
    handler_prefixes: Sequence[str] = (BUILTIN,),
) -> ToolCatalog:
    """The catalog of the file at `path`. Raises ConfigError with every mistake that was found.

    `environment` fills `${NAME}`; DATA_DIR is always `data_dir`. Handlers are imported, those that are not built
    in from `home` too, and asked for their part of the description, which may open a database.
    """
    try:
        name = str(path.resolve().relative_to(home.resolve()))
    except ValueError:
        name = str(path)
    file = read_yaml(path, name=name)
    values = {**environment, "DATA_DIR": str(data_dir.resolve())}
    return _Loader(file, home.resolve(), values, handler_prefixes).load()


class _Loader:
    def __init__(
        self, file: YamlFile, home: Path, environment: Mapping[str, str], prefixes: Sequence[str]
    ) -> None:
        self.file = file
        self.home = home
        self.environment = environment
        self.prefixes = prefixes
        self.problems: list[Problem] = []
        self.left_out: list[Problem] = []
        self.secrets: set[str] = set()
        self.broken: set[YamlPath] = set()

    def load(self) -> ToolCatalog:
        if not isinstance(self.file.data, dict):
            self._refuse((), "must begin with version: 1 and tools:")
            raise ConfigError(self.problems)
        data = self._expanded(self.file.data, ())
        assert isinstance(data, dict)
        self._check_schema(data)
        written_sources, written_tools = data.get("sources"), data.get("tools")
        sources: dict[str, Mapping[str, Json]] = {}
        for name, source in (written_sources if isinstance(written_sources, dict) else {}).items():
            if self.sound(("sources", name)) and isinstance(source, dict):
                checked = self._source(("sources", name), source)
                if checked is not None:
                    sources[name] = checked
        named_sources = frozenset(written_sources) if isinstance(written_sources, dict) else frozenset()
        tools: dict[str, Tool] = {}
        written_tools = written_tools if isinstance(written_tools, dict) else {}
        defaults = self._defaults(data.get("defaults"))
        for name, written in written_tools.items():
            if isinstance(written, dict):
                reader = _ToolReader(self, name, written, defaults, sources, named_sources)
                tool = reader.read()
                if tool is not None:
                    tools[name] = tool
        toolsets = self._toolsets(data.get("toolsets"), written_tools)
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda problem: problem.line or 0))
        for problem in self.left_out:
            logger.error("%s", problem)
        return ToolCatalog(
            tools=MappingProxyType(tools),
            sources=MappingProxyType({name: MappingProxyType(dict(one)) for name, one in sources.items()}),
            toolsets=MappingProxyType(toolsets),
            left_out=tuple(self.left_out),
            secrets=tuple(sorted(self.secrets, key=len, reverse=True)),
        )

    def problem(self, path: YamlPath, message: str) -> Problem:
        shown = path[1:] if path[:1] == ("tools",) and len(path) > 1 else path
        return self.file.problem(path, message, shown=dotted(shown))

    def _refuse(self, path: YamlPath, message: str) -> None:
        self.problems.append(self.problem(path, message))
        self.broken.add(path[:3])

    refuse = _refuse

    def sound(self, path: YamlPath) -> bool:
        """Whether nothing was found wrong at `path` or, for a whole source or tool, in it."""
        return not any(broken[: len(path)] == path for broken in self.broken)

    def shown(self, path: YamlPath) -> str:
        """The value at `path` as it was written (never what a `${NAME}` stands for)."""
        value = self.file.data
        for part in path:
            if isinstance(value, dict) and isinstance(part, str):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int):
                value = value[part]
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 80 else text[:79] + "…"

    # ${NAME} ----------------------------------------------------------------------------------------

    def _expanded(self, value: Json, path: YamlPath) -> Json:
        if isinstance(value, dict):
            return {key: self._expanded(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expanded(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        if (
            path[:1] == ("tools",)
            and len(path) > 2
            and path[2] in ("description", "parameters", "result", "mock")
        ):
            self._refuse(path, "${…} is not filled in here, since the model and the page may see this text")
            return value
        return _VARIABLE.sub(lambda match: self._variable(match, path), value)

    def _variable(self, match: re.Match[str], path: YamlPath) -> str:
        name, default = match["name"], match["default"]
        if name is None:
            self._refuse(path, "after ${ comes a name: write ${NAME} or ${NAME:-default}")
            return ""
        found = self.environment.get(name)
        if found is None or (found == "" and default is not None):
            if default is None:
                self._refuse(
                    path,
                    f"{name} is not set; set it in the environment or .env, or write ${{{name}:-default}}",
                )
            return default or ""
        if _SLOT_LIKE.search(found):
            self._refuse(path, f"what {name} holds looks like a {{parameter}}; choose a value without braces")
            return ""
        # What goes out with a request is no address, and may be a key under any name.
        in_request = not _REQUEST_KEYS.isdisjoint(path)
        if len(found) >= _SHORTEST_SECRET and (
            in_request or _SECRET_NAME.search(name) or _SECRET_NAME.search(str(path[-1]))
        ):
            self.secrets.add(found)
        return found

    # The file's own schema --------------------------------------------------------------------------

    def _check_schema(self, data: dict[str, Json]) -> None:
        validator = Draft202012Validator(file_schema(), registry=Registry())
        for error in validator.iter_errors(data):
            path: YamlPath = tuple(error.absolute_path)
            for at, message in self._messages(error, path, _level(path)):
                self._refuse(at, message)

    def _messages(self, error: ValidationError, path: YamlPath, level: str) -> Iterator[tuple[YamlPath, str]]:
        schema = error.schema if isinstance(error.schema, dict) else {}
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            known = schema.get("properties", {})
            for key in error.instance:
                if key in known:
                    continue
                if key in _LATER.get(level, ()):
                    yield (*path, key), "is not known yet; remove it"
                else:
                    where = f" of {level.rsplit('.', 1)[-1]}" if level else ""
                    yield (*path, key), f"is not a key{where}{nearest(key, known) or _listed(known)}"
        elif error.validator == "required" and isinstance(error.instance, dict):
            for key in schema["required"]:
                if key not in error.instance and f"'{key}'" in error.message and not path:
                    yield path, f'{key} is missing - write "{key}: 1" at the top'
                elif key not in error.instance and f"'{key}'" in error.message:
                    yield path, f"needs {key}: {_about(schema, key)}".rstrip(": ")
        elif error.validator == "anyOf" and not path:
            yield path, 'tools is missing - write "tools:" and the tools below it'
        elif error.validator == "oneOf" and level == "tool":
            both = isinstance(error.instance, dict) and "python" in error.instance
            if isinstance(error.instance, dict) and error.instance.get("client") is True:
                yield path, "has client: true and python or http; the page runs it, remove one"
            else:
                yield path, "has both python and http; remove one" if both else "needs one of python and http"
        elif error.validator == "oneOf":
            both = isinstance(error.instance, dict) and "url" in error.instance
            yield path, "has both source and url; remove one" if both else "needs source and path, or url"
        elif error.validator == "propertyNames" or "propertyNames" in error.absolute_schema_path:
            yield (
                (*path, str(error.instance)),
                "a name is a letter or _, then letters, digits, _ and -, at most 63",
            )
        elif error.validator == "dependentRequired":
            yield path, "options need python" if level == "tool" else "path needs source"
        elif error.validator in ("minProperties", "maxProperties"):
            yield path, self._how_many(error, level)
        else:
            yield path, f"{self.shown(path)} {_complaint(error)}"

    # Defaults and toolsets --------------------------------------------------------------------------

    def _defaults(self, written: Json) -> dict[str, Json]:
        """The sound ones among them; a wrong one is told here and not at every tool."""
        defaults: dict[str, Json] = {}
        for key, value in (written if isinstance(written, dict) else {}).items():
            if self.sound(("defaults", key)):
                defaults[key] = value
                if key in _LONGEST_S:
                    self.seconds(("defaults", key), value, _LONGEST_S[key])
        return defaults

    def _toolsets(self, written: Json, tools: Collection[str]) -> dict[str, tuple[str, ...]]:
        toolsets: dict[str, tuple[str, ...]] = {}
        for name, members in (written if isinstance(written, dict) else {}).items():
            if not isinstance(members, list) or not self.sound(("toolsets", name)):
                continue
            if name in tools:
                self._refuse(("toolsets", name), "is the name of a tool, too; choose another")
            for index, member in enumerate(members):
                if member not in tools:
                    known = nearest(str(member), tools) or _listed(tools)
                    self._refuse(("toolsets", name, index), f'there is no tool "{member}"{known}')
            toolsets[name] = tuple(str(member) for member in members)
        return toolsets

    def seconds(self, path: YamlPath, written: Json, longest_s: float) -> float:
        match = _DURATION.match(str(written))
        assert match is not None
        seconds = float(match[1]) * _SECONDS[match[2]]
        if not 0 < seconds <= longest_s:
            most = f"{longest_s / 3600:g}h" if longest_s >= 3600 else f"{longest_s / 60:g}m"
            self._refuse(path, f"{self.shown(path)} is out of range; write more than 0s and at most {most}")
        return seconds

    @staticmethod
    def _how_many(error: ValidationError, level: str) -> str:
        schema = error.schema if isinstance(error.schema, dict) else {}
        known = list(schema.get("properties", ()))
        if level == "source" or "auth" in error.absolute_path:
            return f"needs exactly one of {', '.join(known[:-1])} and {known[-1]}"
        return f"needs one of {', '.join(known)}" if known else "must not be empty"

    # Sources ----------------------------------------------------------------------------------------

    def _source(self, path: YamlPath, source: dict[str, Json]) -> Mapping[str, Json] | None:
        [(kind, settings)] = source.items()
        assert isinstance(settings, dict)
        path = (*path, kind)
        before = len(self.problems)
        checked: dict[str, Json] = {"kind": kind, **settings}
        if kind == "http":
            headers = settings.get("headers", {})
            assert isinstance(headers, dict)
            self.check_headers((*path, "headers"), headers)
            self.check_address((*path, "base_url"), str(settings["base_url"]), slots=False)
            checked["base_url"] = str(settings["base_url"]).rstrip("/")
            checked["headers"] = headers
            checked["allow_private"] = settings.get("allow_private") is True
        elif kind == "sql":
            checked["url"] = self._sql_url((*path, "url"), str(settings["url"]))
        else:
            paths = settings["paths"]
            assert isinstance(paths, list)
            checked["paths"] = [str(self._document(str(one))) for one in paths]
            checked["index"] = str(Path(self.environment["DATA_DIR"]) / "knowledge" / str(path[1]))
        return checked if len(self.problems) == before else None

    def check_address(self, path: YamlPath, url: str, *, slots: bool) -> tuple[str, str]:
        try:
            base, rest = checked_address(url)
            check_path(rest)
            if "{" in rest and not slots:
                raise BadTemplate("{parameter} has no place in base_url; write it in a tool's path")
        except BadTemplate as error:
            self._refuse(path, f"{self.shown(path)}: {error}")
            return "", ""
        # A private address needs allow_private, which a source can have and a url cannot.
        host = _literal_address(base)
        if host is not None and not is_allowed(host, allow_private=True):
            self._refuse(
                path, f"{self.shown(path)} is a link-local or special address, which no tool may call"
            )
        elif host is not None and slots and not is_allowed(host, allow_private=False):
            advice = "make it a source with allow_private: true, if it is a service of your own"
            self._refuse(
                path, f"{self.shown(path)} is a private address, which every call would refuse - {advice}"
            )
        return base, rest

    def check_headers(self, path: YamlPath, headers: Mapping[str, Json]) -> dict[str, str]:
        checked: dict[str, str] = {}
        for name, value in headers.items():
            try:
                check_header(name, str(value))
            except BadTemplate as error:
                self._refuse((*path, name), str(error))
            checked[name] = str(value)
        return checked

    def _sql_url(self, path: YamlPath, url: str) -> str:
        scheme, colon, rest = url.partition(":")
        if not colon or not re.fullmatch(r"[a-z][a-z0-9+]*", scheme):
            self._refuse(path, f"{self.shown(path)} is not an address such as sqlite:///data/shop.db")
            return url
        if scheme.partition("+")[0] != "sqlite":
            try:
                password = urlsplit(url).password
            except ValueError:
                self._refuse(
                    path, f"{self.shown(path)} is not an address such as postgresql://user@host/name"
                )
                return url
            if password and len(password) >= _SHORTEST_SECRET:
                self.secrets.update({password, unquote(password)})
            return url
        if not rest.startswith("///") or len(rest) == 3:
            self._refuse(path, f"{self.shown(path)} names no file; write sqlite:///data/shop.db")
            return url
        file, mark, query = rest[3:].partition("?")
        return f"{scheme}:///{(self.home / file).as_posix()}{mark}{query}"

    def _document(self, written: str) -> Path:
        """The operator's own folder, else the sample that travels with the package."""
        return (resources.find(written, home=self.home) or self.home / written).resolve()


class _ToolReader:
    """One tool of the file. `read` gives the tool, or None with its mistakes added to the loader's."""

    def __init__(
        self,
        loader: _Loader,
        name: str,
        written: dict[str, Json],
        defaults: Mapping[str, Json],
        sources: Mapping[str, Mapping[str, Json]],
        named_sources: frozenset[str],
    ) -> None:
        self.loader = loader
        self.name = name
        self.own = written
        self.written = _with_defaults(written, defaults)
        self.sources = sources
        self.named_sources = named_sources
        self.path: YamlPath = ("tools", name)

    def _refuse(self, message: str, *path: str | int) -> None:
        self.loader.refuse((*self.path, *path), message)

    def _sound(self, key: str) -> bool:
        return key in self.written and self.loader.sound((*self.path, key))

    def read(self) -> Tool | None:
        whole = self._parameters() if self._sound("parameters") else None
        bind = self._bind(whole) if self._sound("bind") else {}
        parameters = _and_bound(whole, bind)
        result = self._result() if self._sound("result") else ResultRules()
        policy = self._policy(result)
        retry, cache_s = self._retry(), self._cache()
        handler = endpoint = None
        options: dict[str, Json] = {}
        if self._sound("python"):
            handler = self._handler(parameters)
            if "options" not in self.written or self._sound("options"):
                options = self._options(handler, parameters)
        elif self._sound("http"):
            endpoint = self._endpoint(parameters)
        mock = _mock(self.written["mock"]) if "mock" in self.written else None
        if whole is None or not self.loader.sound(self.path):
            return None
        visible = _without(whole, bind)
        examples = self._examples(visible)
        description = self._description(handler, options)
        if not self.loader.sound(self.path):
            return None
        try:
            declaration = declare(self.name, description, visible)
        except CannotDeclare as error:
            self._leave_out(error)
            return None
        return Tool(
            name=self.name,
            description=description,
            parameters=MappingProxyType(visible),
            declaration=MappingProxyType(declaration.json),
            timeout_s=policy.timeout_s,
            handler=handler,
            endpoint=endpoint,
            options=MappingProxyType(options),
            result=result,
            mock=mock,
            changes=declaration.changes,
            policy=policy,
            validator=validator_for(visible),
            retry=retry,
            cache_s=cache_s,
            limits=msgspec.convert(self._given("limits", {}), CallLimits),
            bind=MappingProxyType(bind),
            requires=frozenset(msgspec.convert(self._given("requires", []), list[str])),
            examples=examples,
        )

    def _leave_out(self, error: CannotDeclare) -> None:
        # The dotted path within a schema is not the path in the file; its first names are the nearest line.
        steps: list[str] = []
        for part in error.path.split("."):
            steps += ["properties", part.partition("[")[0]]
        path = (*self.path, "parameters", *(steps if error.path else ()))
        self.loader.left_out.append(
            self.loader.file.problem(
                path,
                f"Gemini cannot be told of this ({error.reason}); the tool is left out",
                shown=".".join(part for part in (self.name, "parameters", error.path) if part),
            )
        )

    def _parameters(self) -> dict[str, Json] | None:
        """The parameters, or None if the other checks cannot go by them."""
        parameters = self.written["parameters"]
        assert isinstance(parameters, dict)
        kind = parameters.get("type")
        if kind is None and not parameters:
            return {"type": "object", "properties": {}}
        if kind != "object":
            self._refuse("needs type: object", "parameters")
            return None
        try:
            Draft202012Validator.check_schema(parameters)
        except SchemaError as error:
            at = ("parameters", *error.absolute_path)
            deepest = best_match(error.context or ()) or error
            self._refuse(f"{self.loader.shown((*self.path, *at))} {_schema_complaint(error, deepest)}", *at)
            return None
        for at, value in walk(parameters):
            if at and at[-1] == "$ref" and isinstance(value, str) and at[-2:-1] != ("properties",):
                try:
                    resolve(parameters, value)
                except CannotDeclare as error:
                    self._refuse(error.reason, "parameters", *at)
        properties = parameters.get("properties")
        if isinstance(properties, dict):
            for name in parameters.get("required") or []:  # type: ignore[union-attr] # a list: checked above
                if name not in properties and "additionalProperties" not in parameters:
                    self._refuse(
                        f'"{name}" is required but is not among the properties{nearest(str(name), properties)}',
                        "parameters",
                        "required",
                    )
        return parameters

    def _result(self) -> ResultRules:
        written = self.written.get("result", {})
        assert isinstance(written, dict)
        select, empty = written.get("select"), written.get("empty")
        compiled = None
        if isinstance(select, str):
            try:
                compiled = jmespath.compile(select)
            except JMESPathError as error:
                reason = str(error).splitlines()[0].rstrip(":")
                self._refuse(f'"{select}" is not JMESPath: {reason}', "result", "select")
        cap = written.get("max_bytes", DEFAULT_MAX_BYTES)
        return ResultRules(
            select=compiled,
            empty=empty if isinstance(empty, str) else None,
            max_bytes=int(cap) if isinstance(cap, int | float) else DEFAULT_MAX_BYTES,
            max_items=msgspec.convert(written.get("max_items"), int | None, strict=False),
            show_args=written.get("show_args") is not False,
            to_client=written.get("to_client") is True,
        )

    def _given(self, key: str, default: Json = None) -> Json:
        return self.written[key] if self._sound(key) else default

    def _seconds(self, key: str) -> float | None:
        if not self._sound(key):
            return None
        if key not in self.own:  # checked where the defaults were
            match = _DURATION.match(str(self.written[key]))
            return float(match[1]) * _SECONDS[match[2]] if match is not None else None
        return self.loader.seconds((*self.path, key), self.written[key], _LONGEST_S[key])

    def _policy(self, result: ResultRules) -> CallPolicy:
        keys = ("wait", "when_done", "on_interrupt", "slow_say", "confirm", "client", "side_effects")
        given = {key: self.written[key] for key in keys if self._sound(key)}
        if (
            "when_done" in given
            and given.get("wait", "blocking") != "background"
            and self._sound_or_no("wait")
        ):
            self._refuse("is for wait: background; without it the model waits for the answer", "when_done")
        timeout_s, slow_after_s = self._seconds("timeout") or DEFAULT_TIMEOUT_S, self._seconds("slow_after")
        if slow_after_s is None and "slow_say" in given and self._sound_or_no("slow_after"):
            self._refuse("needs slow_after: the time after which it is to be said", "slow_say")
        if slow_after_s is not None and slow_after_s >= timeout_s:
            if "slow_after" in self.own and self._sound("slow_after"):
                shown = self.loader.shown((*self.path, "slow_after"))
                self._refuse(f"{shown} must be less than the timeout ({timeout_s:g} s)", "slow_after")
            slow_after_s = None
        more = {"slow_after_s": slow_after_s, "timeout_s": timeout_s, "show_args": result.show_args}
        return msgspec.convert({**given, **more}, CallPolicy)

    def _sound_or_no(self, key: str) -> bool:
        return key not in self.written or self._sound(key)

    def _retry(self) -> Retry | None:
        if not self._sound("retry"):
            return None
        written = self.written["retry"]
        assert isinstance(written, dict)
        if self.written.get("side_effects") is True:
            self._refuse("is for tools without side effects; remove it", "retry")
        elif "http" not in self.written:
            self._refuse("is for http tools; remove it", "retry")
        on = written.get("on")
        named = [str(one) for one in on] if isinstance(on, list) else list(RETRY_ON)
        return msgspec.convert({"attempts": written["attempts"], "on": named}, Retry)

    def _cache(self) -> float | None:
        if not self._sound("cache"):
            return None
        if self.written.get("side_effects") is True:
            self._refuse("is for tools without side effects; remove it", "cache")
        elif self.written.get("client") is True:
            self._refuse("the page runs this tool, and its answers are not stored; remove it", "cache")
        return self._seconds("cache")

    def _bind(self, parameters: dict[str, Json] | None) -> dict[str, Bound]:
        written = self.written["bind"]
        assert isinstance(written, dict)
        properties = (parameters or {}).get("properties")
        bound: dict[str, Bound] = {}
        for name, origin in written.items():
            kind, _, rest = str(origin).partition(".")
            value: str | None = None
            if not _BOUND_NAME.match(name):
                self._refuse(
                    "the name of a parameter is a letter or _, then letters, digits and _", "bind", name
                )
            if kind == "environment":
                value = self.loader.environment.get(rest)
                if value is None:
                    self._refuse(f"{rest} is not set; set it in the environment or .env", "bind", name)
                elif len(value) >= _SHORTEST_SECRET:
                    self.loader.secrets.add(value)
            if parameters is not None and _names_elsewhere(parameters, name):
                self._refuse(
                    "is named in more than properties; bound parameters stand there alone", "bind", name
                )
            rule = properties.get(name) if isinstance(properties, dict) else None
            bound[name] = msgspec.convert(
                {
                    "origin": kind,
                    "path": tuple(rest.split(".")) if kind == "claims" else (rest,),
                    "rule": rule if isinstance(rule, dict) else {},
                    "value": value,
                },
                Bound,
            )
        return bound

    def _examples(self, parameters: dict[str, Json]) -> tuple[Example, ...]:
        written = self._given("examples", [])
        assert isinstance(written, list)
        examples: list[Example] = []
        validator = validator_for(parameters)
        for index, one in enumerate(written):
            if not isinstance(one, dict) or not isinstance(args := one["args"], dict):
                continue
            example = Example(args, one["expect"])
            examples.append(example)
            is_failure = isinstance(example.expect, dict) and "error" in example.expect
            error = None if is_failure else best_match(validator.iter_errors(dict(example.args)))
            if error is not None:
                at = ("examples", index, "args", *error.absolute_path)
                self._refuse(f"does not fit the parameters: {error.message}", *at)
        return tuple(examples)

    def _handler(self, parameters: dict[str, Json] | None) -> Handler | None:
        try:
            handler = find_handler(str(self.written["python"]), self.loader.prefixes, self.loader.home)
        except HandlerNotFound as error:
            self._refuse(str(error), "python")
            return None
        if parameters is None:
            return handler
        properties = parameters.get("properties")
        names = list(properties) if isinstance(properties, dict) else []
        required = parameters.get("required")
        given = set(required) if isinstance(required, list) else set()
        for name in names:
            if name == "context":
                self._refuse("the name context is taken; choose another", "parameters", "properties", name)
            elif handler.accepts is not None and name not in handler.accepts:
                close = nearest(name, handler.accepts) or _listed(handler.accepts)
                self._refuse(f"{handler.name} has no such parameter{close}", "parameters", "properties", name)
            child = properties[name] if isinstance(properties, dict) else None
            if isinstance(child, dict) and "default" in child:
                given.add(name)
        for name in sorted(handler.needs - given):
            self._refuse(f"{handler.name} needs {name}; name it in properties and required", "parameters")
        return handler

    def _options(self, handler: Handler | None, parameters: dict[str, Json] | None) -> dict[str, Json]:
        written = self.written.get("options", {})
        assert isinstance(written, dict)
        options = dict(written)
        if handler is None or handler.spec is None:
            return options
        schema = dict(handler.spec.options)
        properties = schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        for error in Draft202012Validator(schema, registry=Registry()).iter_errors(options):
            at: YamlPath = ("options", *error.absolute_path)
            if error.validator == "additionalProperties" and not error.absolute_path:
                for key in options:
                    if key not in known:
                        message = f"is not an option of {handler.name}{nearest(key, known) or _listed(known)}"
                        self._refuse(message, "options", key)
            elif error.validator == "required":
                missing = [key for key in error.validator_value if key not in (error.instance or {})]
                self._refuse(f"{handler.name} needs {', '.join(missing)}", *at)
            else:
                self._refuse(f"{self.loader.shown((*self.path, *at))} {_complaint(error)}", *at)
        for key, rule in known.items():
            if isinstance(rule, dict) and "default" in rule:
                options.setdefault(key, rule["default"])
        source = options.get("source")
        if "source" in known and isinstance(source, str) and source not in self.named_sources:
            self._refuse(self._no_source(source), "options", *(["source"] if "source" in written else []))
        for key, names in handler.spec.environment.items():
            value = next((found for name in names if (found := self.loader.environment.get(name))), None)
            if key not in options and value is not None:
                options[key] = value
                self.loader.secrets.add(value)
        if handler.spec.check is not None and parameters is not None and self.loader.sound(self.path):
            for mistake in handler.spec.check(options, parameters):
                self._refuse(mistake, "options")
        return options

    def _no_source(self, source: str) -> str:
        known = sorted(self.named_sources)
        return f'"{source}" is not among the sources{nearest(source, known) or _listed(known)}'

    def _description(self, handler: Handler | None, options: Mapping[str, Json]) -> str:
        description = str(self.written["description"]).strip()
        if handler is None or handler.spec is None or handler.spec.describe is None:
            return description
        if self.loader.problems:
            return description  # a source may be missing; the mistake is reported already
        try:
            more = handler.spec.describe(options, self.sources)
        except ToolError as error:
            self._refuse(f"{handler.name}: {error.message}", "options")
        except Exception as error:  # noqa: BLE001 - an operator's handler may raise anything
            reason = redacted_text(f"{type(error).__name__}: {error}", self.loader.secrets)
            self._refuse(f"{handler.name} cannot use these options: {reason}", "options")
        else:
            description = f"{description}\n{more.strip()}".strip()
        return description[:_LONGEST_DESCRIPTION]

    def _endpoint(self, parameters: dict[str, Json] | None) -> Endpoint:
        written = self.written["http"]
        assert isinstance(written, dict)
        at: YamlPath = (*self.path, "http")
        headers: dict[str, str] = {}
        allow_private = False
        base = path = ""
        source_name = written.get("source")
        if isinstance(source_name, str):
            source = self.sources.get(source_name)
            if source is not None and source["kind"] == "http":
                base, prefix = checked_address(str(source["base_url"]))
                own = source["headers"]
                headers = {name: str(value) for name, value in (own if isinstance(own, dict) else {}).items()}
                allow_private = source["allow_private"] is True
                path = prefix + str(written.get("path", ""))
            elif source is not None:
                self._refuse(f'"{source_name}" is a source for {source["kind"]}, not http', "http", "source")
            elif source_name not in self.named_sources:
                self._refuse(self._no_source(source_name), "http", "source")
            try:
                check_path(str(written.get("path", "")))
            except BadTemplate as error:
                self._refuse(f"{self.loader.shown((*at, 'path'))}: {error}", "http", "path")
        else:
            base, path = self.loader.check_address((*at, "url"), str(written["url"]), slots=True)
        own = written.get("headers", {})
        assert isinstance(own, dict)
        mine = self.loader.check_headers((*at, "headers"), own)
        lowered = {name.lower() for name in mine}
        headers = {name: value for name, value in headers.items() if name.lower() not in lowered} | mine
        query = written.get("query", {})
        assert isinstance(query, dict)
        endpoint = Endpoint(
            method=str(written.get("method", "GET")),
            base=base,
            path=path,
            query=MappingProxyType(query),
            headers=MappingProxyType(headers),
            allow_private=allow_private,
        )
        if parameters is not None and self._sound("http"):
            self._check_slots(endpoint, parameters)
        return endpoint

    def _check_slots(self, endpoint: Endpoint, parameters: dict[str, Json]) -> None:
        properties = parameters.get("properties")
        known = properties if isinstance(properties, dict) else {}
        required = parameters.get("required")
        needed = required if isinstance(required, list) else []
        slots = endpoint.slots()
        http = self.written["http"]
        for name, places in slots.items():
            for place in places:
                key, _, rest = place.partition(".")
                if key == "path":
                    key = "path" if isinstance(http, dict) and "path" in http else "url"
                at = ("http", key, *([rest] if rest else []))
                if name not in known:
                    close = nearest(name, known) or _listed(known)
                    self._refuse(f"{{{name}}} is not among the parameters{close}", *at)
                    continue
                rule = known[name]
                has_default = isinstance(rule, dict) and "default" in rule
                if place == "path" and name not in needed and not has_default:
                    self._refuse(f"{{{name}}} is part of the path; add {name} to required", *at)
        for name in known if self._sound("http") else ():
            if name not in slots:
                self._refuse(
                    f"is used nowhere in http; write {{{name}}} in path, query or headers",
                    "parameters",
                    "properties",
                    name,
                )


def validator_for(parameters: Mapping[str, Json]) -> Draft202012Validator:
    """Checks arguments; what `properties` does not name is refused unless the schema says otherwise."""
    schema = dict(parameters)
    if not schema.keys() & {
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "allOf",
        "$ref",
    }:
        schema["additionalProperties"] = False
    return Draft202012Validator(
        schema, registry=Registry(), format_checker=Draft202012Validator.FORMAT_CHECKER
    )


def _with_defaults(written: dict[str, Json], defaults: Mapping[str, Json]) -> dict[str, Json]:
    """`written` with every default that makes sense for it; of two mappings each key counts for itself."""
    changes_something = written.get("side_effects") is True
    merged = dict(written)
    for key, value in defaults.items():
        own = written.get(key)
        if key == "retry" and ("http" not in written or changes_something):
            continue
        if key == "cache" and (changes_something or written.get("client") is True):
            continue
        if key == "when_done" and written.get("wait", defaults.get("wait")) != "background":
            continue
        if isinstance(own, dict) and isinstance(value, dict):
            merged[key] = {**value, **own}
        elif key not in written:
            merged[key] = value
    return merged


def _and_bound(parameters: dict[str, Json] | None, bind: Mapping[str, Bound]) -> dict[str, Json] | None:
    """The parameters as the tool itself gets them: what `bind` sets is always there."""
    if parameters is None or not bind:
        return parameters
    properties, required = parameters.get("properties"), parameters.get("required")
    rules: dict[str, Json] = {name: dict(bound.rule) for name, bound in bind.items()}
    needed = required if isinstance(required, list) else []
    return {
        **parameters,
        "properties": {**(properties if isinstance(properties, dict) else {}), **rules},
        "required": [*needed, *(name for name in bind if name not in needed)],
    }


def _without(parameters: dict[str, Json], bind: Mapping[str, Bound]) -> dict[str, Json]:
    """The parameters as the model knows them."""
    properties, required = parameters.get("properties"), parameters.get("required")
    if not bind:
        return parameters
    left = dict(parameters)
    if isinstance(properties, dict):
        left["properties"] = {name: rule for name, rule in properties.items() if name not in bind}
    if isinstance(required, list):
        left["required"] = [name for name in required if name not in bind]
    return left


_BESIDE = (
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "dependentRequired",
    "$ref",
    "$defs",
)


def _names_elsewhere(parameters: Mapping[str, Json], name: str) -> bool:
    """Whether a rule beside the properties knows `name`, so that taking it out of them is not enough."""
    return any(
        name in value if isinstance(value, dict) else value == name
        for key in _BESIDE
        if key in parameters
        for _, value in walk(parameters[key])
    )


def _literal_address(base: str) -> str | None:
    """The IP address that the host of `base` is, or is known to stand for; None for other names."""
    host = urlsplit(base).hostname or ""
    if host.lower().rstrip(".") == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _mock(written: Json) -> Mock:
    if isinstance(written, list) and written:
        cases: list[tuple[Mapping[str, Json], Json]] = []
        for case in written:
            when = case.get("when", {}) if isinstance(case, dict) else None
            if not isinstance(case, dict) or "answer" not in case or not isinstance(when, dict):
                return Mock((({}, written),))
            if case.keys() - {"when", "answer"}:
                return Mock((({}, written),))
            cases.append((when, case["answer"]))
        return Mock(tuple(cases))
    return Mock((({}, written),))


def _level(path: YamlPath) -> str:
    """Which of the file's objects `path` is: tool, http, result, source.http or ""."""
    match path:
        case ("tools", _):
            return "tool"
        case ("tools", _, "http"):
            return "http"
        case ("tools", _, "result"):
            return "result"
        case ("sources", _):
            return "source"
        case ("sources", _, kind, *_):
            return f"source.{kind}"
        case _:
            return ""


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:12]
    return f"; known: {', '.join(shown)}{', …' if len(names) > 12 else ''}" if shown else ""


def _about(schema: Mapping[str, Json], key: str) -> str:
    properties = schema.get("properties")
    rule = properties.get(key) if isinstance(properties, dict) else None
    about = rule.get("description") if isinstance(rule, dict) else None
    return about[0].lower() + about[1:].rstrip(".") if isinstance(about, str) else ""


_ARTICLES = {
    "object": "a mapping of names and values",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}


def _complaint(error: ValidationError | SchemaError) -> str:
    """What is wrong with the value that was just shown; never the value itself."""
    rule: Any = error.validator_value
    match error.validator:
        case "type":
            kinds = rule if isinstance(rule, list) else [rule]
            hint = (
                " (put it in quotes)"
                if kinds == ["string"] and isinstance(error.instance, int | float)
                else ""
            )
            return f"must be {' or '.join(_ARTICLES.get(kind, str(kind)) for kind in kinds)}{hint}"
        case "enum":
            texts = list(dict.fromkeys(one if isinstance(one, str) else json.dumps(one) for one in rule))
            close = (
                nearest(error.instance, texts) if isinstance(error.instance, str) and len(texts) > 6 else ""
            )
            return f"is not one of {', '.join(texts)}{close}"
        case "const":
            return f"must be {json.dumps(rule)}"
        case "pattern" if isinstance(error.schema, dict) and "(ms|s|m|h)" in str(rule):
            return "is not a time; write 250ms, 10s, 5m or 2h"
        case "pattern":
            return f"does not fit the pattern {rule}"
        case "minimum":
            return f"must be at least {rule}"
        case "maximum":
            return f"must be at most {rule}"
        case "exclusiveMinimum":
            return f"must be more than {rule}"
        case "exclusiveMaximum":
            return f"must be less than {rule}"
        case "minLength" | "minItems":
            return "must not be empty" if rule == 1 else f"must have at least {rule}"
        case "maxLength" | "maxItems":
            return f"must have at most {rule}"
        case _:
            return f"does not fit the rule {error.validator}"


_TYPE_NAMES = ("string", "number", "integer", "boolean", "object", "array", "null")


def _schema_complaint(error: SchemaError, deepest: ValidationError | SchemaError) -> str:
    if error.absolute_path and error.absolute_path[-1] == "type":
        close = nearest(error.instance, _TYPE_NAMES) if isinstance(error.instance, str) else ""
        return f"is not a type of JSON Schema{close or '; known: ' + ', '.join(_TYPE_NAMES)}"
    return f"is not JSON Schema: {_complaint(deepest)}"
