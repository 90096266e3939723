"""As much English as the simulator's chooser needs: words, stems, synonyms, numbers, dates and times of day.

Nothing here knows a tool. The synonyms are those of a small thesaurus of everyday subjects.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

WORD = re.compile(
    r"https?://[^\s,;]+[^\s,;.?!]"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
    r"|\d+(?:[:.,/-]\d+)*(?:st|nd|rd|th)?%?"
    r"|[A-Za-z]\.(?:[A-Za-z]\.)+"
    r"|[^\W_]+(?:[_'’.-][^\W_]+)*%?"
)


@dataclass(frozen=True)
class Word:
    """One word of a sentence: as written, in lower case without a possessive, its stem, and where it stands."""

    text: str
    lower: str
    stem: str
    start: int
    end: int


def words(text: str) -> list[Word]:
    """The words of a sentence in order."""
    found = []
    for match in WORD.finditer(text):
        lower = match[0].lower().replace("’", "'")
        lower = re.sub(r"'(?:s|re|m|d|ll|ve)$", "", lower)
        if re.fullmatch(r"(?:[a-z]\.)+", lower):
            lower = lower.replace(".", "")
        found.append(Word(match[0], lower, stem(lower), match.start(), match.end()))
    return found


def name_words(name: str) -> list[str]:
    """The lower-case words of an identifier: `startDate` and `start_date` both give start, date."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())


IRREGULAR = {
    "people": "person",
    "children": "child",
    "men": "man",
    "women": "woman",
    "feet": "foot",
    "news": "news",
    "bought": "buy",
    "sold": "sell",
    "sent": "send",
    "ate": "eat",
    "eaten": "eat",
    "woke": "wake",
    "said": "say",
    "sales": "sale",
    "ai": "ai",
    "this": "this",
    "does": "do",
    "did": "do",
    "was": "be",
    "is": "be",
    "are": "be",
}


def stem(word: str) -> str:
    """A key that the forms of one word share (not itself always a word)."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    base = word
    if len(base) > 4 and base.endswith("ies"):
        base = base[:-3] + "y"
    elif len(base) > 4 and re.search(r"(?:s|x|z|ch|sh)es$", base):
        base = base[:-2]
    elif len(base) > 3 and base.endswith("s") and not re.search(r"(?:ss|us|is)$", base):
        base = base[:-1]
    for ending in ("ing", "ed"):
        root = base[: -len(ending)]
        if base.endswith(ending) and len(root) >= 3 and re.search(r"[aeiouy]", root):
            base = root[:-1] if re.search(r"([bdgklmnprt])\1$", root) and not root.endswith("ll") else root
            break
    return base[:-1] if len(base) > 3 and base.endswith("e") else base


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as a sentence."""
    return frozenset(text.split())


# Words that say nothing about the subject.
STOP = word_set(
    "a an the this that these those some any each every all both either no i you he she it we they me him "
    "her us them my your his its our their mine yours myself who whom whose which what where when why how "
    "there here be am is are was were been being do does did doing done have has had having can could "
    "will would shall should may might must let lets and or but if then than so as of in on at by for "
    "with from to into onto about over under up down out off through during before after between without "
    "within near around per via please kindly thanks thank hello hi hey ok okay well just also too very "
    "really quite maybe perhaps now right currently again still yet already left go going want wants "
    "wanted need needs like love wish d ll ve re m s t um uh oh yes no not don't doesn't didn't isn't "
    "aren't can't couldn't gonna gotta much many more most less few little lot lots several other another "
    "one ones such only own same today's possible quickly thing things way"
)
# Verbs that fit nearly every tool.
WEAK = word_set(
    "get show give tell list display fetch retrieve make take see know return bring put use want ask data "
    "information info detail details result results current latest new name number value text type item "
    "something anything one"
)
WEAK_STEMS = frozenset(stem(word) for word in WEAK)
# Verbs that say something, though less than a noun does.
MEDIUM_STEMS = frozenset(
    stem(word) for word in ["find", "look", "check", "run", "set", "read", "call", "turn", "switch"]
)

