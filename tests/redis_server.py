"""A real redis-server of a test's own: on a free port, in a directory that goes with it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import canary
import pytest
import redis
import trustme

READY = "Ready to accept connections"
NEEDS_REDIS = pytest.mark.skipif(
    shutil.which("redis-server") is None,
    reason="there is no redis-server; make test installs it where apt may be used",
)


@dataclass(frozen=True)
class Authority:
    """TLS: files for a server's options and a client's address."""

    ca: Path
    key: Path
    certificate: Path

    @classmethod
    def made(cls, folder: Path, *names: str) -> Authority:
        authority = trustme.CA()
        issued = authority.issue_cert(*names)
        made = cls(folder / "ca.pem", folder / "key.pem", folder / "certificate.pem")
        authority.cert_pem.write_to_path(made.ca)
        issued.private_key_pem.write_to_path(made.key)
        for pem in issued.cert_chain_pems:
            pem.write_to_path(made.certificate, append=True)
        return made


class RedisServer:
    """Started by `start`, ended however a test likes; started again it has the port, and what it saved."""

    def __init__(self, folder: Path, *options: str, tls: Authority | None = None) -> None:
        self.folder = folder
        self.port = _free_port()
        self._tls = tls
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.said: list[str] = []

    @property
    def url(self) -> str:
        if self._tls is not None:
            return f"rediss://localhost:{self.port}/0?ssl_ca_certs={self._tls.ca}"
        return f"redis://127.0.0.1:{self.port}/0"

    def url_of(self, user: str, password: str) -> str:
        return self.url.replace("://", f"://{user}:{password}@")

    def start(self) -> None:
        """Returns when it says that it is ready."""
        program = shutil.which("redis-server")
        assert program is not None
        self._process = subprocess.Popen(
            [program, *self._arguments()],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output = self._process.stdout
        assert output is not None
        for line in output:
            self.said.append(line)
            if READY in line:
                break
        else:
            raise AssertionError("".join(self.said))
        self._reader = threading.Thread(target=self.said.extend, args=(output,), daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """In order: it saves what it is told to save."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def restart_empty(self) -> None:
        self.kill()
        for saved in self.folder.glob("*.rdb"):
            saved.unlink()
        self.start()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """It takes connections and commands, and answers nobody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """Somebody else who may do everything."""
        options: dict[str, Any] = {"ssl_ca_certs": str(self._tls.ca)} if self._tls is not None else {}
        with redis.Redis(port=self.port, host="localhost", ssl=self._tls is not None, **options) as client:
            yield client

    def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._search()
            self.kill()

    def _search(self) -> None:
        """What it has, as it would be on a disk, for the secrets of tests/canary.py; if it still can be asked."""
        with suppress(redis.RedisError), self.client() as client:
            client.config_set("rdbcompression", "no")
            client.save()
            canary.WATCH.feed("store", (self.folder / "dump.rdb").read_bytes())

    def _arguments(self) -> Sequence[str]:
        ports = ["--port", str(self.port)]
        if self._tls is not None:
            ports = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            ports += ["--tls-ca-cert-file", str(self._tls.ca), "--tls-key-file", str(self._tls.key)]
            ports += ["--tls-cert-file", str(self._tls.certificate)]
        return [*ports, "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", *self._options]

    def _end(self, by: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(by)
        self._process.wait(30)
        if self._reader is not None:
            self._reader.join(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = self._reader = None


@contextmanager
def running(folder: Path, *options: str, tls: Authority | None = None) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options, tls=tls)
    try:
        server.start()
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
