"""Who is asking: one frozen value, made at the door and handed inward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_NOTHING: Mapping[str, object] = MappingProxyType({})
_NO_LIMITS: Mapping[str, float] = MappingProxyType({})


PRIVILEGED: Final = frozenset({"operator", "backend"})
"""Roles that open more than tools."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`user` owns sessions; `roles` open operator routes; `claims` feed bound tool parameters.

    `limits` are values of its own for rows of access/limits.py, which count where they are lower than the
    server's, or have the server's none. `subjects` are the names by which it is revoked: `user:…`, `key:…`,
    `jwt:…`. `until` is when its credential ends, by `time.monotonic`. `session` is the only one that it may use.
    `known`: somebody in particular; without asking, everybody is one user, whom no limit of a user holds.
    """

    user: str
    roles: frozenset[str] = frozenset()
    assistant: str | None = None
    claims: Mapping[str, object] = field(default_factory=lambda: _NOTHING)
    limits: Mapping[str, float] = field(default_factory=lambda: _NO_LIMITS)
    subjects: frozenset[str] = frozenset()
    until: float | None = None
    session: str | None = None
    known: bool = False

    @property
    def granted(self) -> frozenset[str]:
        """The roles, and the scopes of the token: `scope` as one text (RFC 8693), `scopes` or `scp` as a list. No
        scope makes an operator or a backend: those are roles, which the operator of this server gives."""
        found: set[str] = set()
        for name in ("scope", "scopes", "scp"):
            match self.claims.get(name):
                case str(text):
                    found.update(text.split())
                case list() | tuple() as scopes:
                    found.update(scope for scope in scopes if isinstance(scope, str))
        return self.roles | (found - PRIVILEGED)
