"""One HTTP call of a tool, from its arguments to its answer: retries, redirects, what the answer says."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Mapping
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from tornado_live.tools.http_answer import http_error, parse_answer
from tornado_live.tools.http_guard import CONNECT_SECONDS, MOST_CALLS_OF_A_HOST, GuardedTransport, Resolve
from tornado_live.tools.http_redirect import STATUSES, redirected
from tornado_live.tools.http_retry import BrokenOff, HttpError, Retry, pause_before_retry, retry_after
from tornado_live.tools.http_template import Endpoint, fill
from tornado_live.tools.result import Json, ToolError

__all__ = ["HttpError", "call_endpoint", "guarded_client"]

_USER_AGENT = "tornado-live"


def guarded_client(
    *,
    tls: ssl.SSLContext | None = None,
    resolve: Resolve | None = None,
    network: httpcore.AsyncNetworkBackend | None = None,
    calls_of_a_host: int = MOST_CALLS_OF_A_HOST,
) -> httpx.AsyncClient:
    """The client for all HTTP of tools; `ToolContext` says which request extensions it takes."""
    return httpx.AsyncClient(
        transport=GuardedTransport(
            tls=tls, resolve=resolve, network=network, calls_of_a_host=calls_of_a_host
        ),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
        # The client serves all users: what a service sets for one must not be sent for another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )


async def call_endpoint(
    client: httpx.AsyncClient,
    endpoint: Endpoint,
    arguments: Mapping[str, Json],
    *,
    retry: Retry | None = None,
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Json:
    """What the endpoint answers, None for an empty answer. Raises ToolError.

    `idempotency_key` says that the call has side effects: it is never tried again once it may have arrived, and
    the key goes with it, so that the service can tell a repeated one. `timeout_s` is what the caller gives it: no
    pause before another try is begun that would outlast it.
    """
    request = fill(endpoint, arguments)
    for name, value in client.headers.items():
        request.headers.setdefault(name, value)
    has_effects = idempotency_key is not None
    if idempotency_key is not None:
        request.headers["Idempotency-Key"] = idempotency_key
    loop = asyncio.get_running_loop()
    ends = None if timeout_s is None else loop.time() + timeout_s
    tries = 0
    while True:
        try:
            return await _answered(client, endpoint, request)
        except ToolError as error:
            tries += 1
            pause = pause_before_retry(
                error,
                None if has_effects else retry,
                tries=tries,
                repeatable=endpoint.method == "GET" and not has_effects,
                left_s=None if ends is None else ends - loop.time(),
                jitter=random.random(),  # noqa: S311 - it only spreads callers out
            )
            if pause is None:
                if has_effects:
                    raise _as_told(error) from error
                raise
        await asyncio.sleep(pause)


async def _answered(client: httpx.AsyncClient, endpoint: Endpoint, request: httpx.Request) -> Json:
    left = endpoint.follow_redirects
    while True:
        response = await client.send(request, stream=True)
        async with aclosing(response):
            if response.is_success:
                body = await response.aread()
                return parse_answer(response.headers.get("content-type", ""), body, endpoint.expect)
            location = response.headers.get("location")
            if left == 0 or response.status_code not in STATUSES or location is None:
                wait = retry_after(response.headers.get("retry-after"), now=time.time())
                raise http_error(response.status_code, wait)
        left -= 1
        request = redirected(
            request, response.status_code, location, ports=endpoint.ports(), hosts=endpoint.hosts
        )


def _as_told(error: ToolError) -> ToolError:
    """`error` of a call with side effects."""
    if not isinstance(error, BrokenOff):
        return error
    hint = "It may have been done all the same: find out before trying again."
    return ToolError(error.code, error.message, hint=hint)
