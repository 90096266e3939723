"""tools.yaml and what it includes, as data: ${NAME} filled in, checked by the schema, mistakes found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry

from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.tools.answer import Word
from tornado_live.tools.complaints import about, complaint, listed
from tornado_live.tools.result import Json
from tornado_live.yamlfile import YamlFile, YamlPath, dotted, read_yaml

LONGEST_TIMEOUT_S: Final = 600.0
LONGEST_CACHE_S: Final = 24 * 3600.0
LONGEST_S: Final = {
    "timeout": LONGEST_TIMEOUT_S,
    "slow_after": LONGEST_TIMEOUT_S,
    "cache": LONGEST_CACHE_S,
}
SHORTEST_SECRET: Final = 6
LONGEST_WORD: Final = 15

_VARIABLE = re.compile(r"\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\})?")
_SLOT_LIKE = re.compile(r"\{[A-Za-z_][A-Za-z0-9_.-]*\}")
_DURATION = re.compile(r"([0-9.]+)(ms|s|m|h)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CREDENTIAL|DSN|PRIVATE", re.IGNORECASE)
_REQUEST_KEYS = frozenset(["headers", "query", "json", "form", "auth"])

# A tool may have these one day: refused in words of their own.
_LATER: Final[Mapping[str, frozenset[str]]] = {"tool": frozenset(["mcp", "openapi"])}


@cache
def file_schema() -> dict[str, Json]:
    """The JSON Schema of tools.yaml that ships with the package."""
    read: dict[str, Json] = json.loads(
        files("tornado_live.tools").joinpath("tools.schema.json").read_text(encoding="utf-8")
    )
    return read


_SEEN = frozenset(["description", "parameters", "result", "mock", "slow_say", "bind", "requires", "examples"])
_SECTIONS: Final = ("sources", "tools", "toolsets")
_MOST_FILES: Final = 100
_MOST_PROBLEMS: Final = 100


class ToolsFile:
    """tools.yaml with what it includes. `paths` are the files, `problems` the mistakes told so far, `missing` the
    names of the environment that are not set, and `secrets` what must not be seen anywhere; `perhaps_secret` may
    be ordinary words as well. `complete` is false where a file could not be read, so that what seems to be missing
    may be there.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.problems: list[Problem] = []
        self.missing: set[str] = set()
        self.secrets: set[str] = set()
        self.perhaps_secret: set[str] = set()
        self.complete = True
        self.paths: list[Path] = []
        self.broken: set[YamlPath] = set()
        self.parts: list[_Part] = []
        self._part_of: dict[tuple[str, str], _Part] = {}
        self._sections: dict[str, dict[str, Json]] = {name: {} for name in _SECTIONS}

    @property
    def hidden(self) -> tuple[str, ...]:
        """What must not be seen, the longest first. What is too long for an ordinary word is none."""
        long = {one for one in self.perhaps_secret if len(one) > LONGEST_WORD}
        words = map(Word, self.perhaps_secret - long - self.secrets)
        return tuple(sorted([*(self.secrets | long), *words], key=len, reverse=True))

    def hide(self, value: str, *names: str) -> None:
        """Hides what the environment holds, as what it is called says: a secret, or perhaps one."""
        if len(value) >= SHORTEST_SECRET:
            is_secret = any(_SECRET_NAME.search(name) for name in names)
            (self.secrets if is_secret else self.perhaps_secret).add(value)

    @property
    def full(self) -> bool:
        """Whether there are so many mistakes that nobody would read more."""
        return len(self.problems) >= _MOST_PROBLEMS

    def section(self, name: str) -> Mapping[str, Json]:
        """What was written of `sources`, `tools` or `toolsets` in all files, or under `defaults`."""
        if name in self._sections:
            return self._sections[name]
        written = self.parts[0].data.get(name)
        return written if isinstance(written, dict) else {}

    def problem(self, path: YamlPath, message: str, *, shown: str | None = None) -> Problem:
        return self._part(path).problem(path, message, shown=shown)

    def refuse(self, path: YamlPath, message: str) -> None:
        self._part(path).refuse(path, message)

    def sound(self, path: YamlPath) -> bool:
        """Whether nothing was found wrong at `path` or, for a whole source or tool, in it."""
        return not any(broken[: len(path)] == path for broken in self.broken)

    def shown(self, path: YamlPath) -> str:
        """The value at `path` as it was written (never what a `${NAME}` stands for)."""
        return self._part(path).shown(path)

    def seconds(self, path: YamlPath, written: Json, longest_s: float) -> float:
        """A time that the schema has let through; one out of range is told."""
        seconds = in_seconds(written)
        if not 0 < seconds <= longest_s:
            most = f"{longest_s / 3600:g}h" if longest_s >= 3600 else f"{longest_s / 60:g}m"
            self.refuse(path, f"{self.shown(path)} is out of range; write more than 0s and at most {most}")
        return seconds

    def in_order(self) -> list[Problem]:
        """The mistakes, file by file and line by line."""
        names = [part.file.name for part in self.parts]
        order = {name: index for index, name in enumerate(dict.fromkeys(names))}
        return sorted(self.problems, key=lambda one: (order.get(one.file, len(order)), one.line or 0))

    def add(self, file: YamlFile) -> None:
        """One more file, the first of them tools.yaml itself."""
        part = _Part(self, file, is_first=not self.parts)
        self.parts.append(part)
        part.read()
        for name in _SECTIONS:
            written = part.data.get(name)
            for key, value in (written if isinstance(written, dict) else {}).items():
                other = self._part_of.setdefault((name, key), part)
                if other is part:
                    self._sections[name][key] = value
                else:
                    there = f"{other.file.name}:{other.file.line_of((name, key))}"
                    part.refuse((name, key), f"is there twice; the first is in {there}")

    def _part(self, path: YamlPath) -> _Part:
        key = (str(path[0]), str(path[1])) if len(path) > 1 else ("", "")
        return self._part_of.get(key, self.parts[0])


