"""The web services that the built-in tools ask, in small, on a local server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

PLACES = {
    "new york": [
        {
            "id": 5128581,
            "name": "New York",
            "latitude": 40.71427,
            "longitude": -74.00597,
            "country_code": "US",
            "country": "United States",
            "admin1": "New York",
        }
    ],
    "paris": [
        {
            "name": "Paris",
            "latitude": 48.85,
            "longitude": 2.35,
            "country_code": "FR",
            "country": "France",
            "admin1": "Île-de-France",
        },
        {
            "name": "Paris",
            "latitude": 33.66,
            "longitude": -95.55,
            "country_code": "US",
            "country": "United States",
            "admin1": "Texas",
        },
    ],
    "broken": [{"name": "Broken", "latitude": 0.0, "longitude": 0.0}],
}
FORECAST = {
    "latitude": 40.71,
    "longitude": -74.01,
    "timezone": "America/New_York",
    "current_units": {"temperature_2m": "°C"},
    "current": {
        "time": "2026-05-01T09:15",
        "interval": 900,
        "temperature_2m": 21.4,
        "apparent_temperature": 19.6,
        "relative_humidity_2m": 52,
        "weather_code": 1,
        "wind_speed_10m": 11.2,
    },
    "daily": {
        "time": ["2026-05-01", "2026-05-02", "2026-05-03"],
        "weather_code": [1, 61, None],
        "temperature_2m_max": [23.2, 18.5, None],
        "temperature_2m_min": [14.8, 12.1, None],
        "precipitation_probability_max": [5, 80, None],
    },
}


class Services:
    """`asked` are the requests that arrived; `status` other than 200 is answered to everything.

    `elsewhere` is where /any/away redirects to.
    """

    def __init__(self) -> None:
        self.asked: list[HTTPServerRequest] = []
        self.status = 200
        self.url = ""
        self.elsewhere = ""


class _Handler(RequestHandler):
    def initialize(self, services: Services) -> None:
        self.services = services

    def prepare(self) -> None:
        self.services.asked.append(self.request)
        if self.services.status != 200:
            self.set_status(self.services.status)
            self.finish("no")

    def send(self, body: str | bytes, kind: str) -> None:
        self.set_header("Content-Type", kind)
        self.finish(body)


class _Search(_Handler):
    def get(self) -> None:
        found = PLACES.get(self.get_query_argument("name").lower())
        self.finish(
            {"generationtime_ms": 0.5} if found is None else {"results": found, "generationtime_ms": 0.5}
        )


class _Forecast(_Handler):
    def get(self) -> None:
        if self.get_query_argument("latitude") == "0.0":
            self.send('{"current": "sunny"}', "application/json")
            return
        self.finish(FORECAST)


class _Article(_Handler):
    def get(self, title: str) -> None:
        if title != "Brooklyn Bridge":
            self.set_status(404)
            self.finish({"title": "Not found."})
            return
        self.finish({"title": title, "extract": "A bridge in New York City.", "content_urls": {"x": "y"}})


ANSWERS: dict[str, tuple[str | bytes, str]] = {
    "json": (json.dumps({"rates": {"USD": 1.17}}), "application/json; charset=utf-8"),
    "problem": ('{"title": "x"}', "application/problem+json"),
    "text": ("plain words", "text/plain; charset=utf-8"),
    "page": ("<title>T</title><p>shown</p><script>hidden()</script>", "text/html"),
    "long": ("x" * 5_000, "text/plain"),
    "broken": ("{", "application/json"),
    "nan": ('{"x": NaN}', "application/json"),
    "image": (b"\x89PNG", "image/png"),
    "hard": ("<a " * 300_000, "text/html"),
    "punycode": ("x" * 5_000, "text/plain; charset=punycode"),
}

REDIRECTS = {
    "moved": "/any/json",
    "twice": "/any/moved",
    "away": "ELSEWHERE/any/json",
    "down": "//127.0.0.1:1/any/json",
    "file": "file:///etc/passwd",
    "user": "http://me@127.0.0.1/",
}


class _Anything(_Handler):
    def get(self, name: str) -> None:
        if name in REDIRECTS:
            self.redirect(REDIRECTS[name].replace("ELSEWHERE", self.services.elsewhere))
            return
        if name == "missing":
            self.send_error(404)
            return
        self.send(*ANSWERS[name])


@asynccontextmanager
async def services() -> AsyncIterator[Services]:
    """Open-Meteo's two services, an encyclopedia at /wiki and odd answers at /any, all at `url`."""
    state = Services()
    given = {"services": state}
    server = HTTPServer(
        Application(
            [
                (r"/v1/search", _Search, given),
                (r"/v1/forecast", _Forecast, given),
                (r"/wiki/page/summary/(.+)", _Article, given),
                (r"/any/(.+)", _Anything, given),
            ],
            log_function=_silent,
        )
    )
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    state.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.stop()
        await server.close_all_connections()


def _silent(handler: RequestHandler) -> None:
    """A 404 that a test asked for is no warning."""
