"""`tornado-live doctor --production` on real servers behind the real nginx: what is insecure is found."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from accessing import api_key, bearer
from cryptography.hazmat.primitives.asymmetric import rsa
from endpoints import speaking
from faults.model import ModelSide
from jwt.algorithms import RSAAlgorithm
from lasting import lasting
from nginx import Nginx
from serving import ROOT, Server, clean_environment, nobody_listens
from simulating import Simulator
from talking import Talker
from test_deploy_check import Printed

from tornado_live.__main__ import main
from tornado_live.deploy.production import address_of, examine
from tornado_live.deploy.target import target_of
from tornado_live.settings import load_settings

FILE = Path("config/production.yaml")
KEY = "AIza-a-fake-key-for-tests"
NODE = ("--port", "0", "--ws-port", "off")


class Deployed:
    """A server with production.yaml, and what its nginx is given; `key` is a caller's, `home` the operator's."""

    def __init__(self, home: Path, **environ: str) -> None:
        self.home = home
        home.chmod(0o700)
        self._more = environ

    async def __aenter__(self) -> Deployed:
        async with contextlib.AsyncExitStack() as stack:
            simulator = await stack.enter_async_context(Simulator())
            # Its name is nginx's, which has each port of its own; any port of it will do.
            self.environ = {
                "GEMINI_API_KEY": KEY,
                "GEMINI_BASE_URL": simulator.url,
                "PUBLIC_URL": "https://localhost",
            } | self._more
            server = Server("--config", str(FILE), home=self.home, environ=self.environ, ports=NODE)
            self.server = await stack.enter_async_context(server)
            self.key = await api_key({"DATA_DIR": str(self.home / "data")}, "web")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def checked(self, proxy: Nginx, *, trusted: bool = True, **overrides: str) -> Printed:
        """What is printed of it behind that proxy, which runs, by who knows its authority."""
        settings = load_settings(home=self.home, config=FILE, environ=self.environ, overrides=overrides)
        printed = Printed()
        printed.code = await examine(
            settings,
            target_of(proxy.url),
            printed.lines.append,
            token=self.key,
            ca=proxy.ca if trusted else None,
            http_port=proxy.http_port,
        )
        return printed


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with lasting(Deployed(tmp_path_factory.mktemp("home"))) as deployed:
        yield deployed


@contextlib.asynccontextmanager
async def behind(deployed: Deployed, changes: Mapping[str, str] | None = None) -> AsyncIterator[Nginx]:
    async with Nginx(deployed.server.port, changes=changes) as proxy:
        yield proxy


def mistakes(printed: Printed) -> set[str]:
    return set(printed.steps("WRONG"))


async def test_nothing_is_wrong_with_what_is_shipped(deployed: Deployed) -> None:
    async with behind(deployed) as proxy:
        printed = await deployed.checked(proxy)
    assert (mistakes(printed), printed.code) == (set(), 0), printed.text
    assert printed.lines[-1] == "All is well."
    assert set(printed.steps("note")) == {"limits", "keys"}, printed.text
    assert deployed.key not in printed.text
    assert KEY not in printed.text


# As if no proxy stood there.
BARE = (
    'proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For ""; proxy_pass http://tornado_live;'
)
# What is put otherwise in nginx.conf, and the step at which it shows.
ON_THE_WAY: Mapping[str, tuple[Mapping[str, str], str]] = {
    "what is broken is spoken": (
        {"ssl_protocols TLSv1.2 TLSv1.3;": "ssl_protocols TLSv1.1 TLSv1.2; ssl_ciphers ALL:@SECLEVEL=0;"},
        "tls",
    ),
    "http is served": (
        {"return 308 https://$server_name$request_uri;": "proxy_pass http://tornado_live;"},
        "http",
    ),
    "whoever says who they are is believed": (
        {
            "proxy_set_header X-Forwarded-For $remote_addr;": "proxy_set_header X-Forwarded-For $http_x_real_ip;"
        },
        "address",
    ),
    "every name is the server's own": (
        {"proxy_set_header Host $http_host;": "proxy_set_header Host localhost:443;"},
        "host",
    ),
    "foreign pages look like its own": (
        {
            "proxy_set_header X-Forwarded-Proto $scheme;": "proxy_set_header X-Forwarded-Proto $scheme;"
            ' proxy_set_header Origin "";'
        },
        "origin",
    ),
    "its version is told": ({"server_tokens off;": "server_tokens on;"}, "headers"),
    "pages may be framed": (
        {"proxy_buffering off;": "proxy_buffering off; proxy_hide_header X-Frame-Options;"},
        "headers",
    ),
    "pages may run anything": (
        {
            "proxy_buffering off;": "proxy_buffering off; proxy_hide_header Content-Security-Policy;"
            " add_header Content-Security-Policy \"default-src 'self' 'unsafe-inline'\";"
        },
        "headers",
    ),
    "metrics are told to everybody": (
        {"location = /metrics {": f"location = /metrics {{ {BARE} }}\n        location = /no-metrics {{"},
        "metrics",
    ),
    "everybody has a key": (
        {"proxy_buffering off;": 'proxy_buffering off; proxy_set_header Authorization "Bearer KEY";'},
        "identity",
    ),
}


@pytest.mark.parametrize("name", ON_THE_WAY)
async def test_what_is_insecure_on_the_way_is_found_at_its_step_and_at_no_other(
    deployed: Deployed, name: str
) -> None:
    changes, step = ON_THE_WAY[name]
    fitted = {old: new.replace("KEY", deployed.key) for old, new in changes.items()}
    async with behind(deployed, fitted) as proxy:
        printed = await deployed.checked(proxy)
    assert mistakes(printed) == {step}, printed.text
    assert printed.code == 1


async def test_a_certificate_that_people_cannot_trust_is_found(deployed: Deployed) -> None:
    async with behind(deployed) as proxy:
        printed = await deployed.checked(proxy, trusted=False)
    assert mistakes(printed) == {"tls"}, printed.text
    assert "the certificate is not trusted" in printed.text


async def test_a_server_that_asks_nobody_is_found_by_asking(tmp_path: Path) -> None:
    """Its configuration says otherwise here, as it does where a setting was changed after the start."""
    async with Deployed(tmp_path, AUTH__MODES="none") as open_one, behind(open_one) as proxy:
        printed = await open_one.checked(proxy, **{"auth.modes": "api_key"})
    assert mistakes(printed) == {"identity"}, printed.text
    (line,) = (line for line in printed.lines if line.startswith("WRONG identity  nobody in particular"))
    for door in (
        "GET /api/sessions",
        "POST /api/sessions",
        "GET /openapi.json",
        "/ws",
        "/auth_tokens",
    ):
        assert door in line
    assert "the endpoint of Google's clients" in line


async def test_whoever_tries_many_credentials_is_told_429(deployed: Deployed) -> None:
    """The server counts no address of its own machine, so the client has to be of another one."""
    afar = {"proxy_set_header X-Forwarded-For $remote_addr;": "proxy_set_header X-Forwarded-For 203.0.113.9;"}
    async with behind(deployed, afar) as proxy:
        printed = await deployed.checked(proxy)
    assert mistakes(printed) == set(), printed.text
    assert "who keeps trying wrong credentials is told 429" in printed.text


async def test_a_server_that_counts_no_wrong_credentials_is_found(tmp_path: Path) -> None:
    afar = {"proxy_set_header X-Forwarded-For $remote_addr;": "proxy_set_header X-Forwarded-For 203.0.113.9;"}
    async with (
        Deployed(tmp_path, LIMITS__DENIED_PER_MINUTE="off") as careless,
        behind(careless, afar) as proxy,
    ):
        printed = await careless.checked(proxy, **{"limits.denied_per_minute": "20"})
    assert mistakes(printed) == {"limits"}, printed.text


async def test_keys_that_are_not_taken_are_found(tmp_path: Path) -> None:
    """One of a caller, and that of the server with Google, of which the server hears when somebody talks."""
    async with (
        ModelSide() as model,
        Deployed(tmp_path, GEMINI_BASE_URL=model.url) as one,
        behind(one) as proxy,
    ):
        good, one.key = one.key, f"tl_{'1' * 12}_{'B' * 43}"
        printed = await one.checked(proxy)
        assert mistakes(printed) == {"token"}, printed.text
        one.key = good
        model.refusals.append((403, {}))
        async with Talker(f"{proxy.ws_url}/ws", tls=proxy.tls, headers=bearer(good)) as talker:
            await talker.send("connect")
            assert (await talker.closed())[0] == 4502
        printed = await one.checked(proxy)
        assert mistakes(printed) == {"ready"}, printed.text
        assert "GEMINI_API_KEY" in printed.text


@pytest.mark.parametrize(
    ("path", "mode", "words"),
    [
        ("data", 0o755, "data is open to every user of this machine; chmod o-rwx"),
        ("data/sessions.db", 0o644, "data/sessions.db is open to every user of this machine"),
        (".env", 0o604, ".env is open to every user of this machine"),
        ("tools.yaml", 0o666, "tools.yaml can be changed by every user of this machine"),
    ],
)
async def test_files_that_others_may_read_or_change_are_found(
    deployed: Deployed, path: str, mode: int, words: str
) -> None:
    file = deployed.home / path
    made = not file.exists()
    if made:
        file.write_text("version: 1\ntools: {}\n" if path == "tools.yaml" else "")
    before = 0o600 if made else file.stat().st_mode & 0o777
    file.chmod(mode)
    try:
        async with behind(deployed) as proxy:
            printed = await deployed.checked(proxy)
    finally:
        file.chmod(before)
        if made:
            file.unlink()
    assert mistakes(printed) == {"files"}, printed.text
    assert words in printed.text


async def test_a_server_that_is_not_there_is_said_to_be_away(deployed: Deployed) -> None:
    settings = load_settings(home=deployed.home, config=FILE, environ=deployed.environ, overrides={})
    printed = Printed()
    with nobody_listens() as port:
        printed.code = await examine(settings, target_of(f"https://127.0.0.1:{port}"), printed.lines.append)
    assert mistakes(printed) == {"connect"}, printed.text
    assert "money" in printed.steps("ok"), "what is written is looked at all the same"


@pytest.mark.parametrize(
    ("answered", "verdict", "words"),
    [
        ("published", "ok", "keys of https://issuer.example that can be read: 1"),
        ('{"keys": []}', "WRONG", "the address has no key for RS256. Check auth.jwt_jwks_url"),
        ("<html>", "WRONG", "the address answered no JSON"),
    ],
)
async def test_the_keys_of_whoever_signs_are_asked_for(
    deployed: Deployed, answered: str, verdict: str, words: str
) -> None:
    if answered == "published":
        public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
        answered = json.dumps({"keys": [RSAAlgorithm.to_jwk(public, as_dict=True) | {"kid": "a"}]})

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answered)}\r\n\r\n{answered}".encode())

    async with speaking(answer) as port:
        overrides = {
            "auth.modes": "api_key, jwt",
            "auth.jwt_issuer": "https://issuer.example",
            "auth.jwt_audience": "voice",
            "auth.jwt_jwks_url": f"http://127.0.0.1:{port}/keys",
        }
        settings = load_settings(
            home=deployed.home, config=FILE, environ=deployed.environ, overrides=overrides
        )
        printed = Printed()
        with nobody_listens() as closed:
            await examine(settings, target_of(f"https://127.0.0.1:{closed}"), printed.lines.append)
    assert mistakes(printed) == {"connect"} | ({"jwt"} if verdict == "WRONG" else set()), printed.text
    (line,) = (line for line in printed.lines if line.split()[1] == "jwt")
    assert line.startswith(verdict)
    assert words in line


async def test_the_command_tells_by_its_exit_code(deployed: Deployed) -> None:
    async with behind(deployed) as proxy:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tornado_live", "doctor", "--production", "--home", str(deployed.home)),
            *("--config", str(FILE), "--url", proxy.url, "--ca", str(proxy.ca)),
            *("--http-port", str(proxy.http_port)),
            env=clean_environment(PYTHONPATH=str(ROOT), TORNADO_LIVE_TOKEN=deployed.key, **deployed.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
    lines = printed.decode().splitlines()
    assert (process.returncode, lines[-1]) == (0, "All is well."), lines
    assert any(line.startswith("ok    token     ") for line in lines)


def test_without_an_address_it_is_the_one_that_people_type(tmp_path: Path) -> None:
    def address(**overrides: str) -> str:
        return address_of(load_settings(home=tmp_path, config=None, environ={}, overrides=overrides)).url

    assert address(public_url="https://voice.example/talk") == "https://voice.example/talk"
    assert address() == "http://127.0.0.1:3001"
    assert address(port="off", base_path="/talk") == "http://127.0.0.1:3002/talk"
    tls = {"tls_self_signed": "true", "port": "off", "ws_port": "off"}
    assert address(**tls) == "https://127.0.0.1:3443"


@pytest.mark.parametrize("option", [("--url", "https://a"), ("--ca", "a.pem"), ("--http-port", "81")])
def test_what_belongs_to_it_is_refused_without_it(
    tmp_path: Path,
    option: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["tornado-live", "doctor", "--home", str(tmp_path), *option])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"command line: {option[0]}: belongs to --production\n"


async def test_a_server_that_does_tls_itself_passes_too(tmp_path: Path) -> None:
    environ = {"GEMINI_API_KEY": KEY, "PUBLIC_URL": "https://localhost", "TRUSTED_PROXIES": "[]"}
    async with Simulator() as simulator:
        environ["GEMINI_BASE_URL"] = simulator.url
        async with Server(
            "--config", str(FILE), home=tmp_path, environ=environ, ports=NODE, tls=True
        ) as server:
            settings = load_settings(home=tmp_path, config=FILE, environ=environ, overrides={})
            printed = Printed()
            with nobody_listens() as port:
                printed.code = await examine(
                    settings,
                    target_of(f"https://localhost:{server.tls_port}"),
                    printed.lines.append,
                    ca=server.ca,
                    http_port=port,
                )
    assert mistakes(printed) == set(), printed.text
    assert f"port {port} is closed" in printed.text
    assert {"metrics", "token", "limits", "keys"} <= set(printed.steps("note")), printed.text
