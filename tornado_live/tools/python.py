"""Handlers written in Python: found under allowed prefixes only, run without holding up the loop."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import inspect
import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado_live.errors import nearest
from tornado_live.tools.complaints import listed
from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import HandlerSpec, spec_of
from tornado_live.tools.result import Json, ToolCode, ToolError

BUILTIN = "tornado_live.tools.builtin"
BUILT_IN_HANDLERS = (
    "builtin.analytics:report",
    "builtin.knowledge:search",
    "builtin.llm:ask",
    "builtin.sql:query",
    "builtin.sql:statement",
    "builtin.weather:current",
    "builtin.web:request",
)
_NAME = re.compile(
    r"(?P<module>[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*):(?P<function>[A-Za-z]\w*)\Z"
)

logger = logging.getLogger(__name__)


class HandlerNotFound(Exception):
    """The text says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that may be called with the parameters `accepts` (None: any), of which `needs` must be given."""

    name: str
    function: Callable[..., Any]
    is_async: bool
    takes_context: bool
    accepts: frozenset[str] | None
    needs: frozenset[str]
    spec: HandlerSpec | None


def find_handler(name: str, prefixes: Sequence[str], home: Path) -> Handler:
    """The function that `package.module:function` names; `builtin.` is short for the built-in handlers' package.

    A module of the operator's own lies in `home`, which is put at the end of sys.path, or is installed. Nothing
    is imported before the module is known to lie under one of `prefixes`. Raises HandlerNotFound.
    """
    match = _NAME.match(name)
    if match is None:
        close = nearest(name, BUILT_IN_HANDLERS)
        raise HandlerNotFound(f'"{name}" is not of the form package.module:function{close}')
    module_name, function_name = match["module"], match["function"]
    if module_name.startswith("builtin."):
        module_name = f"{BUILTIN}{module_name.removeprefix('builtin')}"
    if not _allowed(module_name, prefixes):
        allowed = ", ".join(prefixes)
        close = nearest(name, BUILT_IN_HANDLERS) or "; see handler_prefixes"
        raise HandlerNotFound(f'"{name}" is outside the allowed packages ({allowed}){close}')
    built_in = f"builtin{module_name.removeprefix(BUILTIN)}:{function_name}"
    if _allowed(module_name, (BUILTIN,)) and built_in not in BUILT_IN_HANDLERS:
        raise HandlerNotFound(f'"{name}" is not among the built-in handlers{listed(BUILT_IN_HANDLERS)}')
    if not _allowed(module_name, (BUILTIN,)) and str(home) not in sys.path:
        sys.path.append(str(home))  # for good: a handler may import what lies beside it when it is called
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an operator's module may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name and _allowed(module_name, (error.name,)):
            file = module_name.replace(".", "/") + ".py"
            raise HandlerNotFound(
                f'"{name}": there is no module {module_name}; put {file} into the home directory ({home}),'
                " or install it beside tornado-live"
            ) from error
        raise HandlerNotFound(
            f'"{name}": {module_name} cannot be imported: {type(error).__name__}: {error}'
        ) from error
    function = getattr(module, function_name, None)
    if function is None:
        own = [
            key for key, value in vars(module).items() if _is_handler(value, (module_name,)) and key[0] != "_"
        ]
        hint = nearest(function_name, own) or listed(own)
        raise HandlerNotFound(f'"{name}": {module_name} has no function {function_name}{hint}')
    if not _is_handler(function, prefixes):
        raise HandlerNotFound(f'"{name}" is not a function that is defined under the allowed packages')
    return _describe(name, function)


def _allowed(module: str, prefixes: Sequence[str]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def _is_handler(value: object, prefixes: Sequence[str]) -> bool:
    return inspect.isfunction(value) and _allowed(value.__module__ or "", prefixes)


def _describe(name: str, function: Callable[..., Any]) -> Handler:
    accepts: set[str] | None = set()
    needs: set[str] = set()
    takes_context = False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            accepts = None
        elif parameter.kind is parameter.POSITIONAL_ONLY:
            raise HandlerNotFound(
                f'"{name}" takes {parameter.name} by position only; arguments arrive by name'
            )
        elif parameter.kind is parameter.VAR_POSITIONAL:
            continue
        elif parameter.name == "context":
            takes_context = True
        else:
            if accepts is not None:
                accepts.add(parameter.name)
            if parameter.default is parameter.empty:
                needs.add(parameter.name)
    return Handler(
        name=name,
        function=function,
        is_async=inspect.iscoroutinefunction(function),
        takes_context=takes_context,
        accepts=None if accepts is None else frozenset(accepts),
        needs=frozenset(needs),
        spec=spec_of(function),
    )


class HandlerThreads:
    """At most `size` threads for sync handlers.

    They are daemons: a handler that hangs keeps its place until it ends, but not the process from ending.
    """

    def __init__(self, size: int, counted: Callable[[int], None] = lambda change: None) -> None:
        """`counted` hears of each handler that is left behind (1), and of each of those that ends (-1)."""
        self._size = size
        self._counted = counted
        self._places = asyncio.Semaphore(size)
        self._left_behind = 0

    async def run(self, call: Callable[[], object], tool: str, patience_s: float) -> object:
        """The result of `call`, run in a thread. If this is cancelled, the thread runs on and the log says so.

        Raises ToolError(limited) if no place comes free within `patience_s`, and at once if handlers that
        were left behind hold all of them.
        """
        loop = asyncio.get_running_loop()
        if self._left_behind >= self._size:
            raise _no_place()
        try:
            async with asyncio.timeout(patience_s):
                await self._places.acquire()
        except TimeoutError:
            raise _no_place() from None
        done: asyncio.Future[object] = loop.create_future()

        def finish(result: object, error: BaseException | None) -> None:
            self._places.release()
            if done.cancelled():
                self._left_behind -= 1
                self._counted(-1)
                self._log(logging.INFO, "handler_ended_late", tool)
            elif error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)

        def work() -> None:
            result: object = None
            failure: BaseException | None = None
            try:
                result = context.run(call)
            except BaseException as error:  # noqa: BLE001 - whatever a handler raises belongs to its caller
                # A future cannot carry StopIteration, nor a task SystemExit without ending the process.
                failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
                if isinstance(failure, StopIteration):
                    failure = RuntimeError(repr(error))
            try:
                loop.call_soon_threadsafe(finish, result, failure)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        context = contextvars.copy_context()
        try:
            threading.Thread(target=work, name=f"tool-{tool}", daemon=True).start()
        except RuntimeError:
            self._places.release()
            raise
        try:
            return await done
        except asyncio.CancelledError:
            if done.cancelled():
                self._left_behind += 1
                self._counted(1)
                self._log(logging.WARNING, "handler_left_behind", tool)
            raise

    def _log(self, level: int, event: str, tool: str) -> None:
        left = self._size - self._left_behind
        fields = {"tool": tool, "places_left": left, "places": self._size}
        text = f"tool {tool}: {event}, {left} of {self._size} places left"
        logger.log(level, "%s", text, extra={"event": event, "fields": fields})


def _no_place() -> ToolError:
    return ToolError(
        ToolCode.LIMITED,
        "The tools are busy: all places for calls of this kind are taken.",
        retryable=True,
        hint="Say that it is busy just now, and try again in a while.",
    )


async def call_handler(
    handler: Handler,
    arguments: Mapping[str, Json],
    context: ToolContext,
    threads: HandlerThreads,
    patience_s: float,
) -> object:
    """What the handler returns. What it raises is raised, SystemExit and the like as RuntimeError.

    A sync handler waits `patience_s` for a thread, then ToolError(limited) is raised.
    """
    given: dict[str, object] = dict(arguments)
    if handler.takes_context:
        given["context"] = context
    if handler.is_async:
        try:
            return await handler.function(**given)
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            raise RuntimeError(f"the handler raised {error!r}") from error
    answer = await threads.run(lambda: handler.function(**given), context.tool, patience_s)
    if inspect.iscoroutine(answer):
        answer.close()  # else Python warns that it was never awaited
    return answer
