"""One tool of tools.yaml, from what was written to a Tool: checked, compiled and ready to run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import jmespath
import msgspec
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jsonschema.exceptions import SchemaError, best_match

from tornado_live.errors import Problem, nearest
from tornado_live.tools.answer import redacted_text
from tornado_live.tools.complaints import complaint, listed, not_jmespath, schema_complaint, slips
from tornado_live.tools.http_declared import EndpointReader
from tornado_live.tools.http_retry import RETRY_ON, Retry
from tornado_live.tools.http_template import Endpoint
from tornado_live.tools.policy import CallPolicy
from tornado_live.tools.python import Handler, HandlerNotFound, find_handler
from tornado_live.tools.result import Json, ToolCode, ToolError
from tornado_live.tools.schema import CannotDeclare, declare, pointed_at, resolve
from tornado_live.tools.sources import Sources
from tornado_live.tools.tool import (
    DEFAULT_MAX_BYTES,
    Bound,
    CallLimits,
    Example,
    Mock,
    Origin,
    ResultRules,
    Tool,
    validator_for,
)
from tornado_live.tools.tools_file import LONGEST_S, ToolsFile, in_seconds
from tornado_live.tools.validation import check_schema, checker_of, schema_mistakes, subschemas
from tornado_live.yamlfile import YamlPath, dotted, walk

DEFAULT_TIMEOUT_S: Final = 10.0
_LONGEST_DESCRIPTION: Final = 16_000
_CODES: Final = tuple(map(str, ToolCode))

_JMESPATH_FUNCTIONS = sorted(Functions.FUNCTION_TABLE)
_BOUND_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


class ToolReader:
    """One tool of the file. `read` gives the tool, or None with its mistakes told to the file.

    `left_out` is why Gemini cannot be told of it.
    """

    def __init__(
        self,
        file: ToolsFile,
        name: str,
        written: dict[str, Json],
        defaults: Mapping[str, Json],
        sources: Sources,
        *,
        home: Path,
        prefixes: Sequence[str],
    ) -> None:
        self.file = file
        self.name = name
        self.own = written
        self.written = _with_defaults(written, defaults)
        self.sources = sources
        self.home = home
        self.prefixes = prefixes
        self.path: YamlPath = ("tools", name)
        self.left_out: Problem | None = None

    def refuse(self, message: str, *path: str | int) -> None:
        self.file.refuse((*self.path, *path), message)

    def sound(self, key: str) -> bool:
        """Whether `key` was written, or has a default, and nothing is wrong with it."""
        return key in self.written and self.file.sound((*self.path, key))

    def read(self) -> Tool | None:
        whole = self._parameters() if self.sound("parameters") else None
        bind = self._bind(whole) if self.sound("bind") else {}
        if "bind" in self.own and self.own.get("client") is True:
            self.refuse(
                "has its place in tools that run here, for the page gets none of it; remove it", "bind"
            )
        parameters = _and_bound(whole, bind)
        result = self._result()
        policy = self._policy(result)
        retry, cache_s = self._retry(), self._cache()
        handler = endpoint = None
        options: dict[str, Json] = {}
        if {"python", "http"} <= self.own.keys():
            pass  # one of the two is to be removed, and nobody knows which
        elif self.sound("python"):
            handler = self._handler(parameters)
            if "options" not in self.written or self.sound("options"):
                options = self._options(handler, parameters)
        elif self.sound("http"):
            endpoint = self._endpoint(parameters)
        if whole is None or not self.file.sound(self.path):
            return None
        visible = _without(whole, bind)
        description = self._description(handler, options)
        try:
            declaration = declare(self.name, description, visible)
        except CannotDeclare as error:
            if self.file.sound(self.path):
                self._leave_out(error, visible)
            return None
        examples = self._examples(visible)
        mock = self._mock(visible, bind) if "mock" in self.written else None
        if not self.file.sound(self.path):
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

    def _leave_out(self, error: CannotDeclare, parameters: dict[str, Json]) -> None:
        message = f"Gemini cannot be told of this ({error.reason}); the tool is left out"
        if error.circle is not None:
            path = (*self.path, "parameters", *_place_of(error.circle, parameters), "$ref")
            self.left_out = self.file.problem(path, message)
            return
        # The dotted path within a schema is not the path in the file; its first names are the nearest line.
        steps: list[str] = []
        for part in error.path.split("."):
            steps += ["properties", part.partition("[")[0]]
        path = (*self.path, "parameters", *(steps if error.path else ()))
        shown = ".".join(part for part in (self.name, "parameters", error.path) if part)
        self.left_out = self.file.problem(path, message, shown=shown)

    def _parameters(self) -> dict[str, Json] | None:
        """The parameters, or None if the other checks cannot go by them."""
        parameters = self.written["parameters"]
        assert isinstance(parameters, dict)
        kind = parameters.get("type")
        if kind is None and not parameters:
            return {"type": "object", "properties": {}}
        if kind != "object":
            self.refuse("needs type: object", "parameters")
            return None
        try:
            check_schema(parameters)
        except SchemaError as error:
            at = ("parameters", *error.absolute_path)
            deepest = best_match(error.context or ()) or error
            self.refuse(f"{self.file.shown((*self.path, *at))} {schema_complaint(error, deepest)}", *at)
            return None
        for at, part in subschemas(parameters):
            reference = part.get("$ref")
            try:
                resolve(parameters, reference) if isinstance(reference, str) else None
            except CannotDeclare as error:
                self.refuse(error.reason, "parameters", *at, "$ref")
        for at, part in subschemas(parameters):
            for key, slip in slips(part):
                self.refuse(slip, "parameters", *at, key)
        for at, message in schema_mistakes(parameters):
            self.refuse(message, "parameters", *at)
        properties = parameters.get("properties")
        if isinstance(properties, dict):
            for name in parameters.get("required") or []:  # type: ignore[union-attr] # a list: checked above
                if name not in properties and "additionalProperties" not in parameters:
                    self.refuse(
                        f'"{name}" is required but is not among the properties{nearest(str(name), properties)}',
                        "parameters",
                        "required",
                    )
        return parameters

    def _result(self) -> ResultRules:
        whole = self.written.get("result")
        written = whole if isinstance(whole, dict) else {}
        select, empty = written.get("select"), written.get("empty")
        compiled = None
        if isinstance(select, str) and select:
            try:
                compiled = jmespath.compile(select)
            except JMESPathError as error:
                self.refuse(f'"{select}" is not JMESPath: {not_jmespath(error)}', "result", "select")
            else:
                for name in _functions_in(compiled.parsed):
                    if name not in _JMESPATH_FUNCTIONS:
                        hint = (
                            nearest(name, _JMESPATH_FUNCTIONS) or f"; known: {', '.join(_JMESPATH_FUNCTIONS)}"
                        )
                        self.refuse(f"{name}() is no function of JMESPath{hint}", "result", "select")
        if not self.sound("result"):  # what else is wrong with it is told, and the tool is not made
            return ResultRules()
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
        return self.written[key] if self.sound(key) else default

    def _seconds(self, key: str) -> float | None:
        if not self.sound(key):
            return None
        if key not in self.own:  # checked where the defaults were
            return in_seconds(self.written[key])
        return self.file.seconds((*self.path, key), self.written[key], LONGEST_S[key])

    def _policy(self, result: ResultRules) -> CallPolicy:
        keys = ("wait", "when_done", "on_interrupt", "slow_say", "confirm", "client", "side_effects")
        given = {key: self.written[key] for key in keys if self.sound(key)}
        if (
            "when_done" in given
            and given.get("wait", "blocking") != "background"
            and self._sound_or_no("wait")
        ):
            self.refuse("is for wait: background; without it the model waits for the answer", "when_done")
        timeout_s, slow_after_s = self._seconds("timeout") or DEFAULT_TIMEOUT_S, self._seconds("slow_after")
        if slow_after_s is None and "slow_say" in given and self._sound_or_no("slow_after"):
            self.refuse("needs slow_after: the time after which it is to be said", "slow_say")
        if slow_after_s is not None and slow_after_s >= timeout_s:
            if "slow_after" in self.own and self.sound("slow_after"):
                shown = self.file.shown((*self.path, "slow_after"))
                self.refuse(f"{shown} must be less than the timeout ({timeout_s:g} s)", "slow_after")
            slow_after_s = None
        more = {"slow_after_s": slow_after_s, "timeout_s": timeout_s, "show_args": result.show_args}
        return msgspec.convert({**given, **more}, CallPolicy)

    def _sound_or_no(self, key: str) -> bool:
        return key not in self.written or self.sound(key)

    def _retry(self) -> Retry | None:
        if not self.sound("retry"):
            return None
        written = self.written["retry"]
        assert isinstance(written, dict)
        if self.written.get("side_effects") is True:
            self.refuse("is for tools without side effects; remove it", "retry")
        elif "http" not in self.written:
            self.refuse("is for http tools; remove it", "retry")
        on = written.get("on")
        named = [str(one) for one in on] if isinstance(on, list) else list(RETRY_ON)
        return msgspec.convert({"attempts": written["attempts"], "on": named}, Retry)

    def _cache(self) -> float | None:
        if not self.sound("cache"):
            return None
        if self.written.get("side_effects") is True:
            self.refuse("is for tools without side effects; remove it", "cache")
        elif self.written.get("client") is True:
            self.refuse("the page runs this tool, and its answers are not stored; remove it", "cache")
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
                self.refuse(
                    "the name of a parameter is a letter or _, then letters, digits and _", "bind", name
                )
            if kind == "environment":
                value = self.file.environment.get(rest)
                if value is None:
                    self.file.missing.add(rest)
                    self.refuse(f"{rest} is not set; set it in the environment or .env", "bind", name)
                else:
                    self.file.hide(value, rest, name)
            if parameters is not None and _names_elsewhere(parameters, name):
                self.refuse(
                    "is named in more than properties; bound parameters stand there alone", "bind", name
                )
            rule = properties.get(name) if isinstance(properties, dict) else None
            rule = rule if isinstance(rule, dict) else {}
            bound[name] = Bound(
                msgspec.convert(kind, Origin),
                tuple(rest.split(".")) if kind == "claims" else (rest,),
                rule,
                value,
                checker_of(parameters or {}, formats=True).of(rule),
            )
        return bound

    def _mock(self, parameters: dict[str, Json], bound: Collection[str]) -> Mock:
        written = self.written["mock"]
        if _is_meant_as_case(written):
            self.refuse(
                'is a case, of which there is a list: write "- when: …" and "answer: …" below', "mock"
            )
        if not isinstance(written, list) or not written:
            return Mock((({}, written),))
        if not all(map(_is_case, written)) and not any(map(_is_meant_as_case, written)):
            return Mock((({}, written),))
        cases: list[tuple[Mapping[str, Json], Json]] = []
        for index, case in enumerate(written):
            if not isinstance(case, dict) or not _is_case(case):
                self.refuse(
                    "is no case as the others are; write when and answer, or answer alone", "mock", index
                )
            elif not isinstance(when := case.get("when", {}), dict):
                self.refuse("must be a mapping of arguments and their values", "mock", index, "when")
            else:
                self._check_when(when, parameters, bound, index)
                cases.append((when, case["answer"]))
        return Mock(tuple(cases))

    def _check_when(
        self, when: Mapping[str, Json], parameters: dict[str, Json], bound: Collection[str], index: int
    ) -> None:
        """Tells what no call can have, so that its answer would never be given."""
        properties = parameters.get("properties")
        known = properties if isinstance(properties, dict) else {}
        validator = validator_for(parameters)
        for name, value in when.items():
            at = ("mock", index, "when", name)
            if name in known:
                error = best_match(validator.of(known[name]).iter_errors(value))
                if error is not None:
                    self.refuse(f"does not fit the parameters: {error.message}", *at)
            elif name not in bound and any(
                error.validator in ("additionalProperties", "unevaluatedProperties")
                for error in validator.iter_errors({name: value})
            ):
                self.refuse(f"is not among the parameters{nearest(name, known) or listed(known)}", *at)

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
            code = example.expect["error"] if isinstance(example.expect, dict) and is_failure else None
            if isinstance(code, str) and code not in _CODES:
                hint = nearest(code, _CODES) or f"; known: {', '.join(_CODES)}"
                self.refuse(
                    f'"{code}" is no code of a failed call{hint}', "examples", index, "expect", "error"
                )
            error = None if is_failure else best_match(validator.iter_errors(dict(example.args)))
            if error is not None:
                at = ("examples", index, "args", *error.absolute_path)
                self.refuse(f"does not fit the parameters: {error.message}", *at)
        return tuple(examples)

    def _handler(self, parameters: dict[str, Json] | None) -> Handler | None:
        try:
            handler = find_handler(str(self.written["python"]), self.prefixes, self.home)
        except HandlerNotFound as error:
            self.refuse(str(error), "python")
            return None
        if parameters is None:
            return handler
        properties = parameters.get("properties")
        names = list(properties) if isinstance(properties, dict) else []
        required = parameters.get("required")
        given = set(required) if isinstance(required, list) else set()
        for name in names:
            if name == "context":
                self.refuse("the name context is taken; choose another", "parameters", "properties", name)
            elif handler.accepts is not None and name not in handler.accepts:
                close = nearest(name, handler.accepts) or listed(handler.accepts)
                self.refuse(f"{handler.name} has no such parameter{close}", "parameters", "properties", name)
            child = properties[name] if isinstance(properties, dict) else None
            if isinstance(child, dict) and "default" in child:
                given.add(name)
        for name in sorted(handler.needs - given):
            self.refuse(f"{handler.name} needs {name}; name it in properties and required", "parameters")
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
        for path, message in schema_mistakes(schema):
            self.refuse(
                f"{handler.name} has a mistake in its options at {dotted(path)}: it {message}", "python"
            )
            return options
        for error in checker_of(schema).iter_errors(options):
            at: YamlPath = ("options", *error.absolute_path)
            if error.validator == "additionalProperties" and not error.absolute_path:
                for key in options:
                    if key not in known:
                        message = f"is not an option of {handler.name}{nearest(key, known) or listed(known)}"
                        self.refuse(message, "options", key)
            elif error.validator == "required":
                needed: Any = error.validator_value
                given: Any = error.instance
                missing = [key for key in needed if key not in given]
                self.refuse(f"{handler.name} needs {', '.join(missing)}", *at)
            else:
                self.refuse(f"{self.file.shown((*self.path, *at))} {complaint(error)}", *at)
        for key, rule in known.items():
            if isinstance(rule, dict) and "default" in rule:
                options.setdefault(key, rule["default"])
        source = options.get("source")
        if "source" in known and isinstance(source, str) and source not in self.sources.named:
            self.refuse(self._no_source(source), "options", *(["source"] if "source" in written else []))
        for key, names in handler.spec.environment.items():
            value = next((found for name in names if (found := self.file.environment.get(name))), None)
            if key not in options and value is not None:
                options[key] = value
                self.file.secrets.add(value)
        if (
            handler.spec.check is not None
            and parameters is not None
            and self.file.sound(self.path)
            and self._is_source_sound(handler, options)
        ):
            for place, mistake in handler.spec.check(options, parameters, self.sources.sound):
                self.refuse(mistake, "options", *place)
        return options

    def _endpoint(self, parameters: dict[str, Json] | None) -> Endpoint:
        http = self.written["http"]
        assert isinstance(http, dict)
        bound = self.written.get("bind", {})
        assert isinstance(bound, dict)
        reader = EndpointReader(self.file, self.path, http, self.sources.sound, self.sources.named, bound)
        return reader.read(parameters)

    def _is_source_sound(self, handler: Handler, options: Mapping[str, Json]) -> bool:
        """Whether nothing is wrong with the source that the options name, if they name one."""
        properties = handler.spec.options.get("properties") if handler.spec is not None else None
        source = options.get("source")
        is_named = isinstance(properties, dict) and "source" in properties and isinstance(source, str)
        return not is_named or source in self.sources.sound

    def _no_source(self, source: str) -> str:
        known = sorted(self.sources.named)
        return f'"{source}" is not among the sources{nearest(source, known) or listed(known)}'

    def _description(self, handler: Handler | None, options: Mapping[str, Json]) -> str:
        description = str(self.written["description"]).strip()
        if handler is None or handler.spec is None or handler.spec.describe is None:
            return description
        if not self.file.sound(self.path) or not self._is_source_sound(handler, options):
            return description  # the mistake is reported already
        try:
            more = handler.spec.describe(options, self.sources.sound)
        except ToolError as error:
            self.refuse(f"{handler.name}: {error.message}", "options")
        except Exception as error:  # noqa: BLE001 - an operator's handler may raise anything
            reason = redacted_text(f"{type(error).__name__}: {error}", self.file.hidden)
            self.refuse(f"{handler.name} cannot use these options: {reason}", "options")
        else:
            description = f"{description}\n{more.strip()}".strip()
        return description[:_LONGEST_DESCRIPTION]


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


def _place_of(reference: str, parameters: dict[str, Json]) -> YamlPath:
    """Where `reference` stands: within what it points at if it does, else where it is first."""
    target = pointed_at(parameters, reference)
    within = target[0] if target is not None else ()
    places = [at for at, part in subschemas(parameters) if part.get("$ref") == reference]
    return next((at for at in places if at[: len(within)] == within), places[0])


def _functions_in(node: Mapping[str, Any]) -> Iterator[str]:
    """The names of the functions that a parsed JMESPath expression calls."""
    if node.get("type") == "function_expression":
        yield str(node["value"])
    for child in node.get("children", ()):
        if isinstance(child, dict):
            yield from _functions_in(child)


def _is_case(written: Json) -> bool:
    return isinstance(written, dict) and "answer" in written and written.keys() <= {"when", "answer"}


def _is_meant_as_case(written: Json) -> bool:
    return isinstance(written, dict) and "when" in written


def _names_elsewhere(parameters: Mapping[str, Json], name: str) -> bool:
    """Whether a rule beside the properties knows `name`, so that taking it out of them is not enough."""
    return any(
        name in value if isinstance(value, dict) else value == name
        for key in _BESIDE
        if key in parameters
        for _, value in walk(parameters[key])
    )
