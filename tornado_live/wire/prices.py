"""What tokens of each Live model cost, read from config/prices.yaml. Pure.

Money is counted in whole millionths of a millionth, so that no sum depends on its order, and told in millionths.
Nothing is free for want of a price: a modality that a model has none for costs as its dearest, and a model that
nobody described as the dearest one of all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal, cast, get_args

from tornado_live.errors import ConfigError, Problem, nearest
from tornado_live.wire.models import KINDS, Evidence
from tornado_live.yamlfile import YamlFile, YamlPath, YamlValue, parse_yaml

Side = Literal["input", "output"]
SIDES: Final[tuple[Side, ...]] = get_args(Side)
MODALITIES: Final = ("TEXT", "AUDIO", "IMAGE", "VIDEO")
MICRO: Final = 1_000_000
"""Millionths in one of the currency; and in what sums are kept, fine units in a millionth."""

MOST_TOLD: Final = 100

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_DEAREST: Final = 1_000_000
_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost; `read` is the day on which `evidence` was looked up."""

    per_million: Decimal
    evidence: Evidence
    read: str

    @property
    def fine(self) -> int:
        """What one token costs, in fine units."""
        return int(self.per_million * MICRO)


Rates = Mapping[tuple[Side, str], Price]


@dataclass(frozen=True, slots=True)
class Tariff:
    """What one model costs. `known`: it is the model's own, and not the dearest of all."""

    name: str
    known: bool
    _fine: Mapping[tuple[Side, str], int]
    _dearest: Mapping[Side, int]

    def fine(self, side: Side, modality: str, tokens: int) -> int:
        """What these tokens cost, in fine units."""
        return tokens * self._fine.get((side, modality), self._dearest[side])


@dataclass(frozen=True, slots=True)
class Prices:
    """`unpriced` are models of which the log has been told that they have no price, MOST_TOLD at most."""

    currency: str = "USD"
    _models: Mapping[str, Rates] = field(default_factory=dict)
    unpriced: set[str] = field(default_factory=set, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._models)

    def rates(self, name: str) -> Rates:
        """What is written of a listed model."""
        return self._models[name]

    def of(self, model: str) -> Tariff:
        """By name, with or without a path before it; the longest listed name that `model` begins with counts."""
        short = model.rsplit("/", 1)[-1]
        match = max((one for one in self._models if short.startswith(one)), key=len, default=None)
        every = [self._models[match]] if match is not None else list(self._models.values())
        fine: dict[tuple[Side, str], int] = {}
        for rates in every:
            for key, price in rates.items():
                fine[key] = max(price.fine, fine.get(key, 0))
        dearest = {
            side: max((one for key, one in fine.items() if key[0] == side), default=0) for side in SIDES
        }
        return Tariff(match or short, match is not None, fine, dearest)

    def warning(self, model: str) -> str | None:
        """What to tell the operator of a model that has no price, or None."""
        tariff = self.of(model)
        if tariff.known or not self._models:
            return None
        return (
            f"{tariff.name} is not in prices.yaml: it is charged as the dearest of all; write its prices into"
            " config/prices.yaml of the home directory."
        )


def load_prices(text: str, file: str) -> Prices:
    """The prices of a prices.yaml; `file` is used in messages. Raises ConfigError with every mistake found."""
    return read_prices(parse_yaml(text, file))


def read_prices(file: YamlFile, own: YamlFile | None = None) -> Prices:
    """As `load_prices`, for a file that is read already; what the file `own` says of a price counts before it.

    Where `own` is in another currency, nothing of `file` counts.
    """
    written = _Reader(file).written()
    if own is None:
        return _Reader(file).prices(written)
    reader = _Reader(own)
    mine = reader.written()
    if mine.currency is not None and mine.currency != written.currency:
        return reader.prices(mine)
    names = [*written.models, *(name for name in mine.models if name not in written.models)]
    merged = {name: {**written.models.get(name, {}), **mine.models.get(name, {})} for name in names}
    return reader.prices(_Written(written.currency, merged))


@dataclass(frozen=True, slots=True)
class _Written:
    currency: str | None
    models: Mapping[str, Rates]


class _Reader:
    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self._problems: list[Problem] = []

    def written(self) -> _Written:
        """Raises ConfigError with every mistake found."""
        top = self._mapping((), self._file.data, ("currency", "models"))
        currency = top.get("currency")
        if currency is not None and (not isinstance(currency, str) or not _CURRENCY.fullmatch(currency)):
            self._refuse(("currency",), f'"{currency}" is not a currency - write three letters, such as USD')
        models = self._mapping(("models",), top.get("models"), None)
        found = {name: dict(self._rates(("models", name), section)) for name, section in models.items()}
        self._raise()
        return _Written(cast("str | None", currency), found)

    def prices(self, written: _Written) -> Prices:
        if written.currency is None:
            self._refuse((), "says no currency - write currency: USD")
        for name, rates in written.models.items():
            for side in SIDES:
                if not any(key[0] == side for key in rates):
                    self._refuse(("models", name), f"has no price of {side}")
        self._raise()
        return Prices(written.currency or "", dict(written.models))

    def _raise(self) -> None:
        if self._problems:
            raise ConfigError(sorted(set(self._problems), key=lambda problem: problem.line or 0))

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

    def _rates(self, path: YamlPath, section: YamlValue) -> Iterator[tuple[tuple[Side, str], Price]]:
        sides = self._mapping(path, section, SIDES)
        for side in SIDES:
            for modality, written in self._mapping((*path, side), sides.get(side), MODALITIES).items():
                price = self._price((*path, side, modality), written)
                if price is not None:
                    yield (side, modality), price

    def _price(self, place: YamlPath, written: YamlValue) -> Price | None:
        if not isinstance(written, dict) or "is" not in written:
            self._refuse(place, "write {is: 0.75, documented: where it is said, read: 2026-10-07}")
            return None
        entry = self._mapping(place, written, ("is", "read", *KINDS))
        amount, read = self._amount((*place, "is"), entry.get("is")), entry.get("read")
        if not isinstance(read, str) or not _DATE.fullmatch(read):
            self._refuse((*place, "read"), "expected the day on which it was looked up, such as 2026-10-07")
            return None
        evidence = self._evidence(place, entry)
        return None if amount is None or evidence is None else Price(amount, evidence, read)

    def _amount(self, place: YamlPath, value: YamlValue) -> Decimal | None:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _DEAREST:
            amount = Decimal(str(value))
            if amount == round(amount, _DIGITS):
                return amount
        self._refuse(place, f'"{value}" is not the price of a million tokens')
        return None

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
