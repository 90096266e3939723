"""`tornado-live doctor --production`: the checklist of docs/security.md, on a server that runs.

It is spoken to from outside, as strangers do, and its configuration, files and keys are looked at here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import httpx

from tornado_live.access.jwks import DEADLINE_S, Address, usable_keys
from tornado_live.access.keys import list_keys
from tornado_live.deploy import findings, posture, probes, shut
from tornado_live.deploy.check import Told, trust
from tornado_live.deploy.findings import FOREIGN, FORGED, Finding, note, ok, wrong
from tornado_live.deploy.posture import FileSeen, KeySeen
from tornado_live.deploy.probes import Way
from tornado_live.deploy.seen import Answer, Client, Seen
from tornado_live.deploy.shut import Tried
from tornado_live.deploy.target import Target, target_of
from tornado_live.errors import Unavailable
from tornado_live.handlers.rules import RULES
from tornado_live.observe.logs import Masker
from tornado_live.sessions.opening import open_store
from tornado_live.settings import Settings

MADE_UP = f"tl_{'0' * 12}_{'A' * 43}"
"""It has the form of a key, and is none."""
_KNOCKS_MORE = 5
_MOST_KNOCKS = 200
_LOOPBACK = ip_address("127.0.0.1")
_DROP_IN = "//ws//google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
_JSON = {"Content-Type": "application/json"}
_FILLED = {"{id}": "nobody", "{name}": "nothing", "{version}": "v1beta"}


def address_of(settings: Settings) -> Target:
    """Where people come in, as far as the settings tell."""
    if settings.public_url is not None:
        return target_of(settings.public_url)
    if settings.port is None and settings.tls_port is not None:
        return target_of(f"https://127.0.0.1:{settings.tls_port}{settings.base_path}")
    return target_of(f"http://127.0.0.1:{settings.port or settings.ws_port}{settings.base_path}")


async def examine(
    settings: Settings,
    target: Target,
    say: Callable[[str], None],
    *,
    token: str | None = None,
    ca: Path | None = None,
    http_port: int = 80,
) -> int:
    """The exit code: 0 where nothing is to be mended, else 1.

    `token` is a credential of a caller, with which it is tried whether somebody gets in. `ca` is a file of
    authorities to trust beside the usual ones. Raises ConfigError for a `ca` that cannot be read.
    """
    masker = Masker()
    for secret in (token, settings.gemini_api_key and settings.gemini_api_key.get_secret_value()):
        if secret:
            masker.mask(secret)
    told = Told(say, target, None, masker)
    told.report.fine("settings", f"{settings.config_file or 'no file'}; home is {settings.home}")
    way = Way(target, trust(ca))
    await _outside(way, told, settings, token, http_port)
    told.tell(*posture.of_settings(settings))
    told.tell(*posture.of_files(_files(settings), _user(settings)))
    told.tell(*await _keys(settings))
    told.tell(*await _issuer(settings))
    if told.report.failures:
        say(f"{told.report.failures} to mend; docs/security.md has more about each.")
    else:
        say("All is well.")
    return 1 if told.report.failures else 0


async def _outside(way: Way, told: Told, settings: Settings, token: str | None, http_port: int) -> None:
    """Stops where what follows could only fail for the same reason."""
    target = way.target
    reached = await probes.reach(target)
    told.tell(findings.of_reached(reached, target))
    if reached.connect_ms is None:
        return
    secured = await probes.secure(way) if target.tls else None
    told.tell(*findings.of_secured(secured, target))
    if secured is not None and (secured.plain or secured.words):
        return
    if secured is not None and secured.distrusted:
        way = replace(way, trust=probes.trusting())
    if target.tls:
        await _tls(way, told, http_port)
    health = await probes.ask(way, "/health")
    if isinstance(health, Answer):
        told.saw(health)
    alive = findings.of_health(health, target)
    told.tell(alive)
    if alive.verdict == "WRONG":
        return
    told.tell(findings.of_ready(await probes.ask(way, "/health/ready")))
    told.tell(*_address(await probes.client(way), target, settings))
    client = await probes.client(way, forged=False)
    told.tell(
        findings.of_host(await probes.ask(way, "/api/tools", headers={"Host": "foreign.invalid"}), target)
    )
    page = await probes.ask(way, "/")
    if isinstance(page, Answer) and page.is_ours and page.status == 403:
        told.tell(findings.of_upgrade(page, target))
        return
    told.tell(*shut.of_headers(page, target))
    told.tell(*shut.of_foreign(*await _foreign(way)))
    told.tell(*shut.of_strangers(*await _strangers(way, settings)))
    here = client is not None and client.via == "direct" and target.is_loopback
    told.tell(*await _operators(way, here=here, shows=False))
    if token is None:
        told.tell(note("token", "with --token KEY it is also tried whether somebody gets in"))
    else:
        known = replace(way, headers={"Authorization": f"Bearer {token}"})
        told.tell(shut.of_token(await probes.ask(known, "/api/tools")))
        told.tell(*await _operators(known, here=here, shows=True))
    if (most := settings.limits.denied_per_minute) is not None and settings.auth.modes:
        told.tell(await _flood(way, client, most))


async def _tls(way: Way, told: Told, http_port: int) -> None:
    if (old := shut.of_old_tls(await probes.old_tls(way.target))) is not None:
        told.tell(old)
    plain = await probes.ask(way, "/", origin=f"http://{way.target.name}:{http_port}")
    told.tell(shut.of_plain(plain, http_port) or findings.of_redirect(plain, way.target, http_port))


def _address(client: Client | None, target: Target, settings: Settings) -> Sequence[Finding]:
    """Whoever asks from a trusted address is believed, and that is as it should be."""
    trusted = any(_LOOPBACK in network for network in settings.trusted_proxies)
    if trusted and target.is_loopback and not target.tls:
        text = "asked from this machine, whose word counts (TRUSTED_PROXIES): give --url, what people type"
        return [note("address", text)]
    if not settings.trusted_proxies and client is not None and client.via == "untrusted":
        return [ok("address", "nobody is believed who says to be another")]
    return findings.of_client(client, target)


async def _foreign(way: Way) -> tuple[Seen, Seen, Seen]:
    origin = {"Origin": FOREIGN}
    asks = {**origin, "Access-Control-Request-Method": "POST"}
    return (
        await probes.ask(way, "/api/tools", headers=origin),
        await probes.upgrade(way, "/ws", origin=FOREIGN),
        await probes.ask(way, "/api/sessions", method="OPTIONS", headers=asks),
    )


async def _strangers(way: Way, settings: Settings) -> tuple[Sequence[Tried], Sequence[Tried]]:
    """Every door of callers, without a credential; some of each kind with one that is made up."""
    without = [await _rest(way, method, path) for method, path in _doors(settings)]
    without += await _sockets(way, settings)
    made_up = replace(way, headers={"Authorization": f"Bearer {MADE_UP}"})
    return without, [await _rest(made_up, "GET", "/api/sessions"), *await _sockets(made_up, settings)]


def _doors(settings: Settings) -> Sequence[tuple[str, str]]:
    found = []
    for rule in RULES.values():
        if rule.access != "caller" or rule.path is None:
            continue
        if rule.kind == "google" and not settings.drop_in.enabled:
            continue
        path = rule.path
        for name, value in _FILLED.items():
            path = path.replace(name, value)
        found += [(method.upper(), path) for method in rule.operations]
    return found


async def _rest(way: Way, method: str, path: str) -> Tried:
    body = b"{}" if method == "POST" else None
    seen = await probes.ask(way, path, method=method, headers=_JSON if body else None, body=body)
    if isinstance(seen, Answer) and seen.status == 201 and "sessionId" in seen.json:
        await probes.forget(way, str(seen.json["sessionId"]))
    return Tried(f"{method} {path}", seen)


async def _sockets(way: Way, settings: Settings) -> Sequence[Tried]:
    seen, took = await probes.enters(way, "/ws", '{"type": "connect"}', '"CONNECT')
    found = [Tried("/ws", seen, took)]
    if settings.drop_in.enabled:
        model = min(settings.drop_in.only_models, default=settings.gemini_live_model)
        setup = f'{{"setup": {{"model": "models/{model}"}}}}'
        seen, took = await probes.enters(way, _DROP_IN, setup, "setupComplete")
        found.append(Tried("the endpoint of Google's clients", seen, took))
    return found


async def _operators(way: Way, *, here: bool, shows: bool) -> Sequence[Finding]:
    metrics = await probes.ask(way, "/metrics")
    invoke = await probes.ask(way, "/api/tools/nothing/invoke", method="POST", headers=_JSON, body=b"{}")
    return shut.of_operators(metrics, invoke, shows=shows, here=here)


def _is_of_this_machine(address: str | None, target: Target) -> bool:
    """Whether the server takes it for its own; it shows some addresses as `private` only."""
    try:
        return address is not None and ip_address(address).is_loopback
    except ValueError:
        return target.is_loopback


async def _flood(way: Way, client: Client | None, most: int) -> Finding:
    """Last, since this machine is refused for the rest of the minute."""
    address = None if client is None else client.address
    if address == FORGED or _is_of_this_machine(address, way.target):
        return shut.of_flood(0, False, address, exempt=True)
    if most > _MOST_KNOCKS:
        return note(
            "limits", f"429 was not tried: limits.denied_per_minute lets {most} wrong credentials pass"
        )
    made_up = {"Authorization": f"Bearer {MADE_UP}"}
    count, limited = await probes.knocks(way, "/api/tools", made_up, most + _KNOCKS_MORE)
    return shut.of_flood(count, limited, address, exempt=False)


def _files(settings: Settings) -> Sequence[FileSeen]:
    wanted = [
        (settings.home / ".env", True),
        (settings.config_file, False),
        (settings.tools_file, False),
        (settings.tls_key, True),
        (settings.data_dir, True),
        (settings.data_dir / "sessions.db", True),
        (settings.data_dir / "tls/ca.key", True),
    ]
    found = []
    for path, private in wanted:
        try:
            about, folder = (path.stat(), path.parent.stat()) if path is not None else (None, None)
        except OSError:
            continue
        if path is not None and about is not None and folder is not None and os.name == "posix":
            name = str(path.relative_to(settings.home)) if path.is_relative_to(settings.home) else str(path)
            found.append(FileSeen(name, about.st_mode, about.st_uid, folder.st_mode, private))
    return found


def _user(settings: Settings) -> int:
    """Whom the server runs as: whoever has what it has written."""
    try:
        return settings.data_dir.stat().st_uid
    except OSError:
        return os.geteuid() if os.name == "posix" else 0


async def _keys(settings: Settings) -> Sequence[Finding]:
    if "api_key" not in settings.auth.modes:
        return []
    if settings.redis_url is None:
        database = settings.data_dir / "sessions.db"
        try:
            owner = database.stat().st_uid
        except OSError:
            return [
                note("keys", f"{database} is not there, so they were not counted: no server ran here yet")
            ]
        if os.name == "posix" and owner != os.geteuid():
            # SQLite would leave files of ours beside it, which the server could not write.
            return [note("keys", f"not counted: {database} belongs to another user; run this as that one")]
    store = await open_store(settings)
    try:
        kept = await list_keys(store)
    except Unavailable as away:
        return [note("keys", f"not counted: {away.message}")]
    finally:
        await store.close()
    seen = [KeySeen(one.name, "operator" in one.roles, one.left_s is None) for one in kept]
    return posture.of_keys(seen, alone=settings.auth.modes == {"api_key"})


async def _issuer(settings: Settings) -> Sequence[Finding]:
    """Whether the keys of whoever signs tokens are to be had from here."""
    auth = settings.auth
    if "jwt" not in auth.modes or auth.jwt_jwks_url is None:
        return []
    try:
        async with asyncio.timeout(DEADLINE_S):
            keys = usable_keys(await Address(auth.jwt_jwks_url)(), auth.jwt_algorithms)
    except (TimeoutError, httpx.HTTPError, OSError, ValueError, RecursionError) as error:
        reason = str(error) or "nothing came in time"
        return [
            wrong("jwt", f"no keys at {auth.jwt_jwks_url}: {reason}. Check auth.jwt_jwks_url and the network")
        ]
    return [ok("jwt", f"keys of {auth.jwt_issuer} that can be read: {len(keys)}")]