class _Part:
    """One file. `data` has the environment's values in it, where it is not what the model or the page may see."""

    def __init__(self, whole: ToolsFile, file: YamlFile, *, is_first: bool) -> None:
        self.whole = whole
        self.file = file
        self.is_first = is_first
        self.data: dict[str, Json] = {}
        self._unfilled: set[YamlPath] = set()

    def read(self) -> None:
        if not isinstance(self.file.data, dict):
            self.refuse((), "must begin with version: 1 and tools:")
            return
        data = self._expanded(self.file.data, ())
        assert isinstance(data, dict)
        self.data = data
        validator = Draft202012Validator(file_schema(), registry=Registry())
        for error in validator.iter_errors(data):
            path: YamlPath = tuple(error.absolute_path)
            if path in self._unfilled:
                continue
            for at, message in self._messages(error, path, _level(path)):
                self.refuse(at, message)
                if self.whole.full:
                    return
        for key in ("include", "defaults") if not self.is_first else ():
            if key in data:
                self.refuse((key,), "belongs into the file that includes this one; move it there")

    def problem(self, path: YamlPath, message: str, *, shown: str | None = None) -> Problem:
        if shown is None:
            shown = dotted(path[1:] if path[:1] == ("tools",) and len(path) > 1 else path)
        tool = str(path[1]) if path[:1] == ("tools",) and len(path) > 1 else None
        return self.file.problem(path, message, shown=shown, tool=tool)

    def refuse(self, path: YamlPath, message: str) -> None:
        self.whole.problems.append(self.problem(path, message))
        self.whole.broken.add(path[:3])

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

    def _expanded(self, value: Json, path: YamlPath) -> Json:
        if isinstance(value, dict):
            return {key: self._expanded(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expanded(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        if len(path) > 2 and path[0] == "tools" and path[2] in _SEEN:
            self.refuse(path, "${…} is not filled in here, since the model and the page may see this text")
            return value
        return _VARIABLE.sub(lambda match: self._variable(match, path), value)

    def _variable(self, match: re.Match[str], path: YamlPath) -> str:
        name, default = match["name"], match["default"]
        if name is None:
            self.refuse(path, "after ${ comes a name: write ${NAME} or ${NAME:-default}")
            return ""
        found = self.whole.environment.get(name)
        if found is None or (found == "" and default is not None):
            if default is None:
                self.whole.missing.add(name)
                self._unfilled.add(path)
                self.refuse(
                    path,
                    f"{name} is not set; set it in the environment or .env, or write ${{{name}:-default}}",
                )
            return default or ""
        if _SLOT_LIKE.search(found):
            self.refuse(path, f"what {name} holds looks like a {{parameter}}; choose a value without braces")
            return ""
        # What goes out with a request is no address, and may be a key under any name.
        in_request = not _REQUEST_KEYS.isdisjoint(path)
        names = (name, *("auth" for part in path if part == "auth"), str(path[-1]))
        if in_request or any(map(_SECRET_NAME.search, names)):
            self.whole.hide(found, *names)
        return found

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
                    yield (*path, key), f"is not a key{where}{nearest(key, known) or listed(known)}"
        elif error.validator == "required" and isinstance(error.instance, dict):
            for key in schema["required"]:
                if key not in error.instance and f"'{key}'" in error.message and not path:
                    yield path, f'{key} is missing - write "{key}: 1" at the top'
                elif key not in error.instance and f"'{key}'" in error.message:
                    yield path, f"needs {key}: {about(schema, key)}".rstrip(": ")
        elif error.validator == "anyOf" and not path:
            yield path, 'tools is missing - write "tools:" and the tools below it'
        elif error.validator == "oneOf" and not isinstance(error.instance, dict):
            return  # its type is told
        elif error.validator == "oneOf" and level == "tool":
            both = isinstance(error.instance, dict) and "python" in error.instance
            if isinstance(error.instance, dict) and error.instance.get("client") is True:
                yield path, "has client: true and python or http; the page runs it, remove one"
            else:
                yield (
                    path,
                    "has both python and http; remove one"
                    if both
                    else "needs one of python, http and client: true",
                )
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
            yield path, f"{self.shown(path)} {complaint(error)}"

    @staticmethod
    def _how_many(error: ValidationError, level: str) -> str:
        schema = error.schema if isinstance(error.schema, dict) else {}
        known = list(schema.get("properties", ()))
        if level == "source" or "auth" in error.absolute_path:
            return f"needs exactly one of {', '.join(known[:-1])} and {known[-1]}"
        return f"needs one of {', '.join(known)}" if known else "must not be empty"


def read_tools_file(path: Path, *, home: Path, environment: Mapping[str, str]) -> ToolsFile:
    """The file at `path` and what it includes. Raises ConfigError if `path` itself is no YAML mapping."""
    whole = ToolsFile(environment)
    whole.paths.append(path)
    whole.add(read_yaml(path, name=_name(path, home)))
    if () in whole.broken and not whole.parts[0].data:
        raise ConfigError(whole.problems)
    for index, pattern in enumerate(patterns(whole.parts[0].data)):
        found, mistake = matching(path, pattern, home)
        if mistake is not None:
            whole.refuse(("include", index), f"{whole.shown(('include', index))} {mistake}")
            whole.complete = False
        for one in found:
            name = _name(one, home)
            if name in (part.file.name for part in whole.parts):
                continue
            whole.paths.append(one)
            try:
                whole.add(read_yaml(one, name=name))
            except ConfigError as error:
                whole.problems.extend(error.problems)
                whole.complete = False
    return whole


def patterns(data: Mapping[str, Json]) -> list[str]:
    """What `include` says, as far as it can be understood."""
    written = data.get("include")
    return [one for one in written if isinstance(one, str)] if isinstance(written, list) else []


def matching(path: Path, pattern: str, home: Path) -> tuple[list[Path], str | None]:
    """The files that `pattern` names beside the file at `path`, sorted, and what is wrong with the pattern."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        return [], "must be a path below the folder of this file"
    is_pattern = any(sign in pattern for sign in "*?[")
    folder = path.resolve().parent
    try:
        found = sorted(folder.glob(pattern)) if is_pattern else [folder / pattern]
        if not is_pattern and found[0].resolve() == path.resolve():
            return [], "is this file itself; remove it"
        files = [one for one in found if one.is_file() and one.resolve() != path.resolve()]
        roots = (folder, home.resolve())
        outside = [one for one in files if not any(one.resolve().is_relative_to(root) for root in roots)]
    except (ValueError, NotImplementedError) as error:
        return [], f"is not a pattern: {error}"
    except (OSError, RuntimeError) as error:  # no rights, or links in a circle
        return [], f"cannot be read: {error}"
    if not is_pattern and not files:
        return [], "is not a file; write its path, or a pattern such as tools.d/*.yaml"
    if outside:
        return [], f"leads to {outside[0].name} outside the home directory"
    if len(files) > _MOST_FILES:
        return [], f"names more than {_MOST_FILES} files"
    return files, None


def _name(path: Path, home: Path) -> str:
    """How a file is called in messages."""
    try:
        return str(path.resolve().relative_to(home.resolve()))
    except ValueError:
        return str(path)


def in_seconds(written: Json) -> float:
    """A time such as 250ms, 10s, 5m or 2h that the schema has let through."""
    match = _DURATION.match(str(written))
    assert match is not None
    return float(match[1]) * _SECONDS[match[2]]


def _level(path: YamlPath) -> str:
    """Which of the file's objects `path` is: tool, source, source.http, defaults, a key of a tool or ""."""
    match path:
        case ("tools", _):
            return "tool"
        case ("tools", _, str(key)):
            return key
        case ("defaults", *_):
            return "defaults"
        case ("sources", _):
            return "source"
        case ("sources", _, kind, *_):
            return f"source.{kind}"
        case _:
            return ""
