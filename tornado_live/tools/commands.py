"""What `tornado-live tools list`, `check` and `call` do: text for people, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.python import BUILTIN
from tornado_live.tools.result import Json
from tornado_live.tools.runner import MockTools, ToolCall, ToolRunner
from tornado_live.tools.tool import Tool

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2


def list_tools(catalog: ToolCatalog, out: TextIO) -> int:
    """One paragraph a tool: name, parameters, description."""
    for tool in catalog.tools.values():
        out.write(f"{tool.name}({_signature(tool)})\n    {tool.description.splitlines()[0]}\n")
    for problem in catalog.left_out:
        out.write(f"left out: {problem}\n")
    if not catalog.tools:
        out.write("There are no tools.\n")
    return OK


def check_tools(
    path: Path,
    *,
    home: Path,
    data_dir: Path,
    environment: Mapping[str, str],
    out: TextIO,
    handler_prefixes: Sequence[str] = (BUILTIN,),
) -> int:
    """Every mistake of the file, or what each tool is and what Gemini will not hold the model to.

    1 if the file cannot be used or a tool is left out.
    """
    try:
        catalog = load_catalog(
            path,
            home=home,
            data_dir=data_dir,
            environment=environment,
            handler_prefixes=handler_prefixes,
        )
    except ConfigError as error:
        out.write(f"{error}\n{_count(len(error.problems), 'mistake')}; none of the tools can be used.\n")
        return FAILED
    for tool in catalog.tools.values():
        out.write(f"{tool.name}: ok ({_kind(tool)}, {tool.timeout_s:g} s)\n")
        if tool.mock is None and tool.endpoint is not None:
            out.write("    no mock: without a network it can only say that the service is out of reach\n")
        for change in tool.changes:
            out.write(f"    for Gemini: {change}\n")
    for problem in catalog.left_out:
        out.write(f"{problem}\n")
    changed = sum(bool(tool.changes) for tool in catalog.tools.values())
    told = f", {_count(changed, 'declaration')} changed for Gemini (arguments are still checked in full)"
    out.write(f"{_count(len(catalog.tools), 'tool')} ok{told if changed else ''}")
    out.write(f", {len(catalog.left_out)} left out.\n" if catalog.left_out else ".\n")
    return FAILED if catalog.left_out else OK


async def call_tool(
    catalog: ToolCatalog, name: str, arguments: str, *, mock: MockTools, out: TextIO, user: str = "operator"
) -> int:
    """Runs `name` with the JSON object `arguments`, as the model would, and prints what the model would get."""
    try:
        args: Json = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        out.write(f'The arguments are not JSON ({error}); write for example \'{{"city": "Rome"}}\'.\n')
        return MISUSED
    if not isinstance(args, dict):
        out.write('The arguments must be a JSON object, for example \'{"city": "Rome"}\'.\n')
        return MISUSED
    runner = ToolRunner(mock=mock)
    try:
        result = await runner.run(
            catalog,
            ToolCall("command-line", name, args),
            caller=Caller(user),
            session_id="command-line",
            progress=lambda text: _show_progress(text, out),
        )
    finally:
        await runner.close()
    out.write(json.dumps(dict(result.response), ensure_ascii=False, indent=2) + "\n")
    return OK if result.ok else FAILED


def _signature(tool: Tool) -> str:
    properties, required = tool.parameters.get("properties"), tool.parameters.get("required")
    needed = required if isinstance(required, list) else []
    return ", ".join(
        name if name in needed else f"{name}?"
        for name in (properties if isinstance(properties, dict) else {})
    )


def _kind(tool: Tool) -> str:
    if tool.handler is not None:
        return tool.handler.name
    assert tool.endpoint is not None
    return f"http {tool.endpoint.method}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _show_progress(text: str, out: TextIO) -> None:
    out.write(f"… {text}\n")
