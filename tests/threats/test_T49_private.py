"""T49: what people say lies in files of the server's own user, and in no others."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from faults.model import ModelSide
from faults.stage import environment, talking
from serving import Server

from tornado_live.doctor.recording import Recorder, Scrubber
from tornado_live.observe.logs import Masker

SAID = "The cellar key hangs behind the clock."
# The umask of a careless machine: what a program does not forbid, everybody may do.
CARELESS = (
    sys.executable,
    "-c",
    "import os, sys; os.umask(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
)
# Made to be looked at: the sample database, and the certificate that clients are to trust.
FOR_OTHERS = {"shop.db", "ca.pem"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.proves("T49")
async def test_everything_in_the_data_directory_is_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    async with (
        ModelSide() as model,
        Server(python=CARELESS, home=tmp_path, environ=environment(model.port), tls=True) as server,
        talking(server, model) as talk,
    ):
        await talk.turn(SAID, "I shall not tell.")
        assert tuple(text for _, text in await talk.memory()) == (SAID, "I shall not tell.")
        files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
        assert {"sessions.db", "sessions.db-wal", "sessions.db-shm", "ca.key"} <= {one.name for one in files}
        open_to_others = {one.name: oct(mode(one)) for one in files if mode(one) & 0o077}
        assert open_to_others.keys() <= FOR_OTHERS
        holding = {one.name for one in files if SAID.encode() in one.read_bytes()}
        assert holding
        assert holding <= {"sessions.db", "sessions.db-wal"}, "nothing is recorded unless it is asked for"
        assert SAID not in server.log


@pytest.mark.proves("T49")
def test_a_recording_is_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Recorder("gemini-3.8-live", "v1beta", "2026-11-22T10:00:00Z", Scrubber((), Masker())).write(
            tmp_path / "one.jsonl"
        )
    finally:
        os.umask(before)
    assert mode(tmp_path / "one.jsonl") == 0o600
