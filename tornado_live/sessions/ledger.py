"""The function calls of a session, each with its end, read from the session's events. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tornado_live.jsonvalue import Json
from tornado_live.observe.events import Event, rfc3339


def ledger(events: Sequence[Event]) -> list[dict[str, Json]]:
    """Oldest first: `{id, name, turn, state, startedAt, argsDigest?, durationMs?, ok?, error?, sample?,
    answerDigest?, delivered?, sameAs?, cancelledAt?, mayBeDone?}`.

    `state` is running, finished or cancelled. `delivered` says how the model has had the result: `answer`, `note`
    (in words, since the connection that asked is gone), `later` (not yet) or `remembered` (nobody wanted it any
    more). `sameAs` is the call whose answer it had, or waits for: it was not made itself.
    `mayBeDone` is true where a call that changes something was stopped while it ran.
    """
    calls: dict[str, dict[str, Json]] = {}
    for event in events:
        match event.kind:
            case "tool_started" | "tool_call_joined":
                calls[_id(event.data)] = {**event.data, "state": "running", "startedAt": rfc3339(event.at)}
            case "tool_call" | "tool_call_replayed":
                call = calls.setdefault(_id(event.data), {})
                if (
                    call.get("state") != "running"
                ):  # answered at once; or its start is not among the events now
                    call.clear()
                    call["startedAt"] = rfc3339(event.at - _seconds(event.data))
                call.update({**event.data, "state": "finished"})
            case "tool_delivered":
                if (known := calls.get(_id(event.data))) is not None:
                    known["delivered"] = event.data.get("delivered")
            case "tool_cancelled":
                ids = event.data.get("ids")
                unsure = event.data.get("mayBeDone")
                for one in ids if isinstance(ids, list) else ():
                    if (stopped := calls.get(str(one))) is None:
                        continue
                    stopped |= {"state": "cancelled", "cancelledAt": rfc3339(event.at)}
                    if isinstance(unsure, list) and one in unsure:
                        stopped["mayBeDone"] = True
    return list(calls.values())


def _seconds(data: Mapping[str, Json]) -> float:
    took_ms = data.get("durationMs")
    return took_ms / 1000 if isinstance(took_ms, int) else 0.0


def _id(data: Mapping[str, Json]) -> str:
    return str(data.get("id"))
