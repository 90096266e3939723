"""A JSON value whose shape belongs to somebody else: arguments and answers of tools, Google's configuration."""

from __future__ import annotations

from typing import TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
