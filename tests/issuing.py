"""Somebody who signs tokens and publishes keys, and everything that a forger does instead."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tornado_live.settings import Auth, load_settings

ISSUER = "https://login.example.com"
AUDIENCE = "voice"
SECRET = "no-real-secret-but-one-of-enough-bytes"
CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def part(content: Any) -> str:
    """A part of a token: bytes as they are, text as UTF-8, all else as JSON."""
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode(
            "utf-8", "surrogatepass"
        )
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def whole(number: int, size: int | None = None) -> str:
    return part(number.to_bytes(size or (number.bit_length() + 7) // 8))


@cache
def rsa_key(name: str = "ours", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same for the same name."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def elliptic_key(name: str = "ours") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Key) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def der(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def jwk(key: Key, kid: str, **more: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        own = {"kty": "RSA", "alg": "RS256", "n": whole(numbers.n), "e": whole(numbers.e)}
    else:
        own = {
            "kty": "EC",
            "alg": "ES256",
            "crv": "P-256",
            "x": whole(numbers.x, 32),
            "y": whole(numbers.y, 32),
        }
    return {"kid": kid, "use": "sig", **own, **more}


def key_set() -> bytes:
    """What the issuer publishes."""
    return json.dumps({"keys": [jwk(rsa_key(), "rsa-1"), jwk(elliptic_key(), "ec-1")]}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Of a good token; None takes one out."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 600, "jti": "one"}
    return {name: value for name, value in (usual | changes).items() if value is not None}


def auth(folder: Path, modes: str = "api_key,jwt", **environ: str) -> Auth:
    """As the operator's environment says; tokens by RS256 of the issuer, if nothing else."""
    (folder / "key.pem").write_text(pem(rsa_key()))
    usual = {
        "AUTH__MODES": modes,
        "AUTH__JWT_ISSUER": ISSUER,
        "AUTH__JWT_AUDIENCE": AUDIENCE,
        "AUTH__JWT_PUBLIC_KEY": "key.pem",
    }
    return load_settings(home=folder, config=None, environ=usual | environ, overrides={}).auth


def raw_signature(algorithm: str, signed: bytes, key: Any) -> bytes:
    if algorithm.startswith("HS"):
        secret = key if isinstance(key, bytes) else str(key).encode()
        return hmac.digest(secret, signed, f"sha{algorithm[2:]}")
    chosen = _HASHES[algorithm[2:]]()
    if algorithm.startswith("ES"):
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(chosen)))
        return r.to_bytes(32) + s.to_bytes(32)
    if algorithm.startswith("PS"):
        return bytes(key.sign(signed, padding.PSS(padding.MGF1(chosen), chosen.digest_size), chosen))
    return bytes(key.sign(signed, padding.PKCS1v15(), chosen))


def signed(header: Any, payload: Any, key: Any, algorithm: str = "RS256") -> str:
    """Whatever header and payload are, the signature is good."""
    content = f"{part(header)}.{part(payload)}"
    return f"{content}.{part(raw_signature(algorithm, content.encode(), key))}"


