"""JSON Schema of a tool's parameters into the subset that Gemini takes, with a report of what was lost.

Gemini ends the whole session (close 1007) on a declaration that it does not know, so only what its `Schema`
documents is sent. A rule that the subset cannot say goes into the description in words; the call's arguments
are still checked against the full schema before the tool runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from tornado_live.tools.result import Json
from tornado_live.yamlfile import YamlPath

Schema = Mapping[str, Json]

_MAX_NODES = 1000
_MAX_DEPTH = 16
_LONGEST_LIST_IN_WORDS = 300
_PROPERTY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_TYPES = ("string", "number", "integer", "boolean", "object", "array")
_FORMATS = {
    "STRING": ("date-time", "enum"),
    "NUMBER": ("float", "double"),
    "INTEGER": ("int32", "int64"),
}
_BOUNDS = {
    "STRING": ("minLength", "maxLength", "pattern"),
    "NUMBER": ("minimum", "maximum"),
    "INTEGER": ("minimum", "maximum"),
    "ARRAY": ("minItems", "maxItems"),
    "OBJECT": ("minProperties", "maxProperties"),
    "BOOLEAN": (),
}
# Nothing is lost for the model by leaving these out.
_SILENT = frozenset(
    [
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
        "$anchor",
        "$vocabulary",
        "deprecated",
        "readOnly",
        "writeOnly",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "additionalProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
    ]
)
_HANDLED = frozenset(
    [
        "type",
        "title",
        "description",
        "default",
        "enum",
        "const",
        "format",
        "properties",
        "required",
        "items",
        "prefixItems",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "nullable",
        "examples",
        "example",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    ]
)


class CannotDeclare(Exception):
    """The schema has no form that Gemini takes. `path` is the dotted place within it, `circle` the `$ref` that
    leads back to itself if that is why.
    """

    def __init__(self, path: str, reason: str, *, circle: str | None = None) -> None:
        super().__init__(f"{path}: {reason}" if path else reason)
        self.path = path
        self.reason = reason
        self.circle = circle


@dataclass(frozen=True, slots=True)
class Change:
    """One rule that the model is not held to any more; `what` says what became of it."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}" if self.path else self.what


@dataclass(frozen=True, slots=True)
class Declaration:
    """`json` is a Gemini function declaration; `changes` what differs from the tool's own schema."""

    json: dict[str, Json]
    changes: tuple[Change, ...]


def declare(name: str, description: str, parameters: Schema) -> Declaration:
    """The function declaration of a tool. Raises CannotDeclare."""
    compiler = _Compiler(parameters)
    compiled = compiler.compile(dict(parameters), (), "")
    declaration: dict[str, Json] = {"name": name, "description": description}
    if compiled.get("type") != "OBJECT":
        raise CannotDeclare("", "the parameters must be an object")
    if compiled.get("properties"):
        declaration["parameters"] = compiled
    return Declaration(declaration, tuple(compiler.changes))


