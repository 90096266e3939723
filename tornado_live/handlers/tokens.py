"""`POST /{version}/auth_tokens`: ephemeral tokens, asked for and answered as Google's service does.

Recorded from google-genai 3.4.0 and @google/genai 3.1.0: the path and its repeated slashes, an empty body, what a
page asks before its call, and that of the answer only `name` is read. Documented: the shape of errors
(google.rpc.Status).
"""

from __future__ import annotations

import time
from typing import ClassVar

from tornado.routing import URLSpec
from tornado.web import stream_request_body

from tornado_live.access.identity import is_user
from tornado_live.access.tickets import acting_for
from tornado_live.access.tokens import bound_of, keep, mint
from tornado_live.caller import Caller
from tornado_live.errors import BadMessage, LiveError
from tornado_live.handlers import credentials
from tornado_live.handlers.door import BodyHandler, DoorHandler, House
from tornado_live.handlers.gate import BACKEND
from tornado_live.sessions.store import SessionStore

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class GoogleHandler(DoorHandler):
    """Failures in Google's shape, which its SDKs read."""

    cross_origin_headers: ClassVar[tuple[str, ...]] = (
        *DoorHandler.cross_origin_headers,
        "X-Goog-Api-Client",
        "X-Goog-Api-Key",
        "X-Server-Timeout",
    )

    def shown(self) -> str | None:
        return next(iter(credentials.of_google(self.request)), None)

    def write_failure(self, failure: LiveError, status: int) -> None:
        self.answer(
            {
                "error": {
                    "code": status,
                    "message": failure.message,
                    "status": _STATUS.get(status, "INTERNAL"),
                    "details": [
                        {
                            "@type": "type.googleapis.com/google.rpc.RequestInfo",
                            "requestId": self.request_id,
                        }
                    ],
                }
            },
            status,
        )


class NothingElseHandler(GoogleHandler):
    """The rest of Google's API, which clients may ask for at the same base URL."""

    public = True

    def _nothing(self, *_: str) -> None:
        self.write_failure(BadMessage(_ONLY_LIVE), 404)

    get = head = post = put = patch = delete = _nothing


_ONLY_LIVE = (
    "Only the Live API (WebSocket) and auth_tokens are served here; ask Google for the rest of its API."
)


@stream_request_body
class AuthTokensHandler(BodyHandler, GoogleHandler):
    def initialize(self, house: House, store: SessionStore) -> None:  # type: ignore[override]  # Tornado's hook
        super().initialize(house)
        self._store = store

    async def post(self) -> None:
        asked = self.json_body(object, "Fix less of the setup.")
        caller = self._acting(asked)
        if self.house.gate is not None:
            address = None if BACKEND in self.caller.roles else self.asked.address
            await self.house.gate.session_made(address, caller)
        token = mint(asked, caller=caller, now=time.time(), steady=time.monotonic())  # type: ignore[arg-type]  # JSON
        await keep(self._store, token, at_most=bound_of(caller))
        self.answer({"name": token.name})

    def _acting(self, asked: object) -> Caller:
        """Whose token it is. Google's request names nobody; a backend may, by a `userId` of ours, which is taken
        out. Raises BadMessage."""
        if BACKEND not in self.caller.roles or not isinstance(asked, dict) or "userId" not in asked:
            return self.caller
        user = asked.pop("userId")
        if not isinstance(user, str) or not is_user(user):
            raise BadMessage("Invalid value at 'auth_token.user_id': nobody can be called so.")
        return acting_for(self.caller, user)

    def compute_etag(self) -> None:
        """A token is told once; no hash of it is made."""


def routes(house: House, store: SessionStore | None) -> list[URLSpec]:
    """To be put before the pages; `store` None where there are no tokens.

    Clients whose base URL ends in a slash send more than one.
    """
    rest = URLSpec(r"/+(?:v1|v1alpha|v1beta)/.*", NothingElseHandler, {"house": house}, name="google_nothing")
    if store is None:
        return [rest]
    given = {"house": house, "store": store}
    minting = r"/+(?:v1|v1alpha|v1beta)/+auth_tokens"
    return [URLSpec(minting, AuthTokensHandler, given, name="auth_tokens"), rest]
