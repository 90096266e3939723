"""Schemathesis against a real server: what it makes up of the document is answered as the document says."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest
from accessing import ASKING, api_key
from doorways import NO_MODEL
from serving import Server, clean_environment

SECONDS = os.environ.get("SCHEMATHESIS_S")
"""`make soak` gives it so many, and other cases each time."""
BOUND = ("--max-time", SECONDS) if SECONDS else ("--max-examples", "30", "--seed", "7")
LEAST = 300
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
)
PROGRAM = Path(sys.executable).with_name("schemathesis")


@pytest.mark.timeout(seconds=120 + int(SECONDS or 60))
async def test_whatever_is_made_up_of_the_document_is_answered_as_it_says(tmp_path: Path) -> None:
    shared = {"DATA_DIR": str(tmp_path)}
    key = await api_key(shared, "all", user="alice", roles=frozenset({"operator", "backend"}))
    unlimited = {"LIMITS__SESSIONS_PER_MINUTE": "1000000"}
    async with Server(environ=NO_MODEL | ASKING | shared | unlimited) as server:
        process = await asyncio.create_subprocess_exec(
            *(PROGRAM, "run", f"{server.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--checks", ",".join(CHECKS)),
            *("--phases", "coverage,fuzzing,stateful", *BOUND),
            *("--no-shrink", "--suppress-health-check", "all"),
            cwd=tmp_path,
            env=clean_environment(NO_COLOR="1", PYTHONWARNINGS="ignore"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said = (await process.communicate())[0].decode(errors="replace")
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode == 0, said
        [made] = re.findall(r"([0-9]+) generated", said)
        sys.stdout.write(f"schemathesis: {made} cases\n")
        assert int(made) >= LEAST, said
        assert re.search(r"Tested: +13\b", said), said
        assert "request_failed" not in server.log
        assert "Traceback" not in server.log
