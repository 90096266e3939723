"""What tools.yaml says of HTTP, checked: sources into their settings, `http:` of a tool into its Endpoint."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol
from urllib.parse import quote

import httpx

from tornado_live.errors import nearest
from tornado_live.tools.complaints import listed
from tornado_live.tools.http_addresses import HOST_ENTRY, HostRule, is_allowed, number_of
from tornado_live.tools.http_template import (
    BadTemplate,
    Body,
    Endpoint,
    Place,
    check_header,
    check_path,
    checked_address,
    credentials,
)
from tornado_live.tools.result import Json
from tornado_live.yamlfile import YamlPath

_SHORTEST_SECRET: Final = 6
_READABLE: Final = re.compile(r"text/(\*|[a-z0-9.+-]+)|application/([a-z0-9.-]+\+)?(json|xml)")


class Mistakes(Protocol):
    """Where mistakes of the file go, and values that nobody may see."""

    secrets: set[str]

    def refuse(self, path: YamlPath, message: str) -> None: ...

    def shown(self, path: YamlPath) -> str:
        """The value at `path` as it was written."""

    def sound(self, path: YamlPath) -> bool:
        """Whether nothing was found wrong at `path`."""


def read_http_source(file: Mistakes, path: YamlPath, written: Mapping[str, Json]) -> dict[str, Json]:
    """The settings of the source at `path` (`("sources", name, "http")`), with everything filled in."""
    headers = written.get("headers", {})
    assert isinstance(headers, dict)
    mine = _headers(file, (*path, "headers"), headers)
    checked: dict[str, Json] = {
        "kind": "http",
        "base_url": str(written["base_url"]).rstrip("/"),
        "headers": dict(headers),
        "allow_private": written.get("allow_private") is True,
        "follow_redirects": written.get("follow_redirects", 0),
    }
    _address(file, (*path, "base_url"), str(written["base_url"]), open_host=False, slots=False)
    if "auth" in written:
        checked["auth"] = written["auth"]
        _refuse_twice(file, (*path, "headers"), mine, _credentials(file, (*path, "auth"), written["auth"]))
    return checked


@dataclass(frozen=True, slots=True)
class EndpointReader:
    """Reads `http:` of the tool at `path`. `named` are all sources of the file, `sources` those that are sound."""

    file: Mistakes
    path: YamlPath
    written: Mapping[str, Json]
    sources: Mapping[str, Mapping[str, Json]]
    named: Collection[str]
    bound: Collection[str] = ()

    def read(self, parameters: Mapping[str, Json] | None) -> Endpoint:
        """The endpoint; what is wrong is told to the file. `parameters` (None: not known) are all that it gets."""
        source = self._source()
        hosts = self._hosts()
        if "source" in self.written:
            base, path = self._below(source)
        else:
            is_open = "allow_hosts" in self.written
            url = str(self.written["url"])
            base, path = _address(self.file, self._at("url"), url, open_host=is_open, slots=True)
        headers, secret = self._all_headers(source)
        redirects = self.written.get("follow_redirects", source.get("follow_redirects", 0))
        query = self.written.get("query", {})
        assert isinstance(query, dict)
        endpoint = Endpoint(
            method=str(self.written.get("method", "GET")),
            base=base,
            path=path,
            query=MappingProxyType(query),
            headers=MappingProxyType(headers),
            allow_private=source.get("allow_private") is True,
            body=self._body(),
            credentials=MappingProxyType(secret),
            hosts=hosts,
            expect=self._expect(),
            follow_redirects=redirects if isinstance(redirects, int) else 0,
        )
        if hosts and "{" not in base and not endpoint.follow_redirects and self._sound():
            self._refuse("is for a {parameter} as the host of url, or for follow_redirects", "allow_hosts")
        if parameters is not None and self._sound():
            self._check_slots(endpoint, parameters)
        return endpoint

    def _at(self, *more: str | int) -> YamlPath:
        return (*self.path, "http", *more)

    def _refuse(self, message: str, *more: str | int) -> None:
        self.file.refuse(self._at(*more), message)

    def _sound(self) -> bool:
        return self.file.sound(self._at())

    def _source(self) -> Mapping[str, Json]:
        name = self.written.get("source")
        if not isinstance(name, str):
            return {}
        source = self.sources.get(name)
        if source is not None and source["kind"] == "http":
            return source
        if source is not None:
            self._refuse(f'"{name}" is a source for {source["kind"]}, not http', "source")
        elif name not in self.named:
            close = nearest(name, sorted(self.named)) or listed(self.named)
            self._refuse(f'"{name}" is not among the sources{close}', "source")
        return {}

    def _below(self, source: Mapping[str, Json]) -> tuple[str, str]:
        path = str(self.written.get("path", ""))
        try:
            check_path(path)
        except BadTemplate as error:
            self._refuse(f"{self.file.shown(self._at('path'))}: {error}", "path")
        if "base_url" not in source:
            return "", path
        base, prefix = checked_address(str(source["base_url"]))
        return base, prefix + path

    def _all_headers(self, source: Mapping[str, Json]) -> tuple[dict[str, str], dict[str, str]]:
        """Headers and credentials: the tool's own win over those of its source."""
        written = self.written.get("headers", {})
        assert isinstance(written, dict)
        mine = _headers(self.file, self._at("headers"), written)
        own = {name.lower() for name in mine}
        secret: dict[str, str] = {}
        inherited = source.get("auth")
        if "auth" in self.written:
            secret = _credentials(self.file, self._at("auth"), self.written["auth"])
            _refuse_twice(self.file, self._at("headers"), mine, secret)
            own |= {name.lower() for name in secret}
        elif isinstance(inherited, dict):
            theirs = credentials(inherited)
            secret = {name: value for name, value in theirs.items() if name.lower() not in own}
        written = source.get("headers", {})
        assert isinstance(written, dict)
        headers = {name: str(value) for name, value in written.items() if name.lower() not in own}
        return headers | mine, secret

    def _body(self) -> Body | None:
        kinds = [kind for kind in ("json", "form") if kind in self.written]
        if len(kinds) == 2:
            self._refuse("has both json and form; remove one", "form")
        if kinds and self.written.get("method", "GET") == "GET":
            self._refuse("GET has no body; write method: POST, PUT, PATCH or DELETE", kinds[0])
        return Body(kinds[0], self.written[kinds[0]]) if kinds else None

    def _hosts(self) -> tuple[HostRule, ...]:
        entries = self.written.get("allow_hosts", [])
        assert isinstance(entries, list)
        rules = []
        for index, entry in enumerate(map(str, entries)):
            at = self._at("allow_hosts", index)
            shown = self.file.shown(at)
            if not re.fullmatch(HOST_ENTRY, entry):
                self.file.refuse(at, f"{shown} is not a host such as api.example.com or *.example.com:8443")
                continue
            rule = HostRule.parse(entry)
            number = number_of(rule.host)
            if rule.any_subdomain and "." not in rule.host:
                self.file.refuse(at, f"{shown} would allow almost any host; write more of the name")
            elif number is not None and not is_allowed(number, allow_private=False):
                self.file.refuse(at, f"{shown} is a private address, which every call would refuse")
            else:
                rules.append(rule)
        return tuple(rules)

    def _expect(self) -> tuple[str, ...]:
        kinds = self.written.get("expect", [])
        assert isinstance(kinds, list)
        for index, kind in enumerate(map(str, kinds)):
            if not _READABLE.fullmatch(kind.lower()):
                at = self._at("expect", index)
                self.file.refuse(
                    at,
                    f"{self.file.shown(at)} cannot be read; known: application/json, text/plain, text/html,"
                    " text/*, application/xml and those that end in +json or +xml",
                )
        return tuple(str(kind).lower() for kind in kinds)

    def _check_slots(self, endpoint: Endpoint, parameters: Mapping[str, Json]) -> None:
        properties = parameters.get("properties")
        known = properties if isinstance(properties, dict) else {}
        required = parameters.get("required")
        needed = required if isinstance(required, list) else []
        places = endpoint.places()
        for name, where in places.items():
            for place in where:
                at = self._line(place)
                if name not in known:
                    close = nearest(name, known) or listed(known)
                    self._refuse(f"{{{name}}} is not among the parameters{close}", *at)
                    continue
                found = known[name]
                rule = found if isinstance(found, dict) else {}
                if place in (("path",), ("host",)) and name not in needed and "default" not in rule:
                    self._refuse(f"{{{name}}} is part of the {place[0]}; add {name} to required", *at)
                if rule.get("type") == "object" and place[0] != "json":
                    self._refuse(f"{{{name}}} is an object, which has its place in json only", *at)
        for name in known if self._sound() else ():
            if name not in places:
                place = ("bind", name) if name in self.bound else ("parameters", "properties", name)
                self.file.refuse(
                    (*self.path, *place),
                    f"is used nowhere in http; write {{{name}}} in path, query or headers, or in json or form",
                )

    def _line(self, place: Place) -> Place:
        match place:
            case ("host",):
                return ("url",)
            case ("path",):
                return ("path",) if "path" in self.written else ("url",)
            case _:
                return place