THESAURUS = [
    word_set(group)
    for group in """
weather forecast temperature rain raining rainy sunny snow snowing wind windy umbrella hot cold warm humid
weather climate degrees storm
search find lookup seek query
search knowledge documentation docs document handbook manual information article encyclopedia wiki wikipedia
database sql table tables rows records query schema
query question
execute run
analytics metrics statistics stats figures numbers kpi report dashboard trend performance perform
revenue sales turnover income earnings
sale order purchase
sale sell
compare comparison versus vs compared
lamp light lights lighting bulb
thermostat temperature heating heater heat degrees
brightness brighter dim dimmer level
volume loud louder quiet quieter loudness
activate enable start
deactivate disable stop
turn switch
book reserve reservation booking
schedule appointment calendar meeting event agenda
mail email e-mail
message text sms chat
send write forward deliver
play music song songs tune album track listen playlist
video movie film
timer countdown alarm
remind reminder remember
wake alarm
buy order purchase
cancel abort
delete remove erase drop
create add make new
update change edit modify set adjust
price cost costs expensive cheap worth quote
stock share shares ticker equity
stock inventory availability available warehouse
product item article goods
customer client buyer
user account member person
invoice bill bills billing
pay payment paid
ship shipment shipping parcel package delivery deliver courier
track tracking locate where
route directions direction navigate navigation drive driving way journey
distance far
flight flights fly plane airline
train trains rail railway
hotel hotels room accommodation
restaurant restaurants dinner lunch eat food meal
eat meal food breakfast lunch dinner snack
drink beverage coffee tea
recipe cook cooking bake
translate translation say language
convert conversion exchange currency
currency money dollars euros pounds yen
calculate compute calculation sum math
restart reboot relaunch
server machine host computer instance
deploy release rollout
picture photo image snapshot photograph
camera webcam
lock secure
unlock
open
close shut
door gate
problem issue fault defect broken bug incident
report complain complaint notify
ticket issue case
doctor physician medic
step steps walk walked
news headlines
fetch request call api endpoint url http website page web
summary summarize summarise overview
user customer
temperature degrees celsius fahrenheit
note memo jot
log record write
employee staff worker colleague
contact person phone
call phone dial ring
task todo
time clock
joke funny humour humor
""".strip().splitlines()
]
# Asking for facts, however it is put, is a search.
ASKS_FOR_FACTS = re.compile(
    r"^(?:so |and |please |can you |could you )*"
    r"(?:(?:what|who)(?:'s| is| are| was| were) (?!it\b|that\b|this\b|up\b|you\b|my\b)"
    r"|(?:tell|teach) me (?:something |more |all )?about |explain |define |describe |what do you know about "
    r"|how do(?:es)? \w+|i (?:want|would like|'d like) to (?:know|learn) (?:more )?about )",
    re.IGNORECASE,
)
FACT_WORDS = frozenset(
    map(stem, word_set("knowledge encyclopedia wikipedia wiki article documentation search fact answer"))
)

OPPOSITES = [
    ("on", "off"),
    ("open", "close"),
    ("start", "stop"),
    ("lock", "unlock"),
    ("enable", "disable"),
    ("add", "remove"),
    ("create", "delete"),
    ("increase", "decrease"),
    ("raise", "lower"),
    ("mute", "unmute"),
    ("buy", "sell"),
    ("arm", "disarm"),
    ("up", "down"),
    ("send", "receive"),
    ("subscribe", "unsubscribe"),
]


def related(one: str) -> frozenset[str]:
    """Stems that mean something similar to the given stem (not itself)."""
    return _RELATED.get(one, frozenset()) - {one}


def _relations() -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = {}
    for group in THESAURUS:
        stems = {stem(word) for word in group}
        for one in stems:
            table.setdefault(one, set()).update(stems)
    return {one: frozenset(others) for one, others in table.items()}


_RELATED = _relations()

# Numbers

UNITS_OF_COUNTING = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
""".split()  # noqa: SIM905 - a list of words
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
TENS = {word: 10 * n for n, word in enumerate(_TENS, 2)}
SMALL = {word: n for n, word in enumerate(UNITS_OF_COUNTING)} | TENS
SCALES = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_ORDINALS = """
    first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth
