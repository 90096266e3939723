"""JSON Schema (draft 2020-12) held against values from outside, in time that nobody can make long. Pure.

Stock jsonschema matches patterns with an engine that can be kept busy for ever by a short text, and compares the
items of a list each with each. Here patterns are RE2's (patterns.py) and items are compared by their digests.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry

from tornado_live.tools.patterns import BadPattern, TooLong, compiled
from tornado_live.tools.result import Json
from tornado_live.tools.schema import pointed_at
from tornado_live.yamlfile import YamlPath, walk

_OF_NAMES: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_OF_ONE: Final = (
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_OF_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems")
_MOST_NAMED: Final = 10
_LONGEST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Checker:
    """Holds values against a schema."""

    _validator: Any

    @property
    def schema(self) -> Any:
        """What values are held against."""
        return self._validator.schema

    def iter_errors(self, value: Json) -> Iterator[ValidationError]:
        """What is wrong with `value`; the rest is not looked at once a text is too long for a pattern."""
        try:
            yield from self._validator.iter_errors(value)
        except TooLong as error:  # raised past all rules: under `not` a mere mistake would be leave
            at = next((path for path, one in walk(value) if one is error.text), ())
            name = "" if at else f"{_shown(error.text)} "
            yield ValidationError(f"{name}{error}", validator="pattern", path=at)

    def is_valid(self, value: Json) -> bool:
        return next(self.iter_errors(value), None) is None

    def validate(self, value: Json) -> None:
        """Raises ValidationError, of several the one that says most."""
        error = best_match(self.iter_errors(value))
        if error is not None:
            raise error

    def of(self, part: Json) -> Checker:
        """For a schema that is part of this one, so that its `$ref` lead into the whole."""
        return Checker(self._validator.evolve(schema=part))


def checker_of(schema: Mapping[str, Json], *, formats: bool = False) -> Checker:
    """For `schema`, in which `check_schema` and `schema_mistakes` found nothing. `formats`: `format` counts."""
    # A $schema makes jsonschema change to its stock validator of that draft.
    own = {key: value for key, value in schema.items() if key != "$schema"}
    return Checker(_Bounded(own, registry=Registry(), format_checker=_FORMATS if formats else None))


def check_schema(schema: Mapping[str, Json]) -> None:
    """Raises SchemaError unless `schema` is JSON Schema; what its patterns are is for `schema_mistakes`."""
    Draft202012Validator.check_schema(schema, FormatChecker(()))


def schema_mistakes(schema: Mapping[str, Json]) -> Iterator[tuple[YamlPath, str]]:
    """What `schema` says that is JSON Schema and still cannot be used here: where, and what to write instead."""
    parts = list(subschemas(dict(schema)))
    has_patterns = any("patternProperties" in part for _, part in parts)
    for path, part in parts:
        patterns: list[tuple[YamlPath, Json]] = (
            [((*path, "pattern"), part["pattern"])] if "pattern" in part else []
        )
        named = part.get("patternProperties")
        patterns += (
            [((*path, "patternProperties", name), name) for name in named] if isinstance(named, dict) else []
        )
        for at, pattern in patterns:
            try:
                compiled(str(pattern))
            except BadPattern as error:
                yield at, f"{_quoted(str(pattern))} {error}"
        for key in ("$schema", "$id"):
            if path and key in part:
                yield (*path, key), "has its place at the top alone; remove it"
        if "unevaluatedProperties" in part and has_patterns:
            yield (
                (*path, "unevaluatedProperties"),
                "cannot stand beside patternProperties; write additionalProperties",
            )


def subschemas(schema: Json, path: YamlPath = ()) -> Iterator[tuple[YamlPath, Mapping[str, Json]]]:
    """`schema` and all schemas in it with their paths, also those in no known place that a `$ref` leads to."""
    pending = deque([(path, schema)])
    seen: set[YamlPath] = set()
    while pending:
        path, part = pending.popleft()
        if not isinstance(part, dict) or path in seen:
            continue
        seen.add(path)
        yield path, part
        for key in _OF_ONE:
            pending.append(((*path, key), part.get(key)))
        for key in _OF_NAMES:
            named = part.get(key)
            for name, one in named.items() if isinstance(named, dict) else ():
                pending.append(((*path, key, name), one))
        for key in _OF_LISTS:
            listed = part.get(key)
            pending += [
                ((*path, key, index), one)
                for index, one in enumerate(listed if isinstance(listed, list) else ())
            ]
        target = pointed_at(schema, part.get("$ref"))
        if target is not None:
            pending.append(target)


def _pattern(validator: Any, pattern: str, instance: object, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not compiled(pattern).is_in(instance):
        yield ValidationError(f"{_shown(instance)} does not match {pattern}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Json], instance: object, schema: Any
) -> Iterator[ValidationError]:
    for name, value in instance.items() if isinstance(instance, dict) else ():
        for pattern, part in patterns.items():
            if compiled(pattern).is_in(name):
                yield from validator.descend(value, part, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, rule: Json, instance: object, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    extras = [
        name
        for name in instance
        if name not in known and not any(compiled(pattern).is_in(name) for pattern in patterns)
    ]
    if rule is False and extras:
        verb = "was" if len(extras) == 1 else "were"
        named = ", ".join(repr(name) for name in sorted(extras)[:_MOST_NAMED])
        more = ", …" if len(extras) > _MOST_NAMED else ""
        yield ValidationError(f"Additional properties are not allowed ({named}{more} {verb} unexpected)")
    elif isinstance(rule, dict):
        for name in extras:
            yield from validator.descend(instance[name], rule, path=name)


def _unique_items(validator: Any, rule: Json, instance: object, schema: Any) -> Iterator[ValidationError]:
    if rule is not True or not isinstance(instance, list):
        return
    seen: set[str] = set()
    for item in map(_digest, instance):
        if item in seen:
            yield ValidationError(f"{_shown(instance)} has non-unique elements")
            return
        seen.add(item)


def _digest(value: Json) -> str:
    """The same for what JSON Schema takes for equal, 1 and 1.0 among it, and for nothing else."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Json) -> Json:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


def _quoted(text: str) -> str:
    return json.dumps(
        text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…", ensure_ascii=False
    )


def _shown(value: str | list[Json]) -> str:
    text = repr(value[:_LONGEST_SHOWN])
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _is_regex(value: object) -> bool:
    if isinstance(value, str):
        compiled.__wrapped__(value)  # not kept: whoever calls may send thousands of them
    return True


_Bounded: Final = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    },
)
_FORMATS: Final = FormatChecker(Draft202012Validator.FORMAT_CHECKER.checkers)
_FORMATS.checks("regex", raises=BadPattern)(_is_regex)
