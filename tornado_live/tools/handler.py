"""How a Python function says that it is a tool handler and which options it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tornado_live.tools.result import Json

Function = TypeVar("Function", bound=Callable[..., Any])
Sources = Mapping[str, Mapping[str, Json]]
Mistake = tuple[Sequence[str | int], str]
Describe = Callable[[Mapping[str, Json], Sources], str]
Check = Callable[[Mapping[str, Json], Mapping[str, Json], Sources], Iterable[Mistake]]
Reach = Callable[[Mapping[str, Json], Sources], Iterable[tuple[str, str]]]

_ATTRIBUTE = "__tool_handler__"


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """`options` is a JSON Schema (draft 2020-12) of the tool's `options`; a property's `default` is filled in.

    `describe(options, sources)` returns text to append to the tool's description (a database schema, say);
    it runs once at load. `check(options, parameters, sources)` says what a schema cannot: where in the options a
    mistake is, and what. `sources` are those without mistakes of their own. `reach(options, sources)` says what
    a call can get at beyond what the names of options tell: kind and value, such as `("table", "orders")`. An
    option that was not written is filled with the first of the names in `environment[option]` that is set and
    not empty, and is kept secret.
    """

    options: Mapping[str, Json]
    describe: Describe | None = None
    check: Check | None = None
    reach: Reach | None = None
    environment: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def handler(
    *,
    options: Mapping[str, Json],
    describe: Describe | None = None,
    check: Check | None = None,
    reach: Reach | None = None,
    environment: Mapping[str, tuple[str, ...]] | None = None,
) -> Callable[[Function], Function]:
    """Declares the options of a handler. A function without it takes any options unchecked."""

    def mark(function: Function) -> Function:
        setattr(function, _ATTRIBUTE, HandlerSpec(options, describe, check, reach, environment or {}))
        return function

    return mark


def spec_of(function: Callable[..., object]) -> HandlerSpec | None:
    """What `handler` declared, or None for a plain function."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, HandlerSpec) else None
