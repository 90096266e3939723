"""What the commands of `tornado-live tools` do: text for people, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from tornado_live.caller import Caller
from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.tools.catalog import ToolCatalog, UnusableTools, load_catalog
from tornado_live.tools.examples import differences
from tornado_live.tools.python import BUILTIN
from tornado_live.tools.reach import reach_of
from tornado_live.tools.result import Json
from tornado_live.tools.runner import MockTools, ToolCall, ToolRunner
from tornado_live.tools.tool import Tool
from tornado_live.tools.watching import exposed
from tornado_live.wire.fitting import declared
from tornado_live.wire.models import LiveModel

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2
OPERATOR: Final = Caller("operator")


def list_tools(catalog: ToolCatalog, out: TextIO) -> int:
    """One paragraph a tool: name, parameters, description, and what is special about it."""
    for tool in catalog.tools.values():
        out.write(f"{tool.name}({_signature(tool)})\n    {tool.description.splitlines()[0]}\n")
        if special := "; ".join(_special(tool)):
            out.write(f"    ({special})\n")
    for name, members in catalog.toolsets.items():
        out.write(f"toolset {name}: {', '.join(members)}\n")
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
    toolset_problems: Callable[[ToolCatalog], Sequence[Problem]] = lambda catalog: (),
    as_json: bool = False,
) -> int:
    """Every mistake of the files, or what each tool is and what Gemini will not hold the model to.

    1 if the files cannot be used or a tool is left out. `as_json`: the mistakes as a JSON list, and nothing else.
    """
    try:
        catalog = load_catalog(
            path,
            home=home,
            data_dir=data_dir,
            environment=environment,
            handler_prefixes=handler_prefixes,
        )
        if problems := toolset_problems(catalog):
            raise ConfigError(problems)
    except ConfigError as error:
        if as_json:
            out.write(
                json.dumps([_as_json(problem) for problem in error.problems], ensure_ascii=False) + "\n"
            )
            return FAILED
        missing = error.missing if isinstance(error, UnusableTools) else ()
        if missing:
            out.write(f"Not set in the environment or .env: {', '.join(missing)}\n")
        out.write(f"{error}\n{_count(len(error.problems), 'mistake')}; none of the tools can be used.\n")
        return FAILED
    if as_json:
        out.write(json.dumps([_as_json(problem) for problem in catalog.left_out], ensure_ascii=False) + "\n")
        return FAILED if catalog.left_out else OK
    for line in exposed(catalog.files):
        out.write(f"warning: {line}\n")
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


def show_tool(
    catalog: ToolCatalog, name: str, model: LiveModel, out: TextIO, *, among: Collection[str] = ()
) -> int:
    """The declaration of `name` as `model` gets it, and what it does not say. `among`: the models that are known,
    where no other will do.
    """
    if among and not model.listed:
        out.write(f'There is no Live model "{model.name}"{nearest(model.name, among)}\n')
        out.write(f"known: {', '.join(among)}\n")
        return MISUSED
    tool = catalog.tools.get(name)
    if tool is None:
        out.write(f'There is no tool "{name}"{nearest(name, catalog.tools) or "."}\n')
        return MISUSED
    background = frozenset([name]) if tool.policy.background else frozenset[str]()
    fitted, changes = declared(model, [tool.declaration], background)
    for one in fitted:
        out.write(json.dumps(one, ensure_ascii=False, indent=2) + "\n")
    for change in tool.changes:
        out.write(f"for Gemini: {change}\n")
    for more in changes:
        out.write(f"for {model.name}: {more}\n")
    return OK


def plan_tools(catalog: ToolCatalog, caller: Caller, out: TextIO) -> int:
    """What the caller could reach: the tools with their hosts, tables, folders and bound values."""
    out.write(f"{caller.user}: {', '.join(sorted(caller.granted)) or 'no roles or scopes'}\n")
    for tool in catalog.tools.values():
        if not tool.allows(caller):
            out.write(f"{tool.name}: not for this caller, who has no {', '.join(_lacking(tool, caller))}\n")
            continue
        out.write(f"{tool.name}\n")
        for kind, value in reach_of(tool, catalog, caller):
            out.write(f"    {kind}: {value}\n")
    return OK


async def run_examples(
    catalog: ToolCatalog,
    names: Collection[str],
    *,
    mock: MockTools,
    out: TextIO,
    caller: Caller = OPERATOR,
) -> int:
    """Runs the examples of the tools among `names` (none: all). 1 if one of them is not answered as expected."""
    unknown = [name for name in names if name not in catalog.tools]
    if unknown:
        out.write(f'There is no tool "{unknown[0]}"{nearest(unknown[0], catalog.tools) or "."}\n')
        return MISUSED
    ran = wrong = samples = 0
    runner = ToolRunner(mock=mock)
    try:
        for tool in catalog.tools.values():
            for number, example in enumerate(
                tool.examples if not names or tool.name in names else (), start=1
            ):
                call = ToolCall(f"example-{ran}", tool.name, example.args)
                result = await runner.run(catalog, call, caller=caller, session_id="command-line")
                found = differences(example.expect, result.response)
                ran, wrong, samples = ran + 1, wrong + bool(found), samples + result.sample
                sample = " (sample data)" if result.sample else ""
                out.write(f"{tool.name} {number}: {'not as expected' if found else 'ok'}{sample}\n")
                for line in found:
                    out.write(f"    {line}\n")
    finally:
        await runner.close()
    told = f", {wrong} not as expected" if wrong else ""
    out.write(
        f"{_count(ran, 'example')}{told}.\n" if ran else "There are no examples; write examples: to a tool.\n"
    )
    if samples:
        out.write(f"Of {samples} only the mock was compared: no service was asked.\n")
    return FAILED if wrong else OK


def caller_from(file: Path | None) -> Caller:
    """The caller whose token has the claims in `file`, a JSON object; else the operator. Raises ConfigError."""
    if file is None:
        return OPERATOR
    try:
        claims: Json = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([Problem(str(file), None, "", f"cannot be read: {error.strerror}")]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError([Problem(str(file), None, "", f"is not JSON: {error}")]) from None
    if not isinstance(claims, dict):
        hint = 'must be a JSON object, such as {"sub": "alice", "roles": ["support"]}'
        raise ConfigError([Problem(str(file), None, "", hint)])
    roles = claims.get("roles")
    user = claims.get("sub")
    return Caller(
        user if isinstance(user, str) and user else OPERATOR.user,
        roles=frozenset(str(role) for role in roles) if isinstance(roles, list) else frozenset(),
        claims=claims,
    )


async def call_tool(
    catalog: ToolCatalog,
    name: str,
    arguments: str,
    *,
    mock: MockTools,
    out: TextIO,
    caller: Caller = OPERATOR,
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
            caller=caller,
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


def _special(tool: Tool) -> Iterator[str]:
    if tool.policy.client:
        yield "the page runs it"
    if tool.policy.confirm:
        yield "the person is asked first"
    if tool.policy.background:
        yield "in the background"
    if tool.requires:
        yield f"requires {', '.join(sorted(tool.requires))}"


def _kind(tool: Tool) -> str:
    if tool.handler is not None:
        return tool.handler.name
    if tool.endpoint is None:
        return "run by the page"
    return f"http {tool.endpoint.method}"


def _lacking(tool: Tool, caller: Caller) -> list[str]:
    return sorted(tool.requires - caller.granted)


def _as_json(problem: Problem) -> dict[str, Json]:
    """For editors and build servers."""
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "tool": problem.tool,
        "path": problem.path,
        "message": problem.message,
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _show_progress(text: str, out: TextIO) -> None:
    out.write(f"… {text}\n")
