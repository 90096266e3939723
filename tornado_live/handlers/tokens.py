"""`POST /{version}/auth_tokens`: ephemeral tokens, asked for and answered as Google's service does.

Recorded from google-genai 3.4.0 and @google/genai 3.1.0: the path and its repeated slashes, an empty body, what a
page asks before its call, and that of the answer only `name` is read. Documented: the shape of errors
(google.rpc.Status).
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

import msgspec
from tornado.routing import URLSpec
from tornado.web import stream_request_body

from tornado_live.access.tokens import keep, mint
from tornado_live.errors import BadMessage, LiveError, TooLarge
from tornado_live.handlers.door import MAX_BODY, DoorHandler, House
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
    _let_in = False

    def prepare(self) -> None:
        super().prepare()
        self._let_in = True

    def write_failure(self, failure: LiveError, status: int) -> None:
        if not self._let_in:
            # Tornado reads no body after its answer, and closes: the client must not ask again on this connection.
            self.set_header("Connection", "close")
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

    def _nothing(self, *_: str) -> None:
        self.write_failure(BadMessage(_ONLY_LIVE), 404)

    get = head = post = put = patch = delete = _nothing


_ONLY_LIVE = (
    "Only the Live API (WebSocket) and auth_tokens are served here; ask Google for the rest of its API."
)


@stream_request_body
class AuthTokensHandler(GoogleHandler):
    def initialize(self, house: House, store: SessionStore) -> None:  # type: ignore[override]  # Tornado's hook
        super().initialize(house)
        self._store = store
        self._body = bytearray()
        self._too_large = False

    def data_received(self, chunk: bytes) -> None:
        # What is over the cap is read and dropped, so that the client is there to hear about it.
        if len(self._body) + len(chunk) > MAX_BODY:
            self._too_large = True
        else:
            self._body += chunk

    async def post(self) -> None:
        token = mint(self._asked(), user=self.caller.user, now=time.time())
        await keep(self._store, token)
        self.answer({"name": token.name})

    def compute_etag(self) -> None:
        """A token is told once; no hash of it is made."""

    def _asked(self) -> Any:
        if self._too_large:
            raise TooLarge(f"The body is over {MAX_BODY // 1024} KiB. Fix less of the setup.")
        if not self._body.strip():
            return None
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise BadMessage('Send the body as JSON, with "Content-Type: application/json".')
        try:
            return msgspec.json.decode(bytes(self._body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadMessage("Invalid JSON payload received.") from error


def routes(house: House, store: SessionStore) -> list[URLSpec]:
    """To be put before the pages. Clients whose base URL ends in a slash send more than one."""
    given = {"house": house, "store": store}
    return [
        URLSpec(r"/+(?:v1|v1alpha|v1beta)/+auth_tokens", AuthTokensHandler, given),
        URLSpec(r"/+(?:v1|v1alpha|v1beta)/.*", NothingElseHandler, {"house": house}),
    ]
