"""What a new connection is told: memory, for a fresh session, and what the last one still owed. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tornado_live.jsonvalue import Json

SEED_CHARS = 24_000
"""About 6,000 tokens of memory are given to a fresh session: enough to go on, little to pay for."""

HEARD_CHARS = 300
"""Of an answer that broke off, its end is quoted."""

Recalled: TypeAlias = Literal["restored", "partial", "none"]
"""What of the conversation the model side knows, as CONNECTED says it."""


@dataclass(frozen=True, slots=True)
class Owed:
    """The user's words that were not answered, and what the user has heard of the answer."""

    question: str = ""
    heard: str = ""


NOTHING_OWED: Final = Owed()


def seed(history: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], Recalled]:
    """The newest of `history` (role, text) that a fresh session is told; lines of tools are for people."""
    spoken = [(role, text) for role, text in history if role != "tool"]
    chosen: list[tuple[str, str]] = []
    room = SEED_CHARS
    for role, text in reversed(spoken):
        if not room:
            break
        chosen.append((role, text[:room]))
        room -= len(chosen[-1][1])
    chosen.reverse()
    if not chosen:
        return [], "none"
    return chosen, "restored" if chosen == spoken else "partial"


def note(name: str, args: Mapping[str, Json], response: Mapping[str, Json]) -> str:
    """The result of a call whose id the model side does not know, or was answered before."""
    asked, answer = json.dumps(args, ensure_ascii=False), json.dumps(response, ensure_ascii=False)
    return f"(Result of {name}({asked}), which you asked for before: {answer})"


def broken_off(name: str, args: Mapping[str, Json], what: str) -> str:
    """A call that was stopped, and that nobody knows the end of."""
    asked = json.dumps(args, ensure_ascii=False)
    then = "say so, and ask before you do it again."
    return f"({name}({asked}), which you asked for before, was {what}: {then})"


def ask_again(owed: Owed, notes: Sequence[str]) -> str:
    """A user's turn that makes the model answer what is owed; empty when nothing is."""
    lines = list(notes)
    if owed.heard:
        end = owed.heard[-HEARD_CHARS:]
        lines.append(f"(Your answer broke off; the user heard up to “{end}”. Go on from there.)")
    if owed.question:
        lines.append(owed.question)
    return "\n".join(lines)
