"""Runs one call of the model's: look-up, check of the arguments, the tool under its deadline, the envelope."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Concatenate, Final, Literal, ParamSpec, TypeVar

import httpx
from jmespath.exceptions import JMESPathError
from jsonschema.exceptions import ValidationError

from tornado_live.caller import Caller
from tornado_live.errors import nearest
from tornado_live.tools import answer
from tornado_live.tools.catalog import ResultRules, Tool, ToolCatalog
from tornado_live.tools.context import ToolContext
from tornado_live.tools.http import HttpError, call_endpoint, guarded_client
from tornado_live.tools.kept import KeptAnswers
from tornado_live.tools.limits import Limits
from tornado_live.tools.owned import Owned
from tornado_live.tools.person import CONSENT_S, Person
from tornado_live.tools.python import HandlerThreads, call_handler
from tornado_live.tools.result import Json, ToolCode, ToolError, ToolResult
from tornado_live.tools.schema import fitted

Value = TypeVar("Value")
Shaped = TypeVar("Shaped")
More = ParamSpec("More")

MockTools = Literal["always", "unreachable", "never"]

SAMPLE_NOTE: Final = (
    "This is sample data, not a real answer: nothing real was reached. "
    "Tell the person that it is sample data."
)
_DO_NOT_FIT: Final = "The arguments do not fit."
_GRACE_S: Final = 0.5
# Long enough for a burst of quick calls to pass, short enough for someone who listens.
_PATIENCE_S: Final = 1.0
_MOST_VALUES: Final = 10_000
_MOST_ERRORS: Final = 50
_MOST_REASONS: Final = 5
_LONGEST_REASON: Final = 300
_LONGEST_NAME: Final = 64
_MOST_WAITING: Final = 4
_PROGRESS_PAUSE_S: Final = 0.1
# Shorter texts are in words that have nothing to do with them.
_TELLING: Final = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function call of the model's; `id` is the model's own.

    `repeats`: the id of the same call before, which was broken off and may have been made all the same.
    """

    id: str
    name: str
    args: Mapping[str, Json]
    repeats: str | None = None


