"""Fills the parameters of a declared function from the words of a sentence.

What a parameter takes is told from its declared type, enum and format and from the words of its name and
description: a place, a date, a number of minutes, a topic to search for and so on. No function is known by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import Enum

from tornado_live.simulator import sql_query
from tornado_live.simulator.english import (
    MEDIUM_STEMS,
    MONTHS,
    STOP,
    WEAK_STEMS,
    WEEKDAYS,
    Number,
    Period,
    TimeOfDay,
    Word,
    name_words,
    numbers,
    periods,
    related,
    stem,
    times,
    word_set,
    words,
)

Value = str | int | float | bool | list["Value"]


class Kind(Enum):
    """What a parameter takes."""

    ENUM = "enum"
    BOOLEAN = "boolean"
    NUMBER = "number"
    SQL = "sql"
    URL = "url"
    EMAIL = "email"
    PERIOD = "period"
    DATE = "date"
    TIME = "time"
    PLACE = "place"
    MESSAGE = "message"
    TOPIC = "topic"
    PERSON = "person"
    CODE = "code"
    NOUN = "noun"


_BY_NAME: list[tuple[Kind, frozenset[str]]] = [
    (Kind.SQL, frozenset(["sql"])),
    (Kind.URL, frozenset(["url", "uri", "link", "website", "endpoint", "webpage"])),
    (Kind.EMAIL, frozenset(["email", "mail"])),
    (Kind.PERIOD, frozenset(["period", "range", "timeframe", "timespan", "interval", "timerange"])),
    (Kind.DATE, frozenset(["date", "day", "deadline", "birthday"])),
    (Kind.TIME, frozenset(["time", "clock"])),
    (
        Kind.PLACE,
        word_set(
            "city location place address country town destination origin region state where airport station"
        ),
    ),
    (Kind.MESSAGE, frozenset(["message", "body", "content", "note", "comment", "text", "reply", "prompt"])),
    (
        Kind.TOPIC,
        word_set("query q question topic subject term terms keyword keywords search title phrase"),
    ),
    (
        Kind.CODE,
        word_set("id number code reference sku isbn iban hostname host ip serial identifier"),
    ),
    (
        Kind.PERSON,
        word_set("person recipient contact to who attendee assignee author artist guest owner customer user"),
    ),
]
_IN_DESCRIPTION: list[tuple[Kind, re.Pattern[str]]] = [
    (Kind.SQL, re.compile(r"\bsql\b", re.IGNORECASE)),
    (Kind.URL, re.compile(r"\burl\b|\bweb address\b", re.IGNORECASE)),
    (Kind.EMAIL, re.compile(r"\be-?mail address\b", re.IGNORECASE)),
    (Kind.PERIOD, re.compile(r"\bperiod\b|\blast week\b|\btime ?(?:range|frame|span)\b", re.IGNORECASE)),
    (Kind.DATE, re.compile(r"\byyyy-mm-dd\b|\bdate\b", re.IGNORECASE)),
    (Kind.TIME, re.compile(r"\bhh:mm\b|\btime of day\b", re.IGNORECASE)),
    (Kind.PLACE, re.compile(r"\b(?:city|town|place|country|address|location)\b", re.IGNORECASE)),
    (Kind.TOPIC, re.compile(r"\bsearch\b|\blook (?:for|up)\b|\bsubject\b|\btopic\b", re.IGNORECASE)),
]
_STARTS = frozenset(["start", "from", "since", "begin", "after", "first"])
_ENDS = frozenset(["end", "to", "until", "till", "before", "through", "last"])
_SOURCES = frozenset(["from", "source", "origin", "start", "departure", "starting"])
_TARGETS = frozenset(["to", "into", "target", "destination", "end", "arrival"])
_SECONDS = {
    stem(unit): seconds
    for unit, seconds in {
        "ms": 0.001,
        "milliseconds": 0.001,
        "seconds": 1,
        "minutes": 60,
        "hours": 3600,
        "days": 86400,
        "weeks": 604800,
    }.items()
}

# What enum values are called in speech.
_SPOKEN = {
    "usd": "dollar dollars",
    "eur": "euro euros",
    "gbp": "pound pounds sterling",
    "jpy": "yen",
    "chf": "franc francs",
    "cny": "yuan",
    "inr": "rupee rupees",
    "en": "english",
    "de": "german",
    "fr": "french",
    "es": "spanish",
    "it": "italian",
    "pt": "portuguese",
    "nl": "dutch",
    "ja": "japanese",
    "zh": "chinese",
    "celsius": "centigrade metric",
    "imperial": "fahrenheit",
    "metric": "celsius",
    "asc": "ascending",
    "desc": "descending",
    "high": "urgent urgently critical",
    "day": "daily",
    "week": "weekly",
    "month": "monthly",
    "year": "yearly annual",
    "daily": "day",
    "weekly": "week",
    "monthly": "month",
    "yearly": "year",
    "png": "image",
    "true": "yes",
    "false": "no",
}
_BREAKS = word_set("in at on for with from to into by about until as via near during regarding using of")
_JUNCTIONS = frozenset(["and", "or", "then", "but", "please", "because", "while"])
_LEFTOVER = word_set(
    "last next past previous left there please today tomorrow now currently thanks ok okay look like be one "
    "anything"
)
_POLITE = re.compile(
    r"^(?:\s*(?:(?:hello|hi|hey|ok|okay|well|so|um|uh|yes|please|now|then|and|also|great|thanks|thank you"
    r"|good (?:morning|evening|afternoon))\b(?: (?:there|gemini|computer|assistant)\b)?[,.! ]*"
    r"|(?:can|could|would|will) you (?:please |also |kindly )?|i(?:'d| would) like (?:you )?to "
    r"|i want (?:you )?to |(?:can|could|may) (?:i|we) (?:please )?(?:get|have|see) |let(?:'s| us) "
    r"|i need to |i need |i want |i'd like ))+",
    re.IGNORECASE,
)
_MESSAGE = re.compile(
    r"\b(?:saying|that says|which says|with the (?:text|message|words|content)|to say|telling (?:him|her|them))"
    r"(?: that)?:? +(.+)$|\b(?:message|text|body|note): +(.+)$",
    re.IGNORECASE | re.DOTALL,
)
_TOPIC_MARKERS = [
    re.compile(r"\b(?:about|regarding|concerning|related to)\s+(.+)$", re.IGNORECASE | re.DOTALL),
    re.compile(r"\b(?:called|named|titled|entitled)\s+(.+)$", re.IGNORECASE | re.DOTALL),
    re.compile(
        r"\b(?:searching|search|look|looking|query|ask|information|docs|documentation|base)\b.*?\bfor\s+(.+)$",
        re.I | re.S,
    ),
    re.compile(
        r"\b(?:information|info|articles?|documents|details|documentation|page|entry|results?|facts?)"
        r" (?:on|for|of)\s+(.+)$",
        re.IGNORECASE | re.DOTALL,
    ),
    re.compile(
        r"^(?:what|who)(?:'s| is| are| was| were)\s+(?!about\b)(.+)$|^(?:explain|define|describe)\s+(.+)$",
        re.I | re.S,
    ),
    re.compile(r"^search(?: for)?\s+(?!the\b|my\b|our\b)(.+)$", re.IGNORECASE | re.DOTALL),
]
_TOPIC_FILLER = re.compile(
    r"^(?:(?:any|some|more|all|the|latest|further|good) )*"
    r"(?:information|info|articles?|documents?|details|something|anything|everything|results?|facts|pages?|entries)\s+(?:about|on|for|regarding|of)\s+",
    re.IGNORECASE,
)
_CALLED = re.compile(r"\b(?:called|named|titled|entitled)\s+(.+)$", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r"[\"“”]([^\"“”]+)[\"“”]|(?<!\w)'([^']+)'(?!\w)")


@dataclass(frozen=True)
class Parameter:
    """One declared parameter."""

    name: str
    type: str
    kind: Kind
    description: str = ""
    required: bool = False
    choices: tuple[Value, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    many: bool = False

    @property
    def words(self) -> list[str]:
        return name_words(self.name)

    @property
    def stems(self) -> frozenset[str]:
        return frozenset(stem(word) for word in self.words)


def parameters(schema: Mapping[str, object], about: str) -> tuple[Parameter, ...]:
    """The parameters of an object schema (JSON Schema or Gemini's, whose types are upper case).

    `about` is what the function says of itself: the `query` of an SQL function is a
    statement, that of a search is words.
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return ()
    required = schema.get("required")
    needed = set(required) if isinstance(required, list | tuple) else set()
    return tuple(
        _parameter(str(name), declared, name in needed, about)
        for name, declared in properties.items()
        if isinstance(declared, Mapping) and _type(declared) != "object"
    )


def _type(declared: Mapping[str, object]) -> str:
    kind = declared.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if str(one).lower() != "null"), "string")
    if kind is None:
        options = declared.get("anyOf")
        if isinstance(options, list):
            kind = next(
                (o.get("type") for o in options if isinstance(o, Mapping) and o.get("type") != "null"), None
            )
    return str(kind or "string").lower()


