"""The way of a conversation step by step: at which step it ends, and why.

A step that is wrong names its remedy; the steps after it still run where they can. The key is never printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import urlsplit, urlunsplit

from tornado_live.assistants import Assistant
from tornado_live.doctor.compare import NotComparable, compared
from tornado_live.doctor.report import Report, explained
from tornado_live.errors import ConfigError, nearest
from tornado_live.live.causes import (
    CERTIFICATE_UNTRUSTED,
    NO_SETUP_ANSWER,
    UNREADABLE,
    Cause,
    Retry,
    of_close,
    of_status,
)
from tornado_live.live.peer import WebSocketPeer
from tornado_live.live.upstream import GOOGLE, SETUP_TIMEOUT_S, DialFailed, GeminiAddress, Patience, Upstream
from tornado_live.live.vertex import vertex_upstream
from tornado_live.observe.logs import Masker
from tornado_live.settings import Settings, Vertex
from tornado_live.tools.catalog import ToolCatalog, load_catalog
from tornado_live.tools.loading import toolset_problems
from tornado_live.wire import gemini
from tornado_live.wire.models import LiveModel

_SIMULATOR_START_S = 15.0
_LIVE = "bidiGenerateContent"
# google-genai insists on a key, also for a server that needs none.
_NO_KEY = "none"


async def examine(settings: Settings, say: Callable[[str], None]) -> int:
    """The exit code: 0 when a conversation would work, 1 when something has to be mended."""
    masker = Masker()
    if settings.gemini_api_key is not None:
        masker.mask(settings.gemini_api_key.get_secret_value())
    report = Report(say, masker)
    report.fine("settings", f"{settings.config_file or 'no file'}; home is {settings.home}")
    catalog = _check_tools(settings, report)
    if settings.upstream == "simulator":
        await _check_simulator(settings, catalog, report)
    elif settings.vertex is not None:
        await _check_vertex(settings, settings.vertex, catalog, report)
    else:
        key = _check_key(settings, report)
        await _check_developer_api(settings, settings.gemini_base_url or GOOGLE, key, catalog, report)
    if report.failures:
        say(f"{report.failures} to mend; docs/troubleshooting.md has more about each.")
    else:
        say("All is well.")
    return 1 if report.failures else 0


def _check_tools(settings: Settings, report: Report) -> ToolCatalog:
    if settings.tools_file is None:
        report.note("tools", f"there is no tools.yaml in {settings.home}, so the model has no tools")
        return ToolCatalog.EMPTY
    try:
        catalog = load_catalog(
            settings.tools_file,
            home=settings.home,
            data_dir=settings.data_dir,
            environment=settings.environment,
            handler_prefixes=settings.handler_prefixes,
        )
    except ConfigError as refused:
        for problem in refused.problems:
            report.wrong("tools", str(problem))
        return ToolCatalog.EMPTY
    for problem in catalog.left_out:
        report.wrong("tools", f"left out: {problem}")
    for problem in toolset_problems(settings, catalog):
        report.wrong("tools", str(problem))
    report.fine("tools", f"{settings.tools_file}: {', '.join(catalog.tools) or 'none'}")
    return catalog


def _check_key(settings: Settings, report: Report) -> str:
    if settings.gemini_api_key is None:
        report.note("key", "none; this works only where GEMINI_BASE_URL asks for none")
        return ""
    name = "gemini_api_key" if "gemini_api_key" in settings.sources else "google_api_key"
    report.fine("key", f"from {settings.sources[name]}")
    return settings.gemini_api_key.get_secret_value()


async def _check_simulator(settings: Settings, catalog: ToolCatalog, report: Report) -> None:
    if settings.gemini_api_key is None:
        report.note("key", "none, so the simulator answers; with GEMINI_API_KEY in .env it is Gemini")
    else:
        report.note("key", "not used: UPSTREAM says that the simulator answers")
    async with _simulator(settings) as (line, address):
        if address is None:
            report.wrong("simulator", f"it does not start: {line or 'it said nothing'}")
            return
        report.fine("simulator", f"listens on {address}")
        await _check_developer_api(settings, address, "", catalog, report)


@contextlib.asynccontextmanager
async def _simulator(settings: Settings) -> AsyncIterator[tuple[str, str | None]]:
    """A simulator of its own: (what it said last, its address or None)."""
    options = ["--exit-with-stdin", "--voice", "off"]
    if settings.simulator.scenario is not None:
        options += ["--scenario", str(settings.simulator.scenario)]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tornado_live.simulator",
        *options,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        try:
            async with asyncio.timeout(_SIMULATOR_START_S):
                line = (await child.stdout.readline()).decode(errors="replace").strip()
        except TimeoutError:
            line = ""
        yield line, _address(line)
    finally:
        child.stdin.close()
        try:
            async with asyncio.timeout(_SIMULATOR_START_S):
                await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()


def _address(line: str) -> str | None:
    try:
        listening = json.loads(line)["listening"]
        return f"http://{listening['host']}:{int(listening['port'])}"
    except (ValueError, KeyError, TypeError):
        return None


async def _check_vertex(settings: Settings, vertex: Vertex, catalog: ToolCatalog, report: Report) -> None:
    url, key = settings.gemini_base_url, settings.gemini_api_key
    trust = ssl.create_default_context()
    upstream = vertex_upstream(vertex, key, settings.api_version, url, trust, Patience())
    if upstream.authorize is None:
        _check_key(settings, report)
    else:
        source = vertex.credentials or "where google.auth finds them"
        try:
            await upstream.authorize()
        except DialFailed as failed:
            report.wrong("key", f"the credentials, {source}: {explained(failed.cause)}")
        else:
            report.fine("key", f"the credentials are {source}; {vertex.project} in {vertex.location}")
    report.note("models", "Vertex AI does not list its Live models; each is tried")
    await _check_setups(settings, upstream, catalog, (), report)


async def _check_developer_api(
    settings: Settings, base_url: str, key: str, catalog: ToolCatalog, report: Report
) -> None:
    """`base_url` without a path of ours; `key` is empty for none."""
    from pydantic import SecretStr

    known = await _check_models(settings, base_url, key, report)
    upstream = Upstream(
        GeminiAddress(base_url),
        SecretStr(key) if key else None,
        settings.api_version,
        ssl.create_default_context(),
    )
    await _check_setups(settings, upstream, catalog, known, report)


async def _check_setups(
    settings: Settings, upstream: Upstream, catalog: ToolCatalog, known: Sequence[str], report: Report
) -> None:
    """Of every assistant; `known` are the models, if they are known."""
    for assistant in settings.assistants.values():
        facts = settings.models.of(assistant.model)
        setup = _setup(facts, assistant, catalog)
        for change in setup.changes:
            report.note("setup", f"{assistant.name} is fitted to the model: {change}")
        await _check_setup(upstream, assistant, facts, setup.payload, known, report)
        await _compare(facts, assistant, setup.payload, report)


async def _check_models(settings: Settings, base_url: str, key: str, report: Report) -> Sequence[str]:
    """The Live models that the model side names, none if it does not say."""
    from google.genai import Client, types
    from google.genai.errors import APIError

    parts = urlsplit(base_url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    client = Client(
        vertexai=False,
        api_key=key or _NO_KEY,
        http_options=types.HttpOptions(
            base_url=urlunsplit((scheme, parts.netloc, parts.path, "", "")),
            api_version=settings.api_version,
            timeout=int(SETUP_TIMEOUT_S * 1000),
            # It would take the key along.
            async_client_args={"follow_redirects": False},
        ),
    )
    names: list[str] = []
    try:
        async with asyncio.timeout(2 * SETUP_TIMEOUT_S):
            async for model in await client.aio.models.list():
                if _LIVE in (model.supported_actions or ()) and model.name:
                    names.append(model.name.removeprefix("models/"))
    except APIError as refused:
        report.wrong("models", _listing_refused(refused.code, refused.message or ""))
        return ()
    except TimeoutError:
        report.wrong("models", "the list did not come in time; check the network")
        return ()
    except Exception as failed:  # noqa: BLE001 - the SDK lets its transport's own exceptions through
        report.wrong("models", f"{_unreachable(failed)}; check the network and GEMINI_BASE_URL")
        return ()
    finally:
        await client.aio.aclose()
        client.close()
    if not names:
        report.wrong("models", "the key has no Live model; check the project that it belongs to")
        return ()
    report.fine("models", ", ".join(sorted(names)))
    for wanted in sorted(
        {assistant.model.removeprefix("models/") for assistant in settings.assistants.values()}
    ):
        if wanted not in names:
            report.wrong(
                "models", f"{wanted} is not among them{nearest(wanted, names)}; set GEMINI_LIVE_MODEL"
            )
    return sorted(names)


def _listing_refused(code: int, message: str) -> str:
    if "API key not valid" in message or "API key expired" in message:
        return "the key is not valid; copy it anew from aistudio.google.com/apikey into GEMINI_API_KEY"
    return f"{of_status(code, None).message} ({message or 'no reason given'})"


def _unreachable(error: Exception) -> str:
    """The innermost reason; the SDK's transport wraps it several times."""
    inner: BaseException = error
    while inner.__cause__ is not None or inner.__context__ is not None:
        inner = inner.__cause__ or inner.__context__ or inner
    if isinstance(inner, ssl.SSLError):
        return f"the server's certificate is not trusted here ({inner.reason})"
    return f"the server cannot be reached ({inner or type(inner).__name__})"


