"""The credential that a request shows, wherever its kind of client puts it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from tornado.httputil import HTTPServerRequest

from tornado_live.errors import Unauthenticated

SUBPROTOCOL = "tornado-live"
"""What a browser names beside its credential, which it can send with a WebSocket in no other way."""

_BEARER = "bearer."
_QUERY = ("access_token", "key")


def of_request(headers: Mapping[str, str]) -> str | None:
    """`Authorization: Bearer`. Raises Unauthenticated for an Authorization of another kind."""
    given = headers.get("Authorization")
    if given is None:
        return None
    kind, _, credential = given.strip().partition(" ")
    if kind.lower() != "bearer" or not credential.strip():
        raise Unauthenticated("Send the credential as Authorization: Bearer, followed by it.")
    return credential.strip()


def of_socket(headers: Mapping[str, str]) -> str | None:
    """`Authorization: Bearer`, else the subprotocols `tornado-live, bearer.<credential>`.

    Browsers take no slash in one, which an ephemeral token has: there it may be percent-encoded. Raises as
    `of_request`.
    """
    named = of_request(headers)
    if named is not None:
        return named
    offered = [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if SUBPROTOCOL not in offered:
        return None
    shown = next((name.removeprefix(_BEARER) for name in offered if name.startswith(_BEARER)), "")
    return unquote(shown) or None


def of_google(request: HTTPServerRequest) -> Sequence[str]:
    """All that a client of Google's shows, in the order in which they count.

    Recorded (docs/gemini-compatibility.md): `x-goog-api-key`, `key` and `access_token` of the query,
    `Authorization: Token`; Bearer is what the rest of this server takes.
    """
    kind, _, rest = request.headers.get("Authorization", "").strip().partition(" ")
    queried = (request.query_arguments.get(name, [b""])[-1].decode("utf-8", "replace") for name in _QUERY)
    access, key = queried
    given = (
        rest if kind.lower() in ("token", "bearer") else "",
        access,
        request.headers.get("x-goog-api-key", ""),
        key,
    )
    return [one.strip() for one in given if one.strip()]
