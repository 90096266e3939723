"""What a credential that is made for a caller carries of it: a ticket, an ephemeral token. Pure.

Times are lengths, by the store's clock: no jump of a wall clock gives a caller more or less of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tornado_live.caller import Caller
from tornado_live.jsonvalue import Json


def carried(caller: Caller, *, lasts_s: float, steady: float) -> dict[str, Json]:
    """`lasts_s`: how long the new credential is good. `steady` is now, by `time.monotonic`."""
    return {
        "user": caller.user,
        "roles": [*sorted(caller.roles)],
        "assistant": caller.assistant,
        "claims": cast("dict[str, Json]", dict(caller.claims)),
        "limits": dict(caller.limits),
        "subjects": [*sorted(caller.subjects)],
        "known": caller.known,
        "outlivesS": None if caller.until is None else caller.until - steady - lasts_s,
    }


def bearer(body: Json | Mapping[str, Json], *, left_s: float, steady: float) -> Caller | None:
    """Who shows it, `left_s` before its end: nobody beyond the end of the credential with which it was made. None
    for a body that is none of `carried`."""
    match body:
        case {
            "user": str() as user,
            "roles": list() as roles,
            "assistant": str() | None as assistant,
            "claims": dict() as claims,
            "limits": dict() as limits,
            "subjects": list() as subjects,
            "known": bool() as known,
            "outlivesS": int() | float() | None as outlives_s,
        }:
            return Caller(
                user=user,
                roles=frozenset(map(str, roles)),
                assistant=assistant,
                claims=claims,
                limits=numbers(limits),
                subjects=frozenset(map(str, subjects)),
                until=None if outlives_s is None else steady + left_s + outlives_s,
                known=known,
            )
    return None


def lower(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The limits of both, where both have one the lower."""
    return {
        name: min(value for value in (one.get(name), other.get(name)) if value is not None)
        for name in sorted({*one, *other})
    }


def numbers(limits: Mapping[str, Json]) -> dict[str, float]:
    return {
        name: value
        for name, value in limits.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
