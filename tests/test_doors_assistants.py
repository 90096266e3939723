"""What a caller sees of assistants that are not for it."""

from __future__ import annotations

from pathlib import Path

from accessing import ASKING, api_key, asking
from doorways import NO_MODEL
from serving import Server

ASSISTANTS = (
    "assistants: {default: {}, shop: {toolset: [look_up_article]}, weather: {toolset: [get_weather]}}\n"
)


async def test_a_key_for_one_assistant_sees_its_tools_and_makes_its_sessions_alone(tmp_path: Path) -> None:
    home, shared = tmp_path / "home", {"DATA_DIR": str(tmp_path)}
    (home / "config").mkdir(parents=True)
    (home / "config/development.yaml").write_text(ASSISTANTS)
    one = await api_key(shared, "one", assistant="weather")
    gone = await api_key(shared, "gone", assistant="no-more")
    every = await api_key(shared, "every")
    async with Server(environ=NO_MODEL | ASKING | shared, home=home) as server:
        async with asking(server, one) as client:
            listed = (await client.get("/api/tools")).json()["tools"]
            assert [tool["name"] for tool in listed] == ["get_weather"]
            assert (await client.post("/api/sessions")).json()["assistant"] == "weather"
            assert (await client.post("/api/sessions", json={"assistant": "weather"})).status_code == 201
            for other in ("default", "shop"):
                refused = await client.post("/api/sessions", json={"assistant": other})
                assert refused.status_code == 403
        async with asking(server, gone) as client:
            assert (await client.get("/api/tools")).json() == {"tools": []}
            assert (await client.post("/api/sessions")).status_code == 403
        async with asking(server, every) as client:
            assert len((await client.get("/api/tools")).json()["tools"]) > 1
            assert (await client.post("/api/sessions", json={"assistant": "weather"})).status_code == 201