def _parameter(name: str, declared: Mapping[str, object], required: bool, about: str) -> Parameter:
    kind = _type(declared)
    many = kind == "array"
    items = declared.get("items")
    inner = items if many and isinstance(items, Mapping) else declared
    kind = _type(inner)
    choices = inner.get("enum")
    description = str(declared.get("description") or inner.get("description") or "")
    minimum, maximum = (_limit(inner.get(key)) for key in ("minimum", "maximum"))
    values = tuple(choices) if isinstance(choices, list | tuple) else ()
    takes = _kind(name, kind, description, str(inner.get("format") or ""), bool(values))
    if (
        takes in (Kind.TOPIC, Kind.NOUN)
        and {"query", "statement"} & set(name_words(name))
        and "sql" in about.lower()
    ):
        takes = Kind.SQL
    return Parameter(
        name=name,
        type=kind,
        kind=takes,
        description=description,
        required=required,
        choices=values,
        minimum=minimum,
        maximum=maximum,
        many=many,
    )


def _limit(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _kind(name: str, declared: str, description: str, form: str, choices: bool) -> Kind:
    if choices:
        return Kind.ENUM
    if declared == "boolean":
        return Kind.BOOLEAN
    if declared in ("integer", "number"):
        return Kind.NUMBER
    by_format = {
        "date": Kind.DATE,
        "date-time": Kind.DATE,
        "time": Kind.TIME,
        "uri": Kind.URL,
        "email": Kind.EMAIL,
    }
    if form in by_format:
        return by_format[form]
    parts = name_words(name)
    # "email_body" is a body: the last word of a name says what the thing is.
    for part in reversed(parts):
        for kind, names in _BY_NAME:
            if part in names:
                if kind in (Kind.TOPIC, Kind.PERSON, Kind.MESSAGE):
                    for strong, pattern in _IN_DESCRIPTION[:3]:
                        if pattern.search(description):
                            return strong
                return kind
    for kind, pattern in _IN_DESCRIPTION:
        if pattern.search(description):
            return kind
    return Kind.NOUN


@dataclass
class Filling:
    """The arguments that a sentence gives, and further values of one of them ("in Paris and in Rome")."""

    args: dict[str, Value] = field(default_factory=dict)
    more: tuple[str, tuple[Value, ...]] | None = None

    def missing(self, declared: Iterable[Parameter]) -> list[Parameter]:
        return [parameter for parameter in declared if parameter.required and parameter.name not in self.args]


@dataclass(frozen=True)
class _Choice:
    value: Value
    first: int
    last: int
    strength: int


class Filler:
    """Fills the parameters of one function from one sentence.

    `own`: stems that speak of the function itself ("weather", "search") and so are no argument;
    `names`: those of its name.
    """

    def __init__(
        self,
        declared: Sequence[Parameter],
        own: frozenset[str],
        names: frozenset[str],
        about: str,
        today: date,
    ) -> None:
        self._declared = declared
        self._own = own
        self._names = names
        self._about = about
        self._today = today

    def fill(self, text: str) -> Filling:
        """What a sentence that asks for the function gives."""
        return _Reading(self, _POLITE.sub("", text).strip(), bare=None).filling()

    def answer(self, text: str, parameter: Parameter) -> Filling:
        """What the answer to a question for one parameter gives; the whole answer if nothing else can be told."""
        return _Reading(self, text.strip(), bare=parameter).filling()

    @property
    def declared(self) -> Sequence[Parameter]:
        return self._declared

    @property
    def own(self) -> frozenset[str]:
        return self._own

    @property
    def names(self) -> frozenset[str]:
        return self._names

    @property
    def about(self) -> str:
        return self._about

    @property
    def today(self) -> date:
        return self._today


class _Reading:
    """One pass over one sentence; words that became an argument are used up."""

    def __init__(self, filler: Filler, text: str, bare: Parameter | None) -> None:
        self.f = filler
        if sum(p.kind is Kind.PLACE for p in filler.declared) > 1:
            text = re.sub(r"\bbetween (.+?) and ", r"from \1 to ", text, count=1)
        self.text = text
        self.bare = bare
        self.words = words(text)
        self.used: set[int] = set()
        self.result = Filling()

    def filling(self) -> Filling:
        for step in (
            self._quotes,
            self._messages,
            self._addresses,
            self._sql,
            self._days,
            self._choices,
            self._times,
            self._numbers,
            self._booleans,
            self._codes,
            self._places,
            self._topics,
            self._rest,
        ):
            step()
        if self.bare is not None and self.bare.name not in self.result.args:
            self._whole(self.bare)
        return self.result

    # Bookkeeping

    def open(self, *kinds: Kind) -> list[Parameter]:
        """Unfilled parameters of these kinds, the one asked for and required ones first."""
        left = [p for p in self.f.declared if p.kind in kinds and p.name not in self.result.args]
        return sorted(left, key=lambda p: (p is not self.bare, not p.required))

    def set(self, parameter: Parameter, value: Value) -> None:
        self.result.args[parameter.name] = (
            [value] if parameter.many and not isinstance(value, list) else value
        )

    def use(self, start: int, end: int) -> None:
        """Marks the words between two places of the text as used."""
        self.used.update(n for n, word in enumerate(self.words) if word.start < end and word.end > start)

    # Steps

    def _quotes(self) -> None:
        for match in _QUOTED.finditer(self.text):
            kinds = (Kind.MESSAGE, Kind.TOPIC, Kind.NOUN, Kind.PERSON, Kind.SQL, Kind.PLACE, Kind.CODE)
            wanted = self.open(*kinds)
            before = {word.stem for word in self.words if word.end <= match.start()}
            wanted.sort(key=lambda p: (not (p.stems & before), not p.required))
            if wanted and wanted[0].many:
                rest = [m for m in _QUOTED.finditer(self.text) if m.start() >= match.start()]
                together = [match]
                for other in rest[1:]:
                    if not re.fullmatch(
                        r"[\s,]*(?:and |or )?", self.text[together[-1].end() : other.start()]
                    ):
                        break
                    together.append(other)
                self.set(wanted[0], [(m[1] or m[2]).strip() for m in together])
                for m in together:
                    self.use(m.start(), m.end())
            elif wanted and not self._is_used(match.start(), match.end()):
                self.set(wanted[0], (match[1] or match[2]).strip())
                self.use(match.start(), match.end())

    def _messages(self) -> None:
        for parameter in self.open(Kind.MESSAGE)[:1]:
            match = _MESSAGE.search(self.text) or self._reminder() or self._wording()
            if match:
                group = next(n for n in range(1, (match.lastindex or 1) + 1) if match[n])
                self.set(parameter, _tidy(match[group]))
                self.use(match.start(), match.end(group))

    def _reminder(self) -> re.Match[str] | None:
        """ "remind me to call Bob in ten minutes": the errand, without when."""
        match = re.search(
            r"\b(?:remind|tell|ask|notify|remember)(?: \w+)? (?:to|that|of|about) (.+)$", self.text, re.I
        )
        if match is None or not (self.f.own & {stem(w.lower) for w in words(match[0][: match.start(1)])}):
            return None
        end = match.end(1)
        spans = [(p.start, p.end) for p in periods(self.text, self.f.today)]
        spans += [(t.start, t.end) for t in times(self.text)]
        spans += [
            m.span()
            for m in re.finditer(r"\bin [\w-]+(?: and a half)? (?:seconds?|minutes?|hours?)\b", self.text)
        ]
        for start, stop in spans:
            if start > match.start(1) and not self.text[stop:].strip(" .!?"):
                end = min(end, start)
        return re.compile(r"(.+)", re.DOTALL).match(self.text, match.start(1), end)

    def _wording(self) -> re.Match[str] | None:
        """ "how do you say good night in French": the words to work on, up to what another parameter takes."""
        match = re.search(
            r"\b(?:how (?:do|would|can) (?:you|i|we) (?:say|write|spell)|translate|say|write down|note(?: down)?) "
            r"(?!an?\b|the (?:text|sentence)\b)(.+?)(?: (?:in|into|to|as) (?:the )?\w+)?[.?!]*$",
            self.text,
            re.IGNORECASE,
        )
        return match if match and not _number_only(match[1]) else None

    def _addresses(self) -> None:
        spoken = re.compile(r"\b([\w.-]+) at ([\w-]+(?: dot [a-z]{2,})+)\b", re.IGNORECASE)
        for parameter in self.open(Kind.EMAIL):
            for n, word in enumerate(self.words):
                if "@" in word.text and n not in self.used:
                    self.set(parameter, word.text)
                    self.used.add(n)
                    break
            else:
                match = spoken.search(self.text)
                if match:
                    domain = match[2].lower().replace(" dot ", ".")
                    self.set(parameter, f"{match[1].lower()}@{domain}")
                    self.use(*match.span())
        site = re.compile(
            r"\b(?:https?://\S+[^\s.,;?!]|(?:[\w-]+\.)+[a-z]{2,}(?:/[^\s,;?!]*)?)", re.IGNORECASE
        )
        said = re.compile(r"\b([\w-]+(?: dot [a-z]{2,})+)((?: slash [\w-]+)*)\b", re.IGNORECASE)
        for parameter in self.open(Kind.URL):
            match = site.search(self.text)
            if match and "@" not in match[0]:
                url = match[0]
            else:
                match = said.search(self.text)
                if not match:
                    example = self._example_address(parameter)
                    if example:
                        self.set(parameter, example)
                    continue
                url = match[1].lower().replace(" dot ", ".") + match[2].lower().replace(" slash ", "/")
            self.set(parameter, url if "://" in url else f"https://{url}")
            self.use(*match.span())

    def _example_address(self, parameter: Parameter) -> str | None:
        """The address that the description gives for what was said: "exchange rates at https://…"."""
        said = {word.stem for word in self.words if word.lower not in STOP}
        about = f"{self.f.about} {parameter.description}"
        best: tuple[int, str] = (0, "")
        start = 0
        for match in re.finditer(r"https?://[^\s,;]+[^\s,;.]", about):
            before = re.split(r"[.;:]\s", about[start : match.start()])[-1]
            start = match.end()
            fit = len(said & {word.stem for word in words(before) if word.lower not in STOP})
            best = max(best, (fit, match[0]), key=lambda one: one[0])
        return best[1] or None

    def _sql(self) -> None:
        for parameter in self.open(Kind.SQL):
            schema = sql_query.tables(f"{self.f.about}\n{parameter.description}")
            query = sql_query.query(self.text, schema)
            if query:
                self.set(parameter, query)
                self.used.update(range(len(self.words)))

    def _choices(self) -> None:
        for parameter in self.open(Kind.ENUM):
            found = [
                choice
                for choice in self._said_choices(parameter)
                if not self.used & {*range(choice.first, choice.last)}
            ]
            if not found:
                continue
            best = max(
                found,
                key=lambda choice: (self._direction(parameter, choice.first), choice.strength, -choice.first),
            )
            others = [c for c in found if c.value != best.value and c.strength == best.strength]
            if parameter.many:
                self.set(parameter, [choice.value for choice in [best, *others]])
            else:
                self.set(parameter, best.value)
                joined = [
                    c for c in others if c.first == best.last + 1 and self.words[best.last].lower == "and"
                ]
                if joined and parameter.required:
                    self.result.more = (parameter.name, tuple(c.value for c in joined))
                    self.used.update(n for c in joined for n in range(c.first, c.last))
            self.used.update(range(best.first, best.last))

    def _said_choices(self, parameter: Parameter) -> list[_Choice]:
        found = []
        stems = [word.stem for word in self.words]
        for value in parameter.choices:
            parts = [stem(part) for part in name_words(str(value))]
            whole = "".join(name_words(str(value)))
            for at in range(len(stems)):
                if self._negated(at):
                    continue
                if parts and stems[at : at + len(parts)] == parts:
                    found.append(_Choice(value, at, at + len(parts), 3))
                elif self.words[at].lower == whole:
                    found.append(_Choice(value, at, at + 1, 3))
                elif self.words[at].lower in _SPOKEN.get(str(value).lower(), "").split():
                    found.append(_Choice(value, at, at + 1, 2))
        return found

    def _negated(self, at: int) -> bool:
        return at > 0 and self.words[at - 1].lower in (
            "not",
            "no",
            "without",
            "except",
            "never",
            "isn't",
            "aren't",
        )

    def _direction(self, parameter: Parameter, at: int) -> int:
        """1 if the word before fits "from", "to" or "by" in the parameter's name, -1 if it fits the other."""
        before = self._preposition(at)
        if before in ("by", "per"):
            return (
                1
                if {"by", "group", "per", "breakdown", "dimension", "sort", "order"} & set(parameter.words)
                else 0
            )
        names = set(parameter.words) | set(name_words(parameter.description.split(".")[0]))
        source = bool(_SOURCES & names) and not _TARGETS & set(parameter.words)
        target = bool(_TARGETS & names) and not _SOURCES & set(parameter.words)
        if before == "from":
            return 1 if source else -1 if target else 0
        if before in ("to", "into"):
            return 1 if target else -1 if source else 0
        return 0

    def _preposition(self, at: int) -> str:
        at -= 1
        while at >= 0 and self.words[at].lower in ("the", "a", "an", "my", "our"):
            at -= 1
        return self.words[at].lower if at >= 0 else ""

    def _days(self) -> None:
        wanted = self.open(Kind.DATE, Kind.PERIOD)
        if not wanted:
            return
        said = [p for p in periods(self.text, self.f.today) if not self._is_used(p.start, p.end)]
        starts = [p for p in wanted if set(p.words) & _STARTS and p.kind is Kind.DATE]
        ends = [p for p in wanted if set(p.words) & _ENDS and p.kind is Kind.DATE]
        if starts and ends and said:
            self.set(starts[0], said[0].first.isoformat())
            self.set(ends[0], said[-1].last.isoformat())
            for period in said:
                self.use(period.start, period.end)
            return
        for parameter in wanted:
            for period in said:
                if self._is_used(period.start, period.end):
                    continue
                if parameter.kind is Kind.DATE and period.first != period.last and not parameter.required:
                    continue
                self.set(parameter, self._day_value(parameter, period, said))
                self.use(period.start, period.end)
                break

    def _day_value(self, parameter: Parameter, period: Period, said: list[Period]) -> str:
        if parameter.kind is Kind.DATE:
            clock = times(self.text)
            day = period.first.isoformat()
            if clock and not any(p.kind is Kind.TIME for p in self.f.declared) and "time" in parameter.words:
                self.use(clock[0].start, clock[0].end)
                return f"{day}T{clock[0].value}:00"
            return day
        later = [other for other in said if other.exact and other.start > period.end]
        if period.exact and later and "/" not in period.said:
            self.use(later[0].start, later[0].end)
            return f"{period.first}/{later[0].last}"
        return period.said

    def _times(self) -> None:
        for parameter in self.open(Kind.TIME):
            said = [t for t in times(self.text) if not self._is_used(t.start, t.end)]
            if not said and parameter is self.bare:
                said = [t for t in times(f"at {self.text}") if t.start == 0]
                said = [TimeOfDay(t.value, 0, t.end - 3) for t in said]
            if said:
                self.set(parameter, said[0].value)
                self.use(said[0].start, said[0].end)

    def _is_used(self, start: int, end: int) -> bool:
        return any(
            n in self.used for n, word in enumerate(self.words) if word.start < end and word.end > start
        )

    def _numbers(self) -> None:
        left = [n for n in numbers(self.words) if not self.used & {*range(n.first, n.last)}]
        wanted = self.open(Kind.NUMBER)
        pairs = sorted(
            ((self._affinity(p, n, len(wanted)), p, n) for p in wanted for n in left),
            key=lambda pair: -pair[0],
        )
        for affinity, parameter, number in pairs:
            if affinity <= 0 or parameter.name in self.result.args or number.first in self.used:
                continue
            if parameter.many:
                series = [number]
                for other in left:
                    if other.first > series[-1].first and self._in_series(series[-1], other):
                        series.append(other)
                self.set(parameter, [int(n.value) if n.value == int(n.value) else n.value for n in series])
                self.used.update(m for n in series for m in range(n.first, n.last))
                continue
            value = number.value * self._scale(parameter, number)
            self.set(parameter, round(value) if parameter.type == "integer" or value == int(value) else value)
            self.used.update(range(number.first, number.last))
            unit = self._unit(number)
            if unit is not None and (parameter.kind is Kind.NUMBER and unit.stem in self._about(parameter)):
                self.used.add(number.last)

    def _in_series(self, one: Number, other: Number) -> bool:
        """Whether a number goes on a list ("3, 4 and 5")."""
        between = self.text[self.words[one.last - 1].end : self.words[other.first].start]
        return re.fullmatch(r"[\s,;]*(?:and |or )?", between) is not None

    def _unit(self, number: Number) -> Word | None:
        if number.last >= len(self.words):
            return None
        gap = self.text[self.words[number.last - 1].end : self.words[number.last].start]
        return None if re.search(r"[,;.?!]", gap) else self.words[number.last]

    def _about(self, parameter: Parameter) -> frozenset[str]:
        told = {word.stem for word in words(parameter.description) if word.lower not in STOP}
        return frozenset(told | parameter.stems)

    def _affinity(self, parameter: Parameter, number: Number, wanted: int) -> float:
        value = number.value * self._scale(parameter, number)
        if parameter.minimum is not None and value < parameter.minimum:
            return -1
        if parameter.maximum is not None and value > parameter.maximum:
            return -1
        if parameter.type == "integer" and value != int(value):
            return -1
        score = 1.0 if parameter.required or parameter is self.bare else 0.0
        about = self._about(parameter)
        unit = self._unit(number)
        if unit is not None and unit.lower not in STOP:
            if unit.stem in about or related(unit.stem) & parameter.stems:
                score += 3
            elif unit.stem in _SECONDS:
                score += 3 if any(s in _SECONDS for s in about) else -3
        before = self.words[max(0, number.first - 4) : number.first]
        if any(re.search(r"\d", word.text) for word in before):
            last = max(n for n, word in enumerate(before) if re.search(r"\d", word.text))
            before = before[last + 1 :]
        if before and before[-1].lower == parameter.name.lower():
            score += 5
        near = [word for word in before if word.lower not in STOP][-1:]
        # "the initial value of 3": every word of the name that is said counts.
        score += 0.5 * len({word.stem for word in before} & parameter.stems)
        if near and (near[0].stem in parameter.stems):
            score += 3
        elif near and related(near[0].stem) & parameter.stems:
            score += 1.5
        if number.percent:
            score += 2 if parameter.maximum == 100 or about & {"percent", "percentag"} else 0.5
        if wanted == 1 and score == 0 and not (unit is not None and unit.stem in _SECONDS):
            score += 0.6
        return score

    def _scale(self, parameter: Parameter, number: Number) -> float:
        unit = self._unit(number)
        if unit is None or unit.stem not in _SECONDS:
            return 1
        target = next((s for s in parameter.stems if s in _SECONDS), None) or next(
            (s for s in self._about(parameter) if s in _SECONDS), None
        )
        return _SECONDS[unit.stem] / _SECONDS[target] if target else 1

    def _booleans(self) -> None:
        for parameter in self.open(Kind.BOOLEAN):
            lower = [word.lower for word in self.words]
            if parameter is self.bare:
                no = {"no", "not", "off", "don't", "nope", "false", "never", "without"}
                self.set(parameter, not no & set(lower))
                self.used.update(range(len(self.words)))
                continue
            if parameter.stems & {"on", "enabl", "activ", "pow", "power", "state"}:
                if "off" in lower or {"disable", "stop", "deactivate"} & set(lower):
                    self.set(parameter, False)
                elif "on" in lower or {"enable", "start", "activate"} & set(lower):
                    self.set(parameter, True)
                continue
            for n, word in enumerate(self.words):
                like = parameter.stems | frozenset(r for s in parameter.stems for r in related(s))
                if word.stem in like and word.stem not in self.f.names and word.lower not in STOP:
                    self.set(parameter, not self._negated(n))
                    self.used.add(n)
                    break

    def _codes(self) -> None:
        for parameter in self.open(Kind.CODE, Kind.NOUN):
            for n, word in enumerate(self.words):
                if (
                    n not in self.used
                    and re.search(r"\d", word.text)
                    and (re.search(r"[A-Za-z-]", word.text) or parameter.kind is Kind.CODE)
                ):
                    if re.fullmatch(r"\d+(?:st|nd|rd|th|%)", word.lower):
                        continue
                    self.set(parameter, word.text)
                    self.used.add(n)
                    break

    def _places(self) -> None:
        for parameter in self.open(Kind.PLACE):
            found = self._place_phrases()
            if not found:
                continue
            order = ["in", "at", "for", "near", "around", "of", "to", "from", ""]
            first, last = min(
                found,
                key=lambda span: (
                    -self._direction(parameter, span[0]),
                    order.index(p) if (p := self._preposition(span[0])) in order else len(order),
                ),
            )
            if self._direction(parameter, first) < 0:
                continue
            if self._preposition(first) == "" and not parameter.required:
                continue
            value = self._span(first, last)
            self.used.update(range(first, last))
            parts = re.split(r",? and ", value)
            if (
                len(parts) > 1
                and parameter.required
                and all(part[:1].isupper() or value.islower() for part in parts)
            ):
                self.result.more = (parameter.name, tuple(_place(part) for part in parts[1:]))
                value = parts[0]
            self.set(parameter, _place(value))

    def _place_phrases(self) -> list[tuple[int, int]]:
        """The spans [first, last) that may be a place: after a preposition, or written with capitals."""
        found: list[tuple[int, int]] = []
        prepositions = ("in", "at", "for", "near", "around", "of", "to", "from", "into")
        for n, word in enumerate(self.words):
            if n in self.used:
                continue
            begins = n > 0 and self.words[n - 1].lower in prepositions
            if n > 1 and word.lower != "the" and self.words[n - 1].lower == "the":
                begins = begins or self.words[n - 2].lower in prepositions
            capital = n > 0 and word.text[:1].isupper() and not self.words[n - 1].text[:1].isupper()
            if not (begins or capital or self.bare) or word.lower in STOP or self._speaks_of_itself(n):
                continue
            last = n + 1
            while last < len(self.words) and self._continues_place(last, word.text[:1].isupper()):
                last += 1
            if not any(first <= n < end for first, end in found):
                found.append((n, last))
        return found

    def _continues_place(self, at: int, capital: bool) -> bool:
        word = self.words[at]
        gap = self.text[self.words[at - 1].end : word.start]
        if at in self.used or (re.search(r"[.?!;:]", gap.strip(" ")) and not re.fullmatch(r"\.\s", gap)):
            return False
        upper = word.text[:1].isupper()
        if word.lower in ("and", "of", "de", "la", "upon", "sur", "am"):
            return (
                at + 1 < len(self.words)
                and at + 1 not in self.used
                and (self.words[at + 1].text[:1].isupper() if capital else word.lower == "and")
                and not self._speaks_of_itself(at + 1)
            )
        if word.lower in STOP or word.lower in _LEFTOVER or word.lower in WEEKDAYS or word.lower in MONTHS:
            return False
        return upper if capital else not self._speaks_of_itself(at)

    def _speaks_of_itself(self, at: int) -> bool:
        word = self.words[at]
        capital = at > 0 and word.text[:1].isupper()
        return word.stem in self.f.own and not capital

    def _topics(self) -> None:
        for parameter in self.open(Kind.TOPIC):
            if not (parameter.required or parameter is self.bare):
                match = _CALLED.search(self.text) or re.search(
                    r"\b(?:about|regarding)\s+(.+)$", self.text, re.I | re.S
                )
                match = match if match and not self._is_used(match.start(1), match.end(1)) else None
            else:
                match = next((m for marker in _TOPIC_MARKERS if (m := marker.search(self.text))), None)
            if match is None:
                continue
            group = next(n for n in range(1, (match.lastindex or 1) + 1) if match[n])
            start, end = match.span(group)
            filler = _TOPIC_FILLER.match(self.text[start:end])
            start += filler.end() if filler else 0
            inside = [n for n, word in enumerate(self.words) if word.start >= start and word.end <= end]
            # Whatever another parameter has taken ("… in German") is not part of it.
            cut = next((n for n in inside if n in self.used), None)
            inside = [n for n in inside if cut is None or n < cut]
            first, last = self._trim(inside, keep_own=True)
            if first < last:
                self.set(parameter, self._span(first, last))
                self.used.update(range(first, last))

    def _rest(self) -> None:
        """Gives phrases that nothing has claimed to the parameters that still need one."""
        for parameter in self.open(Kind.TOPIC, Kind.MESSAGE, Kind.NOUN, Kind.PERSON, Kind.CODE, Kind.PLACE):
            called = _CALLED.search(self.text) if parameter.kind in (Kind.NOUN, Kind.MESSAGE) else None
            if called and not self._is_used(*called.span(1)):
                self.set(parameter, _tidy(called[1]))
                self.use(*called.span())
                continue
            if not (parameter.required or parameter is self.bare):
                self._optional(parameter)
                continue
            whole = parameter.kind in (Kind.TOPIC, Kind.MESSAGE)
            if whole and parameter is self.bare:
                self._whole(parameter)
                continue
            runs = [
                self._trim(run, keep_own=False, parameter=parameter) for run in self._runs(split=not whole)
            ]
            runs = [run for run in runs if run[0] < run[1]]
            if not runs:
                continue
            first, last = max(runs, key=lambda run: (self._fit(parameter, run), -run[0]))
            if parameter.kind is Kind.PLACE and not (
                parameter is self.bare or any(word.text[:1].isupper() for word in self.words[first:last])
            ):
                continue
            if parameter.kind is Kind.PLACE and self._direction(parameter, first) < 0:
                continue
            value = self._span(first, last)
            self.set(parameter, _place(value) if parameter.kind is Kind.PLACE else value)
            self.used.update(range(first, last))

    def _optional(self, parameter: Parameter) -> None:
        """An optional parameter is filled only when its own name is said: "in group sales", "by country"."""
        for n, word in enumerate(self.words[:-1]):
            if n in self.used:
                continue
            grouping = parameter.stems & {"group", "by", "breakdown", "dimension"} and word.lower in (
                "by",
                "per",
            )
            named = word.stem in parameter.stems and word.stem not in self.f.own and word.lower not in STOP
            if not (grouping or named):
                continue
            follow = [m for m in range(n + 1, len(self.words)) if m not in self.used]
            follow = [m for m in follow if m == n + 1 or all(x not in self.used for x in range(n + 1, m))]
            stop = next((m for m in follow if m > n + 1 and self.words[m].lower in STOP), len(self.words))
            first, last = self._trim([m for m in follow if m < stop], keep_own=True)
            if first < last:
                last = min(last, first + (1 if grouping else 3))
                self.set(parameter, self._span(first, last))
                self.used.update(range(n, last))
                return

    def _fit(self, parameter: Parameter, run: tuple[int, int]) -> float:
        before = self._preposition(run[0])
        fitting: tuple[str, ...] = {
            Kind.PERSON: ("to", "with", "for", "by", "of"),
            Kind.PLACE: ("in", "at", "near", "for", "of"),
            Kind.NOUN: ("in", "of", "for", "with", "on"),
        }.get(parameter.kind, ())
        score = 0.0
        names = set(parameter.words)
        if "artist" in names or "author" in names:
            fitting = ("by", "from", "of")
        inside = {word.stem for word in self.words[run[0] : run[1]]}
        if inside & parameter.stems:
            score += 2
        score += 2 * self._direction(parameter, run[0])
        if before in fitting:
            score += 1
        if parameter.kind is Kind.PERSON and self.words[run[0]].text[:1].isupper():
            score += 1
        if parameter.kind is Kind.NOUN and before in ("to", "from", "at", "by"):
            score -= 1
        return score

    def _runs(self, split: bool) -> list[list[int]]:
        """Runs of unused words, ended by the ends of sentences and, with `split`, by prepositions."""
        runs: list[list[int]] = [[]]
        for n, word in enumerate(self.words):
            gap = self.text[self.words[n - 1].end : word.start] if n else ""
            if re.search(r"[.?!;:,]\s", gap) and split:
                runs.append([])
            if n in self.used:
                runs.append([])
                continue
            if split and word.lower in (_BREAKS - {"of"}) | _JUNCTIONS:
                runs.append([])
                continue
            runs[-1].append(n)
        return [run for run in runs if run]

    def _trim(self, run: list[int], *, keep_own: bool, parameter: Parameter | None = None) -> tuple[int, int]:
        """The span [first, last) of a run, without words at its ends that say nothing or speak of the function."""
        if not run:
            return 0, 0
        first, last = run[0], run[-1] + 1

        def idle(n: int, at_end: bool) -> bool:
            word = self.words[n]
            if word.lower in STOP and not self._is_name(n):
                return True
            if word.lower in _LEFTOVER:
                return True
            if keep_own:
                return False
            if not at_end and n == 0 and word.stem in WEAK_STEMS | MEDIUM_STEMS:
                return True
            if at_end and parameter is not None and word.stem in parameter.stems - self.f.names:
                return False
            return word.stem in self.f.own and not self._is_name(n)

        if parameter is not None:
            # "the company Google": what follows the parameter's own name.
            named = [n for n in run[:-1] if self.words[n].stem in parameter.stems and not self._is_name(n)]
            if named and self._is_name(named[-1] + 1) and named[-1] + 1 in run:
                first = named[-1] + 1
        while first < last and idle(first, False):
            first += 1
        while last > first and idle(last - 1, True):
            last -= 1
        if (
            parameter is not None
            and last - first > 1
            and self._is_name(last - 2)
            and not self._is_name(last - 1)
        ):
            # "the Barcelona team" is Barcelona, though "the living room" is a room.
            last -= self.words[last - 1].stem in parameter.stems
        return first, last

    def _is_name(self, n: int) -> bool:
        """Written with a capital although it does not begin a sentence."""
        if n <= 0 or n >= len(self.words) or self.words[n].text in ("I", "I'm", "I'd", "I've"):
            return False
        gap = self.text[self.words[n - 1].end : self.words[n].start]
        return self.words[n].text[:1].isupper() and not re.search(r"[.?!]\s", gap)

    def _span(self, first: int, last: int) -> str:
        return _tidy(self.text[self.words[first].start : self.words[last - 1].end])

    def _whole(self, parameter: Parameter) -> None:
        """The whole of an answer, for a parameter that takes words."""
        if parameter.kind in (
            Kind.ENUM,
            Kind.NUMBER,
            Kind.BOOLEAN,
            Kind.SQL,
            Kind.URL,
            Kind.EMAIL,
            Kind.DATE,
            Kind.TIME,
        ):
            return
        said = re.sub(
            r"^(?:(?:um|uh|well|it's|it is|that's|i mean|i meant|in|for|at|to|about|the one|make it|let's say|say"
            r"|please)\b[, ]*)+",
            "",
            self.text,
            flags=re.IGNORECASE,
        )
        said = _tidy(re.sub(r",? (?:please|thanks|thank you)[.!]*$", "", said, flags=re.IGNORECASE))
        if said:
            self.set(parameter, _place(said) if parameter.kind is Kind.PLACE else said)


def _number_only(text: str) -> bool:
    return re.fullmatch(r"[\d\s.,]+", text) is not None


def _tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip(" ,;:")
    text = re.sub(r"(?<!\b[A-Za-z])[.?!]+$", "", text)
    return re.sub(r"['’]s$", "", text).strip()


def _place(text: str) -> str:
    return _tidy(text.title() if text.islower() else text)
