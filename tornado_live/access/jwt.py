"""JSON Web Tokens of somebody else's making (RFC 7519, held to RFC 8725): verified by PyJWT, read strictly.

The algorithms are the operator's, and each key checks signatures of one of them: what a token says of itself only
picks a key that is ours. Where it says to find one (`jku`, `x5u`, `jwk`, `x5c`), nobody looks.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from tornado_live.access.jwks import LEAST_BITS, Address, Fetch, KeySet
from tornado_live.access.refusal import EXPIRED, Refused
from tornado_live.errors import ConfigError, Problem
from tornado_live.jsonvalue import Json
from tornado_live.settings import Auth

if TYPE_CHECKING:
    from tornado_live.access.jwks import PublicKey

MAX_BYTES: Final = 8192

_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
# Logout tokens, security events and proofs of possession are signed by the same keys, and let nobody in.
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_TIMES = ("exp", "nbf", "iat")
_LATEST = 1e11  # in seconds the year 5138: beyond it are milliseconds


class Verifier:
    """`fetch` gets the keys of `jwt_jwks_url`. Raises ConfigError for a public key that checks none of the
    algorithms."""

    def __init__(
        self, auth: Auth, *, fetch: Fetch | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._auth = auth
        self._secret: bytes | None = None
        self._fixed: tuple[str, PublicKey] | None = None
        self._published: KeySet | None = None
        if "HS256" in auth.jwt_algorithms:
            self._secret = (
                auth.jwt_secret.get_secret_value().encode() if auth.jwt_secret is not None else None
            )
        elif auth.jwt_public_key is not None:
            self._fixed = _public_key(auth.jwt_public_key, auth.jwt_algorithms)
        elif auth.jwt_jwks_url is not None:
            self._published = KeySet(auth.jwt_algorithms, fetch or Address(auth.jwt_jwks_url), clock=clock)

    async def verified(self, token: str) -> Mapping[str, Json]:
        """The claims. Raises Refused, and Unavailable where the keys of whoever signs were never to be had."""
        import jwt

        if len(token) > MAX_BYTES:
            raise Refused(f"token of more than {MAX_BYTES} bytes")
        parts = _PARTS.fullmatch(token)
        if parts is None:
            raise Refused("malformed token")
        algorithm, id = self._header(_object(parts[1], "header"))
        claims = _object(parts[2], "claims")
        for name in _TIMES:
            _check_time(name, claims)
        key = await self._key(algorithm, id)
        try:
            jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._auth.jwt_audience,
                issuer=self._auth.jwt_issuer or "",
                leeway=self._auth.jwt_leeway_s,
                options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError as error:
            raise Refused("expired token", EXPIRED) from error
        except (jwt.PyJWTError, ValueError) as error:
            raise Refused(_reason(error)) from error
        return claims

    def _header(self, header: Mapping[str, Json]) -> tuple[str, str | None]:
        """Algorithm and name of the key."""
        algorithm, id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self._auth.jwt_algorithms:
            raise Refused("token of an algorithm that is not taken")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise Refused("token of another type")
        if "crit" in header or "b64" in header:
            raise Refused("token with an extension that has to be understood")
        if not isinstance(id, str | None):
            raise Refused("token with a name of a key that is no text")
        return algorithm, id

    async def _key(self, algorithm: str, id: str | None) -> PublicKey | bytes:
        if self._secret is not None:
            return self._secret
        if self._fixed is not None:
            made_for, public = self._fixed
            if made_for != algorithm:
                raise Refused("token of an algorithm that the key is not for")
            return public
        if self._published is None:
            raise Refused("there is no key to check tokens with")
        return (await self._published.key(id, algorithm)).public


def _object(part: str, what: str) -> dict[str, Json]:
    """The JSON object of a part. What two readers could read differently is none: names twice, NaN, half a
    character."""

    def once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name twice")
        return found

    def no_number(name: str) -> Json:
        raise ValueError(f"{name} is no number")

    try:
        text = base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True).decode()
        value: Json = json.loads(text, object_pairs_hook=once, parse_constant=no_number)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused(f"{what} of a token that cannot be read") from error
    if not isinstance(value, dict):
        raise Refused(f"{what} of a token that are no object")
    return value


def _check_time(name: str, claims: Mapping[str, Json]) -> None:
    """PyJWT would take text for a number, and True."""
    value = claims.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise Refused(f'"{name}" of a token that is no time in seconds')


def _public_key(pem: str, algorithms: tuple[str, ...]) -> tuple[str, PublicKey]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable("holds no public key that can be read") from error
    match key:
        case RSAPublicKey() if key.key_size < LEAST_BITS:
            raise _unusable(f"is a key of {key.key_size} bits - use one of {LEAST_BITS} or more")
        case RSAPublicKey() if "RS256" in algorithms:
            return "RS256", key
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1) and "ES256" in algorithms:
            return "ES256", key
    raise _unusable(f"is not a key of {' or '.join(algorithms)}, which auth.jwt_algorithms names")


def _unusable(message: str) -> ConfigError:
    return ConfigError([Problem("auth.jwt_public_key", None, "", message)])


def _reason(error: Exception) -> str:
    """Without the words of the library, which may hold claims."""
    names = re.findall(r"[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))
    return f"token refused: {' '.join(names).lower()}"
