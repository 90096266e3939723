"""tools.yaml into a ToolCatalog: every tool checked, compiled and ready to run.

The files are held against tools.schema.json, then for what a schema cannot say (handlers exist, placeholders
name parameters, sources are of the right kind). All mistakes are reported together, each with its line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.tools.complaints import listed
from tornado_live.tools.policy import DEFAULT_POLICY, CallPolicy
from tornado_live.tools.python import BUILTIN
from tornado_live.tools.result import Json
from tornado_live.tools.sources import read_sources
from tornado_live.tools.tool import ResultRules, Tool
from tornado_live.tools.tool_reader import ToolReader
from tornado_live.tools.tools_file import LONGEST_S, ToolsFile, read_tools_file

__all__ = ["ResultRules", "Tool", "ToolCatalog", "load_catalog"]


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
    files: tuple[Path, ...] = ()

    def names(self, names: Collection[str] | None) -> tuple[str, ...] | None:
        """The names of the tools among `names`, in file order."""
        if names is None:
            return None
        wanted = {one for name in names for one in self.toolsets.get(name, (name,))}
        return tuple(name for name in self.tools if name in wanted)

    def _named(self, names: Collection[str] | None) -> Iterator[Tool]:
        wanted = self.names(names)
        return iter(self.tools.values()) if wanted is None else (self.tools[name] for name in wanted)

    def for_caller(self, caller: Caller) -> ToolCatalog:
        """This catalog without the tools whose `requires` the caller does not have."""
        granted = caller.granted
        if all(tool.requires <= granted for tool in self.tools.values()):
            return self
        allowed = {name: tool for name, tool in self.tools.items() if tool.requires <= granted}
        return replace(self, tools=MappingProxyType(allowed))

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


class UnusableTools(ConfigError):
    """`missing` are the names of the environment that the files need and that are not set."""

    def __init__(self, problems: Sequence[Problem], *, missing: Sequence[str]) -> None:
        super().__init__(problems)
        self.missing = tuple(missing)


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
    home = home.resolve()
    values = {**environment, "DATA_DIR": str(data_dir.resolve())}
    file = read_tools_file(path, home=home, environment=values)
    sources, defaults = read_sources(file, home), _defaults(file)
    tools: dict[str, Tool] = {}
    left_out: list[Problem] = []
    for name, written in file.section("tools").items():
        if file.full:
            break
        if not isinstance(written, dict):
            continue
        reader = ToolReader(file, name, written, defaults, sources, home=home, prefixes=handler_prefixes)
        tool = reader.read()
        if tool is not None:
            tools[name] = tool
        if reader.left_out is not None:
            left_out.append(reader.left_out)
    toolsets = _toolsets(file)
    if file.problems:
        raise UnusableTools(file.in_order(), missing=sorted(file.missing))
    return ToolCatalog(
        tools=MappingProxyType(tools),
        sources=sources.sound,
        toolsets=MappingProxyType(toolsets),
        left_out=tuple(left_out),
        secrets=file.hidden,
        files=tuple(file.paths),
    )


def _defaults(file: ToolsFile) -> dict[str, Json]:
    """The sound ones among them; a wrong one is told here and not at every tool."""
    defaults: dict[str, Json] = {}
    for key, value in file.section("defaults").items():
        if file.sound(("defaults", key)):
            defaults[key] = value
            if key in LONGEST_S:
                file.seconds(("defaults", key), value, LONGEST_S[key])
    return defaults


def _toolsets(file: ToolsFile) -> dict[str, tuple[str, ...]]:
    tools = file.section("tools")
    toolsets: dict[str, tuple[str, ...]] = {}
    for name, members in file.section("toolsets").items():
        if not isinstance(members, list) or not file.sound(("toolsets", name)):
            continue
        if name in tools:
            file.refuse(("toolsets", name), "is the name of a tool, too; choose another")
        for index, member in enumerate(members):
            if member not in tools and file.complete:
                known = nearest(str(member), tools) or listed(tools)
                file.refuse(("toolsets", name, index), f'there is no tool "{member}"{known}')
        toolsets[name] = tuple(str(member) for member in members)
    return toolsets
