"""A real PostgreSQL server of the tests' own: Debian's, on a free port, in a directory that goes with it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

_PROGRAMS = ("/usr/lib/postgresql", "/usr/local/pgsql", "/opt/homebrew/opt/postgresql")


@dataclass(frozen=True)
class Postgres:
    """A running server. `owner` may do everything, `reader` only what tests grant."""

    port: int
    data: Path
    process: subprocess.Popen[bytes]

    def url(self, user: str = "reader", password: str = "not-a-secret", database: str = "postgres") -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What the owner is answered to the last of them."""
        rows: list[tuple[Any, ...]] = []
        with closing(psycopg.connect(self.url("owner", database=database), autocommit=True)) as connection:
            for statement in statements:
                cursor = connection.execute(statement)  # type: ignore[call-overload]
                rows = cursor.fetchall() if cursor.description else []
        return rows


def installed() -> Path | None:
    """Where initdb and postgres are: the newest version, or None."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    found_here = [path.parent for top in _PROGRAMS for path in Path(top).glob("**/bin/initdb")]
    return max(
        found_here, default=None, key=lambda path: [int(part) for part in path.parts if part.isdigit()]
    )


@contextmanager
def running() -> Iterator[Postgres]:
    programs = installed()
    assert programs is not None, "PostgreSQL is not installed; make test installs it where apt may be used"
    # Not below pytest's own directory, which only its user may enter: as root, PostgreSQL runs as somebody else.
    top = Path(tempfile.mkdtemp(prefix="tornado-live-postgres-", dir="/tmp"))
    data = top / "data"
    somebody = _somebody()
    if somebody:
        os.chown(top, int(somebody["user"]), int(somebody["group"]))
    (top / "password").write_text("not-a-secret\n")
    (top / "password").chmod(0o644)
    common: dict[str, Any] = {
        "cwd": top,
        "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        **somebody,
    }
    try:
        made = subprocess.run(
            [
                *(programs / "initdb", "--pgdata", data, "--username", "owner", "--pwfile", top / "password"),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-sync", "--no-instructions"),
            ],
            timeout=60,
            check=False,
            **common,
        )
        assert made.returncode == 0, made.stdout.decode()
        port = _free_port()
        process = subprocess.Popen(
            [
                *(programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", ""),
                *_settings(
                    fsync="off", full_page_writes="off", logging_collector="off", shared_buffers="16MB"
                ),
            ],
            **common,
        )
        printed = _Printed(process)
        try:
            printed.await_line(b"database system is ready to accept connections")
            server = Postgres(port, data, process)
            server.run("CREATE ROLE reader LOGIN PASSWORD 'not-a-secret'")
            yield server
        finally:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)  # a fast end: it takes leave of its clients
            process.wait(30)
            printed.end()
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _settings(**values: str) -> Sequence[str]:
    return [part for name, value in values.items() for part in ("-c", f"{name}={value}")]


def _somebody() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("there is neither a user postgres nor nobody")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class _Printed:
    """What the server prints, read as it comes, so that it never has to wait for a reader."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._pipe = process.stdout
        self._lines: list[bytes] = []
        self._grown = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, name="postgres", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._pipe:
            with self._grown:
                self._lines.append(line)
                self._grown.notify_all()
        with self._grown:
            self._over = True
            self._grown.notify_all()

    def await_line(self, text: bytes) -> None:
        with self._grown:
            self._grown.wait_for(lambda: self._over or any(text in line for line in self._lines), 60)
            assert any(text in line for line in self._lines), b"".join(self._lines).decode()

    def end(self) -> None:
        self._reader.join(30)
        self._pipe.close()
