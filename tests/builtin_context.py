"""What a built-in handler is given in its own tests: its options with the declared defaults, and sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from tornado_live.caller import Caller
from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import spec_of
from tornado_live.tools.owned import Owned
from tornado_live.tools.validation import checker_of


def context_for(
    function: Callable[..., object],
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    http: httpx.AsyncClient | None = None,
    owned: Owned | None = None,
    **options: Any,
) -> ToolContext:
    """A context as the runner makes it. `http` may be left out where nothing is asked over HTTP, `owned` where
    nothing stays open.
    """
    spec = spec_of(function)
    assert spec is not None
    checker_of(spec.options).validate(options)
    defaults = {
        name: rule["default"] for name, rule in spec.options["properties"].items() if "default" in rule
    }
    return ToolContext(
        tool="tool",
        session_id="session",
        caller=Caller("someone"),
        options={**defaults, **options},
        sources=sources or {},
        http=http,  # type: ignore[arg-type]
        owned=owned if owned is not None else Owned(),
    )


def sql_source(path: Path) -> dict[str, dict[str, str]]:
    return {"shop": {"kind": "sql", "url": f"sqlite:///{path}"}}
