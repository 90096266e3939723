"""T29: whatever a client or a model writes, a line of the log is one of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.model import ModelSide
from faults.stage import environment
from serving import Server

from threats.everywhere import everywhere, logged

FORGED = (
    'x\r\n{"time": "2026-01-01T00:00:00.000Z", "level": "error", "event": "paid", "logger": "root"}\r\n'
    "\x1b[2J\x1b[31mred\x00\x07\x9b31m\x85\u2028\u202e<script>"
)

NAKED = """
import sys
from tornado_live.observe import logs

def format(self, record):
    fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
    return f'{{"time": "", "level": "", "event": "{record.getMessage()}", "logger": "", {fields}}}'

logs.JsonFormatter.format = format
sys.argv[0] = "tornado-live"
from tornado_live.__main__ import main
main()
"""


async def proof(server: Server, model: ModelSide) -> None:
    await everywhere(server, model, FORGED)
    lines = logged(server)
    assert len(lines) > 50
    assert {"request", "error"} <= {line["event"] for line in lines}
    for line in lines:
        assert line["event"].replace("_", "").isalpha(), line
        assert line["event"] != "paid"
        assert line["logger"].startswith(("tornado", "py.warnings", "websockets", "asyncio")), line
        assert line["level"] in ("debug", "info", "warning", "error", "critical"), line
        assert max(len(str(value)) for value in line.values()) <= 16384 + 400, line
    assert any("[31mred" in str(line) for line in lines), "the text got as far as the log"


@pytest.mark.proves("T29")
async def test_every_line_is_one_object_of_ours_whatever_is_in_it() -> None:
    async with (
        ModelSide() as model,
        Server(environ=environment(model.port) | {"LOG_LEVEL": "DEBUG"}) as server,
    ):
        await proof(server, model)


@pytest.mark.proves("T29")
async def test_without_the_escaping_the_same_proof_fails(tmp_path: Path) -> None:
    naked = tmp_path / "naked.py"
    naked.write_text(NAKED)
    async with (
        ModelSide() as model,
        Server(environ=environment(model.port), command=(str(naked), "serve")) as server,
    ):
        with pytest.raises(AssertionError, match=r"a line of the log is no JSON|isprintable"):
            await proof(server, model)
