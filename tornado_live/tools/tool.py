"""One tool of tools.yaml, checked and ready to run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from jmespath.parser import ParsedResult

from tornado_live.caller import Caller
from tornado_live.tools.http_retry import Retry
from tornado_live.tools.http_template import Endpoint
from tornado_live.tools.policy import CallPolicy
from tornado_live.tools.python import Handler
from tornado_live.tools.result import Json
from tornado_live.tools.schema import Change
from tornado_live.tools.validation import Checker, checker_of

Origin: TypeAlias = Literal["claims", "session", "environment"]

DEFAULT_MAX_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class ResultRules:
    """What becomes of an answer: `select` (JMESPath) first, then `empty`, then the cap."""

    select: ParsedResult | None = None
    empty: str | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    max_items: int | None = None
    show_args: bool = True
    to_client: bool = False


@dataclass(frozen=True, slots=True)
class CallLimits:
    """`per_minute` of one user, `per_session` in all, `concurrency` of everybody; None: no limit of its own."""

    per_minute: int | None = None
    per_session: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a parameter comes from that the model neither sees nor sets.

    `path` leads into the caller's claims, or is `("id",)` or `("user",)` of the session; `value` is that of the
    environment, read at load. `rule` is the parameter's JSON Schema, `{}` where the file gives none, and
    `validator` holds values against it.
    """

    origin: Origin
    path: tuple[str, ...]
    rule: Mapping[str, Json]
    value: str | None = field(default=None, repr=False)
    validator: Checker | None = field(default=None, repr=False, compare=False)

    def fits(self, value: Json) -> bool:
        """Whether `value` is what the parameter's rule allows."""
        try:
            return self.validator is None or self.validator.is_valid(value)
        except RecursionError:  # a rule that refers to itself has no end
            return False

    def of(self, caller: Caller, session_id: str) -> object:
        """The value for this call, as the token has it. Raises LookupError for a claim that it does not have."""
        if self.origin == "environment":
            return self.value
        if self.origin == "session":
            return session_id if self.path == ("id",) else caller.user
        found: object = caller.claims
        for name in self.path:
            if not isinstance(found, Mapping) or name not in found:
                raise LookupError(".".join(("claims", *self.path)))
            found = found[name]
        return found


@dataclass(frozen=True, slots=True)
class Example:
    """A call and what its result must contain."""

    args: Mapping[str, Json]
    expect: Json


@dataclass(frozen=True, slots=True)
class Mock:
    """Canned answers; the first whose `when` is part of the arguments is given."""

    cases: tuple[tuple[Mapping[str, Json], Json], ...]

    def answer(self, arguments: Mapping[str, Json]) -> tuple[bool, Json]:
        """Whether there is an answer for `arguments`, and the answer."""
        for when, answer in self.cases:
            if all(name in arguments and arguments[name] == value for name, value in when.items()):
                return True, answer
        return False, None


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool, checked. `declaration` is Gemini's; `parameters` the full JSON Schema, without what `bind` sets.

    One of `handler` and `endpoint` is set, or none where the client runs it (`policy.client`). `changes` is what
    the declaration does not say any more. `requires`: roles or scopes, of which the caller must have all.
    """

    name: str
    description: str
    parameters: Mapping[str, Json]
    declaration: Mapping[str, Json]
    timeout_s: float
    handler: Handler | None
    endpoint: Endpoint | None
    options: Mapping[str, Json]
    result: ResultRules
    mock: Mock | None
    changes: tuple[Change, ...]
    policy: CallPolicy
    validator: Checker = field(repr=False, compare=False)
    retry: Retry | None = None
    cache_s: float | None = None
    limits: CallLimits = field(default_factory=CallLimits)
    bind: Mapping[str, Bound] = field(default_factory=dict)
    requires: frozenset[str] = frozenset()
    examples: tuple[Example, ...] = ()

    def allows(self, caller: Caller) -> bool:
        """Whether the caller has the roles and scopes that the tool requires."""
        return self.requires <= caller.granted


def validator_for(parameters: Mapping[str, Json]) -> Checker:
    """Checks arguments; what `properties` does not name is refused unless the schema says otherwise."""
    schema = dict(parameters)
    if not schema.keys() & {
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "allOf",
        "$ref",
    }:
        schema["additionalProperties"] = False
    return checker_of(schema, formats=True)
