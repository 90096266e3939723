"""What the guests talk to: a simulator, by itself and behind a gateway."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from faults.stage import unbroken
from serving import ROOT, Server
from simulating import Simulator, certificate_authority
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler

from guests.guesting import KEY, MODULES, PROGRAMS
from tornado_live.simulator.pcm import tone

SPEED = 50.0
SPOKEN = tone(0.5, rate=16_000) + bytes(32_000)
CITY = {"city": "Paris"}
WEATHER = {"name": "get_weather", "args": CITY}
STOCK = {"name": "count_stock", "args": {"product": "lamp"}}
DECLARATION = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "behavior": "BLOCKING",
    "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]},
}
SCENARIO: dict[str, Any] = {
    "turns": [
        {"typed": "next", "do": [{"say": "The first."}]},
        {"typed": "next", "do": [{"say": "The second."}]},
        {"typed": "next", "do": [{"say": "The third."}]},
        *(
            {**turn, "repeat": True}
            for turn in (
                {"typed": "hello", "do": [{"say": "Good morning to you.", "seconds": 1}]},
                {"heard": "How are you?", "do": [{"say": "Well, thank you.", "seconds": 0.5}]},
                {"typed": "weather", "do": [{"call": WEATHER}, {"say": "It is {get_weather.sky}."}]},
                {
                    "typed": "meanwhile",
                    "do": [{"call": WEATHER, "background": True}, {"say": "One moment."}],
                },
                {"answered": "get_weather", "do": [{"say": "By the way, it is {get_weather.sky}."}]},
                {"typed": "stock", "do": [{"call": STOCK}, {"say": "{count_stock.result.count} are left."}]},
                {
                    "typed": "both",
                    "do": [
                        {"call": [WEATHER, STOCK]},
                        {"say": "{get_weather.sky}, {count_stock.result.count}."},
                    ],
                },
                {
                    "typed": "story",
                    "do": [
                        {"say": "Once upon a time there was a story, and this is the end.", "seconds": 30}
                    ],
                },
                {"typed": "long", "do": [{"say": "A long answer.", "seconds": 600}]},
            )
        ),
    ]
}
TOOLS = """
version: 1
tools:
  count_stock:
    description: How many of a product are left.
    parameters: {type: object, properties: {product: {type: string}}, required: [product]}
    python: shop:count_stock
"""
WEATHER_TOOLS = """
version: 1
tools:
  get_weather:
    description: The weather of a city.
    parameters:
      type: object
      properties: {city: {type: string, description: The city.}}
      required: [city]
    python: shop:get_weather
"""
SHOP = """
async def count_stock(product: str) -> dict[str, object]:
    return {"product": product, "count": 7}


async def get_weather(city: str) -> dict[str, object]:
    return {"city": city, "conditions": "sunny", "temperature_c": 21}
"""


@dataclass(frozen=True)
class Road:
    """To one and the same simulator: `base` is what a client takes for Google's address."""

    name: Literal["direct", "gateway"]
    base: str
    simulator: Simulator


async def newest(simulator: Simulator) -> dict[str, Any]:
    """What the simulator says of the connection that was opened last: `setup`, `connection`, `handle`."""
    found: dict[str, Any] = (await simulator.status())["conversations"][-1]
    return found


def simulating() -> Simulator:
    return Simulator(SCENARIO, tls=True, speed=SPEED)


class GatewayAt(Protocol):
    def __call__(
        self, home: Path, *, self_signed: bool = False, **environ: str
    ) -> contextlib.AbstractAsyncContextManager[Server]: ...


@contextlib.asynccontextmanager
async def serving(
    simulator: Simulator,
    home: Path,
    trusted: Path,
    *,
    tools: str = TOOLS,
    self_signed: bool = False,
    **environ: str,
) -> AsyncIterator[Server]:
    """A gateway in front of it with a tool of its own, whose certificate is of the same authority or its own.

    In the end nothing has broken it, and its log has nobody's key or token.
    """
    (home / "tools.yaml").write_text(tools)
    (home / "shop.py").write_text(SHOP)
    certificate, key = home / "cert.pem", home / "key.pem"
    if not (self_signed or certificate.exists()):
        issued = certificate_authority().issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
    own = {"TLS_PORT": "0", "TLS_CERT": str(certificate), "TLS_KEY": str(key)}
    server = Server(
        home=home,
        tls=self_signed,
        environ={
            "GEMINI_BASE_URL": simulator.url,
            "GEMINI_API_KEY": "a-key-of-the-gateway",
            "SSL_CERT_FILE": str(trusted),
            "PYTHONPATH": f"{home}:{ROOT}",
            "HANDLER_PREFIXES": "shop",
        }
        | ({} if self_signed else own)
        | environ,
    )
    async with server:
        yield server
    unbroken(server)
    assert KEY not in server.log
    assert not re.search(r"auth_tokens/\w", server.log)


@contextlib.asynccontextmanager
async def web_server() -> AsyncIterator[str]:
    """The origin of the guest's page, which is not the gateway's."""
    sdk = MODULES / "@google/genai/dist/web"
    http = HTTPServer(
        Application(
            [
                (r"/genai/(.*)", StaticFileHandler, {"path": sdk}),
                (r"/(.*)", StaticFileHandler, {"path": PROGRAMS}),
            ],
            log_function=lambda _: None,
        )
    )
    sockets = bind_sockets(0, "127.0.0.1")
    http.add_sockets(sockets)
    try:
        yield f"http://localhost:{sockets[0].getsockname()[1]}"
    finally:
        http.stop()
        await http.close_all_connections()