def _address(file: Mistakes, path: YamlPath, url: str, *, open_host: bool, slots: bool) -> tuple[str, str]:
    """Scheme and host, and the path; `slots`: a tool's `url`, not a source's `base_url`."""
    # A private address needs allow_private, which a source can have and a url cannot.
    number = number_of(_host(url))
    if number is not None and not is_allowed(number, allow_private=True):
        file.refuse(path, f"{file.shown(path)} is a link-local or special address, which no tool may call")
        return "", ""
    if number is not None and slots and not is_allowed(number, allow_private=False):
        advice = "make it a source with allow_private: true, if it is a service of your own"
        file.refuse(
            path, f"{file.shown(path)} is a private address, which every call would refuse - {advice}"
        )
        return "", ""
    try:
        base, rest = checked_address(url, open_host=open_host)
        check_path(rest)
        if "{" in rest and not slots:
            raise BadTemplate("{parameter} has no place in base_url; write it in a tool's path")
    except BadTemplate as error:
        file.refuse(path, f"{file.shown(path)}: {error}")
        return "", ""
    return base, rest


def _host(url: str) -> str:
    """As the client would read it; httpx refuses some numbers that resolvers take."""
    address = re.match(r"https?://[^/?#{}\\]+", url, re.IGNORECASE)
    if address is None or url.startswith("{", address.end()):
        return ""
    try:
        return httpx.URL(address[0]).host
    except httpx.InvalidURL:
        return address[0].partition("://")[2].rpartition("@")[2].partition(":")[0]