""".split()  # noqa: SIM905 - a list of words
ORDINALS = {word: n for n, word in enumerate(_ORDINALS, 1)}


@dataclass(frozen=True)
class Number:
    """A number said in words or digits: its value and the words [first, last) that say it."""

    value: float
    first: int
    last: int
    percent: bool


def numbers(sentence: list[Word]) -> Iterator[Number]:
    """The numbers of a sentence, in order."""
    at = 0
    while at < len(sentence):
        found = _number_at(sentence, at)
        if found is None:
            at += 1
        else:
            yield found
            at = found.last


def _number_at(sentence: list[Word], at: int) -> Number | None:
    digits = re.fullmatch(r"(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(%?)", sentence[at].lower)
    end = at
    value = 0.0
    if digits:
        value = float(digits[1].replace(",", "") + (digits[2] or ""))
        end = at + 1
        if end < len(sentence) and sentence[end].lower in SCALES:
            value *= SCALES[sentence[end].lower]
            end += 1
    else:
        total = group = 0
        while end < len(sentence):
            word = sentence[end].lower
            parts = word.split("-")
            if all(part in SMALL for part in parts) and (len(parts) == 1 or parts[0] in TENS):
                amount = sum(SMALL[part] for part in parts)
                if end > at and sentence[end - 1].lower not in {*SCALES, *TENS, "and"}:
                    break
                if end > at and sentence[end - 1].lower in TENS and amount >= 10:
                    break
                group += amount
            elif word in SCALES and end > at:
                scale = SCALES[word]
                group = (group or 1) * scale
                if scale > 100:
                    total, group = total + group, 0
            elif word in ("a", "an") and end == at and _next_is(sentence, end, {*SCALES, "dozen"}):
                group = 1
            elif word == "dozen" and end > at:
                group *= 12
            elif not (
                word == "and"
                and end > at
                and sentence[end - 1].lower in SCALES
                and _next_is(sentence, end, SMALL)
            ):
                break
            end += 1
        if end == at or (end == at + 1 and sentence[at].lower in ("a", "an")):
            return None
        value = float(total + group)
        if [word.lower for word in sentence[end : end + 1]] == ["point"] and _next_is(sentence, end, SMALL):
            decimals = ""
            end += 1
            while end < len(sentence) and SMALL.get(sentence[end].lower, 10) < 10:
                decimals += str(SMALL[sentence[end].lower])
                end += 1
            value = float(f"{int(value)}.{decimals}") if decimals else value
    if [word.lower for word in sentence[end : end + 3]] == ["and", "a", "half"]:
        value, end = value + 0.5, end + 3
    percent = bool(digits and digits[3])
    if end < len(sentence) and sentence[end].lower in ("percent", "%"):
        percent, end = True, end + 1
    return Number(value, at, end, percent)


def _next_is(sentence: list[Word], at: int, allowed: object) -> bool:
    assert isinstance(allowed, dict | set)
    return at + 1 < len(sentence) and sentence[at + 1].lower in allowed


# Dates, periods and times of day

MONTHS = {name.lower(): n for n, name in enumerate(calendar.month_name) if name}
MONTHS |= {name.lower(): n for n, name in enumerate(calendar.month_abbr) if name and name != "May"} | {
    "sept": 9
}
WEEKDAYS = {name.lower(): n for n, name in enumerate(calendar.day_name)}
_MONTH = "(?P<month>" + "|".join(sorted(MONTHS, key=len, reverse=True)) + r")\b\.?"
_COUNT = r"(?P<count>\d+|an?|" + "|".join([*UNITS_OF_COUNTING[1:], *TENS]) + ")"
_SPAN = r"(?P<span>day|week|weekend|month|quarter|year|hour|minute)s?\b"


@dataclass(frozen=True)
class Period:
    """Days that were named, from `first` to `last` inclusive, in the words `said` at text[start:end].

    `exact`: a date was given rather than a relative expression.
    """

    said: str
    first: date
    last: date
    start: int
    end: int
    exact: bool = False


def periods(text: str, today: date) -> list[Period]:
    """The days and spans of days that a text names, in order, without overlaps."""
    found: list[Period] = []
    for pattern, meaning in _PERIOD_PATTERNS:
        for match in pattern.finditer(text):
            if any(match.start() < other.end and other.start < match.end() for other in found):
                continue
            days = meaning(match, today)
            if days is not None:
                first, last, said = days
                exact = meaning in (_iso, _iso_range, _month_day)
                found.append(Period(said, first, last, match.start(), match.end(), exact))
    return sorted(found, key=lambda period: period.start)


Meaning = tuple[date, date, str]


def _iso(match: re.Match[str], _today: date) -> Meaning | None:
    try:
        day = date.fromisoformat(match[0])
    except ValueError:
        return None
    return day, day, match[0]


def _iso_range(match: re.Match[str], _today: date) -> Meaning | None:
    try:
        first, last = date.fromisoformat(match[1]), date.fromisoformat(match[2])
    except ValueError:
        return None
    return first, last, f"{first}/{last}"


def _month_day(match: re.Match[str], today: date) -> Meaning | None:
    groups = match.groupdict()
    month = MONTHS[groups["month"].lower()]
    year = int(groups["year"] or today.year)
    try:
        day = date(year, month, int(groups["day"]))
    except ValueError:
        return None
    if groups["year"] is None and (today - day).days > 180:
        day = day.replace(year=year + 1)
    return day, day, day.isoformat()


def _month_only(match: re.Match[str], today: date) -> Meaning | None:
    month = MONTHS[match["month"].lower()]
    year = int(match["year"] or (today.year if month <= today.month else today.year - 1))
    first = date(year, month, 1)
    return first, _month_end(first), f"{first}/{_month_end(first)}"


def _named_day(match: re.Match[str], today: date) -> Meaning | None:
    name = " ".join(match[0].lower().split())
    offset = {"today": 0, "tonight": 0, "this morning": 0, "yesterday": -1, "last night": -1, "tomorrow": 1}
    offset |= {"day before yesterday": -2, "day after tomorrow": 2}
    day = today + timedelta(days=offset[name.removeprefix("the ")])
    return day, day, name


def _weekday(match: re.Match[str], today: date) -> Meaning | None:
    target = WEEKDAYS[match["weekday"].lower()]
    if (match["which"] or "").lower() == "last":
        day = today - timedelta(days=(today.weekday() - target - 1) % 7 + 1)
    else:
        day = today + timedelta(days=(target - today.weekday() - 1) % 7 + 1)
    return day, day, match[0].lower().removeprefix("on ")


def _relative(match: re.Match[str], today: date) -> Meaning | None:
    which = match["which"].lower()
    span = match["span"].lower()
    count = _count(match["count"])
    past = which in ("last", "past", "previous")
    which = "last" if past else "next" if which in ("next", "coming", "following") else "this"
    if count is not None:
        said = f"{which} {count} {span}s"
        days = {"day": 1, "week": 7, "weekend": 7, "month": 30, "quarter": 91, "year": 365}.get(
            span, 0
        ) * count
        length = timedelta(days=max(1, days) - 1)
        return (today - length, today, said) if past else (today, today + length, said)
    said = f"{which} {span}"
    step = {"last": -1, "this": 0, "next": 1}[which]
    if span in ("hour", "minute", "day"):
        return today + timedelta(days=step), today + timedelta(days=step), said
    if span in ("week", "weekend"):
        monday = today - timedelta(days=today.weekday()) + timedelta(weeks=step)
        return (monday if span == "week" else monday + timedelta(days=5)), monday + timedelta(days=6), said
    if span == "year":
        return date(today.year + step, 1, 1), date(today.year + step, 12, 31), said
    months = 3 if span == "quarter" else 1
    start = (today.month - 1) // months * months + step * months
    first = date(today.year + start // 12, start % 12 + 1, 1)
    last = _month_end(first if months == 1 else date(first.year, first.month + 2, 1))
    return first, last, said


def _ahead(match: re.Match[str], today: date) -> Meaning | None:
    count = _count(match["count"]) or 1
    days = {"day": 1, "week": 7, "month": 30, "year": 365}.get(match["span"].lower())
    if days is None:
        return None
    day = today + timedelta(days=days * count * (-1 if "ago" in match[0].lower() else 1))
    return day, day, day.isoformat()


def _year(match: re.Match[str], _today: date) -> Meaning | None:
    year = int(match["year"])
    return date(year, 1, 1), date(year, 12, 31), f"{year}-01-01/{year}-12-31"


def _count(word: str | None) -> int | None:
    if word is None:
        return None
    return int(word) if word.isdigit() else 1 if word.lower() in ("a", "an") else SMALL[word.lower()]


def _month_end(day: date) -> date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


_ISO = r"\d{4}-\d{2}-\d{2}"
_PERIOD_PATTERNS = [
    (re.compile(pattern, re.IGNORECASE), meaning)
    for pattern, meaning in [
        (rf"\b({_ISO})\s*(?:/|to|until|through|and)\s*({_ISO})\b", _iso_range),
        (rf"\b{_ISO}\b", _iso),
        (
            rf"\b(?:on )?(?:the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?{_MONTH}(?:,? (?P<year>\d{{4}})\b)?",
            _month_day,
        ),
        (
            rf"\b(?:on )?{_MONTH} (?:the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (?P<year>\d{{4}})\b)?",
            _month_day,
        ),
        (r"\b(?:the )?day (?:after tomorrow|before yesterday)\b", _named_day),
        (r"\b(?:today|tonight|yesterday|tomorrow|this morning|last night)\b", _named_day),
        (
            r"\b(?:in |over |during |for )?(?:the )?"
            r"(?P<which>last|past|previous|this|current|next|coming|following) "
            rf"(?:{_COUNT} )?{_SPAN}",
            _relative,
        ),
        (rf"\b(?:(?:on|for) )?(?:(?P<which>next|this|last) )?(?P<weekday>{'|'.join(WEEKDAYS)})\b", _weekday),
        (rf"\bin {_COUNT} {_SPAN}", _ahead),
        (rf"\b{_COUNT} {_SPAN} ago\b", _ahead),
        (rf"\b(?:in|since|for|during) {_MONTH}(?: (?P<year>\d{{4}})\b)?", _month_only),
        (r"\b(?:in|during|for) (?P<year>(?:19|20)\d{2})\b", _year),
    ]
]


@dataclass(frozen=True)
class TimeOfDay:
    """A time of day as HH:MM, said at text[start:end]."""

    value: str
    start: int
    end: int


_HOUR = r"(?P<hour>\d{1,2}|" + "|".join(UNITS_OF_COUNTING[1:13]) + ")"
_TIME_PATTERNS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in [
        r"\b(?:at )?(?P<named>noon|midday|midnight)\b",
        rf"\b(?:at )?(?P<part>half|quarter) (?P<side>past|to) {_HOUR}\b(?:\s*(?P<half>[ap])\.?m\b\.?)?",
        rf"\b(?:at )?{_HOUR}[:.](?P<minute>[0-5]\d)\b(?:\s*(?P<half>[ap])\.?m\b\.?)?",
        rf"\b(?:at )?{_HOUR} (?P<minute_word>fifteen|thirty|forty-five)\b(?:\s*(?P<half>[ap])\.?m\b\.?)?",
        rf"\b(?:at )?{_HOUR}\s*(?P<half>[ap])\.?m\b\.?",
        rf"\b(?:at )?{_HOUR} o'?clock\b(?: in the (?P<day_part>morning|afternoon|evening))?",
        rf"\bat {_HOUR}\b(?! *(?:%|percent|degrees))(?: in the (?P<day_part>morning|afternoon|evening))?",
    ]
]


def times(text: str) -> list[TimeOfDay]:
    """The times of day that a text names; a bare "at seven" counts."""
    found: list[TimeOfDay] = []
    for pattern in _TIME_PATTERNS:
        for match in pattern.finditer(text):
            value = _time(match)
            if value and not any(match.start() < other.end and other.start < match.end() for other in found):
                found.append(TimeOfDay(value, match.start(), match.end()))
    return sorted(found, key=lambda time: time.start)


def _time(match: re.Match[str]) -> str | None:
    groups = match.groupdict()
    if groups.get("named"):
        return "00:00" if groups["named"].lower() == "midnight" else "12:00"
    hour = _count(groups["hour"]) or 0
    minute = int(groups.get("minute") or 0)
    if groups.get("minute_word"):
        minute = {"fifteen": 15, "thirty": 30, "forty-five": 45}[groups["minute_word"].lower()]
    if groups.get("part"):
        minute = 30 if groups["part"].lower() == "half" else 15
        if groups["side"].lower() == "to":
            hour, minute = hour - 1, 60 - minute
    late = (groups.get("half") or "").lower() == "p" or groups.get("day_part") in ("afternoon", "evening")
    early = (groups.get("half") or "").lower() == "a"
    hour = hour % 12 + 12 if late else hour % 12 if early else hour
    return f"{hour:02}:{minute:02}" if 0 <= hour < 24 else None