class ToolRunner:
    """Runs calls for all conversations of a process; `close` ends what still runs.

    `mock` says when a tool's `mock` is answered instead: `always`, when the real call found its service
    `unreachable`, or `never`. `http` is the client for tools (default: a guarded one); it is closed too.
    `left_behind` hears of each handler that still runs though nobody waits for it (1), and of its end (-1).
    """

    def __init__(
        self,
        *,
        mock: MockTools,
        http: httpx.AsyncClient | None = None,
        threads: int = 8,
        left_behind: Callable[[int], None] = lambda change: None,
    ) -> None:
        self._mock = mock
        self._http = http if http is not None else guarded_client()
        self._threads = HandlerThreads(threads, left_behind)
        self._left_behind = left_behind
        self._owned = Owned()
        self._limits = Limits()
        self._kept = KeptAnswers()
        self._running: set[asyncio.Task[object]] = set()
        # One thread: more of them would only take turns with the loop's.
        self._shaping = ThreadPoolExecutor(1, thread_name_prefix="tool-answers")

    async def run(
        self,
        catalog: ToolCatalog,
        call: ToolCall,
        *,
        caller: Caller,
        session_id: str,
        allowed: Collection[str] | None = None,
        progress: Callable[[str], None] | None = None,
        person: Person | None = None,
        charge: Callable[[], None] = lambda: None,
    ) -> ToolResult:
        """The end of `call`; whatever goes wrong is an error result. Only cancellation is raised.

        `allowed` are the names of the session's toolset (None: every tool of `catalog`). `progress(text)` is
        always called on the thread of the event loop that runs this, whatever thread the handler reports
        from, and no more once the call has ended. `person` is who can be asked, None where nobody is. `charge` is
        told that the call is about to be made, and may raise ToolError.
        """
        started = time.monotonic()
        sample, entered = False, None
        private: list[str] = []
        tool: Tool | None = None
        try:
            tool = _look_up(catalog, call.name, allowed)
            shown = await self._shaped(_checked, call.args, tool)
            arguments = _bound(tool, shown, caller, session_id)
            private = _private(tool, arguments)
            found, value = self._kept.get(tool, caller, arguments, time.monotonic())
            if tool.policy.confirm:
                if not found:  # nobody is asked in vain
                    self._limits.check(tool, user=caller.user, session=session_id, now=time.monotonic())
                await _consented(person, shown)
            if not found:
                charge()
                entered = self._enter(tool, caller, session_id)
            if found:
                pass
            elif self._mock == "always":
                sample = True
                value = _sample(tool, arguments)
            else:
                report = None if progress is None else _Progress(progress, [*catalog.secrets, *private])
                over = threading.Event()
                context = ToolContext(
                    tool=tool.name,
                    session_id=session_id,
                    caller=caller,
                    options=tool.options,
                    sources=catalog.sources,
                    http=self._http,
                    owned=self._owned,
                    idempotency_key=_idempotency_key(session_id, call),
                    cancelled=over.is_set,
                    **({} if report is None else {"progress": report}),
                )
                late = _late(tool, person)
                try:
                    try:
                        value = await self._perform(tool, arguments, context, person)
                        self._keep(tool, caller, arguments, value)
                    finally:
                        over.set()
                        if late is not None:
                            late.cancel()
                        if report is not None:
                            report.end()
                except ToolError as error:
                    if (
                        error.code is not ToolCode.UNREACHABLE
                        or self._mock != "unreachable"
                        or tool.mock is None
                    ):
                        raise
                    found, value = tool.mock.answer(arguments)
                    if not found:
                        raise
                    sample = True
            return await self._shaped(_success, value, tool.result, catalog.secrets, sample, started)
        except ToolError as error:
            logger.info("tool %s: call %s of session %s: %s", call.name, call.id, session_id, error.code)
            hides = tool is not None and not tool.policy.show_args
            told_people = _DO_NOT_FIT if hides and error.code is ToolCode.INVALID_ARGUMENTS else None
            return _failure(error, [*catalog.secrets, *private], started, told_people)
        except Exception:  # noqa: BLE001 - one of the four edges: a call never ends a conversation
            text = answer.redacted_text(traceback.format_exc(), catalog.secrets)
            logger.error("tool %s failed: call %s of session %s\n%s", call.name, call.id, session_id, text)
            told = ToolError(ToolCode.FAILED, "The tool failed.", hint="Say that it did not work this time.")
            return _failure(told, catalog.secrets, started)
        finally:
            if entered is not None:
                self._limits.leave(entered)

    def _enter(self, tool: Tool, caller: Caller, session_id: str) -> Tool:
        """Raises ToolError(limited)."""
        self._limits.enter(tool, user=caller.user, session=session_id, now=time.monotonic())
        return tool

    def _keep(self, tool: Tool, caller: Caller, arguments: Mapping[str, Json], value: Json) -> None:
        if tool.cache_s is not None and not tool.policy.side_effects:
            self._kept.keep(tool, caller, arguments, value, time.monotonic() + tool.cache_s)

    async def _perform(
        self,
        tool: Tool,
        arguments: Mapping[str, Json],
        context: ToolContext,
        person: Person | None,
    ) -> Json:
        """The selected answer of the real tool, which has its deadline to give it."""
        work: Coroutine[object, object, object]
        if tool.policy.client:
            if person is None:
                raise ToolError(ToolCode.NOT_ALLOWED, "Only a page can run this tool, and none is here.")
            seen = {name: value for name, value in arguments.items() if name not in tool.bind}
            work = _by_the_page(person, seen)
        elif tool.handler is not None:
            work = call_handler(
                tool.handler, arguments, context, self._threads, min(_PATIENCE_S, tool.timeout_s / 2)
            )
        else:
            assert tool.endpoint is not None
            key = context.idempotency_key if tool.policy.side_effects else None
            ask = partial(
                call_endpoint,
                self._http,
                tool.endpoint,
                arguments,
                retry=tool.retry,
                idempotency_key=key,
                timeout_s=tool.timeout_s,
            )
            work = _discreet(tool, ask)
        try:
            value = await self._within(work, tool)
        except HttpError as error:
            if error.status not in (404, 410) or tool.result.empty is None:
                raise
            return tool.result.empty
        return await self._shaped(_selected, value, tool)

    async def _shaped(
        self,
        shape: Callable[Concatenate[Value, More], Shaped],
        value: Value,
        *more: More.args,
        **named: More.kwargs,
    ) -> Shaped:
        """`shape(value, …)`, beside the loop if `value` is so large that it would hold up every conversation."""
        if answer.is_small(value):
            return shape(value, *more, **named)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._shaping, partial(shape, value, *more, **named))

    async def _within(self, work: Coroutine[object, object, object], tool: Tool) -> object:
        """The result of `work`, or ToolError(timeout). A handler that ignores its cancellation is left behind."""
        task = asyncio.get_running_loop().create_task(work, name=f"tool {tool.name}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait({task}, timeout=tool.timeout_s)
        except asyncio.CancelledError:
            await self._stop(task, tool)
            raise
        if task.done():
            if task.cancelled():
                raise ToolError(ToolCode.FAILED, "The tool gave up.")
            return task.result()
        await self._stop(task, tool)
        unit = "second" if tool.timeout_s == 1 else "seconds"
        raise ToolError(
            ToolCode.TIMEOUT,
            f"The tool did not answer within {tool.timeout_s:g} {unit}.",
            retryable=True,
            hint="Say that it takes too long just now.",
        )

    async def _stop(self, task: asyncio.Task[object], tool: Tool) -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=_GRACE_S)
        if not task.done():
            logger.warning("tool %s ignores its cancellation and still runs", tool.name)
            self._left_behind(1)
            task.add_done_callback(lambda _: self._left_behind(-1))

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that a late failure is not reported as lost

    async def close(self) -> None:
        """Cancels what still runs and closes the HTTP client."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=_GRACE_S)
        self._shaping.shutdown(wait=False, cancel_futures=True)
        await self._http.aclose()
        self._owned.close()


class _Progress:
    """Passes texts on, on the loop's thread, until `end`; of a flood of them, the newest a few times a second."""

    def __init__(self, told: Callable[[str], None], hidden: Collection[str]) -> None:
        self._told = told
        self._hidden = hidden
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._waiting: deque[str] = deque(maxlen=_MOST_WAITING)
        self._due = False
        """Whether those that wait will be told without more ado."""
        self._ended = False

    def __call__(self, text: object) -> None:
        self._waiting.append(str(text))
        if self._due:
            return
        self._due = True
        if threading.get_ident() == self._thread:
            self._tell()
            return
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            pass  # the loop is closed: nobody listens any more

    def _tell(self) -> None:
        self._due = False  # before the look: what a thread adds after it comes back here
        if self._ended or not self._waiting:
            return
        self._due = True
        self._flush()
        self._loop.call_later(_PROGRESS_PAUSE_S, self._tell)

    def _flush(self) -> None:
        while self._waiting:
            # A handler's own text may be anything, also what cannot be sent.
            text = self._waiting.popleft().encode("utf-8", "replace").decode()
            self._told(_short(answer.redacted_text(text, self._hidden)))

    def end(self) -> None:
        if not self._ended:
            self._flush()
        self._ended = True


