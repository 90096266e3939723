"""The sources of tools.yaml: named connections, checked, with absolute paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from tornado_live import resources
from tornado_live.tools.http_declared import read_http_source
from tornado_live.tools.result import Json
from tornado_live.tools.tools_file import SHORTEST_SECRET, ToolsFile
from tornado_live.yamlfile import YamlPath

Source = Mapping[str, Json]

_SERVERS = frozenset(["postgresql", "postgres", "postgresql+psycopg"])


@dataclass(frozen=True, slots=True)
class Sources:
    """`sound` are the checked ones, each `{"kind": …}`; `named` are all that were written."""

    sound: Mapping[str, Source]
    named: frozenset[str]

    def get(self, name: str) -> Source | None:
        return self.sound.get(name)


def read_sources(file: ToolsFile, home: Path) -> Sources:
    """Every source of the file; mistakes are told there."""
    sound: dict[str, Source] = {}
    written = file.section("sources")
    for name, source in written.items():
        path: YamlPath = ("sources", name)
        if file.sound(path) and isinstance(source, dict):
            checked = _source(file, path, source, home)
            if checked is not None:
                sound[name] = MappingProxyType(dict(checked))
    return Sources(MappingProxyType(sound), frozenset(written))


def _source(
    file: ToolsFile, path: YamlPath, source: dict[str, Json], home: Path
) -> Mapping[str, Json] | None:
    [(kind, settings)] = source.items()
    assert isinstance(settings, dict)
    path = (*path, kind)
    before = len(file.problems)
    checked: dict[str, Json] = {"kind": kind, **settings}
    if kind == "http":
        checked = read_http_source(file, path, settings)
    elif kind == "sql":
        checked["url"] = _sql_url(file, home, (*path, "url"), str(settings["url"]))
    else:
        paths = settings["paths"]
        assert isinstance(paths, list)
        checked["paths"] = [str(_document(str(one), home)) for one in paths]
        checked["index"] = str(Path(file.environment["DATA_DIR"]) / "knowledge" / str(path[1]))
    return checked if len(file.problems) == before else None


def _sql_url(file: ToolsFile, home: Path, path: YamlPath, url: str) -> str:
    scheme, colon, rest = url.partition(":")
    if not colon or not re.fullmatch(r"[a-z][a-z0-9+]*", scheme):
        file.refuse(path, f"{file.shown(path)} is not an address such as sqlite:///data/shop.db")
        return url
    if scheme not in _SERVERS and scheme.partition("+")[0] != "sqlite":
        # Not shown: it may hold a password.
        known = "sqlite:///data/shop.db or postgresql://user@host/name"
        file.refuse(path, f"is the address of no known database; write {known}")
        return url
    if scheme in _SERVERS:
        try:
            password = urlsplit(url).password
        except ValueError:
            file.refuse(path, f"{file.shown(path)} is not an address such as postgresql://user@host/name")
            return url
        if password and len(password) >= SHORTEST_SECRET:
            file.secrets.update({password, unquote(password)})
        return url
    if not rest.startswith("///") or len(rest) == 3:
        file.refuse(path, f"{file.shown(path)} names no file; write sqlite:///data/shop.db")
        return url
    where, mark, query = rest[3:].partition("?")
    return f"{scheme}:///{(home / where).as_posix()}{mark}{query}"


def _document(written: str, home: Path) -> Path:
    """The operator's own folder, else the sample that travels with the package."""
    return (resources.find(written, home=home) or home / written).resolve()
