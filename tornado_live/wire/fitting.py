"""An assistant's setup fitted to what its model takes, with every change in plain words. Pure.

Google closes the whole session (1007, 1008) on a setup that a model does not take, mostly without saying which
field it was. For a model that is not listed nothing is known, so what the operator wrote is sent as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tornado_live.jsonvalue import Json
from tornado_live.wire.models import LiveModel

_ALL_VIDEO = "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO"
_LEAST_THINKING = "LOW"
_LEVELS_WHERE_REQUIRED = ("LOW", "MEDIUM", "HIGH")


def fit(facts: LiveModel, setup: Mapping[str, Json]) -> tuple[dict[str, Json], tuple[str, ...]]:
    """The content of `setup` that the model takes, and what was changed. `setup` itself stays as it is."""
    fitting = _Fitting(facts, setup)
    fitting.modalities()
    fitting.gateways_own()
    fitting.vertex_only()
    if facts.listed:
        fitting.thinking()
        fitting.affective_dialog()
        fitting.proactivity()
        fitting.instruction()
        fitting.translation()
        fitting.tools()
        fitting.compression()
    return fitting.setup, tuple(fitting.changes)


def declared(
    facts: LiveModel, declarations: Sequence[Mapping[str, Json]], background: frozenset[str]
) -> tuple[list[Json], tuple[str, ...]]:
    """Function declarations with the behaviour that is wanted: `background` calls are not waited for.

    A behaviour is only named where the model would do otherwise, since some refuse the word.
    """
    fitted: list[Json] = []
    not_waited: list[str] = []
    waited: list[str] = []
    for declaration in declarations:
        name = str(declaration.get("name"))
        wanted = "NON_BLOCKING" if name in background else "BLOCKING"
        if facts.calls and wanted not in facts.calls:
            (waited if wanted == "NON_BLOCKING" else not_waited).append(name)
            fitted.append(dict(declaration))
        elif facts.calls and wanted != facts.default_call:
            fitted.append({**declaration, "behavior": wanted})
        elif facts.calls:
            fitted.append(dict(declaration))
    changes = []
    if declarations and not facts.calls:
        changes.append(f"tools: left out, {facts.name} takes no functions")
    if waited:
        changes.append(
            f"{', '.join(waited)}: answered at once and told later, {facts.name} has no calls in the background"
        )
    if not_waited:
        changes.append(f"{', '.join(not_waited)}: not waited for, {facts.name} talks on during every call")
    return fitted, tuple(changes)


class _Fitting:
    def __init__(self, facts: LiveModel, setup: Mapping[str, Json]) -> None:
        self.setup = dict(setup)
        self.changes: list[str] = []
        self._facts = facts
        self._generation = _mapping(self.setup.get("generationConfig"))
        self.setup["generationConfig"] = self._generation

    def _change(self, what: str) -> None:
        self.changes.append(what)

    def _without(self, section: dict[str, Json], name: str, why: str, *, shown: str = "") -> None:
        if section.pop(name, None) is not None:
            self._change(f"{shown or name}: left out, {why}")

    def modalities(self) -> None:
        """AUDIO unless something else is asked for and can be had."""
        can = self._facts.modalities
        usual = "AUDIO" if "AUDIO" in can else "TEXT"
        asked = self._generation.get("responseModalities")
        wanted = [item for item in asked if isinstance(item, str)] if isinstance(asked, list) else []
        refused = [item for item in wanted if item in ("AUDIO", "TEXT") and item not in can]
        kept: list[Json] = [item for item in wanted if item not in refused] or [usual]
        if refused:
            how = "; its words come as transcription" if usual == "AUDIO" else ""
            self._change(f"responseModalities: {kept[0]}, {self._facts.name} answers in that only{how}")
        self._generation["responseModalities"] = kept
        if "AUDIO" not in kept:
            self._without(self._generation, "speechConfig", "an answer without AUDIO has no voice")

    def gateways_own(self) -> None:
        """What only the gateway can know: how a session goes on, and what it is told of the past."""
        resumption = self.setup.pop("sessionResumption", None)
        if isinstance(resumption, dict) and resumption.get("handle") is not None:
            self._change("sessionResumption.handle: left out, handles are kept by this server")
        if isinstance(resumption, dict) and resumption.get("transparent") is not None:
            if self._facts.vertex and self._facts.resumption:
                self.setup["sessionResumption"] = {"transparent": resumption["transparent"]}
            else:
                self._change("sessionResumption.transparent: left out, only Vertex AI takes it")
        self._without(self.setup, "historyConfig", "this server says it where there is a history")

    def vertex_only(self) -> None:
        if not self._facts.vertex:
            self._without(self.setup, "explicitVadSignal", "only Vertex AI takes it")
            return
        realtime = _mapping(self.setup.get("realtimeInputConfig"))
        if realtime.get("turnCoverage") == _ALL_VIDEO:
            del realtime["turnCoverage"]
            self._change(f"realtimeInputConfig.turnCoverage: left out, Vertex AI refuses {_ALL_VIDEO}")
            self._put("realtimeInputConfig", realtime)

    def thinking(self) -> None:
        kind = self._facts.thinking
        if kind == "none":
            self._without(self._generation, "thinkingConfig", f"{self._facts.name} refuses it")
            return
        thinking = _mapping(self._generation.get("thinkingConfig"))
        if kind == "budget":
            self._without(
                thinking,
                "thinkingLevel",
                f"{self._facts.name} takes a thinkingBudget",
                shown="thinkingConfig.thinkingLevel",
            )
        else:
            self._without(
                thinking,
                "thinkingBudget",
                f"{self._facts.name} takes a thinkingLevel",
                shown="thinkingConfig.thinkingBudget",
            )
        if kind == "level_required" and thinking.get("thinkingLevel") not in _LEVELS_WHERE_REQUIRED:
            thinking["thinkingLevel"] = _LEAST_THINKING
            levels = ", ".join(_LEVELS_WHERE_REQUIRED)
            self._change(
                f"thinkingConfig.thinkingLevel: {_LEAST_THINKING}, {self._facts.name} wants one of {levels}"
            )
        self._put("thinkingConfig", thinking, within=self._generation)

    def affective_dialog(self) -> None:
        if self._facts.affective_dialog == "none":
            self._without(self._generation, "enableAffectiveDialog", f"{self._facts.name} refuses it")

    def proactivity(self) -> None:
        proactivity = _mapping(self.setup.get("proactivity"))
        shown = "proactivity.proactiveAudio"
        if self._facts.proactive_audio == "none":
            self._without(proactivity, "proactiveAudio", f"{self._facts.name} refuses it", shown=shown)
        elif self._facts.proactive_audio == "always" and proactivity.get("proactiveAudio") is False:
            self._without(
                proactivity, "proactiveAudio", f"{self._facts.name} is always proactive", shown=shown
            )
        self._put("proactivity", proactivity)

    def instruction(self) -> None:
        if not self._facts.instruction:
            self._without(self.setup, "systemInstruction", f"{self._facts.name} takes none")

    def translation(self) -> None:
        if not self._facts.translation:
            self._without(self._generation, "translationConfig", f"{self._facts.name} does not translate")
            return
        translation = _mapping(self._generation.get("translationConfig"))
        if translation.get("targetLanguageCode"):
            return
        language = _mapping(self._generation.get("speechConfig")).get("languageCode") or "en"
        translation["targetLanguageCode"] = language
        self._generation["translationConfig"] = translation
        self._change(
            f"translationConfig.targetLanguageCode: {language}, {self._facts.name} wants one;"
            " write the language that you want"
        )

    def tools(self) -> None:
        """The configuration's own tools; those of tools.yaml are added afterwards."""
        tools = self.setup.get("tools")
        if not isinstance(tools, list):
            return
        kept: list[Json] = []
        for tool in tools:
            fitted = self._tool(tool) if isinstance(tool, dict) else tool
            if fitted != {}:
                kept.append(fitted)
        self._put("tools", kept)

    def _tool(self, tool: dict[str, Json]) -> Json:
        fitted = dict(tool)
        if not self._facts.search:
            self._without(fitted, "googleSearch", f"{self._facts.name} does not search")
        functions = fitted.get("functionDeclarations")
        if not self._facts.calls:
            self._without(fitted, "functionDeclarations", f"{self._facts.name} takes no functions")
        elif isinstance(functions, list):
            fitted["functionDeclarations"] = [
                self._function(one) if isinstance(one, dict) else one for one in functions
            ]
        return fitted

    def _function(self, declaration: dict[str, Json]) -> Json:
        behavior = declaration.get("behavior")
        if not isinstance(behavior, str) or behavior in self._facts.calls:
            return declaration
        only = ", ".join(sorted(self._facts.calls))
        self._change(
            f"{declaration.get('name')}: behavior {behavior} left out, {self._facts.name} has {only} only"
        )
        return {key: value for key, value in declaration.items() if key != "behavior"}

    def compression(self) -> None:
        if not self._facts.compression:
            self._without(self.setup, "contextWindowCompression", f"{self._facts.name} does not take it")

    def _put(self, name: str, value: Json, *, within: dict[str, Json] | None = None) -> None:
        """Sets a section, or takes it away when nothing is left in it."""
        section = self.setup if within is None else within
        if value:
            section[name] = value
        else:
            section.pop(name, None)


def _mapping(value: Json) -> dict[str, Json]:
    return dict(value) if isinstance(value, dict) else {}