async def _consented(person: Person | None, args: Mapping[str, Json]) -> None:
    """Raises ToolError(refused) unless the person says yes in time."""
    if person is None:
        raise ToolError(
            ToolCode.REFUSED,
            "It needs somebody's consent, and nobody is here to be asked.",
            hint="Try it in a conversation.",
        )
    try:
        async with asyncio.timeout(CONSENT_S):
            if await person.confirm(args):
                return
    except TimeoutError:
        pass
    raise ToolError(
        ToolCode.REFUSED,
        "The person did not agree to it.",
        hint="Do not try it again unless they ask for it.",
    )


async def _by_the_page(person: Person, arguments: Mapping[str, Json]) -> Json:
    """What the client's own function returns; an object of nothing but a text `error` is its failure."""
    match await person.perform(arguments):
        case {"error": str(error), **rest} if not rest:
            raise ToolError(ToolCode.FAILED, error[:_LONGEST_REASON])
        case value:
            return value


def _late(tool: Tool, person: Person | None) -> asyncio.TimerHandle | None:
    """Tells the person once the call has become slow."""
    after = tool.policy.slow_after_s
    if after is None or person is None:
        return None
    say = tool.policy.slow_say or "This takes a little longer."
    return asyncio.get_running_loop().call_later(after, person.slow, say)


