"""docs/security.md: every command line in it is run, in its order, against a server with its settings."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from lasting import lasting
from nginx import Nginx
from serving import ROOT, Server, clean_environment
from simulating import Simulator
from test_production import INSECURE
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tornado_live.access.openness import openness
from tornado_live.settings import load_settings

PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
PRODUCTION = (ROOT / "config/production.yaml").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
SETTINGS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.M | re.S)
ORIGIN = Origin("https://www.example.com")
SECRET = "no-real-secret-for-signing-tokens-of-tests"
END = "this-was-all"


@dataclass
class Typed:
    """What each block of commands printed, on a server that goes on."""

    server: Server
    proxy: Nginx
    printed: list[str]
    came_back: list[str] = field(default_factory=list)

    def json(self, block: int) -> Any:
        """The JSON that it printed last."""
        return json.loads(self.printed[block][self.printed[block].index("{") :])


class Following:
    """Somebody who types what the page says, block after block, into one shell."""

    async def __aenter__(self) -> Typed:
        self._simulator = Simulator()
        await self._simulator.__aenter__()
        self._proxy = Nginx()
        self._server = Server(
            *("--config", "config/production.yaml"),
            home=None,
            environ=self.environ,
            ports=("--port", "0", "--ws-port", "off"),
        )
        home = self._server.home
        (home / "config").mkdir()
        own = next(text for text in SETTINGS if "HS256" in text)
        written = re.sub(r"^auth:\n( .*\n)+", own, PRODUCTION, flags=re.M)
        assert written.count("auth:") == 1
        (home / "config/production.yaml").write_text(written)
        await self._server.__aenter__()
        self._proxy.nodes = (self._server.port,)
        await self._proxy.__aenter__()
        return await self._typed(home)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "GEMINI_API_KEY": "AIza-a-fake-key-for-tests",
            "GEMINI_BASE_URL": self._simulator.url,
            "PUBLIC_URL": "https://localhost",
            "ALLOWED_ORIGINS": ORIGIN,
            "AUTH__JWT_SECRET": SECRET,
            "MOCK_TOOLS": "always",
        }

    async def _typed(self, home: Path) -> Typed:
        environ = self.environ | {"VOICE": self._proxy.url, "CURL_CA_BUNDLE": str(self._proxy.ca)}
        environ |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "MOCK_TOOLS": "never"}
        programs = clean_environment(**environ)
        programs["PATH"] = f"{Path(sys.executable).parent}:{programs['PATH']}"
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-eu", "-s"),
            cwd=home,
            env=programs,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert shell.stdin is not None
        assert shell.stdout is not None
        assert shell.stderr is not None
        typed = Typed(self._server, self._proxy, [])
        # nginx of the test has a certificate and ports of its own.
        own = f"doctor --production --ca {self._proxy.ca} --http-port {self._proxy.http_port}"
        for text in COMMANDS:
            shell.stdin.write(f"{text.replace('doctor --production', own)}\necho; echo {END}\n".encode())
            lines = []
            while (line := (await shell.stdout.readline()).decode()) != f"{END}\n":
                assert line, f"{text}\n{''.join(lines)}\n{(await shell.stderr.read()).decode()}"
                lines.append(line)
            typed.printed.append("".join(lines).strip())
            if "/token" in text:
                typed.came_back = await self._came_back(typed)
        shell.stdin.close()
        await shell.communicate()
        assert shell.returncode == 0
        return typed

    async def _came_back(self, typed: Typed) -> list[str]:
        """The page's part: with the second ticket of the session, and once more with the same one."""
        made, ticket = typed.json(block("--role backend")), typed.json(block("/token"))["token"]
        line = connect(
            f"{typed.proxy.ws_url}/ws?sessionId={made['sessionId']}",
            ssl=typed.proxy.tls,
            origin=ORIGIN,
            subprotocols=["tornado-live", f"bearer.{ticket}"],  # type: ignore[list-item]  # any text will do
            proxy=None,
        )
        async with line as page:
            await page.send('{"type": "connect"}')
            told = [json.loads(await page.recv())["sessionId"]]
        with pytest.raises(InvalidStatus) as again:
            await line
        return [*told, str(again.value.response.status_code)]

    async def __aexit__(self, *_: object) -> None:
        await self._proxy.__aexit__(None, None, None)
        await self._server.__aexit__(None, None, None)
        await self._simulator.__aexit__(None, None, None)


