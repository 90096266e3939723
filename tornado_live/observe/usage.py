"""Tokens of a session and what they cost, added up from the usage that the model side reports."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from tornado_live.jsonvalue import Json
from tornado_live.observe.logs import log_event
from tornado_live.wire.prices import MICRO, MOST_TOLD, SIDES, Prices, Tariff

# The Developer API says response…, Vertex says candidates….
_INPUT = ("promptTokenCount", "toolUsePromptTokenCount")
_OUTPUT = ("responseTokenCount", "candidatesTokenCount")
_INPUT_DETAILS = ("promptTokensDetails", "toolUsePromptTokensDetails")
_OUTPUT_DETAILS = ("responseTokensDetails", "candidatesTokensDetails")
_MOST_MONEY = 1_000_000_000

logger = logging.getLogger(__name__)


class Usage:
    """Running totals of one session.

    A `usageMetadata` counts one turn, its whole context included again, so totals are plain sums; or, on models of
    the cumulative kind, everything since the session began, so that only its growth counts. Thought tokens
    are not part of Google's `totalTokenCount` and not counted here either, but they cost as output text does.
    Tokens of which no detail says the modality cost as the dearest one. Fields that are missing or of another
    type count nothing: usage never breaks a conversation.
    """

    def __init__(
        self, totals: Mapping[str, Json] | None = None, *, prices: Prices | None = None, model: str = ""
    ) -> None:
        """Goes on from `totals`, in the shape that `as_json` gives.

        Without `prices` nothing costs, and what was used before there were any, or in another currency, is not
        counted.
        """
        totals = totals or {}
        self._prices = prices if prices is not None and prices.names else None
        self._tariff = self._tariff_of(model)
        self._fine = 0
        seconds = totals.get("seconds")
        self.seconds = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else 0.0
        """How long the session has talked."""
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

        cost = totals.get("cost")
        if (
            self._prices is not None
            and isinstance(cost, Mapping)
            and cost.get("currency") == self._prices.currency
        ):
            amount = cost.get("amount")
            if isinstance(amount, int | float) and 0 <= amount < _MOST_MONEY:
                self._fine = round(amount * MICRO) * MICRO

    def talked(self, seconds: float) -> None:
        """The conversation has gone on for so long."""
        self.seconds += max(0.0, seconds)

    @property
    def micro_cost(self) -> int:
        """What it cost so far, in millionths of the currency, rounded up; 0 without prices."""
        return -(-self._fine // MICRO)

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
        counts["", "thoughts"] = _count(metadata.get("thoughtsTokenCount"))
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
        self._charge(counts)
        self._input += counts.pop(("", "input"))
        self._output += counts.pop(("", "output"))
        self._total += counts.pop(("", "total"))
        counts.pop(("", "thoughts"))
        for (modality, side), count in counts.items():
            self._add_modality(modality, side, count)

    def connection_opened(self, *, resumed: bool, model: str | None = None) -> None:
        """Cumulative counts begin anew with a session; with one that is resumed they may, or go on. What comes
        over it is of `model`, where it is named."""
        if model is not None:
            self._tariff = self._tariff_of(model)
            self._warn(model)
        self._resumed = resumed
        if not resumed:
            self._seen.clear()

    def as_json(self) -> dict[str, Json]:
        """`{inputTokens, outputTokens, totalTokens, byModality: {AUDIO: {input, output}, …}}`, with prices
        `cost: {amount, currency}`, and `seconds` of a session that has talked."""
        totals: dict[str, Json] = {
            "inputTokens": self._input,
            "outputTokens": self._output,
            "totalTokens": self._total,
            "byModality": {modality: dict(sides) for modality, sides in self._by_modality.items()},
        }
        if self.seconds:
            totals["seconds"] = round(self.seconds, 1)
        if self._prices is not None:
            totals["cost"] = {"amount": self.micro_cost / MICRO, "currency": self._prices.currency}
        return totals

    def _tariff_of(self, model: str) -> Tariff | None:
        return None if self._prices is None else self._prices.of(model)

    def _warn(self, model: str) -> None:
        prices, tariff = self._prices, self._tariff
        if prices is None or tariff is None or tariff.known or tariff.name in prices.unpriced:
            return
        if len(prices.unpriced) >= MOST_TOLD:
            return  # guests may name any model
        prices.unpriced.add(tariff.name)
        log_event(logger, "price_unknown", level=logging.WARNING, message=prices.warning(model))

    def _charge(self, counts: Mapping[tuple[str, str], int]) -> None:
        tariff = self._tariff
        if tariff is None:
            return
        for side in SIDES:
            details = {modality: count for (modality, of), count in counts.items() if modality and of == side}
            self._fine += sum(tariff.fine(side, modality, count) for modality, count in details.items())
            unknown = counts["", side] - sum(details.values())
            self._fine += tariff.fine(side, "", max(unknown, 0))
        self._fine += tariff.fine("output", "TEXT", counts["", "thoughts"])

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