def _look_up(catalog: ToolCatalog, name: str, allowed: Collection[str] | None) -> Tool:
    tool = catalog.tools.get(name)
    if tool is not None and (allowed is None or name in allowed):
        return tool
    names = [known for known in catalog.tools if allowed is None or known in allowed]
    close = nearest(name, names)
    raise ToolError(
        ToolCode.UNKNOWN_TOOL,
        f'There is no tool "{name[:64]}"{close or "."}',
        hint=f"The tools are: {', '.join(names[:40])}." if names else "There are no tools.",
    )


def _checked(args: Mapping[str, Json], tool: Tool) -> dict[str, Json]:
    """The arguments in their own types with defaults filled in. Raises ToolError(invalid_arguments)."""
    parameters = dict(tool.parameters)
    if not isinstance(args, Mapping):
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "The arguments must be an object.")
    if answer.has_more_than(_MOST_VALUES, args):
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS,
            f"The arguments hold more than {_MOST_VALUES} values.",
            hint="Call again with fewer.",
        )
    given = answer.to_json(args)
    arguments = fitted(given, parameters, parameters)
    assert isinstance(arguments, dict)
    unknown = _unknown(tool, arguments)
    errors = sorted(
        islice(tool.validator.iter_errors(arguments), _MOST_ERRORS),
        key=lambda error: list(map(str, error.absolute_path)),
    )
    if errors or unknown:
        reasons = [_no_such_parameter(unknown, parameters.get("properties"))] if unknown else []
        reasons += [_reason(error) for error in errors if not _is_of(error, unknown)]
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS,
            "; ".join(reasons[:_MOST_REASONS]),
            hint="Correct the arguments and call again.",
        )
    properties = parameters.get("properties")
    for name, rule in (properties if isinstance(properties, dict) else {}).items():
        if isinstance(rule, dict) and "default" in rule and name not in arguments:
            arguments[name] = rule["default"]
            if not tool.validator.of(rule).is_valid(rule["default"]):
                raise ToolError(
                    ToolCode.INVALID_ARGUMENTS,
                    f"{name}: its default does not fit.",
                    hint=f"Call again with {name}.",
                )
    return arguments


def _unknown(tool: Tool, given: Mapping[str, Json]) -> list[str]:
    """Names that are no parameter's. One that is bound is among them, whatever the schema lets through."""
    schema = tool.validator.schema
    assert isinstance(schema, dict)
    if schema.get("additionalProperties") is False and not schema.get("patternProperties"):
        known = schema.get("properties")
        return [name for name in given if not isinstance(known, dict) or name not in known]
    return [name for name in given if name in tool.bind]


def _no_such_parameter(unknown: Sequence[str], known: Json) -> str:
    names = ", ".join(f'"{name[:_LONGEST_NAME]}"' for name in unknown[:_MOST_REASONS])
    are = "There is no parameter" if len(unknown) == 1 else "There are no parameters"
    listed = ", ".join(known) if isinstance(known, dict) else ""
    return _short(
        f"{are} {names} (" + (f"the parameters are {listed})" if listed else "the tool takes none)")
    )


def _is_of(error: ValidationError, unknown: Sequence[str]) -> bool:
    """Whether it says no more than that there are no such parameters."""
    if error.absolute_path:
        return error.absolute_path[0] in unknown
    return bool(unknown) and error.validator == "additionalProperties"


def _bound(tool: Tool, arguments: Mapping[str, Json], caller: Caller, session_id: str) -> dict[str, Json]:
    """With the parameters that the model neither sees nor sets. Raises ToolError(not_allowed)."""
    if not tool.allows(caller):
        missing = ", ".join(sorted(tool.requires - caller.granted))
        raise ToolError(
            ToolCode.NOT_ALLOWED,
            f"The person may not use this tool: it needs {missing}.",
            hint="Say that they are not allowed to do that.",
        )
    whole = dict(arguments)
    for name, bound in tool.bind.items():
        try:
            value = answer.to_json(bound.of(caller, session_id))
        except LookupError as error:
            raise _unbound(tool, f"{name}: {error} is not known of the person") from None
        if not bound.fits(value):
            raise _unbound(tool, f"{name}: what is known of the person does not fit")
        whole[name] = value
    return whole


def _unbound(tool: Tool, why: str) -> ToolError:
    """`why` is for the log: the model knows nothing of what is bound, not even its name."""
    logger.warning("tool %s cannot be called: %s", tool.name, why)
    return ToolError(
        ToolCode.NOT_ALLOWED,
        "What this tool needs to know of the person is not known.",
        hint="Say that this cannot be done for this person.",
    )


