"""T27: requests that two servers in a row could read differently are refused, or answered once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import httpx
import pytest
from doorways import DEADLINE_S, NO_MODEL, raw
from nginx import Nginx
from serving import Server

HOST = b"localhost"
SMUGGLED = b"GET /api/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /api/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"


def length(count: int) -> bytes:
    return b"Content-Length: %d\r\n" % count


INSIDE = length(len(END + SMUGGLED))
"""A length that takes what is smuggled for a part of the body."""


def post(head: bytes, body: bytes = END + SMUGGLED) -> bytes:
    return POST + head + b"\r\n" + body


INSIDE_OF_HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + length(len(SMUGGLED)) + b"\r\n" + SMUGGLED

NGINX_TAKES = {"a chunk with a bare LF", "an extension with a bare LF"}
"""It writes anew what it passes on, so what follows is a request of its own for both."""

PROBES: Mapping[str, bytes] = {
    "a length and chunks": post(length(len(END)) + CHUNKED),
    "chunks and a length": post(CHUNKED + length(4), b"5c\r\n" + SMUGGLED + END),
    "a length of all, and chunks": post(INSIDE + CHUNKED),
    "a coding that is none": post(b"Transfer-Encoding: xchunked\r\n" + INSIDE),
    "chunked and identity": post(b"Transfer-Encoding: chunked, identity\r\n"),
    "identity and chunked": post(b"Transfer-Encoding: identity, chunked\r\n" + INSIDE),
    "gzip and chunked": post(b"Transfer-Encoding: gzip, chunked\r\n"),
    "chunked twice": post(b"Transfer-Encoding: chunked, chunked\r\n"),
    "two codings": post(CHUNKED + b"Transfer-Encoding: identity\r\n"),
    "a space before the colon": post(b"Transfer-Encoding : chunked\r\n" + INSIDE),
    "a tab before the value": post(b"Transfer-Encoding:\tchunked\r\n" + INSIDE),
    "a vertical tab before the value": post(b"Transfer-Encoding:\x0bchunked\r\n" + INSIDE),
    "capitals": post(b"TRANSFER-ENCODING: CHUNKED\r\n" + INSIDE),
    "quotes": post(b'Transfer-Encoding: "chunked"\r\n' + INSIDE),
    "an underscore": post(b"Transfer_Encoding: chunked\r\n" + INSIDE),
    "a folded coding": post(b"X-Folded: x\r\n Transfer-Encoding: chunked\r\n" + INSIDE),
    "a folded value": post(b"Transfer-Encoding:\r\n chunked\r\n" + INSIDE),
    "a first header that is folded": b"POST /api/sessions HTTP/1.1\r\n Host: localhost\r\n"
    + INSIDE
    + b"\r\n",
    "a name before a line break": post(b"Transfer-Encoding\r\n: chunked\r\n" + INSIDE),
    "two lengths": post(length(0) + INSIDE),
    "two lengths in one": post(b"Content-Length: 0, %d\r\n" % len(END + SMUGGLED)),
    "a length with a sign": post(b"Content-Length: +5\r\n", b"{}   " + SMUGGLED),
    "a length below nothing": post(b"Content-Length: -1\r\n", SMUGGLED),
    "a length in hex": post(b"Content-Length: 0x5\r\n", b"{}   " + SMUGGLED),
    "a length with an underscore": post(b"Content-Length: 0_5\r\n", b"{}   " + SMUGGLED),
    "a length in other digits": post("Content-Length: ٥\r\n".encode(), b"{}   " + SMUGGLED),
    "a length of nothing": post(b"Content-Length: \r\n", SMUGGLED),
    "a length with a space inside": post(b"Content-Length: 0 5\r\n", b"{}   " + SMUGGLED),
    "a bare CR in a value": post(b"X-Bare: x\rTransfer-Encoding: chunked\r\n" + INSIDE),
    "a bare LF in a value": post(b"X-Bare: x\nTransfer-Encoding: chunked\r\n" + INSIDE),
    "a bare CR for a line break": b"GET /health HTTP/1.1\rHost: localhost\r\r" + SMUGGLED,
    "bare LF for line breaks": b"GET /health HTTP/1.1\nHost: localhost\n\n",
    "a NUL in a value": post(b"X-Null: a\0b\r\n" + INSIDE),
    "a NUL in a name": post(b"X-\0Null: b\r\n" + INSIDE),
    "a line without a colon": post(b"Transfer-Encoding chunked\r\n" + INSIDE),
    "a name with a space": post(b"Transfer Encoding: chunked\r\n" + INSIDE),
    "no name": post(b": chunked\r\n" + INSIDE),
    "two hosts": post(b"Host: rebind.test\r\n" + INSIDE),
    "no host": b"GET /health HTTP/1.1\r\n\r\n" + SMUGGLED,
    "a chunk with a sign": post(CHUNKED, b"+2\r\n{}\r\n" + END + SMUGGLED),
    "a chunk in hex with its prefix": post(CHUNKED, b"0x2\r\n{}\r\n" + END + SMUGGLED),
    "a chunk with an underscore": post(CHUNKED, b"0_2\r\n{}\r\n" + END + SMUGGLED),
    "a chunk below nothing": post(CHUNKED, b"-2\r\n{}\r\n" + END + SMUGGLED),
    "a chunk of more than there is": post(CHUNKED, b"fffffffffffffffff0\r\n{}\r\n" + END + SMUGGLED),
    "a chunk that is longer than it says": post(CHUNKED, b"2\r\n{}  \r\n" + END + SMUGGLED),
    "a chunk with a bare LF": post(CHUNKED, b"2\n{}\n0\n\n" + SMUGGLED),
    "an extension with a bare LF": post(CHUNKED, b"2;x\n{}\r\n" + END + SMUGGLED),
    "an extension with a bare CR": post(CHUNKED, b"2;x=\ry\r\n{}\r\n" + END + SMUGGLED),
    "HTTP/1.0 with chunks": POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + END + SMUGGLED,
    "what follows the last one": b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    + SMUGGLED,
    "what follows HTTP/1.0": b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "HTTP/0.9": b"GET /health\r\n" + SMUGGLED,
    "HTTP/1.1 with a letter": b"GET /health HTTP/1.x\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "an address of another host": b"GET http://rebind.test/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path with a line break": b"GET /health\r HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "a path with a space": b"GET /health x HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "a method with a NUL": b"GE\0T /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
    "a body for GET": INSIDE_OF_HEALTH,
    "a body for HEAD": INSIDE_OF_HEALTH.replace(b"GET", b"HEAD", 1),
    "a body that is waited for": post(b"Expect: 100-continue\r\n" + INSIDE),
    "an upgrade to HTTP/2": post(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n" + INSIDE
    ),
}


def answers(said: bytes) -> list[int]:
    """The status of each answer, but those that only say to go on."""
    found = [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3})[ \r]", said)]
    return [status for status in found if status >= 200]


@pytest.mark.proves("T27")
async def test_what_could_be_read_in_two_ways_is_refused_or_answered_once_directly_and_behind_nginx() -> None:
    assert len(PROBES) >= 30
    quick = {"client_header_timeout 10s;": "client_header_timeout 10s;\n    keepalive_timeout 1s;"}
    environ = NO_MODEL | {"TRUSTED_PROXIES": "127.0.0.1", "PUBLIC_URL": "https://localhost"}
    async with Server(environ=environ) as server, Nginx(server.port, changes=quick) as proxy:
        refused = 0
        for port, tls in ((server.port, None), (proxy.port, proxy.tls)):
            said = await asyncio.gather(*(raw(port, probe, tls=tls) for probe in PROBES.values()))
            for name, answer in zip(PROBES, said, strict=True):
                found = answers(answer)
                assert len(found) <= (2 if tls is not None and name in NGINX_TAKES else 1), (
                    f"{name}: {answer!r}"
                )
                refused += not found or found[0] >= 400
        assert refused > len(PROBES)  # of the others the one answer is to the one request
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            assert (await client.get("/api/the-last")).status_code == 404
        await server.printed("/api/the-last")
        # Whatever the server was asked, nginx knows that it asked it.
        known = await proxied(proxy, server.log.count('"uri": "/api/smuggled"'))
        assert len(known) <= len(NGINX_TAKES)
        assert "Traceback" not in server.log


async def proxied(proxy: Nginx, count: int) -> list[str]:
    """The smuggled requests that nginx itself passed on, which it writes down after their answers."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [str(one) for one in proxy.requests if one["path"] == "/api/smuggled"]
            if len(found) >= count:
                assert len(found) == count
                return found
            await asyncio.sleep(0.01)
