"""What a client of Google's protocol asks for against what the operator allows: its conversation's plan. Pure.

The client's own setup is what is sent, in its order and spelling and with what nobody here knows; it is read again
in every spelling that Google takes, so that nothing is had by writing it another way. What is added is what a
session needs that does not drop, and the operator's functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from tornado_live.errors import BadMessage, Forbidden
from tornado_live.jsonvalue import Json
from tornado_live.sessions.store import clip
from tornado_live.settings import EVERY_OTHER, Assistant, DropIn
from tornado_live.wire import gemini
from tornado_live.wire.fitting import declared
from tornado_live.wire.gemini import camel_name
from tornado_live.wire.models import LiveModel, Models

REASON_BYTES = 123
"""What the reason of a close holds."""

UPDATABLE = ("systemInstruction", "tools")
"""What a contextUpdate can change."""

EVERY_FIELD = "*"
"""In the place of a field that an ephemeral token fixes: all of them."""

_ALWAYS = ("model", "sessionResumption")
_MODEL = re.compile(r"(?:(?:(?:projects/[^/]+/locations/[^/]+/)?publishers/google/)?models/)?([^/]+)")

_Paths = frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """What options.Plan is for a client of ours. `toolset` None means every tool.

    `asked` is the setup that counts: with the model that is used, and without the client's handle. `functions` are
    those that the client declares; one of ours that has such a name is left out. `wants_handles`: it sent
    sessionResumption; `handle` is what it resumes. `hears_user` and `hears_model` are the transcriptions that it
    asked for. `fields` is DropIn.fields as paths. `locked` are fields of the setup that an ephemeral token fixes.
    """

    assistant: str
    model: str
    facts: LiveModel
    toolset: tuple[str, ...] | None
    asked: Mapping[str, Json]
    functions: frozenset[str]
    wants_handles: bool
    handle: str | None
    hears_user: bool
    hears_model: bool
    manual: bool
    gives_history: bool
    may_stay_silent: bool
    fields: _Paths | None
    locked: frozenset[str] = frozenset()

    @property
    def identity(self) -> str:
        """A guest may change everything but the model, as with Google."""
        return f"guest {self.facts.path}"

    def opening(
        self,
        declarations: Sequence[Mapping[str, Json]],
        *,
        background: frozenset[str],
        history: Sequence[tuple[str, str]],
        handle: str | None,
        first: bool,
    ) -> gemini.Setup:
        """The first message upstream. What the client asks for is not fitted to the model: Google may refuse it.

        `history` and `handle` are as in `gemini.conversation_setup`. `first`: the client is still to say the
        history that it announced, so its historyConfig holds.
        """
        facts, made = self.facts, dict(self.asked)
        fitted, adapted = declared(facts, _without(declarations, self.functions), background)
        if fitted:
            _put(made, "tools", _with_functions(_items(made, "tools"), fitted))
        _default(made, "inputAudioTranscription", {})
        if self._speaks:
            _default(made, "outputAudioTranscription", {})
        if facts.compression:
            _default(made, "contextWindowCompression", {"slidingWindow": {}})
        if facts.resumption:
            resumption = dict(_section(made, "sessionResumption"))
            if handle is not None:
                resumption["handle"] = handle
            _put(made, "sessionResumption", resumption)
        else:
            made.pop(_key(made, "sessionResumption"), None)
        if not first:
            made.pop(_key(made, "historyConfig"), None)
        if history and handle is None:
            if facts.seed == "history":
                config = dict(_section(made, "historyConfig"))
                _put(config, "initialHistoryInClientContent", True)
                _put(made, "historyConfig", config)
            elif facts.seed == "instruction" and facts.instruction:
                own = _get(made, "systemInstruction")
                own = {**own, "parts": _items(own, "parts")} if isinstance(own, dict) else own
                _put(made, "systemInstruction", gemini.remembering(own, history))
        clashing = [str(one["name"]) for one in declarations if one.get("name") in self.functions]
        changes = [warning] if (warning := facts.warning()) else []
        changes += [f"{name}: left out, the client declares a function of this name" for name in clashing]
        return gemini.Setup(msgspec.json.encode({"setup": made}), (*changes, *adapted))

    def waits_for(self, name: str) -> bool:
        """Whether the model waits for the answer of this function, which the client declares."""
        behavior = next(
            (one.get("behavior") for one in _declared(self.asked) if one.get("name") == name), None
        )
        known = behavior if behavior in self.facts.calls else self.facts.default_call
        return known == "BLOCKING"

    @property
    def _speaks(self) -> bool:
        modalities = _items(_section(self.asked, "generationConfig"), "responseModalities")
        return "AUDIO" in (modalities or self.facts.modalities)

    def with_update(self, update: Mapping[str, Json]) -> GuestPlan:
        """The plan after a contextUpdate: what it names is replaced, what it leaves out stays.

        Raises BadMessage and Forbidden as `guest_plan` does.
        """
        _once(update, "contextUpdate")
        for fixed in _ALWAYS:
            if _key(update, fixed) in update:
                raise BadMessage(f"contextUpdate cannot change {fixed}.")
        for key in update:
            if camel_name(key) in self.locked or EVERY_FIELD in self.locked:
                raise Forbidden(f"contextUpdate: the ephemeral token fixes {camel_name(key)}.")
        given = {key: value for key, value in update.items() if camel_name(key) != "tools"}
        asked = dict(self.asked)
        wrapped = _get(update, "tools")
        if wrapped is not None and not isinstance(wrapped, dict):
            raise BadMessage('contextUpdate.tools is an object: {"tools": [...]}.')
        if wrapped is not None:
            _once(wrapped, "contextUpdate.tools")
            tools: Json = _items(wrapped, "tools")
            _put(asked, "tools", tools)
            beside: Json = {key: value for key, value in wrapped.items() if camel_name(key) != "tools"}
            given |= {"tools": [tools, beside] if beside else tools}
        if self.fields is not None:
            _check_fields(given, self.fields, ("contextUpdate",))
        if (instruction := _get(update, "systemInstruction")) is not None:
            _put(asked, "systemInstruction", instruction)
        _check_shape(asked)
        return replace(self, asked=asked, functions=_functions(asked))


def guest_plan(
    asked: Mapping[str, Json], policy: DropIn, models: Models, assistants: Mapping[str, Assistant]
) -> GuestPlan:
    """The conversation that a setup asks for.

    Raises BadMessage for what is malformed, or names a field in both spellings, and Forbidden for a model or a
    field that clients may not have; both with words that the reason of a close holds.
    """
    _check_shape(asked)
    fields = None if policy.fields is None else _paths(policy.fields)
    if fields is not None:
        _check_fields({key: value for key, value in asked.items() if camel_name(key) not in _ALWAYS}, fields)
    assistant = assistants[policy.assistant]
    model = _model(_get(asked, "model"), policy, assistant)
    facts = models.of(model)
    resumption = _get(asked, "sessionResumption")
    counts = dict(asked) if "model" in asked else {"model": None, **asked}
    counts["model"] = facts.path or facts.name
    if isinstance(resumption, dict):
        kept: Json = {key: value for key, value in resumption.items() if camel_name(key) != "handle"}
        _put(counts, "sessionResumption", kept)
    detection = _section(_section(asked, "realtimeInputConfig"), "automaticActivityDetection")
    proactive = _get(_section(asked, "proactivity"), "proactiveAudio") is True
    return GuestPlan(
        assistant=assistant.name,
        model=model,
        facts=facts,
        toolset=assistant.toolset,
        asked=counts,
        functions=_functions(asked),
        wants_handles=resumption is not None,
        handle=_handle(asked),
        hears_user=_get(asked, "inputAudioTranscription") is not None,
        hears_model=_get(asked, "outputAudioTranscription") is not None,
        manual=_get(detection, "disabled") is True,
        gives_history=_get(_section(asked, "historyConfig"), "initialHistoryInClientContent") is True,
        may_stay_silent=proactive or facts.proactive_audio == "always" or not facts.converses,
        fields=fields,
    )


def _handle(asked: Mapping[str, Json]) -> str | None:
    """The handle in a setup. Raises BadMessage where it is none."""
    handle = _get(_section(asked, "sessionResumption"), "handle")
    if handle is not None and not isinstance(handle, str):
        raise BadMessage("setup.sessionResumption.handle is not a text.")
    return handle or None


def merged_update(update: Mapping[str, Json], declarations: Sequence[Json]) -> bytes:
    """A contextUpdate as it goes up: where it sets tools, `declarations` (as the model takes them) follow.

    One whose name the client declares too is left out. Raises BadMessage as `with_update` does.
    """
    made = dict(update)
    wrapped = _get(update, "tools")
    if isinstance(wrapped, dict):
        tools = _items(wrapped, "tools")
        known = [one for one in declarations if isinstance(one, dict)]
        ours = _without(known, _functions(wrapped))
        inner = dict(wrapped)
        _put(inner, "tools", _with_functions(tools, [dict(one) for one in ours]) if ours else tools)
        _put(made, "tools", inner)
    return msgspec.json.encode({"contextUpdate": made})


# --- the model


def _model(asked: Json, policy: DropIn, assistant: Assistant) -> str:
    """The name of the model that is used."""
    if asked is None or asked == "":
        return assistant.model
    if not isinstance(asked, str):
        raise BadMessage('setup.model is not a text; send "models/NAME".')
    name = _name(asked)
    used = _name(policy.models.get(name) or policy.models.get(EVERY_OTHER) or name)
    if policy.only_models and used not in {_name(each) for each in policy.only_models}:
        refused = clip(name, 40)
        raise Forbidden(_reason(f'model "{refused}" is not allowed here; allowed: ', policy.only_models))
    return used


def _name(model: str) -> str:
    """Without `models/`, and without the path of Vertex AI; what has another path before it stays as it is."""
    found = _MODEL.fullmatch(model)
    return found[1] if found is not None else model


# --- what may be sent


def _paths(fields: Iterable[str]) -> _Paths:
    return frozenset(tuple(map(camel_name, field.split("."))) for field in fields)


def _check_fields(message: Mapping[str, Json], allowed: _Paths, inside: tuple[str, ...] = ("setup",)) -> None:
    """Raises Forbidden for the first field that is not `allowed`; a part of it may be."""
    for key, value in message.items():
        path = (*inside, camel_name(key))
        below = path[1:]
        if value is None or below in allowed:
            continue
        parts = value if isinstance(value, list) else [value]
        if any(one[: len(below)] == below for one in allowed) and all(isinstance(one, dict) for one in parts):
            for part in parts:
                assert isinstance(part, dict)
                _check_fields(part, allowed, path)
            continue
        field = clip(".".join(path), 50)
        names = (".".join(one) for one in allowed)
        raise Forbidden(_reason(f"{field}: clients may not send it here; allowed: ", names))


def _reason(what: str, choices: Iterable[str]) -> str:
    return clip(what + (", ".join(sorted(choices)) or "nothing"), REASON_BYTES)


_LOOKED_INTO: Mapping[str, Mapping[str, object]] = {
    "generationConfig": {},
    "realtimeInputConfig": {"automaticActivityDetection": {}},
    "sessionResumption": {},
    "historyConfig": {},
    "proactivity": {},
}


def _check_shape(asked: Mapping[str, Json]) -> None:
    """Raises BadMessage for both spellings of a field, and for no object where one is looked into."""
    _once(asked, "setup")
    for name, inner in _LOOKED_INTO.items():
        section = _section(asked, name)
        _once(section, f"setup.{name}")
        for below in inner:
            _once(_section(section, below), f"setup.{name}.{below}")
    for tool in _items(asked, "tools"):
        if isinstance(tool, dict):
            _once(tool, "setup.tools")


def _once(message: Mapping[str, Json], where: str) -> None:
    seen: dict[str, str] = {}
    for key in message:
        other = seen.setdefault(camel_name(key), key)
        if other != key:
            both = f"{clip(other, 30)} and {clip(key, 30)}"
            raise BadMessage(clip(f"{where} has both {both}; send one of them.", REASON_BYTES))


# --- a message in the client's own spelling


def _key(message: Mapping[str, Json], name: str) -> str:
    """As the client spells this field; lowerCamel where it does not send it."""
    if name in message:
        return name
    return next((key for key in message if camel_name(key) == name), name)


def _get(message: Mapping[str, Json], name: str) -> Json:
    return message.get(_key(message, name))


def _put(message: dict[str, Json], name: str, value: Json) -> None:
    message[_key(message, name)] = value


def _default(message: dict[str, Json], name: str, value: Json) -> None:
    if _get(message, name) is None:
        _put(message, name, value)


def _section(message: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    """An object, empty where there is none. Raises BadMessage for anything else."""
    value = _get(message, name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadMessage(f"{name} is not an object.")
    return value


def _items(message: Mapping[str, Json], name: str) -> list[Json]:
    """A list; Google's parser takes one value for a list of one."""
    value = _get(message, name)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


# --- functions


def _declared(message: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    """The function declarations in the tools of a setup, or of a contextUpdate."""
    for tool in _items(message, "tools"):
        if isinstance(tool, dict):
            yield from (one for one in _items(tool, "functionDeclarations") if isinstance(one, dict))


def _functions(message: Mapping[str, Json]) -> frozenset[str]:
    names = (one.get("name") for one in _declared(message))
    return frozenset(name for name in names if isinstance(name, str))


def _without(declarations: Sequence[Mapping[str, Json]], names: frozenset[str]) -> list[Mapping[str, Json]]:
    return [one for one in declarations if one.get("name") not in names]


def _with_functions(tools: Sequence[Json], functions: Sequence[Json]) -> list[Json]:
    """`functions` at the end of the last tool that declares some; Google's own clients send one such tool."""
    made = list(tools)
    for at in reversed(range(len(made))):
        tool = made[at]
        if isinstance(tool, dict) and (given := _items(tool, "functionDeclarations")):
            made[at] = {**tool, _key(tool, "functionDeclarations"): [*given, *functions]}
            return made
    return [*made, {"functionDeclarations": list(functions)}]
