"""Words an answer from whatever fields a tool's result has, in a few sentences that can be spoken.

No tool is known: the shape of the value and the names of its fields decide. Names such as `wind_kmh` or
`change_percent` carry their unit, `title` or `place` say what the rest is about, `text` is read out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from tornado_live.simulator.english import STOP, WEAK_STEMS, name_words, stem, word_set, words

MOST_SENTENCES = 4
MOST_CHARACTERS = 330  # figures are long when spoken: half a minute is what people listen to
MOST_FACTS = 6
MOST_IN_A_LIST = 5
LONGEST_TEXT = 320
LONGEST_READ = 2000
SAMPLE = "This is sample data, not a real answer."
NOTHING = "I found nothing."
GREETING = "Hello, I am a local simulator of Gemini Live. Ask me something that one of the tools can answer."

_SUBJECTS = (
    "title",
    "name",
    "place",
    "location",
    "label",
    "subject",
    "city",
    "country",
    "day",
    "date",
    "period",
    "heading",
)
_TEXTS = frozenset(
    [
        "text",
        "summary",
        "extract",
        "description",
        "content",
        "snippet",
        "body",
        "answer",
        "message",
        "abstract",
    ]
)
# What is asked, and what is said to it: read out one after the other.
_QUESTIONS = frozenset(["question", "setup", "riddle"])
_REPLIES = frozenset(["answer", "punchline", "delivery", "solution"])
# Fields that mean something to programs only.
_TECHNICAL = frozenset(
    [
        "id",
        "uuid",
        "url",
        "uri",
        "link",
        "href",
        "http status",
        "status code",
        "score",
        "rank",
        "offset",
        "cursor",
        "file",
    ]
)
_COUNTS = frozenset(
    ["count", "total", "found", "row count", "total count", "number", "size", "length", "hits", "matches"]
)
_MONEY = word_set(
    "revenue price cost total amount value sales income turnover balance profit fee salary budget"
)
_CURRENCIES = {"usd": "US dollar", "eur": "euro", "gbp": "pound", "chf": "Swiss franc", "jpy": "yen"}
# The last word of a field's name, and what it is called when spoken: one, several.
_UNITS = {
    "celsius": ("degree Celsius", "degrees Celsius"),
    "fahrenheit": ("degree Fahrenheit", "degrees Fahrenheit"),
    "degrees": ("degree", "degrees"),
    "percent": ("percent", "percent"),
    "percentage": ("percent", "percent"),
    "pct": ("percent", "percent"),
    "kmh": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"),
    "mph": ("mile per hour", "miles per hour"),
    "km": ("kilometer", "kilometers"),
    "miles": ("mile", "miles"),
    "mm": ("millimeter", "millimeters"),
    "cm": ("centimeter", "centimeters"),
    "meters": ("meter", "meters"),
    "kg": ("kilogram", "kilograms"),
    "hpa": ("hectopascal", "hectopascals"),
    "ms": ("millisecond", "milliseconds"),
    "milliseconds": ("millisecond", "milliseconds"),
    "seconds": ("second", "seconds"),
    "minutes": ("minute", "minutes"),
    "hours": ("hour", "hours"),
    "days": ("day", "days"),
    "bytes": ("byte", "bytes"),
    "mb": ("megabyte", "megabytes"),
    "gb": ("gigabyte", "gigabytes"),
    **{code: (name, name if name == "yen" else f"{name}s") for code, name in _CURRENCIES.items()},
}
_PLAIN_NUMBERS = frozenset(["year", "zip", "phone", "number", "code", "id", "postcode", "isbn"])


def introduce(tools: int = 0) -> str:
    """What the simulator says of itself; `tools` is the number of tools that are declared."""
    uses = (
        "It has no tools." if tools == 0 else f"It can use {_count(tools, 'tool')} by the words that you say."
    )
    return (
        "This is a local simulator of Gemini Live, not a language model. "
        f"{uses} Set GEMINI_API_KEY in the file .env to talk to the real model."
    )


def compose(question: str, answers: Sequence[tuple[str, Mapping[str, object]]]) -> list[str]:
    """The sentences that answer a question from the responses of the functions that were called.

    answers: the name of each function and its response, `{"status": "ok", "result": …}` or
    `{"status": "error", "error": {"code", "message", "retryable", "hint"}}`, perhaps with `"sample": true` and a
    `"note"`. Any other response is worded as it is.
    """
    asked = frozenset(word.stem for word in words(question) if word.lower not in STOP)
    if not answers:
        return ["I have no answer."]
    share = MOST_SENTENCES if len(answers) == 1 else 2
    sentences: list[str] = []
    for name, response in answers[:3]:
        for sentence in _answer(name, response, asked, share):
            if sentence not in sentences:
                sentences.append(sentence)
    if len(answers) > 3:
        sentences.append(f"There are {_count(len(answers) - 3, 'more answer')}.")
    return sentences


def _answer(name: str, response: Mapping[str, object], asked: frozenset[str], most: int) -> list[str]:
    error = response.get("error")
    if response.get("status") == "error" or (error and "result" not in response):
        return _error(name, error)
    sample = response.get("sample") is True
    result = (
        response["result"] if "result" in response else response.get("output", _without_envelope(response))
    )
    said = _Wording(asked).sentences(result)
    note = response.get("note")
    if isinstance(note, str) and note and not sample:
        said = [*said[: most - 1], _ended(_clipped(note, 160))]
    said = _brief(said)
    return [SAMPLE, *said[: max(1, most - 1)]] if sample else said[:most]


def _brief(sentences: Sequence[str]) -> list[str]:
    """The first sentences that are short enough together; at least one."""
    kept: list[str] = []
    for sentence in sentences:
        if kept and sum(map(len, kept)) + len(sentence) > MOST_CHARACTERS:
            break
        kept.append(sentence)
    return kept


def _without_envelope(response: Mapping[str, object]) -> object:
    return {key: value for key, value in response.items() if key not in ("status", "sample", "note")}


def _error(name: str, error: object) -> list[str]:
    told = error if isinstance(error, Mapping) else {"message": error}
    message = str(told.get("message") or "it gave no reason.")
    sentences = [_ended(f"I could not use {' '.join(name_words(name))}: {_clipped(message, 200)}")]
    # The hint beside it is an instruction to the model and not for the person.
    if told.get("retryable") is True:
        sentences.append("It may work if you ask again.")
    return sentences


@dataclass(frozen=True)
class _Fact:
    """One field with a plain value, in words."""

    label: str
    said: str

    def __str__(self) -> str:
        return f"{self.label} {self.said}".strip()


class _Wording:
    """Words one result; `asked` are the stems of the question, whose fields come first."""

    def __init__(self, asked: frozenset[str]) -> None:
        self._asked = asked

    def sentences(self, value: object) -> list[str]:
        value = _unwrapped(value)
        if _is_empty(value):
            return [NOTHING]
        if isinstance(value, Mapping):
            return self._object(value) or [NOTHING]
        if isinstance(value, list | tuple):
            return self._list("results", value) or [NOTHING]
        if isinstance(value, str):
            return _text(value, self._asked)
        if isinstance(value, bool):
            return ["Yes." if value else "No."]
        return [f"The answer is {_plain('', value)}."]

    def _object(self, value: Mapping[str, object]) -> list[str]:
        fields = {str(key): _unwrapped(item) for key, item in value.items()}
        fields = {key: item for key, item in fields.items() if item is not None and item != ""}
        fields = _with_columns(fields)
        content = _content(fields)
        if content is not None:
            return self.sentences(content)
        if exchange := self._exchange(fields):
            return exchange
        sizes = {len(item) for item in fields.values() if isinstance(item, list)}
        currency = fields.get("currency")
        money = currency if isinstance(currency, str) else ""
        lists = {key: item for key, item in fields.items() if isinstance(item, list)}
        nested = {key: item for key, item in fields.items() if isinstance(item, Mapping) and item}
        texts = [str(item) for key, item in fields.items() if _is_text(key, item)]
        skipped = {key for key, item in fields.items() if _is_count(key, item, sizes)} | {
            "currency" if money else ""
        }
        # `rows_by: day` says how the rows are cut, which the rows show.
        skipped |= {
            key for key in fields if any(key != other and key.startswith(f"{other}_") for other in lists)
        }
        if "title" in fields:
            skipped.add("heading")  # where in it
        plain = {
            key: item
            for key, item in fields.items()
            if not isinstance(item, Mapping | list) and not _is_text(key, item) and key not in skipped
        }
        subject, facts = self._facts(plain, money, technical=not (texts or nested or any(lists.values())))
        sentences: list[str] = []
        if facts:
            sentences.append(self._facts_sentence(subject, facts))
        elif subject and texts:
            sentences += [
                f"{subject}: {first}" if n == 0 else first
                for n, first in enumerate(_text(texts[0], self._asked))
            ]
            texts = texts[1:]
        elif subject and not lists and not nested:
            sentences.append(_ended(subject[:1].upper() + subject[1:]))
        for text in texts[:1]:
            sentences += _text(text, self._asked)
        order = sorted(nested, key=lambda key: not self._is_asked(key))
        described = [said for key in order if (said := self._nested(key, nested[key], money))]
        # `rows_by: product` where products were asked for: the rows are the answer.
        groups = {key: fields[f"{key}_by"] for key in lists if self._is_wanted_group(fields.get(f"{key}_by"))}
        grouped = [
            said
            for key, by in groups.items()
            for said in self._list(_plural(str(by)), lists[key], money, most=(3, 3))
        ]
        if grouped:
            about = f"{subject[:1].upper()}{subject[1:]}: " if subject else ""
            sentences = [
                f"{about}{grouped[0][:1].lower()}{grouped[0][1:]}" if about else grouped[0],
                *sentences,
            ]
        listed = [
            said
            for key, items in lists.items()
            if key not in groups
            for said in self._list(key, items, money)
        ]
        # Room for both: what belongs together in one object, then what is in lists.
        return [*sentences, *described[: 1 if listed else 2], *listed, *described[1:2]]

    def _exchange(self, fields: Mapping[str, object]) -> list[str]:
        """A question and then its answer, which is all that people want to hear of them, or nothing."""
        question = next((item for key, item in fields.items() if _label(key) in _QUESTIONS), None)
        reply = next((item for key, item in fields.items() if _label(key) in _REPLIES), None)
        if isinstance(reply, bool):
            reply = _plain("", reply).capitalize()
        if not isinstance(question, str) or not isinstance(reply, str):
            return []
        asked = _clipped(_clean(question), LONGEST_TEXT)
        asked = asked if re.search(r"[.!?…][\"”)]?$", asked) else f"{asked}?"
        others = {key: item for key, item in fields.items() if self._is_asked(key)}
        others = {key: item for key, item in others.items() if item is not question and item is not reply}
        return [asked, *_text(reply, self._asked), *(self._object(others) if others else [])]

    def _facts(
        self,
        plain: Mapping[str, object],
        money: str,
        unit: str = "",
        most: int = MOST_FACTS,
        technical: bool = True,
    ) -> tuple[str, list[_Fact]]:
        """What an object is about, and its other plain fields, those that were asked for first."""
        subject_key = next((key for name in _SUBJECTS for key in plain if _label(key) == name), None)
        if subject_key is None and len(plain) > 1:
            subject_key = next((key for key in plain if _label(key).endswith((" name", " title"))), None)
        subject = _plain(subject_key, plain[subject_key]) if subject_key is not None else ""
        keys = [key for key in plain if key != subject_key]
        meant = [key for key in keys if not _is_technical(key, plain[key])]
        if meant or subject or not technical:
            keys = meant
        keys.sort(key=lambda key: not self._is_asked(key))
        facts: list[_Fact] = []
        if "from" in keys and "to" in keys:
            facts.append(_Fact("from", f"{_plain('from', plain['from'])} to {_plain('to', plain['to'])}"))
            keys = [key for key in keys if key not in ("from", "to")]
        facts += [_fact(key, plain[key], money, unit) for key in keys[: most - len(facts)]]
        return subject, facts

    def _facts_sentence(self, subject: str, facts: Sequence[_Fact]) -> str:
        if not subject and len(facts) == 1:
            fact = facts[0]
            if fact.said in ("yes", "no"):
                return f"{fact.label.capitalize()}: {fact.said}."
            return _ended(f"The {fact.label} is {fact.said}" if fact.label else f"It is {fact.said}")
        about = f"{subject[:1].upper()}{subject[1:]}: " if subject else ""
        said = ", ".join(str(fact) for fact in facts)
        return _ended(f"{about}{said}" if about else f"{said[:1].upper()}{said[1:]}")

    def _nested(self, key: str, value: Mapping[str, object], money: str) -> str:
        label, unit = _label_and_unit(key)
        plain = {
            str(name): item
            for name, item in value.items()
            if item not in (None, "") and not isinstance(item, Mapping | list)
        }
        maps = [
            _Fact(_label(str(name)), said)
            for name, item in value.items()
            if isinstance(item, Mapping) and (said := _small_map(item, money))
        ]
        if not plain and not maps:
            inner = [f"{_label(str(k))} {len(v)}" for k, v in value.items() if isinstance(v, list | Mapping)]
            return _ended(f"{label.capitalize()}: {', '.join(inner)}") if inner else ""
        signed = bool({"change", "difference", "delta", "growth"} & set(label.split()))
        if signed:
            keys = sorted(plain, key=lambda name: not self._is_asked(name))[:MOST_FACTS]
            facts = [_Fact(_label(name), _signed(name, plain[name], unit)) for name in keys]
            return _ended(f"{label.capitalize()}: {', '.join(map(str, facts))}")
        subject, facts = self._facts(plain, money, unit, most=4)
        parts = [subject, *map(str, [*facts, *maps])]
        return _ended(f"{label.capitalize()}: {', '.join(part for part in parts if part)}")

    def _list(
        self, key: str, items: Sequence[object], money: str = "", most: tuple[int, int] | None = None
    ) -> list[str]:
        """most: how many of the rows are read, and how many fields of each; by default as their width allows."""
        items = [item for item in map(_unwrapped, items) if not _is_empty(item)]
        noun = _label(key)
        if not items:
            return []
        if not any(isinstance(item, Mapping | list) for item in items):
            said = [_plain("", item) if not isinstance(item, str) else _clipped(item, 80) for item in items]
            label = f"{noun.capitalize()}: "
            more = len(said) - MOST_IN_A_LIST
            tail = f" and {more} more" if more > 0 else ""
            return [_ended(label + _joined(said[:MOST_IN_A_LIST], last="" if more > 0 else "and") + tail)]
        rows = [item for item in items if isinstance(item, Mapping)]
        if not rows:
            return [f"There are {_count(len(items), noun)}."]
        if len(rows) == 1:
            return self._object(rows[0])
        head = f"There are {_count(len(items), noun)}" if noun.endswith("s") else f"{noun.capitalize()}"
        if _text_of(rows[0]):
            # Passages are ranked: the first of those that fit best is the answer, the others are only counted.
            best = max(rows, key=self._fit)
            return [_ended(head if noun.endswith("s") else f"{head}: {len(rows)}"), *self._passage(best)]
        return [self._rows(head, rows, money, most)]

    def _fit(self, row: Mapping[str, object]) -> int:
        """How many of the words that were asked are in a passage itself, rather than in the title of the whole."""
        heads = [item for key, item in row.items() if _label(str(key)) in {"heading", *_QUESTIONS}]
        head = " ".join(item for item in heads if isinstance(item, str))
        return _hits(f"{head} {_clean(_text_of(row))}", self._asked)

    def _passage(self, row: Mapping[str, object]) -> list[str]:
        if exchange := self._exchange({str(key): item for key, item in row.items()}):
            return exchange
        source = next(
            (row[name] for name in ("title", "name", "heading") if isinstance(row.get(name), str)), None
        )
        said = _text(_text_of(row), self._asked)
        return [f"From {source}: {said[0]}", *said[1:]] if source else said

    def _rows(
        self, head: str, rows: Sequence[Mapping[str, object]], money: str, most: tuple[int, int] | None
    ) -> str:
        shown, facts_each = most or ((3, 2) if len(rows[0]) <= 4 else (2, 3))
        said = []
        for row in rows[:shown]:
            plain = {
                str(key): item
                for key, item in row.items()
                if item not in (None, "") and not isinstance(item, Mapping | list)
            }
            subject, facts = self._facts(plain, money, most=facts_each)
            if not subject and len(facts) > 1 and not re.match(r"[\d-]", facts[0].said):
                subject, facts = facts[0].said, facts[1:]
            parts = [subject, *map(str, facts)] if subject else [str(fact) for fact in facts]
            said.append(", ".join(part for part in parts if part))
        if len(rows) <= shown:
            return _ended(f"{head}: {'; '.join(said)}")
        return _ended(f"{head}, the first {len(said)}: {'; '.join(said)}")

    def _is_wanted_group(self, by: object) -> bool:
        return isinstance(by, str) and self._is_asked(by)

    def _is_asked(self, key: str) -> bool:
        return any(stem(word) in self._asked for word in name_words(key))


def _unwrapped(value: object) -> object:
    """The content of objects that hold a single object or list: `{"data": {…}}`."""
    while isinstance(value, Mapping) and len(value) == 1:
        inner = next(iter(value.values()))
        if not isinstance(inner, Mapping):
            break
        value = inner
    return list(value) if isinstance(value, tuple) else value


def _content(fields: Mapping[str, object]) -> Mapping[str, object] | None:
    """The object that is all there is to say, beside fields for programs: `{"http_status": 200, "data": {…}}`."""
    inner = [item for item in fields.values() if isinstance(item, Mapping) and item]
    rest = [key for key, item in fields.items() if not isinstance(item, Mapping)]
    if len(inner) == 1 and rest and all(_is_technical(key, fields[key]) for key in rest):
        return inner[0]
    return None


def _small_map(value: Mapping[str, object], money: str) -> str:
    """The plain values of an object within another, if they are few enough to be listened to."""
    plain = {
        str(key): item
        for key, item in value.items()
        if item not in (None, "")
        and not isinstance(item, Mapping | list)
        and not _is_technical(str(key), item)
    }
    if not 0 < len(plain) <= MOST_IN_A_LIST:
        return ""
    return _joined([str(_fact(key, item, money)) for key, item in plain.items()])


def _text_of(row: Mapping[str, object]) -> str:
    """The first field of a row that is read out, "" if it has none."""
    return next((str(item) for key, item in row.items() if _is_text(str(key), item)), "")


def _hits(text: str, asked: frozenset[str]) -> int:
    """How many of the words that were asked for the text has, without those that ask for anything at all."""
    return len((asked - WEAK_STEMS) & {word.stem for word in words(text)})


def _with_columns(fields: dict[str, object]) -> dict[str, object]:
    """Rows as objects where a table gives its columns apart: `{"columns": […], "rows": [[…]]}`."""
    columns = fields.get("columns")
    rows = fields.get("rows")
    if isinstance(columns, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows):
        named = [{str(c): item for c, item in zip(columns, row, strict=False)} for row in rows]
        return {key: item for key, item in fields.items() if key not in ("columns", "rows")} | {"rows": named}
    return fields


def _is_empty(value: object) -> bool:
    if isinstance(value, Mapping):
        meaningful = [item for key, item in value.items() if not (_label(str(key)) in _COUNTS and item == 0)]
        lists = [item for item in value.values() if isinstance(item, list)]
        if lists and not any(lists) and any(_label(str(k)) in _COUNTS and v == 0 for k, v in value.items()):
            return True
        return all(_is_empty(item) for item in meaningful) and (len(meaningful) == 0 or bool(lists))
    return value is None or value == "" or value == []


def _is_text(key: str, value: object) -> bool:
    if not isinstance(value, str) or _is_address(value):
        return False
    return _label(key) in _TEXTS or len(value) > 120


def _is_count(key: str, value: object, sizes: set[int]) -> bool:
    return _label(key) in _COUNTS and value in sizes


def _is_technical(key: str, value: object) -> bool:
    return _label(key) in _TECHNICAL or _label(key).endswith(" id") or _is_address(value)


def _is_address(value: object) -> bool:
    return isinstance(value, str) and re.match(r"https?://", value) is not None


def _label(key: str) -> str:
    return " ".join(name_words(key))


def _label_and_unit(key: str) -> tuple[str, str]:
    parts = name_words(key)
    if (
        len(parts) > 1
        and parts[-1] in ("c", "f")
        and set(parts) & {"temperature", "temp", "high", "low", "feels"}
    ):
        return " ".join(parts[:-1]), "celsius" if parts[-1] == "c" else "fahrenheit"
    if parts and parts[-1] in _UNITS:
        return " ".join(parts[:-1]), parts[-1]
    return " ".join(parts), ""


def _fact(key: str, value: object, money: str, unit: str = "") -> _Fact:
    label, own_unit = _label_and_unit(key)
    unit = own_unit or unit
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _Fact(_label(key) if isinstance(value, bool) or not own_unit else label, _plain(key, value))
    if not unit and money and set(name_words(key)) & _MONEY:
        unit = money.lower() if money.lower() in _UNITS else ""
        if not unit:
            return _Fact(label, f"{_plain(key, value)} {money}")
    return _Fact(label, _with_unit(key, value, unit))


def _with_unit(key: str, value: int | float, unit: str) -> str:
    if not unit:
        return _plain(key, value)
    one, several = _UNITS[unit]
    if unit in _CURRENCIES and value != int(value):
        return f"{'minus ' if value < 0 else ''}{abs(value):,.2f} {several}"
    return f"{_plain('', value)} {one if value == 1 else several}"


def _signed(key: str, value: object, unit: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _plain(key, value)
    if value == 0:
        return "unchanged"
    return f"{'up' if value > 0 else 'down'} {_with_unit(key, abs(value), unit)}"


def _plain(key: str, value: object) -> str:
    """One value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(value, plain=bool(_PLAIN_NUMBERS & set(name_words(key))))
    if isinstance(value, str):
        return _date(value.strip()) or _clipped(value, 120).rstrip(".")
    return str(value)


