"""What is wrong with a value, in the words of the person who wrote it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jmespath.exceptions import (
    EmptyExpressionError,
    IncompleteExpressionError,
    JMESPathError,
    LexerError,
    ParseError,
)
from jsonschema.exceptions import SchemaError, ValidationError

from tornado_live.errors import nearest
from tornado_live.tools.result import Json

_ARTICLES = {
    "object": "a mapping of names and values",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}
_NEARLY_A_TIME = re.compile(
    r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(ms|msecs?|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)?",
    re.IGNORECASE,
)
_TYPE_NAMES = ("string", "number", "integer", "boolean", "object", "array", "null")


_KEYWORDS = tuple(
    """
    $anchor $comment $defs $dynamicAnchor $dynamicRef $id $ref $schema $vocabulary additionalProperties
    allOf anyOf const contains contentEncoding contentMediaType contentSchema default definitions
    dependencies dependentRequired dependentSchemas deprecated description else enum example examples
    exclusiveMaximum exclusiveMinimum format if items maxContains maxItems maxLength maxProperties
    maximum minContains minItems minLength minProperties minimum multipleOf not nullable oneOf pattern
    patternProperties prefixItems properties propertyNames propertyOrdering readOnly required then title
    type unevaluatedItems unevaluatedProperties uniqueItems writeOnly
    """.split()  # noqa: SIM905 - a list of words
)
_FORMATS = tuple(
    """
    date date-time duration email enum hostname idn-email idn-hostname ipv4 ipv6 iri iri-reference json-pointer
    regex relative-json-pointer time uri uri-reference uri-template uuid
    double float int32 int64 byte binary password
    """.split()  # noqa: SIM905 - a list of words
)
_RANGES = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)


def complaint(error: ValidationError | SchemaError) -> str:
    """What is wrong with the value that was just shown; never the value itself."""
    rule: Any = error.validator_value
    if isinstance(error.schema, dict) and "(ms|s|m|h)" in str(error.schema.get("pattern")):
        return _no_time(error.instance)
    match error.validator:
        case "type":
            kinds = rule if isinstance(rule, list) else [rule]
            hint = ""
            if kinds == ["string"] and isinstance(error.instance, int | float):
                hint = " (put it in quotes)"
            elif "string" in kinds and (slot := _slot_without_quotes(error.instance)) is not None:
                hint = f'; put the placeholder in quotes: "{{{slot}}}"'
            return f"must be {' or '.join(_ARTICLES.get(kind, str(kind)) for kind in kinds)}{hint}"
        case "enum":
            texts = list(dict.fromkeys(one if isinstance(one, str) else json.dumps(one) for one in rule))
            close = (
                nearest(error.instance, texts) if isinstance(error.instance, str) and len(texts) > 6 else ""
            )
            return f"is not one of {', '.join(texts)}{close}"
        case "const":
            return f"must be {json.dumps(rule)}"
        case "pattern" if isinstance(error.schema, dict) and "claims" in str(rule):
            return "is not claims.NAME, session.id, session.user or environment.NAME"
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


def _slot_without_quotes(value: object) -> str | None:
    """`{city}`, which is a mapping to YAML, was meant as a text."""
    match value:
        case dict() if len(value) == 1 and list(value.values()) == [None]:
            return str(next(iter(value)))
        case _:
            return None


def not_jmespath(error: JMESPathError) -> str:
    """Where an expression breaks, and at what."""
    match error:
        case IncompleteExpressionError() | EmptyExpressionError():
            return "it breaks off at the end"
        case LexerError() if error.message.startswith("Unclosed"):
            return (
                f"what begins with {error.token_value[:1]} at character {error.lex_position + 1} has no end"
            )
        case ParseError():
            return f"{error.token_value} is not understood at character {error.lex_position + 1}"
        case _:
            return str(error).splitlines()[0].rstrip(":")


def _no_time(written: object) -> str:
    """A number alone is meant in seconds, as other programs take it."""
    if isinstance(written, int | float | str) and not isinstance(written, bool):
        match = _NEARLY_A_TIME.fullmatch(str(written))
        if match is not None:
            unit = (match[2] or "s").lower()
            short = "ms" if unit.startswith(("ms", "milli")) else unit[0]
            return f"is not a time; write {match[1]}{short}"
    return "is not a time; write 250ms, 10s, 5m or 2h"


def schema_complaint(error: SchemaError, deepest: ValidationError | SchemaError) -> str:
    if error.absolute_path and error.absolute_path[-1] == "type":
        close = nearest(error.instance, _TYPE_NAMES) if isinstance(error.instance, str) else ""
        return f"is not a type of JSON Schema{close or '; known: ' + ', '.join(_TYPE_NAMES)}"
    return f"is not JSON Schema: {complaint(deepest)}"


def slips(schema: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """What JSON Schema passes over in silence and nobody means: the key, and what is wrong with it."""
    for key in schema:
        if key not in _KEYWORDS and (close := nearest(key, _KEYWORDS)):
            yield key, f"is not a key of JSON Schema{close}"
    if schema.get("enum") == []:
        yield "enum", "is empty, so that nothing fits it"
    written = schema.get("format")
    if isinstance(written, str) and written not in _FORMATS and (close := nearest(written, _FORMATS)):
        yield "format", f'"{written}" is not a format of JSON Schema{close}'
    for least, most in _RANGES:
        low, high = schema.get(least), schema.get(most)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            yield least, f"is more than {most}, so that nothing fits"


def listed(names: Collection[str]) -> str:
    shown = sorted(names)[:12]
    return f"; known: {', '.join(shown)}{', …' if len(names) > 12 else ''}" if shown else ""


def about(schema: Mapping[str, Json], key: str) -> str:
    properties = schema.get("properties")
    rule = properties.get(key) if isinstance(properties, dict) else None
    told = rule.get("description") if isinstance(rule, dict) else None
    if not isinstance(told, str):
        return ""
    return (told if told[:2].isupper() else told[0].lower() + told[1:]).rstrip(".")
