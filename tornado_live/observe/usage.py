"""Tokens of a session, added up from the usage that the model side reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tornado_live.jsonvalue import Json

# The Developer API says response…, Vertex says candidates….
_INPUT = ("promptTokenCount", "toolUsePromptTokenCount")
_OUTPUT = ("responseTokenCount", "candidatesTokenCount")
_INPUT_DETAILS = ("promptTokensDetails", "toolUsePromptTokensDetails")
_OUTPUT_DETAILS = ("responseTokensDetails", "candidatesTokensDetails")


class Usage:
    """Running totals of one session.

    A `usageMetadata` counts one turn, its whole context included again, so totals are plain sums; or, on models of
    the cumulative kind, everything since the session began, so that only its growth counts. Thought tokens
    are not part of Google's `totalTokenCount` and not counted here either. Fields that are missing or of another
    type count nothing: usage never breaks a conversation.
    """

    def __init__(self, totals: Mapping[str, Json] | None = None) -> None:
        """Goes on from `totals`, in the shape that `as_json` gives."""
        totals = totals or {}
        self._input = _count(totals.get("inputTokens"))
        self._output = _count(totals.get("outputTokens"))
        self._total = _count(totals.get("totalTokens"))
        self._seen: dict[tuple[str, str], int] = {}
        self._resumed = False
        self._by_modality: dict[str, dict[str, int]] = {}
        modalities = totals.get("byModality")
        if isinstance(modalities, Mapping):
            for modality, sides in modalities.items():
                if isinstance(sides, Mapping):
                    self._add_modality(modality, "input", _count(sides.get("input")))
                    self._add_modality(modality, "output", _count(sides.get("output")))

    @property
    def input_tokens(self) -> int:
        return self._input

    @property
    def output_tokens(self) -> int:
        return self._output

    def add(self, metadata: Mapping[str, Json], *, cumulative: bool = False) -> None:
        """Adds one `usageMetadata` object as it came over the wire (camelCase)."""
        spent_in = sum(_count(metadata.get(name)) for name in _INPUT)
        spent_out = max(_count(metadata.get(name)) for name in _OUTPUT)
        total = _count(metadata.get("totalTokenCount")) or spent_in + spent_out
        counts = {("", "input"): spent_in, ("", "output"): spent_out, ("", "total"): total}
        for side, names in (("input", _INPUT_DETAILS), ("output", _OUTPUT_DETAILS)):
            for name in names:
                for modality, count in _details(metadata.get(name)):
                    counts[modality, side] = counts.get((modality, side), 0) + count
        if cumulative:
            if self._resumed and total < self._seen.get(("", "total"), 0):
                self._seen.clear()
            self._resumed = False
            grown = {key: max(0, count - self._seen.get(key, 0)) for key, count in counts.items()}
            self._seen.update({key: max(count, self._seen.get(key, 0)) for key, count in counts.items()})
            counts = grown
        self._input += counts.pop(("", "input"))
        self._output += counts.pop(("", "output"))
        self._total += counts.pop(("", "total"))
        for (modality, side), count in counts.items():
            self._add_modality(modality, side, count)

    def connection_opened(self, *, resumed: bool) -> None:
        """Cumulative counts begin anew with a session; with one that is resumed they may, or go on."""
        self._resumed = resumed
        if not resumed:
            self._seen.clear()

    def as_json(self) -> dict[str, Json]:
        """`{inputTokens, outputTokens, totalTokens, byModality: {AUDIO: {input, output}, …}}`"""
        return {
            "inputTokens": self._input,
            "outputTokens": self._output,
            "totalTokens": self._total,
            "byModality": {modality: dict(sides) for modality, sides in self._by_modality.items()},
        }

    def _add_modality(self, modality: str, side: str, count: int) -> None:
        sides = self._by_modality.setdefault(modality, {"input": 0, "output": 0})
        sides[side] += count


def _details(details: Json) -> Iterator[tuple[str, int]]:
    if not isinstance(details, list):
        return
    for detail in details:
        if isinstance(detail, Mapping) and isinstance(modality := detail.get("modality"), str):
            yield modality, _count(detail.get("tokenCount"))


def _count(value: Json) -> int:
    """A token count; proto JSON may write an int64 as a string."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return max(value, 0)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return 0
