"""The `gemini:` and `assistants:` sections: Google's own LiveConnectConfig, checked and merged.

google.genai takes most of a second to import, so it is only imported where one of the sections has content.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast, get_args

from pydantic import BaseModel, ValidationError

from tornado_live.errors import nearest
from tornado_live.jsonvalue import Json

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

DEFAULT = "default"

# Under every assistant. Without compression Google ends an audio conversation after 15 minutes
# (ai.google.dev/gemini-api/docs/live-session).
LIVE_DEFAULTS: Mapping[str, Json] = {
    "systemInstruction": (
        "You are a friendly voice assistant. Answer briefly, in the language you are spoken to."
        " Use the tools for facts, and say what they found; do not guess."
    ),
    "contextWindowCompression": {"slidingWindow": {}},
}

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OWN_KEYS = ("model", "toolset")


@dataclass(frozen=True, slots=True)
class Assistant:
    """`config` is a LiveConnectConfig as camelCase JSON; `toolset` names tools and toolsets, None means all."""

    name: str
    model: str
    config: Mapping[str, Json]
    toolset: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """`path` is where the operator wrote it, from the top of the settings."""

    path: tuple[str | int, ...]
    message: str


def make_assistants(
    gemini: Mapping[str, Json], assistants: Mapping[str, Json], *, model: str
) -> tuple[dict[str, Assistant], list[Mistake]]:
    """Every assistant by name, `default` always among them, and what is wrong with the two sections."""
    mistakes: list[Mistake] = []
    shared = dict(gemini)
    if "model" in shared:
        del shared["model"]
        mistakes.append(Mistake(("gemini", "model"), 'unknown key - write "gemini_live_model" at the top'))
    base = _merged(LIVE_DEFAULTS, shared, ("gemini",), mistakes)
    made = {DEFAULT: Assistant(DEFAULT, model, base)}
    for name, section in assistants.items():
        path = ("assistants", name)
        if not _NAME.fullmatch(name):
            mistakes.append(Mistake(path, "a name has 1 to 64 letters, digits, - and _"))
        if section is None:
            section = {}
        if not isinstance(section, dict):
            mistakes.append(Mistake(path, "expected keys of LiveConnectConfig, model and toolset"))
            continue
        own = {key: value for key, value in section.items() if key not in _OWN_KEYS}
        made[name] = Assistant(
            name,
            _model(section.get("model"), model, path, mistakes),
            _merged(base, own, path, mistakes),
            _toolset(section.get("toolset"), path, mistakes),
        )
    return made, mistakes


def _model(value: Json, default: str, path: tuple[str, ...], mistakes: list[Mistake]) -> str:
    if value is None:
        return default
    if isinstance(value, str) and value.strip():
        return value.strip()
    mistakes.append(Mistake((*path, "model"), "expected the name of a Live model, such as gemini-3.8-live"))
    return default


def _toolset(value: Json, path: tuple[str, ...], mistakes: list[Mistake]) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip():
        return (value.strip(),)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(str(item) for item in value)
    mistakes.append(
        Mistake(
            (*path, "toolset"),
            "expected the name of a toolset, or a list of tool names, such as [get_weather]",
        )
    )
    return None


def _merged(
    base: Mapping[str, Json], section: dict[str, Json], path: tuple[str, ...], mistakes: list[Mistake]
) -> dict[str, Json]:
    if not section:
        return dict(base)
    checked, found = _checked(section)
    mistakes.extend(Mistake((*path, *mistake.path), mistake.message) for mistake in found)
    merged = _over(base, checked)
    for key, value in section.items():
        if value is None:  # an explicit null takes a default away
            merged.pop(_camel(key), None)
    return merged


def _over(base: Mapping[str, Json], top: Mapping[str, Json]) -> dict[str, Json]:
    """`top` over `base`, objects key by key, everything else as a whole."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


# Checking one section ------------------------------------------------------------------------------------


