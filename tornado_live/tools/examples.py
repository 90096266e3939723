"""Whether the answer of a call is what an example of tools.yaml expects. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from tornado_live.tools.result import Json

_LONGEST = 120


def differences(expect: Json, response: Mapping[str, Json]) -> list[str]:
    """What `response`, as the model gets it, lacks; none where it is as expected.

    `{error: code}` expects that error. Of a mapping each key must be there and of a list each item, anywhere in
    it; a text must be part of the text; everything else must be equal.
    """
    failure = response.get("error")
    code = failure.get("code") if isinstance(failure, dict) else None
    if isinstance(expect, dict) and expect.keys() == {"error"}:
        return (
            [] if code == expect["error"] else [f"expected the error {expect['error']}, got {code or 'none'}"]
        )
    if isinstance(failure, dict):
        return [f"the call failed: {code}: {failure.get('message')}"]
    return list(_lacking(expect, response.get("result"), "result"))


def _lacking(expect: Json, got: Json, path: str) -> Iterator[str]:
    match expect, got:
        case dict(), dict():
            for key, value in expect.items():
                if key in got:
                    yield from _lacking(value, got[key], f"{path}.{key}")
                else:
                    yield f"{path}.{key} is not there"
        case list(), list():
            for item in expect:
                if not any(not list(_lacking(item, one, path)) for one in got):
                    yield f"{path} has no item like {_shown(item)}"
        case str(), str() if expect in got:
            pass
        case (bool(), _) | (_, bool()) if type(expect) is not type(got):
            yield f"{path} is {_shown(got)}, not {_shown(expect)}"
        case _ if expect != got:
            yield f"{path} is {_shown(got)}, not {_shown(expect)}"


def _shown(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
