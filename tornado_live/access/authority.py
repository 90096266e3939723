"""The authority behind `--tls-self-signed`: made once, kept in the data directory, trusted by whoever is told to.

Its two files come into being together, by the renaming of their directory: of two servers that start at the same
time one makes the authority, and the other uses it.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import shutil
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tornado_live.errors import ConfigError, Problem

if TYPE_CHECKING:
    import trustme

FOLDER = "tls"
CERTIFICATE, KEY = "ca.pem", "ca.key"
ALWAYS = ("localhost", "127.0.0.1", "::1")
# Apple's systems refuse more than 825 days, also where the authority was added by hand (support.apple.com/103769).
_VALID = timedelta(days=820)
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Certified:
    """`context` is for the listener. `authority` is the file for clients to trust, which signed for `names` only;
    None where the certificate is the operator's own."""

    context: ssl.SSLContext
    authority: Path | None = None
    names: tuple[str, ...] = ()


def certified(data_dir: Path, hosts: Iterable[str]) -> Certified:
    """A new certificate for this machine and `hosts`, by the authority in `data_dir`, which is made if need be.

    Raises ConfigError for an authority that cannot be used or stored, and for a name that no certificate holds.
    """
    folder = data_dir / FOLDER
    authority = _kept(folder) or _made(folder)
    names = tuple(dict.fromkeys((*ALWAYS, *(host.strip("[]") for host in hosts if not _anywhere(host)))))
    now = datetime.now(UTC)
    try:
        certificate = authority.issue_cert(
            *names,
            organization_name="tornado-live",
            not_before=now - _CLOCKS_DIFFER,
            not_after=now - _CLOCKS_DIFFER + _VALID,
        )
    except ValueError as error:  # of idna, which says what is wrong with the name
        raise ConfigError(
            [
                Problem(
                    "tls_self_signed",
                    None,
                    "",
                    f"a name of allowed_hosts cannot stand in a certificate: {error} - take it out, or write"
                    " tls_cert and tls_key",
                )
            ]
        ) from error
    context = server_context()
    certificate.configure_cert(context)
    return Certified(context, folder / CERTIFICATE, names)


def server_context() -> ssl.SSLContext:
    """TLS 1.2 or newer, still without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _kept(folder: Path) -> trustme.CA | None:
    """The authority in `folder`, None where nothing of one is there."""
    import trustme

    certificate, key = folder / CERTIFICATE, folder / KEY
    try:
        if not certificate.exists() and not key.exists():
            return None
        # OpenSSL says whether the two belong together; without a password of ours it would ask for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    except (ssl.SSLError, FileNotFoundError, ValueError) as error:
        raise _unusable(
            folder,
            f"{CERTIFICATE} and {KEY} are damaged or do not belong together - delete {folder}, start again, and"
            f" let clients trust the new {CERTIFICATE}",
        ) from error
    except OSError as error:
        raise _unusable(folder, f"cannot be read: {error.strerror or error}") from error


def _made(folder: Path) -> trustme.CA:
    """A new authority, stored in `folder`; or that of another server, which was quicker."""
    import trustme

    authority = trustme.CA(
        organization_name="tornado-live", organization_unit_name="local authority of a tornado-live server"
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=folder.parent))  # mode 0700
        try:
            _write(fresh / CERTIFICATE, authority.cert_pem.bytes(), 0o644)
            _write(fresh / KEY, authority.private_key_pem.bytes(), 0o600)
            return authority if _renamed(fresh, folder) else _others(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise _unusable(folder, f"cannot be written: {error.strerror or error}") from error


def _others(folder: Path) -> trustme.CA:
    kept = _kept(folder)
    if kept is None:
        raise _unusable(folder, f"holds files, but no {CERTIFICATE} - move them away, or delete {folder}")
    return kept


def _renamed(fresh: Path, folder: Path) -> bool:
    """Whether `folder` was not there before."""
    try:
        fresh.rename(folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


def _write(path: Path, content: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _unusable(folder: Path, message: str) -> ConfigError:
    return ConfigError([Problem(str(folder), None, "", message)])


def _anywhere(host: str) -> bool:
    """Whether `host` is an address to listen on which no client can connect to."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False
