"""REST for tools: what there is, one call by hand, and the calls of a session."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tornado.routing import URLSpec
from tornado.web import stream_request_body

from tornado_live.errors import BadMessage
from tornado_live.handlers.answers import Invocation
from tornado_live.handlers.door import BodyHandler, DoorHandler, House
from tornado_live.jsonvalue import Json
from tornado_live.sessions.ledger import ledger
from tornado_live.sessions.store import SessionStore
from tornado_live.settings import Settings
from tornado_live.tools.catalog import ToolCatalog
from tornado_live.tools.runner import ToolCall, ToolRunner


class _Listed(Protocol):
    def listing(self, names: Collection[str] | None = None) -> Sequence[Mapping[str, Json]]: ...


@dataclass(frozen=True)
class ToolRoutes:
    """The collaborators of the routes."""

    house: House
    settings: Settings
    store: SessionStore
    catalog: Callable[[], ToolCatalog]
    runner: ToolRunner


class _ToolHandler(DoorHandler):
    def initialize(self, given: ToolRoutes) -> None:  # type: ignore[override]  # Tornado's hook
        super().initialize(given.house)
        self.given = given

    def compute_etag(self) -> None:
        """Answers are not cached, so no hash of them is made."""


class ToolsHandler(_ToolHandler):
    """The tools of all assistants that the caller may use: any may be chosen, but by whom only one is for."""

    async def get(self) -> None:
        assistants, only = self.given.settings.assistants, self.caller.assistant
        usable = assistants.values() if only is None else filter(None, [assistants.get(only)])
        toolsets = [assistant.toolset for assistant in usable]
        names: set[str] | None = set()
        for toolset in toolsets:
            names = None if names is None or toolset is None else names | set(toolset)
        catalog = self.given.catalog().for_caller(self.caller)
        self.answer({"tools": list(catalog.listing(names))})

    head = get


@stream_request_body
class InvokeHandler(BodyHandler, _ToolHandler):
    """Runs one tool as the model would, for operators. Nobody is there to be asked for consent."""

    operator = True

    async def post(self, name: str) -> None:
        asked = self.json_body(Invocation, "Send smaller arguments.")
        catalog = self.given.catalog()
        if name not in catalog.tools:
            raise BadMessage(f'There is no tool "{name[:64]}"; GET /api/tools lists them.')
        call = ToolCall(self.request_id, name, asked.args if asked is not None else {})
        session = f"invoke-{self.request_id}"  # each is a session of its own; its log lines are found by it
        result = await self.given.runner.run(catalog, call, caller=self.caller, session_id=session)
        self.answer({**result.response, "durationMs": result.duration_ms})


class CallsHandler(_ToolHandler):
    async def get(self, id: str) -> None:
        await self.given.store.get(id, user=self.caller.user)
        self.answer({"sessionId": id, "calls": ledger(await self.given.store.events(id))})

    head = get


def routes(given: ToolRoutes) -> list[URLSpec]:
    """To be put before the rest of /api/."""
    shared = {"given": given}
    return [
        URLSpec(r"/api/tools", ToolsHandler, shared, name="tools"),
        URLSpec(r"/api/tools/([^/]+)/invoke", InvokeHandler, shared, name="invoke"),
        URLSpec(r"/api/sessions/([^/]+)/calls", CallsHandler, shared, name="calls"),
    ]
