"""What happened in a session, as facts with times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tornado_live.jsonvalue import Json


@dataclass(frozen=True, slots=True)
class Event:
    """`at` is in epoch seconds; `kind` is a snake_case word (`turn`, `tool_call`, `barge_in` …);
    `data` holds small facts, never audio. A whole number under `turn` names the turn that it belongs to."""

    at: float
    kind: str
    data: Mapping[str, Json]


def rfc3339(at: float) -> str:
    """Epoch seconds as the product writes times everywhere: UTC, milliseconds, `2026-11-22T10:00:00.000Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
