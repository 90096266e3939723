"""T7: a server that others can reach asks who they are, and lets nobody listen, unless told otherwise."""

from __future__ import annotations

import asyncio
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from serving import ROOT, clean_environment

from tornado_live.__main__ import main

NOT_ASKED = "callers are not asked who they are - write auth.modes"
PROXY = "10.0.0.5"
UNENCRYPTED = "would cross the network unencrypted - name the proxy that does TLS in trusted_proxies"


@dataclass(frozen=True)
class Start:
    host: str
    modes: str
    tls: str
    """none, beside the plain ports, or alone."""
    proxies: str
    without_auth: bool
    without_tls: bool

    @property
    def arguments(self) -> list[str]:
        given = {
            "host": self.host,
            "auth.modes": self.modes,
            "trusted_proxies": self.proxies,
            "public_without_auth": str(self.without_auth).lower(),
            "public_without_tls": str(self.without_tls).lower(),
        }
        if self.tls != "none":
            given |= {"tls_port": "3443", "tls_cert": "tls.pem", "tls_key": "tls.key"}
        if self.tls == "alone":
            given |= {"port": "off", "ws_port": "off"}
        return [one for name, value in given.items() if value for one in ("--set", f"{name}={value}")]

    @property
    def refusal(self) -> str | None:
        """What the operator is told, None where it may start."""
        if self.host != "0.0.0.0":
            return None
        if self.modes == "none":
            return None if self.without_auth else NOT_ASKED
        elsewhere = self.proxies == PROXY  # one on this machine does no TLS for whoever is on the network
        return None if self.without_tls or elsewhere or self.tls == "alone" else UNENCRYPTED

    def __str__(self) -> str:
        flags = [name for name in ("without_auth", "without_tls") if getattr(self, name)]
        return "-".join([self.host, self.modes, self.tls, self.proxies or "no proxy", *flags])


STARTS = [
    Start(*one)
    for one in itertools.product(
        ("127.0.0.1", "0.0.0.0"),
        ("none", "api_key"),
        ("none", "beside", "alone"),
        ("", "127.0.0.1", PROXY),
        (False, True),
        (False, True),
    )
    if not one[3] or one[0] != "127.0.0.1"  # where nobody else comes in, no proxy makes a difference
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    issued = trustme.CA().issue_cert("voice.example")
    issued.private_key_pem.write_to_path(home / "tls.key")
    issued.cert_chain_pems[0].write_to_path(home / "tls.pem")
    return home


@pytest.mark.proves("T7")
@pytest.mark.parametrize("start", STARTS, ids=str)
def test_what_may_start_and_what_is_told(
    home: Path, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["serve", "--home", str(home), "--print-config", *start.arguments]
    monkeypatch.setattr(sys, "argv", ["tornado-live", *arguments])
    for name in ("HOST", "AUTH__MODES", "PUBLIC_WITHOUT_AUTH", "PUBLIC_WITHOUT_TLS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    if start.refusal is None:
        assert (ended.value.code, told) == (0, "")
    else:
        assert ended.value.code == 2
        (line,) = told.splitlines()
        assert line.startswith('command line: host: "0.0.0.0" can be reached by others')
        assert start.refusal in line


@pytest.mark.proves("T7")
@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"HOST": "0.0.0.0"}, NOT_ASKED),
        ({"HOST": "::", "AUTH__MODES": "api_key"}, UNENCRYPTED),
    ],
    ids=["none", "api_key"],
)
async def test_the_process_ends_before_anything_listens(
    tmp_path: Path, environ: dict[str, str], told: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tornado_live", "serve"),
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=str(ROOT), **environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    (line,) = error.decode().splitlines()
    assert line.startswith("environment: HOST: ")
    assert told in line
