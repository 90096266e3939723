"""The scenario that docs/simulator.md shows first, played to tornado-live as its readers try it."""

from __future__ import annotations

from pathlib import Path

from serving import ROOT, Server
from talking import Talker


async def test_the_documented_scenario_speaks_of_what_the_tool_returned(tmp_path: Path) -> None:
    shown = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
    (tmp_path / "weather.yaml").write_text(
        shown.split("## Scenarios")[1].split("```yaml\n")[1].split("```")[0], encoding="utf-8"
    )
    async with (
        Server("--scenario", "weather.yaml", home=tmp_path, environ={"MOCK_TOOLS": "always"}) as server,
        Talker(f"{server.ws_url}/") as client,
    ):
        await client.send("connect")
        await client.until("status", lambda data: data["status"] == "CONNECTED")
        for text, answer in (
            ("What's the weather in New York?", "It is 21 degrees in New York."),
            ("Thank you", "You are welcome."),
        ):
            await client.send("text", {"text": text})
            said = await client.until("transcription", lambda data: data["isFinal"] and not data["isUser"])
            assert said["text"] == answer
            await client.until("turn_complete")
