"""T15: of all tokens that others make, or make of ours, none lets anybody in."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from issuing import (
    AUDIENCE,
    ISSUER,
    SECRET,
    Published,
    auth,
    claims,
    elliptic_token,
    forgeries,
    key_set,
    pem,
    publishing,
    rsa_key,
    secret_token,
    token,
)
from serving import Server
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from tornado_live.access.identity import Identity
from tornado_live.access.jwt import Verifier
from tornado_live.access.origins import Doors
from tornado_live.access.refusal import EXPIRED, WRONG, Refused
from tornado_live.errors import Unauthenticated
from tornado_live.handlers.door import DoorHandler, House
from tornado_live.jsonvalue import Json
from tornado_live.observe.metrics import Metrics

SIGNED = {"AUTH__JWT_ALGORITHMS": "RS256,ES256", "AUTH__JWT_PUBLIC_KEY": ""}


def environment(keys: Published) -> dict[str, str]:
    given = {"AUTH__MODES": "jwt", "AUTH__JWT_ISSUER": ISSUER, "AUTH__JWT_AUDIENCE": AUDIENCE}
    return given | SIGNED | {"AUTH__JWT_JWKS_URL": keys.url}


async def answered(client: httpx.AsyncClient, url: str, shown: str) -> tuple[int, dict[str, Any]]:
    header = b"Bearer " + shown.encode("utf-8", "surrogatepass")
    answer = await client.get(url, headers={b"Authorization": header})
    return answer.status_code, answer.json()


async def refused_upgrades(server: Server, forged: Mapping[str, str]) -> None:
    """The same at the door of the WebSocket, before it is one."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        statuses = set()
        for shown in forged.values():
            header = b"Bearer " + shown.encode("utf-8", "surrogatepass")
            asked = {
                **{name.encode(): value.encode() for name, value in upgrade.items()},
                b"Authorization": header,
            }
            statuses.add((await client.get(f"{server.url}/ws", headers=asked)).status_code)
        assert statuses == {401}


async def none_gets_in(url: str, forged: Mapping[str, str]) -> None:
    """And our own do. All are told the same, but for whoever's token was good once."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for shown in (token(), elliptic_token()):
            assert (await answered(client, url, shown))[0] == 200
        got = {name: await answered(client, url, shown) for name, shown in forged.items()}
        assert {name: status for name, (status, _) in got.items() if status != 401} == {}
        for name, (_, body) in got.items():
            error = body["error"]
            assert error["code"] == "unauthenticated"
            assert error["message"] == (EXPIRED if name.startswith("expired") else WRONG), name
        assert (await answered(client, url, token()))[0] == 200


@pytest.mark.proves("T15")
async def test_no_forged_token_is_taken_by_the_server() -> None:
    async with publishing() as ours, publishing() as theirs, Server(environ=environment(ours)) as server:
        forged = forgeries(theirs.url)
        assert len(forged) >= 150
        await none_gets_in(f"{server.url}/api/sessions", forged)
        await refused_upgrades(server, forged)
        assert theirs.asked == []  # nobody looks where a token says that its key is
        assert 1 <= len(ours.asked) <= 3
        refused = [json.loads(line) for line in server.log.splitlines() if '"credential_refused"' in line]
        assert len(refused) == 2 * len(forged)
        assert all(line["reason"] and len(line["reason"]) < 100 for line in refused)
        for shown in forged.values():
            if len(shown) > 40:
                assert shown[-40:] not in server.log


class UserHandler(DoorHandler):
    async def get(self) -> None:
        self.answer({"user": self.caller.user})


@asynccontextmanager
async def serving(identity: Identity) -> AsyncIterator[str]:
    """One route behind the door of all."""
    listener, port = bind_unused_port()
    house = House(Doors((), ("127.0.0.1",), (port,)), Metrics(), identity=identity)
    server = HTTPServer(
        Application([("/", UserHandler, {"house": house})], log_function=lambda handler: None)
    )
    server.add_socket(listener)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.stop()
        await server.close_all_connections()


class Trusting(Verifier):
    """Verification switched off: what a token says, is so."""

    async def verified(self, shown: str) -> Mapping[str, Json]:
        try:
            part = shown.split(".")[1]
            said = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        except (ValueError, IndexError, RecursionError):
            raise Refused("unreadable") from None
        whole = claims() | (said if isinstance(said, dict) else {}) | {"exp": claims()["exp"]}
        return cast("dict[str, Json]", whole)


@pytest.mark.proves("T15")
@pytest.mark.parametrize("verifies", [True, False])
async def test_the_proof_fails_where_nothing_is_verified(
    verifies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch() -> bytes:
        return key_set()

    forged = forgeries("http://127.0.0.1:9/")
    if not verifies:
        monkeypatch.setattr("tornado_live.access.identity.Verifier", Trusting)
    published = auth(tmp_path, "jwt", **SIGNED, AUTH__JWT_JWKS_URL="http://127.0.0.1/keys")
    async with serving(Identity(published, fetch=fetch)) as url:
        if verifies:
            await none_gets_in(url, forged)
        else:
            with pytest.raises(AssertionError, match="ES256 by name, RS256 by signature"):
                await none_gets_in(url, forged)


@pytest.mark.proves("T15")
async def test_no_forged_token_is_taken_with_a_fixed_secret(tmp_path: Path) -> None:
    """Where HS256 is chosen there is no public key to be mistaken for a secret, and no other algorithm."""
    identity = Identity(auth(tmp_path, "jwt", AUTH__JWT_ALGORITHMS="HS256", AUTH__JWT_SECRET=SECRET))
    assert (await identity.caller(secret_token())).user == "ann"
    forged = forgeries("http://127.0.0.1:9/")
    forged |= {"a good one of RS256": token(), "a good one of ES256": elliptic_token()}
    forged |= {
        f"secret {guess!r}": secret_token(guess)
        for guess in ("", "secret", SECRET[:-1], f"{SECRET} ", pem(rsa_key()))
    }
    taken = [name for name, shown in forged.items() if not await refused(identity, shown)]
    assert taken == []


async def refused(identity: Identity, shown: str) -> bool:
    try:
        await identity.caller(shown)
    except Unauthenticated:
        return True
    return False
