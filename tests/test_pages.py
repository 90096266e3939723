"""The static pages over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_live.access.origins import Doors
from tornado_live.handlers import pages
from tornado_live.handlers.door import House, log_request
from tornado_live.handlers.paths import Paths
from tornado_live.observe.metrics import Metrics

SECRET = "nobody may read this"


@asynccontextmanager
async def served(tmp_path: Path, base_path: str = "") -> AsyncIterator[tuple[httpx.AsyncClient, Path]]:
    """A folder of pages beside a file that is none of them."""
    (tmp_path / "secret.txt").write_text(SECRET)
    folder = tmp_path / "static"
    (folder / "page" / "deep").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>start</title>")
    (folder / "page" / "main.js").write_text("export const one = 1;\n")
    (folder / "page" / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / ".env").write_text(SECRET)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text(SECRET)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "static-private").mkdir()
    (tmp_path / "static-private" / "secret.txt").write_text(SECRET)

    [listener] = bind_sockets(0, "127.0.0.1")
    port = listener.getsockname()[1]
    doors = Doors(["http://localhost:3000"], ["127.0.0.1"], [port])
    house = House(doors, Metrics(), (port,), paths=Paths(base_path, base_path))
    server = HTTPServer(Application(pages.routes(house, folder), log_function=log_request))
    server.add_socket(listener)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client, folder
    finally:
        server.stop()
        await server.close_all_connections()


async def test_the_start_page_is_at_the_root(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "<title>start</title>" in answer.text
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "Server" not in answer.headers


async def test_a_folder_shows_its_index(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        assert "<title>page</title>" in (await client.get("/page/")).text
        moved = await client.get("/page")
        assert (moved.status_code, moved.headers["Location"]) == (301, "/page/")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.SVG", "image/svg+xml"),
        ("a.json", "application/json"),
        ("a.woff2", "font/woff2"),
        ("a.wav", "audio/wav"),
        ("a.unheard-of", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
async def test_content_types_do_not_depend_on_the_machine(tmp_path: Path, name: str, kind: str) -> None:
    async with served(tmp_path) as (client, folder):
        (folder / name).write_bytes(b"x")
        assert (await client.get(f"/{name}")).headers["Content-Type"] == kind


async def test_an_unchanged_file_costs_no_body_and_a_changed_one_shows_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, folder):
        first = await client.get("/page/main.js")
        assert first.headers["Cache-Control"] == "no-cache"
        asked = {"If-None-Match": first.headers["ETag"]}
        again = await client.get("/page/main.js", headers=asked)
        assert (again.status_code, again.content) == (304, b"")
        (folder / "page" / "main.js").write_text("export const two = 2;\n")
        changed = await client.get("/page/main.js", headers=asked)
        assert (changed.status_code, changed.text) == (200, "export const two = 2;\n")


async def test_a_head_is_a_get_without_the_body(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        answer = await client.head("/page/main.js")
        assert (answer.status_code, answer.headers["Content-Length"], answer.content) == (200, "22", b"")


async def test_a_listed_page_may_load_the_client_module(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        answer = await client.get("/page/main.js", headers={"Origin": "http://localhost:3000"})
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        refused = await client.get("/page/main.js", headers={"Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert "export" not in refused.text


@pytest.mark.proves("T3")
async def test_a_foreign_host_gets_no_page(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        answer = await client.get("/", headers={"Host": "rebind.test"})
        assert answer.status_code == 403
        assert "ALLOWED_HOSTS" in answer.text
        assert "<title>start</title>" not in answer.text


async def test_a_page_that_does_not_exist_says_so_to_people(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        answer = await client.get("/<script>alert(1)</script>")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
        assert "There is no such page" in answer.text
        assert "alert" not in answer.text
        assert str(tmp_path) not in answer.text


async def test_pages_are_only_read(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        for method in ("POST", "PUT", "DELETE"):
            answer = await client.request(method, "/index.html")
            assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


STEPS = [
    "..",
    "%2e%2e",
    ".%2e",
    "..%00",
    "%c0%ae%c0%ae",
    "%252e%252e",
    "...",
    "%2e%2e%2f..",
    "..%5c..",
    "..\\..",
]
SLASHES = ["/", "//", "%2f", "%5c", "\\", "/./"]
TARGETS = ["secret.txt", "static-private/secret.txt"]


def traversals() -> list[str]:
    paths = [
        f"/{lead}{(step + slash) * depth}{target}"
        for lead in ("", "page/")
        for step in STEPS
        for slash in SLASHES
        for depth in (1, 3)
        for target in TARGETS
    ]
    return [
        *paths,
        "/.env",
        "/%2eenv",
        "/page/../.env",
        "/.git/config",
        "/link.txt",
        "/../static-private/secret.txt",
        "/%00",
        "/index.html%00.js",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/file:///etc/passwd",
        "/page/main.js/",
        "/page/main.js/../../../secret.txt",
        "/page/deep",
        "/page/deep/",
        "/%ff%fe",
        "/" + "a" * 5000,
        "/" + "a/" * 2000,
    ]


@pytest.mark.proves("T28")
@pytest.mark.parametrize("base_path", ["", "/voice", "/page"])
async def test_no_path_leads_out_of_the_folder(tmp_path: Path, base_path: str) -> None:
    """Raw requests: an HTTP client would tidy the paths up."""
    paths = [f"{prefix}{path}" for path in traversals() for prefix in {"", base_path}]
    assert len(paths) > 200
    async with served(tmp_path, base_path) as (client, folder), AsyncExitStack() as closing:
        public = [
            folder.joinpath(name).read_bytes() for name in ("index.html", "page/index.html", "page/main.js")
        ]
        port = client.base_url.port
        assert port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        closing.callback(writer.close)
        for path in paths:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().partition("content-length: ")[2].partition("\r")[0] or 0)
            body = await reader.readexactly(length)
            assert SECRET.encode() not in body, path
            assert b"root:" not in body, path
            status = int(head.split(" ")[1])
            assert status in (301, 400, 404) or (status == 200 and body in public), (path, head)
            if status == 301:
                location = head.partition("Location: ")[2].partition("\r")[0]
                assert location.startswith("/"), (path, location)
                assert not location.startswith("//"), (path, location)