@dataclass(slots=True)
class _Compiler:
    root: Schema
    changes: list[Change] = field(default_factory=list)
    nodes: int = 0

    def compile(self, schema: Json, seen: tuple[str, ...], path: str) -> dict[str, Json]:
        self.nodes += 1
        if self.nodes > _MAX_NODES:
            raise CannotDeclare(path, f"has more than {_MAX_NODES} parts after its $ref are filled in")
        if path.count(".") + path.count("[") > _MAX_DEPTH:
            raise CannotDeclare(path, f"is nested deeper than {_MAX_DEPTH} levels")
        if schema is True:
            schema = {}
        if not isinstance(schema, dict):
            raise CannotDeclare(path, "allows nothing at all")
        schema, seen = self._inlined(schema, seen, path)
        words: list[str] = []
        kinds, nullable = self._kinds(schema, path)
        choices = self._choices(schema, path, words)
        for key in schema:
            if key not in _HANDLED and key not in _SILENT:
                self._lose(path, key, "left out")
                if key in ("if", "then", "else", "not", "dependentRequired", "dependentSchemas"):
                    words.append(f"{key}: {_in_words(schema[key])}")
                elif key in ("patternProperties", "propertyNames", "contains"):
                    words.append(f"{key} {_in_words(schema[key])}")
        if choices is not None:
            if "properties" in schema or "items" in schema:
                schema = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
                self._lose(path, "anyOf", "only in words, since it stands beside properties or items")
                words.append(f"one of {_in_words(list(choices))}")
            else:
                return self._any_of(schema, choices, seen, path, words, nullable)
        if len(kinds) > 1:
            self._lose(path, "type", "a list of types became anyOf")
            rest = {key: value for key, value in schema.items() if key not in ("description", "nullable")}
            variants: list[Json] = [{**rest, "type": kind} for kind in kinds]
            return self._any_of(
                {"description": schema.get("description")}, variants, seen, path, words, nullable
            )
        return self._one(schema, kinds[0], seen, path, words, nullable)

    def _lose(self, path: str, keyword: str, what: str) -> None:
        self.changes.append(Change(path, f"{keyword}: {what}"))

    def _inlined(
        self, schema: dict[str, Json], seen: tuple[str, ...], path: str
    ) -> tuple[dict[str, Json], tuple[str, ...]]:
        """`schema` with its own $ref and allOf merged in."""
        while "$ref" in schema or "allOf" in schema:
            merged = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
            reference = schema.get("$ref")
            if isinstance(reference, str):
                if reference in seen:
                    reason = f"{reference} refers to itself; write out as many levels as are needed"
                    raise CannotDeclare(path, reason, circle=reference)
                seen = (*seen, reference)
                merged = self._merge(resolve(self.root, reference, path), merged, path)
            parts = schema.get("allOf")
            for part in parts if isinstance(parts, list) else ():
                if isinstance(part, dict):
                    merged = self._merge(part, merged, path)
            schema = merged
            self.nodes += 1
            if self.nodes > _MAX_NODES:
                raise CannotDeclare(path, f"has more than {_MAX_NODES} parts after its $ref are filled in")
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in schema:
                raise CannotDeclare(path, f"{keyword} is not supported; use $ref into $defs")
        return schema, seen

    def _merge(self, part: dict[str, Json], over: dict[str, Json], path: str) -> dict[str, Json]:
        merged = dict(part)
        for key, value in over.items():
            mine = merged.get(key)
            if key not in merged:
                merged[key] = value
            elif key == "properties" and isinstance(mine, dict) and isinstance(value, dict):
                both: dict[str, Json] = {**mine, **value}
                for name in mine.keys() & value.keys():
                    if mine[name] != value[name]:
                        both[name] = {"allOf": [mine[name], value[name]]}
                merged[key] = both
            elif key == "required" and isinstance(mine, list) and isinstance(value, list):
                merged[key] = [*mine, *(name for name in value if name not in mine)]
            elif key == "allOf" and isinstance(mine, list) and isinstance(value, list):
                merged[key] = [*mine, *value]
            elif mine != value:
                if key not in ("description", "title", "default", "examples", "$defs"):
                    self._lose(path, key, f"of two rules only {_in_words(value)} is declared")
                merged[key] = value
        return merged

    def _kinds(self, schema: dict[str, Json], path: str) -> tuple[list[str], bool]:
        """The JSON types that `schema` allows, without null, and whether null is one."""
        declared = schema.get("type")
        nullable = schema.get("nullable") is True
        if isinstance(declared, str):
            declared = [declared]
        if isinstance(declared, list):
            kinds = [kind for kind in declared if isinstance(kind, str) and kind in _TYPES]
            nullable = nullable or "null" in declared
            if "integer" in kinds and "number" in kinds:
                kinds.remove("integer")
            if kinds:
                return kinds, nullable
            self._lose(path, "type", "null alone became an optional text")
            return ["string"], True
        if "properties" in schema:
            return ["object"], nullable
        if "items" in schema or "prefixItems" in schema:
            return ["array"], nullable
        values = self._values(schema)
        if values:
            guessed = _kind_of_values([value for value in values if value is not None])
            if guessed:
                return [guessed], nullable or None in values
        if "anyOf" not in schema and "oneOf" not in schema:
            self._lose(path, "type", "is missing; declared as text")
        return ["string"], nullable

    @staticmethod
    def _values(schema: dict[str, Json]) -> list[Json] | None:
        if "const" in schema:
            return [schema["const"]]
        values = schema.get("enum")
        return values if isinstance(values, list) else None

    def _choices(self, schema: dict[str, Json], path: str, words: list[str]) -> list[Json] | None:
        for keyword in ("anyOf", "oneOf"):
            found = schema.get(keyword)
            if isinstance(found, list) and found:
                if keyword == "oneOf":
                    self._lose(path, "oneOf", "became anyOf")
                    if "anyOf" in schema:
                        self._lose(path, "anyOf", "left out beside oneOf")
                return found
        return None

    def _any_of(
        self,
        schema: dict[str, Json],
        choices: Sequence[Json],
        seen: tuple[str, ...],
        path: str,
        words: list[str],
        nullable: bool,
    ) -> dict[str, Json]:
        # Gemini has refused anyOf with other fields beside it, so what belongs to all goes into each.
        variants: list[dict[str, Json]] = []
        for index, choice in enumerate(choices):
            if isinstance(choice, dict) and (choice.get("type") == "null" or choice.get("const", "") is None):
                nullable = True
                continue
            variants.append(
                self.compile(choice, seen, f"{path}.anyOf[{index}]" if path else f"anyOf[{index}]")
            )
        if not variants:
            raise CannotDeclare(path, "allows nothing but null")
        flat: list[dict[str, Json]] = []
        for variant in variants:
            inner = variant.get("anyOf")
            flat.extend(v for v in inner if isinstance(v, dict)) if isinstance(inner, list) else flat.append(
                variant
            )
        about = schema.get("description")
        for variant in flat:
            own = variant.get("description")
            texts = [text for text in (about, own) if isinstance(text, str) and text]
            _describe(variant, " ".join(dict.fromkeys(texts)), words)
            if nullable:
                variant["nullable"] = True
        if len(flat) == 1:
            return flat[0]
        unique = [variant for index, variant in enumerate(flat) if variant not in flat[:index]]
        return unique[0] if len(unique) == 1 else {"anyOf": list[Json](unique)}

    def _one(
        self,
        schema: dict[str, Json],
        kind: str,
        seen: tuple[str, ...],
        path: str,
        words: list[str],
        nullable: bool,
    ) -> dict[str, Json]:
        type_ = kind.upper()
        out: dict[str, Json] = {"type": type_}
        if isinstance(schema.get("title"), str):
            out["title"] = schema["title"]
        values = self._values(schema)
        if values is not None:
            nullable = nullable or None in values
            self._enumerate(out, schema, values, path, words)
        form = schema.get("format")
        if isinstance(form, str):
            if form in _FORMATS.get(type_, ()):
                out["format"] = form
            else:
                self._lose(path, "format", f"{form} is told in words")
                words.append(f"format {form}")
        for keyword in _BOUNDS[type_]:
            if keyword in schema:
                out[keyword] = schema[keyword]
        self._bounds_in_words(out, schema, path, words)
        if type_ == "OBJECT":
            self._object(out, schema, seen, path, words)
        elif type_ == "ARRAY":
            self._array(out, schema, seen, path, words)
        for keyword in ("examples", "example"):
            examples = schema.get(keyword)
            if examples is not None:
                self._lose(path, keyword, "told in words")
                listed = examples if isinstance(examples, list) else [examples]
                words.append("for example " + ", ".join(_in_words(item) for item in listed[:3]))
        if "default" in schema and schema["default"] is not None:
            out["default"] = schema["default"]
        if nullable:
            out["nullable"] = True
        about = schema.get("description")
        _describe(out, about if isinstance(about, str) else "", words)
        return out

    def _enumerate(
        self, out: dict[str, Json], schema: dict[str, Json], values: list[Json], path: str, words: list[str]
    ) -> None:
        texts = [value for value in values if isinstance(value, str)]
        others = [value for value in values if value is not None and not isinstance(value, str)]
        if out["type"] == "STRING" and texts and not others:
            if "const" in schema:
                self._lose(path, "const", "became an enum of one")
            if "" in texts:
                self._lose(path, "enum", "the empty text cannot be declared")
                words.append("may also be empty")
                texts = [text for text in texts if text]
            if texts:
                out["enum"] = list[Json](texts)
        else:
            self._lose(
                path, "const" if "const" in schema else "enum", "only texts can be declared; told in words"
            )
            words.append("one of " + ", ".join(_in_words(value) for value in values))

    def _bounds_in_words(
        self, out: dict[str, Json], schema: dict[str, Json], path: str, words: list[str]
    ) -> None:
        for keyword, bound, step, word in (
            ("exclusiveMinimum", "minimum", 1, "more than"),
            ("exclusiveMaximum", "maximum", -1, "less than"),
        ):
            limit = schema.get(keyword)
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                continue
            if out["type"] == "INTEGER" and float(limit).is_integer():
                own = out.get(bound)
                moved = int(limit) + step
                if not isinstance(own, int | float) or (own - moved) * step < 0:
                    out[bound] = moved
                self._lose(path, keyword, f"became {bound} {out[bound]}")
            else:
                self._lose(path, keyword, "told in words")
                words.append(f"{word} {limit}")
        if "multipleOf" in schema:
            self._lose(path, "multipleOf", "told in words")
            words.append(f"a multiple of {_in_words(schema['multipleOf'])}")
        if schema.get("uniqueItems") is True:
            self._lose(path, "uniqueItems", "told in words")
            words.append("no item twice")

    def _object(
        self,
        out: dict[str, Json],
        schema: dict[str, Json],
        seen: tuple[str, ...],
        path: str,
        words: list[str],
    ) -> None:
        properties = schema.get("properties")
        compiled: dict[str, Json] = {}
        for name, child in (properties if isinstance(properties, dict) else {}).items():
            where = f"{path}.{name}" if path else name
            if child is False:
                self._lose(where, "false", "left out, since nothing fits it")
                continue
            if not _PROPERTY_NAME.match(name):
                raise CannotDeclare(
                    where,
                    "the name of a parameter is a letter or _, then letters, digits, _ - and ., at most 64",
                )
            compiled[name] = self.compile(child, seen, where)
        required = schema.get("required")
        named = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        missing = [name for name in named if name not in compiled]
        if missing:
            self._lose(path, "required", f"{', '.join(missing)} is not among the properties; left out")
        if compiled:
            out["properties"] = compiled
            present = list[Json](name for name in named if name in compiled)
            if present:
                out["required"] = present
        elif path:
            # An OBJECT without properties has been refused by the service; text with JSON in it never was.
            out.clear()
            out["type"] = "STRING"
            self._lose(path, "type", "a free object is declared as a text that holds JSON")
            words.append("a JSON object as text")

    def _array(
        self,
        out: dict[str, Json],
        schema: dict[str, Json],
        seen: tuple[str, ...],
        path: str,
        words: list[str],
    ) -> None:
        items = schema.get("items")
        prefix = schema.get("prefixItems")
        if isinstance(prefix, list) and prefix:
            self._lose(path, "prefixItems", "became anyOf of its parts")
            words.append(f"{len(prefix)} parts in a fixed order")
            parts = [*prefix, *([items] if isinstance(items, dict) else [])]
            out["items"] = self._any_of({}, parts, seen, f"{path}[]", [], False)
        elif isinstance(items, dict):
            out["items"] = self.compile(items, seen, f"{path}[]")
        else:
            self._lose(path, "items", "is missing; declared as texts")
            out["items"] = {"type": "STRING"}


