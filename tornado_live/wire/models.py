"""What each Live model can do, read from config/models.yaml. Pure.

Every fact there names its evidence, so that who edits it, or compares it with a probe of the real service, sees
how much it is worth: recorded (in traffic of the real service), documented (by Google, or in its SDK), reported
(by others who measured it) or inferred (by us).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self, cast, get_args, get_origin, get_type_hints

from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.yamlfile import YamlFile, YamlPath, YamlValue, parse_yaml

Kind = Literal["recorded", "documented", "reported", "inferred"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Evidence:
    """`source` says where to look it up, or for what is inferred, why."""

    kind: Kind
    source: str


@dataclass(frozen=True, slots=True)
class LiveModel:
    """The facts about one model; config/models.yaml says in words what each of them means.

    `name` is the listed name that matched, or the asked name where nothing did. `path` is what `setup.model` says,
    and `vertex` whether the model is reached over Vertex AI; neither is read from the file.
    """

    name: str
    listed: bool
    modalities: frozenset[str]
    typed: Literal["clientContent", "realtimeInput"]
    seed: Literal["history", "turns", "instruction"]
    calls: frozenset[str]
    default_call: Literal["BLOCKING", "NON_BLOCKING"]
    scheduling: bool
    turn_after_call: Literal["same", "new"]
    hears_during_call: bool
    media_chunks: bool
    thinking: Literal["none", "budget", "level", "level_required"]
    affective_dialog: Literal["none", "optional"]
    proactive_audio: Literal["none", "optional", "always"]
    voice_activity: bool
    idle: Literal["turn_complete", "interaction_status"]
    transcripts: Literal["pieces", "accumulated"]
    usage: Literal["turn", "cumulative"]
    resumption: bool
    connection_s: float
    silent_s: float
    compression: bool = True
    search: bool = True
    instruction: bool = True
    translation: bool = False
    context_update: bool = False
    path: str = ""
    vertex: bool = False

    @property
    def converses(self) -> bool:
        """Whether it answers. Models that translate or write down take no instruction, and owe no answer."""
        return self.instruction

    @property
    def takes_text(self) -> bool:
        """Models that only write down what they hear end the session at a typed turn (reported)."""
        return self.converses or self.translation

    def warning(self) -> str | None:
        """What to tell the operator of a model that nobody has described, or None."""
        if self.listed:
            return None
        return (
            f"{self.name} is not in models.yaml: it is treated with care (memory goes into its instruction, calls"
            " wait for their answer); describe it in config/models.yaml of the home directory."
        )


_OWN = ("name", "listed", "path", "vertex")
FACTS: tuple[str, ...] = tuple(one.name for one in fields(LiveModel) if one.name not in _OWN)
_LISTS: Mapping[str, tuple[str, ...]] = {
    "modalities": ("AUDIO", "TEXT"),
    "calls": ("BLOCKING", "NON_BLOCKING"),
}
_AS_OTHERS = Evidence("inferred", "as on most models")
_SECTIONS = ("defaults", "models", "unlisted", "vertex")
_VERTEX_PATH = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?publishers/google/models/(.+)")

_Facts = Mapping[str, tuple[object, Evidence]]


@dataclass(frozen=True, slots=True)
class Models:
    """`parent` is what Vertex AI wants before every name (`projects/…/models`), None for the Developer API."""

    _listed: Mapping[str, _Facts]
    _unlisted: _Facts
    _vertex: _Facts
    parent: str | None = None

    def on_vertex(self, parent: str) -> Self:
        """The same models as Vertex AI serves them under `parent`."""
        return type(self)(self._listed, self._unlisted, self._vertex, parent)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._listed)

    def of(self, name: str) -> LiveModel:
        """The facts by name, with or without `models/` or a Vertex path before it.

        The longest listed name that `name` begins with counts, as Google appends dates and `-preview`.
        """
        short = _short(name)
        match = self._match(short)
        known = {fact: value for fact, (value, _) in self._facts(name).items()}
        return LiveModel(
            name=match or short,
            listed=match is not None,
            path=self._path(name),
            vertex=self._is_vertex(name),
            **known,  # type: ignore[arg-type]
        )

    def evidence(self, name: str) -> Mapping[str, Evidence]:
        return {fact: evidence for fact, (_, evidence) in self._facts(name).items()}

    def _match(self, short: str) -> str | None:
        return max((one for one in self._listed if short.startswith(one)), key=len, default=None)

    def _facts(self, name: str) -> _Facts:
        match = self._match(_short(name))
        facts = self._listed[match] if match is not None else self._unlisted
        return {**facts, **self._vertex} if self._is_vertex(name) else facts

    def _is_vertex(self, name: str) -> bool:
        return self.parent is not None or _VERTEX_PATH.fullmatch(name) is not None

    def _path(self, name: str) -> str:
        if _VERTEX_PATH.fullmatch(name):
            return name
        if self.parent is not None:
            return f"{self.parent}/{_short(name)}"
        return name if "/" in name else f"models/{name}"


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def load_models(text: str, file: str) -> Models:
    """The models of a models.yaml; `file` is used in messages. Raises ConfigError with every mistake found."""
    return read_models(parse_yaml(text, file))


def read_models(file: YamlFile, own: YamlFile | None = None) -> Models:
    """As `load_models`, for a file that is read already; what the file `own` says of a fact counts before it."""
    written = _Reader(file).sections()
    if own is None:
        return _Reader(file).models(written)
    reader = _Reader(own)
    return reader.models(written.overlaid(reader.sections()))


@dataclass(frozen=True, slots=True)
class _Sections:
    """What a file says, section by section; nothing is filled in yet."""

    defaults: _Facts
    models: Mapping[str, _Facts]
    unlisted: _Facts
    vertex: _Facts

    def overlaid(self, own: _Sections) -> _Sections:
        names = [*self.models, *(name for name in own.models if name not in self.models)]
        return _Sections(
            {**self.defaults, **own.defaults},
            {name: {**self.models.get(name, {}), **own.models.get(name, {})} for name in names},
            {**self.unlisted, **own.unlisted},
            {**self.vertex, **own.vertex},
        )


class _Reader:
    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self._problems: list[Problem] = []

    def sections(self) -> _Sections:
        """Raises ConfigError with every mistake found."""
        top = self._mapping((), self._file.data, _SECTIONS)
        models = self._mapping(("models",), top.get("models"), None)
        found = _Sections(
            self._facts(("defaults",), top.get("defaults")),
            {name: self._facts(("models", name), section) for name, section in models.items()},
            self._facts(("unlisted",), top.get("unlisted")),
            self._facts(("vertex",), top.get("vertex")),
        )
        if self._problems:
            raise ConfigError(sorted(set(self._problems), key=lambda problem: problem.line or 0))
        return found

    def models(self, written: _Sections) -> Models:
        defaults, vertex = written.defaults, written.vertex
        missing = [fact for fact in FACTS if fact not in defaults]
        if missing:
            known = "take the line from the models.yaml that came with this version"
            self._refuse(("defaults",), f"says nothing about {', '.join(missing)} - {known}")
        guessed = {fact: (value, _AS_OTHERS) for fact, (value, _) in defaults.items()}
        unlisted = {**guessed, **written.unlisted}
        listed = {name: {**defaults, **facts} for name, facts in written.models.items()}
        if not self._problems:
            for name, facts in listed.items():
                self._agree(("models", name), {**facts, **vertex})
                self._agree(("models", name), facts)
            self._agree(("unlisted",), unlisted)
        if self._problems:
            raise ConfigError(sorted(set(self._problems), key=lambda problem: problem.line or 0))
        return Models(listed, unlisted, vertex)

    def _refuse(self, path: YamlPath, message: str) -> None:
        self._problems.append(self._file.problem(path, message))

    def _mapping(
        self, path: YamlPath, value: YamlValue, known: tuple[str, ...] | None
    ) -> dict[str, YamlValue]:
        """`value` with its unknown keys taken out and told; no value is an empty mapping."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._refuse(path, "expected keys below it, not one value")
            return {}
        for key in value:
            if known is not None and key not in known:
                hint = nearest(key, known) or f"; known are {', '.join(known)}"
                self._refuse((*path, key), f"unknown key{hint}")
        return {key: inner for key, inner in value.items() if known is None or key in known}

    def _facts(self, path: YamlPath, section: YamlValue) -> dict[str, tuple[object, Evidence]]:
        return dict(self._read(path, self._mapping(path, section, FACTS)))

    def _read(
        self, path: YamlPath, section: Mapping[str, YamlValue]
    ) -> Iterator[tuple[str, tuple[object, Evidence]]]:
        for fact, written in section.items():
            place = (*path, fact)
            if not isinstance(written, dict) or "is" not in written:
                self._refuse(place, "write {is: value, documented: where it is said}")
                continue
            entry = self._mapping(place, written, ("is", *KINDS))
            evidence = self._evidence(place, entry)
            value = self._value(fact, (*place, "is"), entry["is"])
            if evidence is not None and value is not None:
                yield fact, (value, evidence)

    def _evidence(self, place: YamlPath, entry: Mapping[str, YamlValue]) -> Evidence | None:
        given = [kind for kind in KINDS if kind in entry]
        if len(given) != 1:
            self._refuse(place, f"needs one of {', '.join(KINDS)}, with the source")
            return None
        source = entry[given[0]]
        if not isinstance(source, str) or not source.strip():
            self._refuse((*place, given[0]), "expected the source as text")
            return None
        return Evidence(given[0], source.strip())

    def _value(self, fact: str, place: YamlPath, value: YamlValue) -> object | None:
        """The value as LiveModel has it, or None for one that does not fit."""
        offered = _LISTS.get(fact)
        if offered is not None:
            return self._list(place, value, offered)
        kind = _TYPES[fact]
        if kind is bool:
            if isinstance(value, bool):
                return value
            self._refuse(place, f'"{value}" is not true or false')
        elif kind is float:
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                return float(value)
            self._refuse(place, f'"{value}" is not a number of seconds')
        else:
            choices = cast("tuple[str, ...]", get_args(kind))
            if value in choices:
                return value
            self._refuse(place, f'"{value}" is not one of {", ".join(choices)}{nearest(str(value), choices)}')
        return None

    def _list(self, place: YamlPath, value: YamlValue, offered: tuple[str, ...]) -> frozenset[str] | None:
        items = value if isinstance(value, list) else [value]
        wrong = [item for item in items if item not in offered]
        for item in wrong:
            self._refuse(place, f'"{item}" is not one of {", ".join(offered)}{nearest(str(item), offered)}')
        return None if wrong else frozenset(str(item) for item in items)

    def _agree(self, path: YamlPath, facts: _Facts) -> None:
        """What only holds together."""
        calls, default = facts["calls"][0], facts["default_call"][0]
        assert isinstance(calls, frozenset)
        if calls and default not in calls:
            self._refuse((*path, "calls"), f"the default_call {default} is not among them")
        if not facts["modalities"][0]:
            self._refuse((*path, "modalities"), "a model answers in AUDIO, TEXT or both")


_HINTS = get_type_hints(LiveModel)
_TYPES: Mapping[str, object] = {
    fact: _HINTS[fact] for fact in FACTS if get_origin(_HINTS[fact]) is not frozenset
}
