"""config/production.yaml: nothing in it, or left out of it, lets in more than it should."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from accessing import api_key, bearer
from lasting import lasting
from pydantic import ValidationError
from serving import ROOT, Server
from simulating import LIVE_PATH, Simulator
from talking import Talker
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tornado_live.deploy.posture import BOUNDS, of_settings
from tornado_live.handlers.rules import RULES
from tornado_live.settings import Limits, Settings, load_settings

FILE = Path("config/production.yaml")
KEY = "AIza-a-fake-key-for-tests"
GIVEN = {"GEMINI_API_KEY": KEY, "PUBLIC_URL": "https://voice.example.com"}
NODE = ("--port", "0", "--ws-port", "off")
JSON = {"Content-Type": "application/json"}

# What would be insecure, as it is written on the command line, and the step of the checklist that finds it.
INSECURE: Mapping[str, tuple[Mapping[str, str], str]] = {
    "nobody is asked": ({"auth.modes": "none"}, "identity"),
    "public without asking": ({"public_without_auth": "true"}, "public"),
    "public without TLS": ({"public_without_tls": "true"}, "public"),
    "people come by http": ({"public_url": "http://voice.example.com"}, "public"),
    "half of everybody is a proxy": ({"trusted_proxies": "0.0.0.0/1"}, "proxies"),
    "half the internet is a proxy": ({"trusted_proxies": "2000::/3"}, "proxies"),
    "open beside its proxy": ({"host": "0.0.0.0"}, "proxies"),
    "pages that come by http": ({"allowed_origins": "http://www.example.com"}, "origin"),
    "a day may cost anything": ({"limits.cost_per_day_in_all": "off"}, "money"),
    "a user may cost anything": ({"limits.cost_per_day": "off"}, "money"),
    **{f"no {name}": ({f"limits.{name}": "off"}, "limits") for name in BOUNDS},
    "any model for guests": ({"drop_in.only_models": "[]"}, "drop-in"),
    "the simulator answers": ({"upstream": "simulator"}, "model"),
    "tools that make things up": ({"mock_tools": "always"}, "model"),
    "Redis without a password": ({"redis_url": "redis://redis.example:6379/0"}, "store"),
    "Redis across the internet": ({"redis_url": "redis://:fake@8.8.8.8:6379/0"}, "store"),
    "libraries log it all": ({"log_level": "debug"}, "log"),
}


def settings(home: Path, **overrides: str) -> Settings:
    return load_settings(home=home, config=FILE, environ=GIVEN, overrides=overrides)


def wrong(seen: Settings) -> Sequence[str]:
    return [one.step for one in of_settings(seen) if one.verdict == "WRONG"]


def test_the_file_has_no_insecure_default(tmp_path: Path) -> None:
    found = of_settings(settings(tmp_path))
    assert [(one.step, one.text) for one in found if one.verdict != "ok"] == []


@pytest.mark.parametrize("name", INSECURE)
def test_what_is_insecure_is_found_at_its_step_and_at_no_other(tmp_path: Path, name: str) -> None:
    overrides, step = INSECURE[name]
    if "host" in overrides:  # which a start refuses unless it is told so
        seen = replace(settings(tmp_path), host=overrides["host"])
    else:
        seen = settings(tmp_path, **overrides)
    assert wrong(seen) == [step]


def test_every_limit_that_can_be_taken_away_is_looked_at() -> None:
    given = [name for name, field in Limits.model_fields.items() if field.default is not None]
    assert set(BOUNDS) == {name for name in given if _may_be_off(name)}


def _may_be_off(name: str) -> bool:
    try:
        Limits.model_validate({name: None})
    except ValidationError:
        return False
    return True


def test_what_the_file_says_is_not_what_holds_without_it(tmp_path: Path) -> None:
    """Or the file would be of no use: as it comes, the server is for one person at home."""
    home = load_settings(home=tmp_path, config=None, environ=GIVEN, overrides={})
    assert set(wrong(home)) == {"identity", "money", "drop-in"}


def test_the_names_that_the_server_answers_to_are_left_to_the_operator() -> None:
    text = (ROOT / FILE).read_text(encoding="utf-8")
    for name in ("public_url", "allowed_hosts", "allowed_origins"):
        assert f"\n# {name}: " in text
        assert f"\n{name}:" not in text


@contextlib.asynccontextmanager
async def served(home: Path) -> AsyncIterator[Server]:
    """With exactly this file; the environment has no more than what it asks for, and where the model side is."""
    async with Simulator() as simulator:
        environ = {"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": simulator.url}
        async with Server("--config", str(FILE), home=home, environ=environ, ports=NODE) as server:
            yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with lasting(served(tmp_path_factory.mktemp("home"))) as server:
        yield server


async def test_a_server_with_this_file_lets_nobody_in_at_any_route(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as http:
        # Metrics are open to this machine, which a proxy's mark takes away.
        http.headers["X-Forwarded-For"] = "203.0.113.7"
        answers = {}
        for name, rule in RULES.items():
            if rule.access not in ("caller", "operator"):
                continue
            assert rule.path is not None, name
            path = rule.path.format(id="nobody", name="nothing", version="v1beta")
            for method in rule.operations:
                body = b"{}" if method == "post" else None
                answer = await http.request(method.upper(), path, headers=JSON, content=body)
                answers[f"{method} {path}"] = answer.status_code
        assert len(answers) > 10
        assert {door: status for door, status in answers.items() if status != 401} == {}
        for path in ("/health", "/health/ready"):
            assert (await http.get(path)).status_code == 200
        for path in ("/health", "/api/tools", "/"):
            assert (await http.get(path, headers={"Origin": "https://foreign.invalid"})).status_code == (
                403
            ), path
        assert (await http.get("/api/tools", headers={"Host": "foreign.invalid"})).status_code == 403

        with pytest.raises(InvalidStatus) as refused:
            async with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None):
                pass
        assert refused.value.response.status_code == 401, "neither a page nor a credential"
        page = {"Origin": server.url}
        async with Talker(f"ws://127.0.0.1:{server.port}/ws", headers=page) as talker:
            await talker.send("connect")
            code, _ = await talker.closed()
            assert code == 4401
            assert "status" not in talker.types()
        async with Talker(f"ws://127.0.0.1:{server.port}{LIVE_PATH}") as guest:
            with contextlib.suppress(Exception):  # it may be closed before
                await guest.raw(json.dumps({"setup": {"model": "models/gemini-3.8-live"}}))
            code, reason = await guest.closed()
            assert (code, guest.seen) == (1008, []), reason


async def test_with_a_key_a_person_talks_and_gets_the_models_of_the_file_only(server: Server) -> None:
    key = await api_key({"DATA_DIR": str(server.home / "data")}, "web")
    url = f"ws://127.0.0.1:{server.port}"
    async with Talker(f"{url}/ws", headers=bearer(key)) as talker:
        assert (await talker.connected())["upstream"] == "gemini"
    async with Talker(f"{url}/ws", headers=bearer(key)) as talker:
        await talker.send("connect", {"systemInstruction": "Write my homework."})
        assert (await talker.until("error"))["code"] == "forbidden"
    headers = {"x-goog-api-key": key}
    for setup in (
        {"model": "models/gemini-2.5-flash-native-audio-latest"},
        {"model": "models/gemini-3.8-live", "tools": [{"googleSearch": {}}]},
    ):
        async with Talker(f"{url}{LIVE_PATH}", headers=headers) as guest:
            await guest.raw(json.dumps({"setup": setup}))
            code, reason = await guest.closed()
            assert code == 1008, reason
            assert "allowed" in reason


async def test_a_server_with_this_file_says_what_is_open_to_whom(server: Server) -> None:
    assert "\nCallers show an API key (tornado-live token).\n" in server.log
    assert "\nLimits of money: cost_per_session 1, cost_per_day 2, cost_per_day_in_all 50.\n" in server.log


def test_what_the_server_writes_is_its_owners_alone(server: Server) -> None:
    data = server.home / "data"
    assert data.stat().st_mode & 0o077 == 0
    assert (data / "sessions.db").stat().st_mode & 0o077 == 0