class _FirstMessage:
    """Listens until the model side has said something or is gone."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes | tuple[int, str]] = asyncio.get_running_loop().create_future()

    def on_message(self, data: bytes, binary: bool) -> None:
        if not self.answer.done():
            self.answer.set_result(data)

    def on_closed(self, code: int, reason: str) -> None:
        if not self.answer.done():
            self.answer.set_result((code, reason))

    def on_writable(self, writable: bool) -> None:
        pass


def _setup(facts: LiveModel, assistant: Assistant, catalog: ToolCatalog) -> gemini.Setup:
    """The first message of a conversation with this assistant."""
    declarations = catalog.declarations(assistant.toolset)
    names = [str(declaration["name"]) for declaration in declarations]
    background = frozenset(name for name in names if catalog.policy(name).wait == "background")
    return gemini.conversation_setup(facts, assistant.config, declarations, background=background)


async def _check_setup(
    upstream: Upstream,
    assistant: Assistant,
    facts: LiveModel,
    setup: bytes,
    known: Sequence[str],
    report: Report,
) -> None:
    """As the server does it: the same dial, the same first message. `known` are the models, if they are known."""
    began = time.monotonic()
    cause = await _refusal(upstream, facts, setup)
    label = f"{assistant.name} ({assistant.model})"
    if cause is None:
        report.fine("setup", f"{label} was accepted in {round((time.monotonic() - began) * 1000)} ms")
        return
    text = explained(cause)
    if cause.retry is Retry.NEVER and cause is not CERTIFICATE_UNTRUSTED:
        if known and assistant.model.rsplit("/", 1)[-1] not in known:
            text = f"There is no such model; set {_model_setting(assistant)} to {' or '.join(known)}."
        elif upstream.key is None and upstream.authorize is None and not known:
            text += " There is no key; it may need one in GEMINI_API_KEY."
    report.wrong("setup", f"{label}: {text}")


def _model_setting(assistant: Assistant) -> str:
    return "GEMINI_LIVE_MODEL" if assistant.name == "default" else f"assistants.{assistant.name}.model"


async def _refusal(upstream: Upstream, facts: LiveModel, setup: bytes) -> Cause | None:
    """Why the model side does not take `setup`; None when it does."""
    peer: WebSocketPeer | None = None
    try:
        peer = await upstream.dial()
        listener = _FirstMessage()
        peer.attach(listener)
        peer.send_text(setup)
        async with asyncio.timeout(SETUP_TIMEOUT_S):
            answer = await listener.answer
    except DialFailed as failed:
        return failed.cause
    except TimeoutError:
        return NO_SETUP_ANSWER
    finally:
        if peer is not None:
            peer.close()
    if isinstance(answer, tuple):
        code, reason = answer
        return of_close(code, reason, facts=facts, last_sent="setup", opened=False, resuming=False)
    try:
        accepted = gemini.decode(answer).setup_complete is not None
    except ValueError:
        accepted = False
    return None if accepted else UNREADABLE


async def _compare(facts: LiveModel, assistant: Assistant, setup: bytes, report: Report) -> None:
    """With what Google's own client would send; where the two differ, the protocol has moved."""
    try:
        found = await compared(facts, assistant.config, setup)
    except NotComparable as reason:
        report.note("compare", f"{assistant.name} cannot be compared with google-genai's: {reason}")
        return
    if not found:
        report.fine("compare", f"{assistant.name} means the same as google-genai's")
    for difference in found:
        report.wrong(
            "compare", f"{assistant.name} differs from google-genai's, please report it: {difference}"
        )