@pytest.fixture(scope="module")
def typed() -> Iterator[Typed]:
    with lasting(Following()) as typed:
        yield typed


def block(words: str) -> int:
    """The place of the one block that has these words."""
    (found,) = (number for number, text in enumerate(COMMANDS) if words in text)
    return found


def test_a_key_is_made_used_and_listed(typed: Typed) -> None:
    text = typed.printed[block("--name web")]
    assert text.startswith('{"sessions": []')
    assert re.search(r"web +key:web .*cost_per_day", text), text


def test_a_token_of_ones_own_server_is_taken(typed: Typed) -> None:
    assert typed.json(block("jwt.encode"))["sessions"] == []


def test_a_ticket_opens_the_session_of_its_user_once(typed: Typed) -> None:
    made = typed.json(block("--role backend"))
    assert made["userId"] == "alice"
    assert (
        made["wsUrl"]
        == typed.json(block("/token"))["wsUrl"]
        == (f"wss://localhost/ws?sessionId={made['sessionId']}")
    )
    assert typed.came_back == [made["sessionId"], "401"]


def test_an_ephemeral_token_is_made(typed: Typed) -> None:
    assert typed.json(block("auth_tokens"))["name"].startswith("auth_tokens/")


def test_an_operator_runs_a_tool(typed: Typed) -> None:
    assert '"status": "ok"' in typed.printed[block("--name ops")]


def test_what_was_given_is_taken_back(typed: Typed) -> None:
    lines = typed.printed[block("token revoke")].splitlines()
    assert [line.split(" is revoked")[0].split(" until ")[0] for line in lines] == [
        lines[0].split(" is revoked")[0],
        "Nobody comes in as the user alice",
        "Nobody comes in as the token with jti a-7",
    ]
    assert lines[0].startswith('The API key "ops" (')


def test_the_checklist_finds_nothing(typed: Typed) -> None:
    lines = typed.printed[block("doctor --production")].splitlines()
    assert lines[-1] == "All is well.", lines
    assert [line for line in lines if line.startswith("WRONG")] == []


def test_every_block_of_commands_was_run(typed: Typed) -> None:
    assert len(typed.printed) == len(COMMANDS) == 8


@pytest.mark.parametrize("text", SETTINGS, ids=lambda text: re.findall(r"https://\S+", text)[0])
def test_the_settings_of_each_issuer_are_taken(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    environ = {"AUTH__JWT_SECRET": SECRET}
    settings = load_settings(home=tmp_path, config=tmp_path / "own.yaml", environ=environ, overrides={})
    assert "jwt" in settings.auth.modes
    assert settings.auth.jwt_issuer == yaml.safe_load(text)["auth"]["jwt_issuer"]


def test_what_a_start_prints_is_what_the_page_shows(tmp_path: Path) -> None:
    environ = {"GEMINI_API_KEY": "AIza-a-fake-key", "PUBLIC_URL": "https://voice.example.com"}
    config = Path("config/production.yaml")
    settings = load_settings(home=tmp_path, config=config, environ=environ, overrides={})
    assert "\n".join(openness(settings)) in PAGE


def test_every_step_of_the_check_is_explained() -> None:
    sources = [ROOT / "tornado_live/deploy" / name for name in ("shut.py", "posture.py", "production.py")]
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    steps = set(re.findall(r"\b(?:ok|note|wrong)\)?\(\s*\"([a-z-]+)\"", text))
    steps |= {"connect", "tls", "http", "health", "ready", "address", "host", "token"}
    table = PAGE.split("| step | what is looked at |")[1].split("\n\n")[0]
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    assert {step for row in rows for step in re.findall(r"`([^`]+)`", row)} == steps
    assert {step for _, step in INSECURE.values()} <= steps