def _checked(section: dict[str, Json]) -> tuple[dict[str, Json], list[Mistake]]:
    """The section as camelCase JSON, empty where it does not fit, and what does not."""
    from google.genai import types

    for key in ("http_options", "httpOptions"):
        if key in section:
            hint = "is not used here; set gemini_base_url and api_version at the top instead"
            return {}, [Mistake((key,), hint)]
    try:
        with warnings.catch_warnings():
            # An unknown enum value is only a warning to google-genai; it becomes a mistake below.
            warnings.simplefilter("ignore")
            config = types.LiveConnectConfig.model_validate(section)
    except ValidationError as refused:
        return {}, _mistakes(refused.errors(include_url=False), types.LiveConnectConfig, section)
    wrong = list(_wrong_enums(config, section, ()))
    dumped = config.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False)
    return cast("dict[str, Json]", dumped), wrong


def _mistakes(errors: list[ErrorDetails], model: type[BaseModel], section: Json) -> list[Mistake]:
    """One mistake per place that was written; pydantic reports every branch of a union."""
    found: dict[tuple[str | int, ...], str] = {}
    for error in errors:
        written, in_union = _as_written(error["loc"], section, error["type"])
        if in_union:
            found.setdefault(written, _union_hint(written))
        elif error["type"] == "extra_forbidden":
            key = str(written[-1])
            names = _names_at(model, written[:-1], camel=key != key.lower())
            hint = nearest(key, names)
            expected = "" if hint or not names else f"; known are {', '.join(sorted(names))}"
            found.setdefault(written, f"unknown key{hint}{expected}")
        else:
            message = error["msg"][:1].lower() + error["msg"][1:]
            found.setdefault(written, f"{error['input']!r} does not fit: {message}")
    return [Mistake(path, message) for path, message in found.items()]


def _as_written(loc: tuple[str | int, ...], data: Json, kind: str) -> tuple[tuple[str | int, ...], bool]:
    """pydantic's location without the names of union branches, and whether there was one."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        if isinstance(data, dict) and part in data:
            data = data[str(part)]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        elif kind == "missing" and index == len(loc) - 1:
            data = None
        else:
            return tuple(path), True
        path.append(part)
    return tuple(path), False


def _union_hint(path: tuple[str | int, ...]) -> str:
    if path and path[-1] in ("system_instruction", "systemInstruction"):
        return "expected text, or a Content such as {parts: [{text: Be brief.}]}"
    return "is not what Google's LiveConnectConfig takes here"


def _names_at(model: type[BaseModel], path: tuple[str | int, ...], *, camel: bool) -> list[str]:
    """The keys that may be written at `path`, in the spelling that the writer uses."""
    models = [model]
    for part in path:
        if isinstance(part, int):
            continue
        models = [
            inner
            for one in models
            for name, field in one.model_fields.items()
            if part in (name, field.alias)
            for inner in _models_in(field.annotation)
        ]
    return [
        (field.alias or name) if camel else name
        for one in models
        for name, field in one.model_fields.items()
        if name != "http_options"
    ]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _wrong_enums(value: object, written: Json, path: tuple[str | int, ...]) -> Iterator[Mistake]:
    """google-genai makes a new member for a value that it does not know; those are found here."""
    if isinstance(value, Enum):
        known = [member.value for member in type(value)]
        if value.value not in known:
            offered = [name for name in known if not name.endswith("UNSPECIFIED")]
            hint = nearest(str(value.value), offered)
            yield Mistake(path, f'"{value.value}" is not one of {", ".join(offered)}{hint}')
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            inner = getattr(value, name)
            if inner is None or not isinstance(written, dict):
                continue
            key = name if name in written else field.alias or name
            yield from _wrong_enums(inner, written.get(key), (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            item = written[index] if isinstance(written, list) and index < len(written) else None
            yield from _wrong_enums(inner, item, (*path, index))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _wrong_enums(
                inner, written.get(key) if isinstance(written, dict) else None, (*path, key)
            )