def _number(value: int | float, *, plain: bool = False) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return "unknown"
    rounded = round(value, 2) if abs(value) >= 0.01 or value == 0 else float(f"{value:.2g}")
    if rounded == int(rounded):
        rounded = int(rounded)
    said = str(abs(rounded)) if plain else f"{abs(rounded):,}"
    return f"minus {said}" if rounded < 0 else said


def _date(text: str) -> str | None:
    """An ISO month, date or date with time as people say it, None for anything else."""
    if re.fullmatch(r"\d{4}-(?:0[1-9]|1[0-2])", text) and text[:4] != "0000":
        return f"{date.fromisoformat(f'{text}-01'):%B} {text[:4]}"
    if not re.match(r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}|$)", text):
        return None
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            return f"{day:%B} {day.day}, {day.year}"
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return f"{moment:%B} {moment.day}, {moment.year} at {moment:%H:%M}"


def _text(text: str, asked: frozenset[str] = frozenset()) -> list[str]:
    """Two sentences of a text: its first, or those from where most of the words are that were asked for."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[^a-z\s])", _clean(text))
    hits = [_hits(sentence, asked) for sentence in sentences]
    start = hits.index(max(hits))
    said: list[str] = []
    for sentence in sentences[start : start + 2]:
        if said and len(said[0]) + len(sentence) > LONGEST_TEXT:
            break
        said.append(_ended(_clipped(sentence, LONGEST_TEXT)))
    return said or [NOTHING]


def _clean(text: str) -> str:
    """The beginning of a text without the marks of Markdown and HTML, which nobody wants to hear."""
    text = text[:LONGEST_READ]
    text = re.sub(r"<[^>]{1,200}>", " ", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(?m)^\s*(?:#{1,6}|[-*>]|\d+\.)\s+", "", text)
    text = re.sub(r"[*`_]{1,3}(?=\S)|(?<=\S)[*`_]{1,3}(?!\w)", "", text)
    return re.sub(r"\s+", " ", text).strip()


def _clipped(text: str, longest: int) -> str:
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    return text[:longest].rsplit(" ", 1)[0].rstrip(" ,;:.") + " and so on"


def _ended(sentence: str) -> str:
    sentence = sentence.strip()
    return sentence if re.search(r"[.!?][\"”)]?$", sentence) else f"{sentence.rstrip(' ,;:')}."


def _joined(parts: Sequence[str], last: str = "and") -> str:
    if len(parts) < 2 or not last:
        return ", ".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"


def _count(count: int, noun: str) -> str:
    singular = noun.rstrip("s") if noun.endswith("s") and not noun.endswith("ss") else noun
    if noun.endswith("ies"):
        singular = noun[:-3] + "y"
    return f"{count:,} {singular if count == 1 else _plural(singular)}"


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"