async def _discreet(tool: Tool, ask: Callable[[], Coroutine[object, object, Json]]) -> Json:
    """What is wrong with a request is told by the names of its parts; where those are bound, it is for the log."""
    try:
        return await ask()
    except ToolError as error:
        if error.code is ToolCode.INVALID_ARGUMENTS and any(
            _is_named(name, error.message) for name in tool.bind
        ):
            raise _unbound(tool, error.message) from error
        raise


def _is_named(name: str, text: str) -> bool:
    """Also as the header X-Tenant for tenant."""
    plain = name.replace("_", "").lower()
    words = (word.replace("-", "").replace("_", "").lower() for word in re.findall(r"[\w-]+", text))
    return any(plain == word or (len(plain) >= _TELLING and plain in word) for word in words)


def _private(tool: Tool, arguments: Mapping[str, Json]) -> list[str]:
    """The values of bound parameters that a handler's own words must not tell, where they tell anything."""
    values = (arguments.get(name) for name in tool.bind)
    texts = (str(value) for value in values if isinstance(value, str | int | float) and value is not True)
    return [text for text in texts if len(text) >= _TELLING]


def _idempotency_key(session_id: str, call: ToolCall) -> str:
    """The same for the same call, so that a service that has seen it does nothing twice."""
    asked = json.dumps([session_id, call.repeats or call.id, call.name, call.args], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


def _reason(error: ValidationError) -> str:
    return _short(
        f"{error.json_path.removeprefix('$').removeprefix('.')}: {error.message}".removeprefix(": ")
    )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1] + "…"


def _sample(tool: Tool, arguments: Mapping[str, Json]) -> Json:
    if tool.mock is not None:
        found, value = tool.mock.answer(arguments)
        if found:
            return value
    raise ToolError(
        ToolCode.UNREACHABLE,
        "Real calls are switched off, and this tool has no sample answer for these arguments.",
        hint="Say that this cannot be tried out with sample data.",
    )


def _selected(value: object, tool: Tool) -> Json:
    """What the operator lets through of an answer. Raises ToolError(bad_answer, too_large)."""
    selected = answer.to_json(value)
    if tool.result.select is not None:
        try:
            selected = answer.to_json(tool.result.select.search(selected))
        except JMESPathError as error:
            logger.warning("tool %s: result.select does not fit the answer: %s", tool.name, error)
            raise ToolError(ToolCode.BAD_ANSWER, "The tool's answer is not of the expected shape.") from None
    if tool.result.empty is not None and answer.is_empty(selected):
        return tool.result.empty
    return selected


def _success(
    value: Json, rules: ResultRules, secrets: Iterable[str], sample: bool, started: float
) -> ToolResult:
    # A secret is blotted out before the cut, of which it might leave a half.
    whole = answer.redacted(value, secrets)
    fewer, left_out = answer.first(whole, rules.max_items)
    value, cut = answer.cut(fewer, rules.max_bytes)
    note = " ".join(text for text in (left_out, cut) if text)
    response: dict[str, Json] = {"status": "ok", "result": value}
    if sample:
        response["sample"] = True
        note = f"{SAMPLE_NOTE} {note}".strip()
    if note:
        response["note"] = note
    summary = answer.summary(value)
    return ToolResult(
        ok=True,
        response=response,
        duration_ms=_since(started),
        sample=sample,
        whole=whole if rules.to_client else None,
        summary=f"sample data: {summary}" if sample else summary,
    )


def _failure(
    error: ToolError, hidden: Collection[str], started: float, summary: str | None = None
) -> ToolResult:
    """`summary` is for people, where they may not see what the model is told."""
    # A handler's own text may hold anything, also what cannot be sent.
    message, hint = (
        answer.redacted_text(text.encode("utf-8", "replace").decode(), hidden)
        for text in (error.message, error.hint)
    )
    told: dict[str, Json] = {
        "code": str(error.code),
        "message": message,
        "retryable": error.retryable,
        "hint": hint,
    }
    return ToolResult(
        ok=False,
        response={"status": "error", "error": told},
        duration_ms=_since(started),
        error=error.code,
        summary=message if summary is None else summary,
    )


def _since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
