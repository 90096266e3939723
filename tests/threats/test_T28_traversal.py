"""T28: no spelling of a path leads to a file that is none of the pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from doorways import NO_MODEL, raw
from serving import Server

UP = (
    b"..",
    b"%2e%2e",
    b"%2E%2e",
    b".%2e",
    b"%252e%252e",
    b"%c0%ae%c0%ae",
    b"%e0%80%ae%e0%80%ae",
    b"%uff0e%uff0e",
    b"\xef\xbc\x8e\xef\xbc\x8e",
    b"..;",
    b"..%00",
    b"..%20",
    b"....",
    b"..%0d%0a",
)
SLASHES = (b"/", b"//", b"/./", b"%2f", b"%252f", b"\\", b"%5c", b"%c0%af", b"/%5c")
BEFORE = (b"/", b"/page/", b"/voice/")
TARGET = b"etc/passwd"
OTHERS = (
    b"/etc/passwd",
    b"//etc/passwd",
    b"/%2fetc%2fpasswd",
    b"/file:///etc/passwd",
    b"/proc/self/environ",
    b"/page/%00/etc/passwd",
    b"/index.html%00../../../../etc/passwd",
    b"/C:/Windows/win.ini",
    b"/~root/.bashrc",
    b"/.env",
    b"/%2eenv",
    b"/.git/config",
    b"/data/sessions.db",
    b"/../data/sessions.db",
    b"/config/production.yaml",
    b"/..%2fconfig%2fproduction.yaml",
    b"/../tornado_live/app.py",
    b"/tornado_live/app.py",
    b"/tools.yaml",
)


def traversals() -> Iterator[bytes]:
    for before in BEFORE:
        for up in UP:
            for slash in SLASHES:
                yield before + (up + slash) * 8 + TARGET.replace(b"/", slash)
    yield from OTHERS


@pytest.mark.proves("T28")
@pytest.mark.timeout(seconds=120)
async def test_no_spelling_of_a_path_leads_out_of_the_pages() -> None:
    paths = list(traversals())
    assert len(set(paths)) > 200
    async with Server(environ=NO_MODEL | {"BASE_PATH": "/voice"}) as server:
        head = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert (await raw(server.port, b"GET /index.html" + head)).startswith(b"HTTP/1.1 200 ")
        for at in range(0, len(paths), 50):
            some = paths[at : at + 50]
            said = await asyncio.gather(*(raw(server.port, b"GET " + path + head) for path in some))
            for path, answer in zip(some, said, strict=True):
                assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), (path, answer)
                for content in (b"root:", b"SQLite format", b"import ", b"[core]", b"PATH="):
                    assert content not in answer, path
        assert "Traceback" not in server.log