def _headers(file: Mistakes, path: YamlPath, written: Mapping[str, Json]) -> dict[str, str]:
    checked: dict[str, str] = {}
    for name, value in written.items():
        try:
            check_header(name, str(value))
        except BadTemplate as error:
            file.refuse((*path, name), str(error))
        checked[name] = str(value)
    return checked


def _credentials(file: Mistakes, path: YamlPath, auth: Json) -> dict[str, str]:
    assert isinstance(auth, dict)
    try:
        headers = credentials(auth)
    except BadTemplate as error:
        file.refuse(path, str(error))
        return {}
    # Alone, as it is sent, and percent-encoded: a service may echo it in any of these forms.
    told = set(headers.values()) | {value.rpartition(" ")[2] for value in headers.values()}
    match auth:
        case {"basic": {"password": str(password)}}:
            told.add(password)
        case {"bearer": str(token)}:
            told.add(token)
    told |= {quote(text, safe="") for text in told}
    file.secrets |= {text for text in told if len(text) >= _SHORTEST_SECRET}
    return headers


def _refuse_twice(
    file: Mistakes, path: YamlPath, headers: Mapping[str, str], secret: Mapping[str, str]
) -> None:
    taken = {name.lower() for name in secret}
    for name in headers:
        if name.lower() in taken:
            file.refuse((*path, name), "is set by auth too; remove one of the two")
