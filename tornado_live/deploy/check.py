"""One probe after another, told in plain words; after each thing that is wrong, the lines that mend it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from tornado_live.deploy import findings, probes
from tornado_live.deploy.findings import Finding
from tornado_live.deploy.probes import Way
from tornado_live.deploy.remedies import PROXIES, Remedy
from tornado_live.deploy.seen import Answer, NoAnswer
from tornado_live.deploy.target import Target
from tornado_live.doctor.report import Report
from tornado_live.errors import ConfigError, Problem
from tornado_live.observe.logs import Masker

IDLE_S = 75.0
"""More than the minute after which most proxies cut a silent line."""

_BODY = json.dumps({"metadata": {"padding": "x" * 60 * 1024}}).encode()
_JSON = {"Content-Type": "application/json"}


class Told:
    """Says each finding; each remedy once, for the proxy that is in front."""

    def __init__(self, say: Callable[[str], None], target: Target, proxy: str | None, masker: Masker) -> None:
        self.report = Report(say, masker)
        self._target = target
        self._proxy = proxy
        self._seen_proxy = PROXIES[0]
        self._given: set[str] = set()

    def saw(self, seen: Answer) -> None:
        """An answer through the proxy, which may say what it is."""
        named = seen.headers.get("server", "").lower()
        self._seen_proxy = next((one for one in PROXIES if one in named), self._seen_proxy)

    def tell(self, *found: Finding) -> None:
        for one in found:
            match one.verdict:
                case "ok":
                    self.report.fine(one.step, one.text)
                case "note":
                    self.report.note(one.step, one.text)
                case "WRONG":
                    self.report.wrong(one.step, one.text)
            for remedy in one.remedies:
                self._mend(remedy)

    def _mend(self, remedy: Remedy) -> None:
        if remedy.name in self._given:
            self.report.plain(f"        see above: {remedy.name}")
            return
        self._given.add(remedy.name)
        for place, lines in remedy.lines(self._proxy or self._seen_proxy, self._target):
            self.report.plain(f"        {_PLACES.get(place, place)}:")
            for line in lines:
                self.report.plain(f"            {line}")


_PLACES = {
    "nginx http": "nginx, in http",
    "nginx server": "nginx, in server, in place of lines of the same names there and in its locations",
    "nginx location": "nginx, in server",
    "nginx redirect": "nginx, in the server of port 80",
    ".env": "tornado-live, in .env",
}


async def check(
    target: Target,
    say: Callable[[str], None],
    *,
    ca: Path | None = None,
    idle_s: float = IDLE_S,
    http_port: int = 80,
    proxy: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> int:
    """The exit code: 0 where nothing is to be mended, else 1.

    `ca` is a file of authorities to trust beside the usual ones; `headers` go with every request, for a proxy that
    wants a password. Raises ConfigError for a `ca` that cannot be read.
    """
    masker = Masker()
    for value in (headers or {}).values():
        masker.mask(value)
    told = Told(say, target, proxy, masker)
    await _examine(Way(target, trust(ca), headers or {}), told, idle_s, http_port)
    if failures := told.report.failures:
        say(f"{failures} to mend; docs/deployment.md has the whole file.")
    else:
        say("All is well.")
    return 1 if told.report.failures else 0


def trust(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    # Old versions are let in to be told of.
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    if ca is not None:
        try:
            context.load_verify_locations(ca)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or "no certificate in it"
            raise ConfigError(
                [Problem("command line", None, "--ca", f"{ca} cannot be used: {reason}")]
            ) from error
    return context


async def _examine(way: Way, told: Told, idle_s: float, http_port: int) -> None:
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
        plain = await probes.ask(way, "/", origin=f"http://{target.name}:{http_port}")
        told.tell(findings.of_redirect(plain, target, http_port))
    health = await probes.ask(way, "/health")
    if isinstance(health, Answer):
        told.saw(health)
    alive = findings.of_health(health, target)
    told.tell(alive)
    if alive.verdict == "WRONG":
        return
    told.tell(findings.of_ready(await probes.ask(way, "/health/ready")))
    told.tell(*findings.of_client(await probes.client(way), target))
    told.tell(
        findings.of_host(await probes.ask(way, "/api/tools", headers={"Host": "foreign.invalid"}), target)
    )
    session = await _sessions(way, told)
    if session is None:
        return
    # Of one session all the time, so that nothing is left of it.
    path = f"/ws?sessionId={session}" if session else "/ws"
    own = await probes.upgrade(way, path)
    told.tell(findings.of_upgrade(own, target))
    foreign = await probes.upgrade(way, path, origin=findings.FOREIGN)
    told.tell(*findings.of_origins(own, foreign, await probes.upgrade(way, path, origin=None)))
    if isinstance(own, Answer) and own.status == 101:
        await _sockets(way, told, path, reached.connect_ms)
        if session:
            told.tell(findings.of_returns(await probes.returns(way, session)))
        if idle_s > 0:
            told.report.plain(f"      for up to {idle_s:.0f} s nobody says anything now")
            told.tell(findings.of_idle(await probes.idle(way, idle_s), idle_s))
    if session:
        await probes.forget(way, session)


async def _sessions(way: Way, told: Told) -> str | None:
    """The session that was made; "" for none, None where callers are asked who they are."""
    small = await probes.ask(way, "/api/sessions", method="POST")
    made = small.json if isinstance(small, Answer) else {}
    told.tell(*findings.of_address(small, made, way.target))
    if findings.wants_token(small):
        return None
    large = await probes.ask(way, "/api/sessions", method="POST", headers=_JSON, body=_BODY)
    told.tell(findings.of_body(large))
    if isinstance(large, Answer) and "sessionId" in large.json:
        await probes.forget(way, str(large.json["sessionId"]))
    return str(made.get("sessionId", ""))


async def _sockets(way: Way, told: Told, path: str, connect_ms: float) -> None:
    echoes = await probes.echoes(way, path)
    if isinstance(echoes, Answer | NoAnswer):
        told.tell(findings.of_upgrade(echoes, way.target))
    else:
        told.tell(*findings.of_echoes(echoes, connect_ms))
    told.tell(findings.of_drop_in(await probes.drop_in(way)))
    told.tell(findings.of_largest(await probes.largest(way)))
