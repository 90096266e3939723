"""Facts that are not sure, each a switch: those of a model and those of resumption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar, cast

from . import profiles, resumption, values
from .messages import Json
from .profiles import GEMINI_3_8_LIVE, Profile
from .resumption import Rules
from .values import Mistake

_Value = TypeVar("_Value")

MEANINGS: Mapping[str, str] = {
    **profiles.SWITCHES,
    **{
        name: f"{' or '.join(switch.values)}: {switch.meaning} ({switch.evidence})"
        for name, switch in resumption.SWITCHES.items()
    },
}
"""Every switch: what it means, and the evidence."""


@dataclass(frozen=True, slots=True)
class Switches:
    """What somebody has set, to be applied to whatever model a client asks for; None: the usual again."""

    model: Mapping[str, Json] = field(default_factory=dict)
    resumption: Mapping[str, str | None] = field(default_factory=dict)

    def profile(self, profile: Profile) -> Profile:
        return profile.with_switches(_set(self.model))

    @property
    def rules(self) -> Rules:
        return replace(Rules(), **_set(self.resumption))

    def __or__(self, other: Switches) -> Switches:
        """Both; what the other one says counts."""
        return Switches({**self.model, **other.model}, {**self.resumption, **other.resumption})


def read_switches(value: object) -> Switches:
    """A mapping of names and values, null for the usual one. Raises Mistake."""
    if not isinstance(value, dict):
        raise Mistake("must be a mapping of a switch's name and its value")
    for name in value:
        if name not in MEANINGS:
            raise Mistake(f"is no switch{values.nearest_or_all(str(name), MEANINGS)}", str(name))
    given = cast("Mapping[str, Json]", value)
    ours = {name: each for name, each in given.items() if name in resumption.SWITCHES}
    for name, each in ours.items():
        if each is not None and each not in resumption.SWITCHES[name].values:
            raise Mistake(f"must be {' or '.join(resumption.SWITCHES[name].values)}", name)
    others = {name: each for name, each in given.items() if name not in ours}
    try:
        GEMINI_3_8_LIVE.with_switches(_set(others))
    except ValueError as error:
        raise Mistake(str(error)) from None
    return Switches(others, cast("dict[str, str | None]", ours))


def _set(switches: Mapping[str, _Value | None]) -> dict[str, _Value]:
    return {name: value for name, value in switches.items() if value is not None}
