"""The keys with which somebody else signs tokens (RFC 7517): fetched, chosen from, kept for when they are away.

Only keys that can check a signature of an algorithm that is taken are used: public, of its kind, strong enough. A
secret is none of them, whoever publishes it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import httpx

from tornado_live.access.refusal import Refused
from tornado_live.errors import Unavailable
from tornado_live.jsonvalue import Json
from tornado_live.observe.logs import log_event

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey

FRESH_S: Final = 600.0
AGAIN_S: Final = 30.0
"""An unknown key is asked for at most so often: anybody can name one."""
LAST_S: Final = 24 * 3600.0
"""How long keys are good that cannot be fetched again."""
DEADLINE_S: Final = 5.0
MOST_BYTES: Final = 256 * 1024
_MOST_KEYS: Final = 100
LEAST_BITS: Final = 2048
_MOST_BITS: Final = 8192  # checking a signature grows with the cube of it
_MOST_EXPONENT: Final = (1 << 32) - 1

Fetch: TypeAlias = Callable[[], Awaitable[bytes]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """`public` checks signatures of `algorithm` alone."""

    id: str | None
    algorithm: str
    public: PublicKey


class KeySet:
    """The keys of one address. Raises nothing until it is asked for a key."""

    def __init__(
        self, algorithms: Collection[str], fetch: Fetch, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._algorithms = frozenset(algorithms)
        self._fetch = fetch
        self._clock = clock
        self._keys: tuple[SigningKey, ...] = ()
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._away = False
        self._fetching = asyncio.Lock()

    async def key(self, id: str | None, algorithm: str) -> SigningKey:
        """The key that a token names; of one that names none, the only one there is.

        Raises Refused where there is none such, Unavailable where nobody can say.
        """
        found = self._known(id, algorithm)
        # Whoever has a key does not wait for those who fetch a newer set.
        if found is None or (self._due(known=True) and not self._fetching.locked()):
            async with self._fetching:
                if self._due(known=self._known(id, algorithm) is not None):
                    await self._renew()
            found = self._known(id, algorithm)
        if found is not None:
            return found
        if self._away:
            raise Unavailable(
                "Tokens cannot be checked: the keys of their issuer are out of reach. Try again in a moment.",
                retry_after_ms=1000,
            )
        raise Refused("no such signing key")

    def _known(self, id: str | None, algorithm: str) -> SigningKey | None:
        if self._fetched_at is None or self._clock() - self._fetched_at > LAST_S:
            return None
        named = [key for key in self._keys if key.algorithm == algorithm and id in (None, key.id)]
        # Of two keys with one name, or without one, none is tried: a token says which one it is signed with.
        return named[0] if len(named) == 1 else None

    def _due(self, *, known: bool) -> bool:
        now = self._clock()
        if self._tried_at is not None and now - self._tried_at < AGAIN_S:
            return False
        return not known or self._fetched_at is None or now - self._fetched_at >= FRESH_S

    async def _renew(self) -> None:
        self._tried_at = self._clock()
        try:
            async with asyncio.timeout(DEADLINE_S):
                keys = usable_keys(await self._fetch(), self._algorithms)
        except asyncio.CancelledError:
            self._tried_at = None  # nothing was found out
            raise
        except (TimeoutError, httpx.HTTPError, OSError, ValueError, RecursionError) as error:
            self._away = True
            reason = str(error) or type(error).__name__
            log_event(logger, "signing_keys_unavailable", level=logging.ERROR, reason=reason)
            return
        self._keys, self._fetched_at, self._away = keys, self._clock(), False
        log_event(logger, "signing_keys_fetched", ids=[key.id for key in keys])


class Address:
    """Fetches `url`, by no proxy and no redirect, and no more than a set of keys can be. Raises httpx.HTTPError
    and ValueError."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._trust = ssl.create_default_context()

    async def __call__(self) -> bytes:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with (
            httpx.AsyncClient(verify=self._trust, trust_env=False, timeout=DEADLINE_S) as client,
            client.stream("GET", self._url, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"the address answered {answer.status_code}")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise ValueError(f"the address answered more than {MOST_BYTES} bytes")
            return bytes(body)


def usable_keys(document: bytes, algorithms: Collection[str]) -> tuple[SigningKey, ...]:
    """Those of a JWK set that check signatures of `algorithms`. Raises ValueError where there is none."""
    try:
        found: Json = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise ValueError("the address answered no JSON") from error
    listed = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the address answered no set of keys")
    keys = tuple(_usable(listed[:_MOST_KEYS], algorithms))
    if not keys:
        raise ValueError(f"the address has no key for {' or '.join(sorted(algorithms))}")
    return keys


def _usable(listed: Iterable[Json], algorithms: Collection[str]) -> Iterable[SigningKey]:
    for one in listed:
        if not isinstance(one, dict):
            continue
        algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(one.get("kty")))
        operations = one.get("key_ops", ["verify"])
        id = one.get("kid")
        if (
            algorithm is None
            or algorithm not in algorithms
            or one.get("alg", algorithm) != algorithm
            or one.get("use", "sig") != "sig"
            or not (isinstance(operations, list) and "verify" in operations)
            or "d" in one  # a private key that is published is anybody's
            or not isinstance(id, str | None)
        ):
            continue
        public = _rsa(one) if algorithm == "RS256" else _elliptic(one)
        if public is not None:
            yield SigningKey(id, algorithm, public)


def _rsa(jwk: Mapping[str, Json]) -> RSAPublicKey | None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    modulus, exponent = _number(jwk.get("n")), _number(jwk.get("e"))
    if modulus is None or exponent is None or not 3 <= exponent <= _MOST_EXPONENT:
        return None
    if not LEAST_BITS <= modulus.bit_length() <= _MOST_BITS:
        return None
    try:
        return RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        return None


def _elliptic(jwk: Mapping[str, Json]) -> EllipticCurvePublicKey | None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    x, y = _number(jwk.get("x")), _number(jwk.get("y"))
    if jwk.get("crv") != "P-256" or x is None or y is None:
        return None
    try:
        return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()  # also: is it on the curve?
    except ValueError:
        return None


def _number(text: Json) -> int | None:
    """Of base64url (RFC 7518, 6)."""
    if not isinstance(text, str) or len(text) > 2 * _MOST_BITS // 8:
        return None
    try:
        return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except ValueError:
        return None