def resolve(root: Schema, reference: str, path: str = "") -> dict[str, Json]:
    """What a local `$ref` (`#/$defs/place`) points at. Raises CannotDeclare."""
    if not reference.startswith("#"):
        raise CannotDeclare(path, f'$ref "{reference}" leaves the file; write it into $defs')
    if reference != "#" and not reference.startswith("#/"):
        raise CannotDeclare(path, f'$ref "{reference}" is not a path; write #/$defs/NAME')
    found = pointed_at(dict(root), reference)
    if found is None:
        raise CannotDeclare(path, f'$ref "{reference}" points at nothing')
    if not isinstance(found[1], dict):
        raise CannotDeclare(path, f'$ref "{reference}" does not point at a schema')
    return found[1]


def pointed_at(root: Json, reference: Json) -> tuple[YamlPath, Json] | None:
    """Path and value that a local `$ref` points at; None where there is nothing."""
    if not isinstance(reference, str) or (reference != "#" and not reference.startswith("#/")):
        return None
    path: YamlPath = ()
    node = root
    for part in unquote(reference[1:]).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and key in node:
            path, node = (*path, key), node[key]
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            path, node = (*path, int(key)), node[int(key)]
        else:
            return None
    return path, node


def fitted(value: Json, schema: Json, root: Schema, depth: int = 0) -> Json:
    """Arguments as the model sends them, in the types that the tool's own schema has.

    Gemini's numbers are doubles, so 5.0 becomes 5 where an integer is asked for; a free object that was
    declared as text is read from its JSON. What does not fit is left for the check that follows.
    """
    if depth > _MAX_DEPTH or not isinstance(schema, dict):
        return value
    reference = schema.get("$ref")
    if isinstance(reference, str):
        try:
            return fitted(value, resolve(root, reference), root, depth + 1)
        except CannotDeclare:
            return value
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if isinstance(value, float) and value.is_integer() and "integer" in kinds and "number" not in kinds:
        return int(value)
    if isinstance(value, str) and kinds == ["object"] and not schema.get("properties"):
        try:
            read = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return read if isinstance(read, dict) else value
    properties, items = schema.get("properties"), schema.get("items")
    if isinstance(value, dict) and isinstance(properties, dict):
        return {name: fitted(item, properties.get(name), root, depth + 1) for name, item in value.items()}
    if isinstance(value, list) and isinstance(items, dict):
        return [fitted(item, items, root, depth + 1) for item in value]
    return value


def _kind_of_values(values: Sequence[Json]) -> str | None:
    if not values:
        return None
    for kind, types in (("string", str), ("boolean", bool)):
        if all(isinstance(value, types) for value in values):
            return kind
    if any(isinstance(value, bool) for value in values):
        return None
    if all(isinstance(value, int) for value in values):
        return "integer"
    return "number" if all(isinstance(value, int | float) for value in values) else None


def _describe(schema: dict[str, Json], about: str, words: Sequence[str]) -> None:
    rules = "; ".join(dict.fromkeys(words))
    if rules:
        rules = f"({rules})" if about else rules[0].upper() + rules[1:]
    text = f"{about.strip()} {rules}".strip()
    if text:
        schema["description"] = text


def _in_words(value: Json) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_LIST_IN_WORDS else text[: _LONGEST_LIST_IN_WORDS - 1] + "…"
