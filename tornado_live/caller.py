"""Who is asking: one frozen value, made at the door and handed inward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NO_CLAIMS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Caller:
    """`user` owns sessions; `roles` open operator routes; `claims` feed bound tool parameters."""

    user: str
    roles: frozenset[str] = frozenset()
    assistant: str | None = None
    claims: Mapping[str, object] = field(default_factory=lambda: _NO_CLAIMS)

    @property
    def granted(self) -> frozenset[str]:
        """The roles, and the scopes of the token: `scope` as one text (RFC 8693), `scopes` or `scp` as a list."""
        found = set(self.roles)
        for name in ("scope", "scopes", "scp"):
            match self.claims.get(name):
                case str(text):
                    found.update(text.split())
                case list() | tuple() as scopes:
                    found.update(scope for scope in scopes if isinstance(scope, str))
        return frozenset(found)