def token(payload: Any = None, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """A good one by RS256, but for the changes."""
    return signed(
        {"alg": "RS256", "typ": "JWT", "kid": "rsa-1", **(header or {})},
        claims(**changes) if payload is None else payload,
        rsa_key(),
    )


def elliptic_token(**changes: Any) -> str:
    return signed({"alg": "ES256", "typ": "JWT", "kid": "ec-1"}, claims(**changes), elliptic_key(), "ES256")


def secret_token(secret: str = SECRET, **changes: Any) -> str:
    return signed({"alg": "HS256", "typ": "JWT"}, claims(**changes), secret, "HS256")


def resigned(shown: str, signature: bytes) -> str:
    return f"{shown.rpartition('.')[0]}.{part(signature)}"


def signature_of(shown: str) -> bytes:
    last = shown.rpartition(".")[2]
    return base64.urlsafe_b64decode(last + "=" * (-len(last) % 4))


def mirrored(shown: str) -> str:
    """The other signature of ES256 that is good for the same content."""
    signature = signature_of(shown)
    s = int.from_bytes(signature[32:])
    return resigned(shown, signature[:32] + (CURVE_ORDER - s).to_bytes(32))


def forgeries(elsewhere: str) -> dict[str, str]:
    """Tokens that let nobody in where RS256 and ES256 are taken, by what is wrong with them. `elsewhere` is an
    address of the forger's own, which publishes keys."""
    ours, theirs, good = rsa_key(), rsa_key("theirs"), token()
    head, body, tail = good.split(".")
    later, long_ago = int(time.time()) + 3600, int(time.time()) - 3600
    ours_by_name = {"alg": "RS256", "kid": "rsa-1"}
    flipped = bytes([signature_of(good)[0] ^ 1]) + signature_of(good)[1:]
    sealed = f"{part(bytes(12))}.{part(b'x' * 40)}.{part(bytes(16))}"
    curved = elliptic_token()
    r = signature_of(curved)[:32]
    order = CURVE_ORDER.to_bytes(32)
    found = {
        f"no algorithm: {name!r} and {what}": f"{part({'alg': name, 'typ': 'JWT'})}.{body}.{signature}"
        for name in ("none", "None", "NONE", "nOnE", "", "null", None, ["RS256"], {"RS256": 1}, 0)
        for what, signature in (("no signature", ""), ("a good one", tail))
    }
    found |= {
        "no alg at all": signed({"typ": "JWT", "kid": "rsa-1"}, claims(), ours),
        "alg in small letters": signed({"alg": "rs256", "kid": "rsa-1"}, claims(), ours),
        "alg with a space": signed({"alg": "RS256 ", "kid": "rsa-1"}, claims(), ours),
        "alg with a letter that only looks right": signed(
            {"alg": "R\u0405256", "kid": "rsa-1"}, claims(), ours
        ),
        "alg in full width": signed({"alg": "ＲＳ２５６", "kid": "rsa-1"}, claims(), ours),
        "alg twice": signed('{"alg":"RS256","alg":"none","kid":"rsa-1"}', claims(), ours),
        "RS384 by our key": signed({"alg": "RS384", "kid": "rsa-1"}, claims(), ours, "RS384"),
        "RS512 by our key": signed({"alg": "RS512", "kid": "rsa-1"}, claims(), ours, "RS512"),
        "PS256 by our key": signed({"alg": "PS256", "kid": "rsa-1"}, claims(), ours, "PS256"),
        "ES256 by name, RS256 by signature": signed({"alg": "ES256", "kid": "ec-1"}, claims(), ours),
        "RS256 by name, ES256 by signature": signed(ours_by_name, claims(), elliptic_key(), "ES256"),
        "RS256 with the name of the other key": token(header={"kid": "ec-1"}),
        "kid is a path": token(header={"kid": "../../../../../../dev/null"}),
        "kid is a path, HS256 by an empty secret": signed(
            {"alg": "HS256", "kid": "/dev/null"}, claims(), b"", "HS256"
        ),
        "kid is SQL": signed(
            {"alg": "HS256", "kid": "x' UNION SELECT 'secret' --"}, claims(), b"secret", "HS256"
        ),
        "kid is an address": signed({"alg": "RS256", "kid": elsewhere}, claims(), theirs),
        "kid is a number": token(header={"kid": 1}),
        "kid is a list": token(header={"kid": ["rsa-1"]}),
        "kid is empty": token(header={"kid": ""}),
        "kid with NUL": token(header={"kid": "rsa-1\0"}),
        "a key of another with the name of ours": signed({"alg": "RS256", "kid": "rsa-1"}, claims(), theirs),
        "an elliptic key of another": signed(
            {"alg": "ES256", "kid": "ec-1"}, claims(), elliptic_key("theirs"), "ES256"
        ),
        "jku": signed({"alg": "RS256", "kid": "theirs", "jku": elsewhere}, claims(), theirs),
        "jku with the name of our key": signed({**ours_by_name, "jku": elsewhere}, claims(), theirs),
        "x5u": signed({"alg": "RS256", "kid": "theirs", "x5u": elsewhere}, claims(), theirs),
        "x5c": signed({"alg": "RS256", "x5c": [part(der(theirs))]}, claims(), theirs),
        "a key of its own": signed(
            {"alg": "RS256", "kid": "theirs", "jwk": jwk(theirs, "theirs")}, claims(), theirs
        ),
        "a key of its own with the name of ours": signed(
            {"alg": "RS256", "kid": "rsa-1", "jwk": jwk(theirs, "rsa-1")}, claims(), theirs
        ),
        "crit": token(header={"crit": ["exp"]}),
        "crit that names nothing": token(header={"crit": []}),
        "crit of an extension that is there": token(header={"crit": ["b64"], "b64": True}),
        "b64": token(header={"b64": False, "crit": ["b64"]}),
        "a logout token": token(header={"typ": "logout+jwt"}),
        "a security event": token(header={"typ": "secevent+jwt"}),
        "a proof of possession": token(header={"typ": "dpop+jwt"}),
        "expired": token(exp=long_ago),
        "expired by more than clocks differ": token(exp=int(time.time()) - 40),
        "not good yet": token(nbf=later),
        "made in the future": token(iat=later),
        "no end": token(exp=None),
        "end is text": token(exp=str(later)),
        "end is true": token(exp=True),
        "end is null": token({**claims(), "exp": None}),
        "end is a list": token(exp=[later]),
        "end before time began": token(exp=-1),
        "end in milliseconds": token(exp=1000 * later),
        "end beyond all time": token(exp=1e300),
        "end without end": token(json.dumps(claims(exp=7)).replace(": 7", ": 1e999")),
        "end is Infinity": token(json.dumps(claims(exp=7)).replace(": 7", ": Infinity")),
        "end is no number": token(json.dumps(claims(exp=7)).replace(": 7", ": NaN")),
        "end of five thousand digits": token(json.dumps(claims(exp=7)).replace(": 7", ": 1" + "0" * 5000)),
        "nbf is text": token(nbf="0"),
        "iat is text": token(iat="now"),
        "no issuer": token(iss=None),
        "another issuer": token(iss="https://login.example.com.evil.example"),
        "issuer with a slash more": token(iss=f"{ISSUER}/"),
        "issuers": token(iss=[ISSUER]),
        "no audience": token(aud=None),
        "another audience": token(aud="voices"),
        "no audience in a list": token(aud=[]),
        "audience in an object": token(aud={AUDIENCE: 1}),
        "audience and a number": token(aud=[AUDIENCE, 1]),
        "audience in capitals": token(aud=AUDIENCE.upper()),
        "nobody": token(sub=None),
        "nobody's name": token(sub=""),
        "a name of spaces": token(sub="   "),
        "a number for a name": token(sub=7),
        "names": token(sub=["ann"]),
        "everybody's name": token(sub="local"),
        "the name of a key": token(sub="key:web"),
        "a name of two lines": token(sub="ann\r\nX: y"),
        "a name with an escape": token(sub="ann\x1b[2J"),
        "a name with half a character": token('{"sub":"\\ud800",' + json.dumps(claims(sub=None))[1:]),
        "a name of 257 letters": token(sub="a" * 257),
        "a name twice": token('{"sub":"bob",' + json.dumps(claims())[1:]),
        "an end twice": token('{"exp":99999999999,' + json.dumps(claims(exp=long_ago))[1:]),
        "a number for its own name": token(jti=7),
        "a signature of zeros": resigned(curved, bytes(64)),
        "a signature whose r is zero": resigned(curved, bytes(32) + r),
        "a signature whose s is zero": resigned(curved, r + bytes(32)),
        "a signature of the curve's order": resigned(curved, order + order),
        "a signature whose s is the order": resigned(curved, r + order),
        "a signature in DER": resigned(
            curved, elliptic_key().sign(curved.rpartition(".")[0].encode(), ec.ECDSA(hashes.SHA256()))
        ),
        "zeros in DER": resigned(curved, bytes.fromhex("3006020100020100")),
        "a signature with a byte more": resigned(curved, signature_of(curved) + b"\0"),
        "a signature of RSA that is zero": f"{head}.{body}.{part(bytes(256))}",
        "a signature of RSA that is one": f"{head}.{body}.{part((1).to_bytes(256))}",
        "a signature with a bit flipped": resigned(good, flipped),
        "a signature of another token": f"{head}.{part(claims(sub='eve'))}.{tail}",
        "a header of another token": f"{part({'alg': 'RS256'})}.{body}.{tail}",
        "cut": good[:-7],
        "no signature": f"{head}.{body}.",
        "no claims": f"{head}..{tail}",
        "no header": f".{body}.{tail}",
        "two dots": f"{head}..{body}.{tail}",
        "a part more": f"{good}.{tail}",
        "encrypted": f"{part({'alg': 'dir', 'enc': 'A128GCM'})}..{sealed}",
        "dots alone": "..",
        "padded": f"{head}.{body}.{tail}==",
        "a space inside": f"{head}. {body}.{tail}",
        "a tab inside": f"{head}.{body}\t.{tail}",
        "the other alphabet": f"{head}.{body}.{base64.b64encode(signature_of(good)).decode()}",
        "the last bits otherwise": _other_last_bits(good),
        "as JSON": json.dumps({"protected": head, "payload": body, "signature": tail}),
        "claims that are a token": token(token()),
        "claims that are a list": token([claims()]),
        "claims that are text": token(json.dumps("ann")),
        "claims that are nothing": token(b""),
        "claims with a byte order mark": token("\ufeff" + json.dumps(claims())),
        "claims in UTF-16": token(json.dumps(claims()).encode("utf-16")),
        "claims that are too deep": token('{"a":' + "[" * 2500 + "]" * 2500 + "}"),
        "a header that is a list": f"{part([{'alg': 'RS256'}])}.{body}.{tail}",
        "a header that is no JSON": f"{part('alg: RS256')}.{body}.{tail}",
        "nine kilobytes": token(pad="x" * 7000),
    }
    secrets = {"PEM": pem(ours).encode(), "DER": der(ours), "JWK": json.dumps(jwk(ours, "rsa-1")).encode()}
    secrets |= {"PEM without its last line break": pem(ours).strip().encode(), "empty": b"", "kid": b"rsa-1"}
    for name in ("HS256", "HS384", "HS512"):
        for what, secret in secrets.items():
            header = {"alg": name, "typ": "JWT", "kid": "rsa-1"}
            found[f"{name} by a secret that all know: {what}"] = signed(header, claims(), secret, name)
    return found


def _other_last_bits(shown: str) -> str:
    """The same bytes, read by a lenient reader: what follows the last of them in its character is no zero."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return shown[:-1] + alphabet[alphabet.index(shown[-1]) ^ 1]


class Published:
    """An address that answers as a test likes: `body` with `status`, once `held` is set."""

    def __init__(self) -> None:
        self.body = key_set()
        self.status = "200 OK"
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.held: asyncio.Event | None = None
        self.url = ""
        self._grown = asyncio.Event()

    async def heard(self, times: int) -> None:
        """Waits until it was asked so often."""
        while len(self.asked) < times:
            self._grown.clear()
            await self._grown.wait()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            self._grown.set()
            if self.held is not None:
                await self.held.wait()
            more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n{more}\r\n"
            writer.write(head.encode() + self.body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def publishing() -> AsyncIterator[Published]:
    published = Published()
    server = await asyncio.start_server(published.answer, "127.0.0.1", 0)
    published.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    async with server:
        yield published
