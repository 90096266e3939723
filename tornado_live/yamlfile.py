"""YAML as data and nothing else, with the line of every value.

What operators write (settings, tools.yaml, scenarios) is read here: one document of mappings, lists and
scalars. Tags, anchors, aliases, merge keys, duplicate keys, more than 20 levels and more than 256 KiB are
refused, since each of them can cost more than the file is worth or hide what it says.
Scalars follow YAML 1.2: `on`, `yes`, `0777` and `1:30` stay strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import yaml

from tornado_live.errors import ConfigError, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
_MAX_PROBLEMS = 50
_LONGEST_NUMBER = 100

YamlValue = None | bool | int | float | str | list["YamlValue"] | dict[str, "YamlValue"]
YamlPath = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_OTHER_BASE = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# The C parser reads 256 KiB in milliseconds; PyYAML's wheels have it everywhere, a source build may not.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class YamlFile:
    """`data` is None for an empty file. `lines` has the line (from 1) of every key and list item, `columns` too.

    `name` is how the file is called in messages.
    """

    data: YamlValue
    lines: Mapping[YamlPath, int]
    name: str
    columns: Mapping[YamlPath, int] = field(default_factory=dict)

    def line_of(self, path: YamlPath) -> int | None:
        """The line of `path`, or of its nearest parent that the file has."""
        return self.lines.get(self._nearest(path))

    def problem(
        self, path: YamlPath, message: str, *, shown: str | None = None, tool: str | None = None
    ) -> Problem:
        """A Problem at `path`; `shown` replaces the dotted path in its text."""
        at = self._nearest(path)
        text = dotted(path) if shown is None else shown
        return Problem(self.name, self.lines.get(at), text, message, self.columns.get(at), tool)

    def _nearest(self, path: YamlPath) -> YamlPath:
        lengths = range(len(path), 0, -1)
        return next((path[:length] for length in lengths if path[:length] in self.lines), ())


def dotted(path: YamlPath) -> str:
    """`("a", "b", 0)` as `a.b[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_yaml(path: Path, *, name: str | None = None) -> YamlFile:
    """The file at `path`, called `name` in messages (default: the path as given). Raises ConfigError."""
    shown = name if name is not None else str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refused(shown, None, "there is no such file") from None
    except OSError as error:
        raise _refused(shown, None, f"cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise _too_big(shown)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(shown, line, "is not UTF-8; save the file in that encoding") from error
    return parse_yaml(text, shown)


def parse_yaml(text: str, name: str) -> YamlFile:
    """`text` as data; `name` is used in messages. Raises ConfigError with every mistake found."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise _refused(name, line, "holds a character that is not text") from error
    if size > MAX_BYTES:
        raise _too_big(name)
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        builder.refuse(mark, _syntax_message(error, text))
    except yaml.YAMLError:
        builder.refuse(None, "holds a control character; remove it")
    except _GiveUp:
        pass
    if builder.problems:
        raise ConfigError(builder.problems)
    return YamlFile(builder.root, builder.lines, name, builder.columns)


class _Mark(Protocol):
    """A place in the text, counted from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class _GiveUp(Exception):
    """The rest of the file cannot be read or is not worth reading."""


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet; `key` waits for its value."""

    value: list[YamlValue] | dict[str, YamlValue]
    path: YamlPath
    key: str | None = None
    ignored: bool = False
    seen: dict[str, int] = field(default_factory=dict)


class _Builder:
    """Builds data from parser events without recursion, so that depth is ours to limit."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root: YamlValue = None
        self.lines: dict[YamlPath, int] = {}
        self.columns: dict[YamlPath, int] = {}
        self.problems: list[Problem] = []
        self._open: list[_Open] = []
        self._documents = 0

    def refuse(self, mark: _Mark | None, message: str, path: YamlPath = ()) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        self.problems.append(Problem(self.name, line, dotted(path), message, column))
        if len(self.problems) >= _MAX_PROBLEMS:
            raise _GiveUp

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    self.refuse(event.start_mark, 'a second document ("---") is not allowed')
                    raise _GiveUp
            case yaml.AliasEvent():
                self.refuse(
                    event.start_mark, f"the alias *{event.anchor} is not allowed; write the value out"
                )
                self._place(None, event.start_mark, is_scalar=False)
            case yaml.ScalarEvent():
                self._check_marks(event)
                plain = event.implicit[0] and event.style in (None, "")
                self._scalar(event.value, plain, event.start_mark)
            case yaml.MappingStartEvent():
                self._check_marks(event)
                self._start({}, event.start_mark)
            case yaml.SequenceStartEvent():
                self._check_marks(event)
                self._start([], event.start_mark)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._open.pop()
            case _:
                pass  # stream and document ends carry nothing

    def _check_marks(
        self, event: yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent
    ) -> None:
        if event.anchor is not None:
            self.refuse(event.start_mark, f"the anchor &{event.anchor} is not allowed; remove it")
        if event.tag is not None:
            self.refuse(event.start_mark, f"the tag {event.tag} is not allowed; remove it")

    def _start(self, value: list[YamlValue] | dict[str, YamlValue], mark: _Mark | None) -> None:
        if len(self._open) >= MAX_DEPTH:
            self.refuse(mark, f"is nested deeper than {MAX_DEPTH} levels")
            raise _GiveUp
        path = self._place(value, mark, is_scalar=False)
        self._open.append(_Open(value, path))

    def _scalar(self, text: str, plain: bool, mark: _Mark | None) -> None:
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            self._key(top, text, plain, mark)
        else:
            path = self._path_of_next()
            self._place(self._resolve(text, path, mark) if plain else text, mark, is_scalar=True)

    def _key(self, top: _Open, text: str, plain: bool, mark: _Mark | None) -> None:
        path = (*top.path, text)
        top.key = text
        top.ignored = False
        if plain and text == "<<":
            self.refuse(mark, 'the merge key "<<" is not allowed; write the keys out', top.path)
            top.ignored = True
        elif text in top.seen:
            self.refuse(mark, f"is there twice; the first is in line {top.seen[text]}", path)
            top.ignored = True
        else:
            top.seen[text] = _line(mark)
            self._mark(path, mark)

    def _mark(self, path: YamlPath, mark: _Mark | None) -> None:
        self.lines[path] = _line(mark)
        self.columns[path] = mark.column + 1 if mark is not None else 1

    def _path_of_next(self) -> YamlPath:
        if not self._open:
            return ()
        top = self._open[-1]
        if isinstance(top.value, list):
            return (*top.path, len(top.value))
        return (*top.path, top.key or "")

    def _place(self, value: YamlValue, mark: _Mark | None, *, is_scalar: bool) -> YamlPath:
        path = self._path_of_next()
        if not self._open:
            self.root = value
            self._mark(path, mark)
            return path
        top = self._open[-1]
        if isinstance(top.value, list):
            self._mark(path, mark)
            top.value.append(value)
        elif top.key is None and not is_scalar:
            self.refuse(mark, "a key must be one plain word or string")
            raise _GiveUp
        else:
            if not top.ignored and top.key is not None:
                top.value[top.key] = value
            top.key = None
        return path

    def _resolve(self, text: str, path: YamlPath, mark: _Mark | None) -> YamlValue:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        is_integer, is_other = _INTEGER.match(text), _OTHER_BASE.match(text)
        if not (is_integer or is_other or _FLOAT.match(text)):
            return text
        if len(text) > _LONGEST_NUMBER:
            self.refuse(mark, "is too long for a number; put it in quotes", path)
            return None
        if is_integer:
            return int(text)
        if is_other:
            return int(text, 0)
        number = float(text)
        if math.isinf(number):
            self.refuse(mark, "is too big for a number; put it in quotes", path)
            return None
        return number


def _line(mark: _Mark | None) -> int:
    return mark.line + 1 if mark is not None else 1


def walk(value: YamlValue, path: YamlPath = ()) -> Iterator[tuple[YamlPath, YamlValue]]:
    """Every value under `value`, itself first, with its path."""
    yield path, value
    if isinstance(value, dict):
        for key, child in value.items():
            yield from walk(child, (*path, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from walk(child, (*path, index))


def _syntax_message(error: yaml.MarkedYAMLError, text: str) -> str:
    what = (error.problem or "").strip() or "it breaks off"
    where = error.problem_mark
    if where is not None:
        lines = text.splitlines()
        if where.line < len(lines) and "\t" in lines[where.line][: where.column + 1]:
            return "is indented with a tab; YAML takes spaces only"
    known = {
        "mapping values are not allowed in this context": 'a ":" is not allowed here; '
        "put the text in quotes, or check the indentation",
        "did not find expected key": "this line does not fit the ones above; check indentation and quotes",
        "could not find expected ':'": 'a ":" is missing after the key',
        "found character that cannot start any token": "starts with a character that needs quotes",
    }
    return known.get(what, f"this is not YAML: {what}")


def _refused(name: str, line: int | None, message: str) -> ConfigError:
    return ConfigError([Problem(name, line, "", message)])


def _too_big(name: str) -> ConfigError:
    return _refused(name, None, f"is bigger than {MAX_BYTES // 1024} KiB")
