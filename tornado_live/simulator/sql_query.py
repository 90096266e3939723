"""A plain SQL query from a spoken wish and the tables that a tool's description names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tornado_live.simulator.english import ORDINALS, SMALL, STOP, Word, numbers, stem, words


@dataclass(frozen=True)
class Table:
    """Columns in order, and for some of them values that the description gives."""

    columns: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Schema = Mapping[str, Table]

DEFAULT_LIMIT = 10
_SECRET = re.compile(r"pass(word|wd)|secret|token|hash|salt|api_?key", re.IGNORECASE)
# How a value is written, rather than a value: "YYYY-MM-DD".
_FORM = re.compile(r"[YMDHS:TZ -]+")
_DATE_NAMES = ("created", "ordered", "date", "time", "day", "signed", "joined", "since", "registered")
_DATE_ENDS = ("_at", "_on", "_since")
_NEWEST = r"latest|newest|recent|last"
_OLDEST = r"oldest|earliest"
_EXTREME = r"best|expensive|cheapest|biggest|largest|smallest|highest|lowest"
# "from SQL database": a kind of store rather than a place.
_NO_PLACE = r"(?! (?:data ?base|db|tables?)\b)"
_AMOUNTS = ("total", "amount", "revenue", "price", "cost", "quantity", "stock", "sales", "value", "score")
_PLACES = ("city", "country", "region", "state", "town")
_AGGREGATES = {
    "average": "AVG",
    "mean": "AVG",
    "sum": "SUM",
    "total": "SUM",
    "maximum": "MAX",
    "highest": "MAX",
    "minimum": "MIN",
    "lowest": "MIN",
}
_TABLE = re.compile(
    r"(?:create\s+table\s+)?[\"`]?\b([A-Za-z_]\w*)[\"`]?\s*\(((?:[^()]|\([^()]*\))*)\)", re.IGNORECASE
)
_COLUMN = r"[a-z_]\w*(?: [A-Z][A-Z0-9]*)?(?: \([^()]*\))?"
_LINE = re.compile(rf"(?:^|[\n.])\s*[-*]?\s*([A-Za-z_]\w*)\s*:\s*({_COLUMN}(?:\s*[,;]\s*{_COLUMN})+)")
_LIST = re.compile(r"\btables?(?:\s+are)?:?\s+([a-z_]\w*(?:(?:,|,? and)\s+[a-z_]\w*)*)", re.IGNORECASE)


def tables(description: str) -> dict[str, Table]:
    """The tables, with their columns where given, that a description names.

    Understands `users(id, name)`, CREATE TABLE statements, lines such as `users: id INTEGER; name TEXT (a note)`
    and "tables users, orders".
    """
    found: dict[str, Table] = {}
    for match in _LINE.finditer(description):
        if match[1].lower() not in ("tables", "table", "columns"):
            parts = re.split(r"[,;](?![^()]*\))", match[2])
            found[match[1]] = Table(tuple(map(_identifier, parts)), dict(filter(None, map(_values, parts))))
    if found:
        return found
    for match in _TABLE.finditer(description):
        columns = [_identifier(part) for part in re.split(r",(?![^()]*\))", match[2])]
        real = [
            c
            for c in columns
            if c and c.lower() not in STOP and c.upper() not in ("PRIMARY", "FOREIGN", "UNIQUE")
        ]
        if len(real) >= 2 and len(real) == len([c for c in columns if c]):
            found[match[1]] = Table(tuple(real))
    listed = _LIST.search(description)
    if listed and not found:
        names = re.split(r",? and |, ?", listed[1])
        if len(names) > 1:
            found |= {name: Table() for name in names if name.lower() not in STOP}
    return found


def _identifier(part: str) -> str:
    match = re.match(r"\s*[\"`]?([A-Za-z_]\w*)", part)
    return match[1] if match else ""


def _values(part: str) -> tuple[str, tuple[str, ...]] | None:
    """What stands in brackets behind a column: `status TEXT (paid, shipped)`."""
    match = re.search(r"\(([^()]*)\)", part)
    return (_identifier(part), tuple(value.strip() for value in match[1].split(","))) if match else None


def sql_in(text: str) -> str | None:
    """The SELECT statement that the text itself says, spoken signs included."""
    match = re.search(r"\bselect\b.+\bfrom\b\s+\w+.*", text, re.IGNORECASE | re.DOTALL)
    if match is None:
        return None
    query = re.sub(r"\b(?:star|asterisk)\b", "*", match[0], flags=re.IGNORECASE)
    return query.strip().rstrip(".?!").strip()


def query(text: str, schema: Schema) -> str | None:
    """A SELECT that answers the text, or None when no table can be told from it."""
    spoken = sql_in(text)
    if spoken:
        return spoken
    sentence = words(text)
    table = _table(sentence, schema)
    if table is None:
        return None
    return _Statement(text, sentence, table, schema.get(table, Table())).render()


def _table(sentence: list[Word], schema: Schema) -> str | None:
    stems = [word.stem for word in sentence]
    scores: dict[str, float] = {}
    for name, table in schema.items():
        parts = [stem(part) for part in name.lower().split("_")]
        score = 0.0
        if all(part in stems for part in parts):
            # "orders of customers": what is wanted is said first.
            score += 10 + len(parts) - 0.1 * stems.index(parts[0])
        score += sum(0.5 for column in table.columns if stem(column.lower()) in stems)
        scores[name] = score
    if scores:
        best = max(scores, key=lambda name: scores[name])
        return best if scores[best] > 0 or len(scores) == 1 else None
    joined = " ".join(word.lower for word in sentence)
    match = re.search(
        r"\b(\w+) (?:data|table|records|rows|list|entries)\b|\b(?:all|from|of|many) (?:the )?(\w+)$", joined
    )
    noun = match and (match[1] or match[2])
    if not noun or noun in STOP or stem(noun) in ("sql", "databas", "query", "get"):
        return None
    return noun if noun.endswith("s") else f"{noun}s"


class _Statement:
    def __init__(self, text: str, sentence: list[Word], table: str, declared: Table) -> None:
        self.text = text
        self.sentence = sentence
        self.table = table
        self.columns = declared.columns
        self.values = declared.values
        self.lower = " ".join(word.lower for word in sentence)

    def render(self) -> str:
        grouped = self._group()
        where = self._where()
        counting = re.search(r"\bhow many\b|\bcount\b|\bnumber of\b", self.lower)
        aggregate = self._aggregate()
        chosen = "COUNT(*) AS count" if counting else aggregate
        if grouped:
            chosen = chosen or "COUNT(*) AS count"
            alias = chosen.rsplit(" ", 1)[1]
            tail = f" GROUP BY {grouped} ORDER BY {alias} DESC LIMIT {self._limit()}"
            return self._select(f"{grouped}, {chosen}", where + tail)
        if chosen:
            return self._select(chosen, where)
        visible = [column for column in self.columns if not _SECRET.search(column)]
        return self._select(", ".join(visible) or "*", f"{where}{self._order()} LIMIT {self._limit()}")

    def _select(self, what: str, rest: str) -> str:
        # The names come from the declaration and values are quoted; the tool that runs it has its own guard.
        return f"SELECT {what} FROM {self.table}{rest}"  # noqa: S608

    def _column(self, names: Sequence[str]) -> str | None:
        for name in names:
            for column in self.columns:
                if name in column.lower():
                    return column
        return None

    def _mentioned(self, among: Sequence[str] | None = None) -> str | None:
        stems = {word.stem for word in self.sentence}
        for column in self.columns if among is None else among:
            parts = column.lower().split("_")
            if stem(parts[0]) in stems and column.lower() != "id":
                return column
        return None

    def _group(self) -> str | None:
        match = re.search(r"\b(?:by|per|for each) (\w+)(?: (\w+))?", self.lower)
        if match is None or re.search(r"\b(?:sort|sorted|order|ordered|top|best) .*\bby\b", self.lower):
            return None
        wanted = stem(match[1])
        return next(
            (column for column in self.columns if wanted in map(stem, column.lower().split("_"))), None
        )

    def _aggregate(self) -> str | None:
        for word in self.sentence:
            function = _AGGREGATES.get(word.lower)
            if function is None:
                continue
            after = [other for other in self.sentence if other.start > word.start][:3]
            for other in after:
                for column in self.columns:
                    if other.stem in map(stem, column.lower().split("_")):
                        return f"{function}({column}) AS {word.lower}_{column}"
        return None

    def _where(self) -> str:
        clauses: list[str] = []
        for column, values in self.values.items():
            for value in values:
                if re.search(rf"\b{re.escape(value)}\b", self.text, re.IGNORECASE) and not _FORM.fullmatch(
                    value
                ):
                    clauses.append(f"{column} = '{_quoted(value)}'")
                    break
        for match in re.finditer(
            rf"\b(?:from|in|living in|based in) (?:the )?((?:[A-Z][\w'-]+\b)(?: [A-Z][\w'-]+\b)*){_NO_PLACE}",
            self.text,
        ):
            place = self._column(_PLACES)
            if place and not any(_quoted(match[1]) in clause for clause in clauses):
                clauses.append(f"{place} = '{_quoted(match[1])}'")
        for match in re.finditer(r"\b(?:named|called) ((?:[A-Z][\w'-]+)(?: [A-Z][\w'-]+)*)", self.text):
            name = self._column(("name", "title"))
            if name:
                clauses.append(f"{name} LIKE '%{_quoted(match[1])}%'")
        for column in self.columns:
            spoken = re.escape(column.replace("_", " "))
            said = re.search(rf"\b{spoken} (?:is |equals |equal to |= ?)'?(\w+)", self.text, re.IGNORECASE)
            if said and said[1].lower() not in STOP:
                value = said[1]
                clauses.append(f"{column} = {value}" if value.isdigit() else f"{column} = '{_quoted(value)}'")
        clauses += self._comparison()
        return f" WHERE {' AND '.join(clauses)}" if clauses else ""

    def _comparison(self) -> list[str]:
        match = re.search(
            r"\b(over|above|more than|greater than|under|below|less than|cheaper than)\b", self.lower
        )
        if match is None:
            return []
        sign = ">" if match[1] in ("over", "above", "more than", "greater than") else "<"
        after = len(self.lower[: match.end()].split())
        said = next((number for number in numbers(self.sentence) if number.first >= after), None)
        column = self._mentioned(
            [c for c in self.columns if any(a in c.lower() for a in _AMOUNTS)]
        ) or self._column(("price",) if match[1] == "cheaper than" else _AMOUNTS)
        return [f"{column} {sign} {said.value:g}"] if said and column else []

    def _order(self) -> str:
        if re.search(rf"\b(?:{_NEWEST}|{_OLDEST})\b", self.lower):
            column = self._date()
            up = re.search(rf"\b(?:{_OLDEST})\b", self.lower)
        elif re.search(
            r"\b(?:top|best|highest|largest|biggest|expensive|cheapest|lowest|smallest)\b", self.lower
        ):
            up = re.search(r"\b(?:cheapest|lowest|smallest)\b", self.lower)
            match = re.search(r"\bby (\w+)", self.lower)
            named = match and next(
                (c for c in self.columns if stem(match[1]) in map(stem, c.lower().split("_"))), None
            )
            column = named or self._mentioned(
                [c for c in self.columns if any(a in c.lower() for a in _AMOUNTS)]
            )
            column = column or self._column(_AMOUNTS)
        else:
            match = re.search(r"\b(?:sorted|ordered|sort|order) by (\w+)", self.lower)
            column = next(
                (c for c in self.columns if match and stem(match[1]) in map(stem, c.lower().split("_"))), None
            )
            up = re.search("", "")
        return f" ORDER BY {column}{'' if up else ' DESC'}" if column else ""

    def _date(self) -> str | None:
        """The column that says when a row came to be, by the form of its values, else by its name."""
        shown = (column for column in self.columns if any("YYYY" in v for v in self.values.get(column, ())))
        ended = (column for column in self.columns if column.lower().endswith(_DATE_ENDS))
        return next(shown, None) or self._column(_DATE_NAMES) or next(ended, None)

    def _limit(self) -> int:
        superlative = rf"(?:{_NEWEST}|{_OLDEST}|{_EXTREME})"
        for pattern in (
            rf"\b(?:top|first|only|limit|{superlative}) (?:the )?([\w-]+)",
            rf"\b([\w-]+) (?:most |least )?(?:most|rows|{superlative})\b",
        ):
            for match in re.finditer(pattern, self.lower):
                value = (
                    int(match[1]) if match[1].isdigit() else SMALL.get(match[1], ORDINALS.get(match[1], 0))
                )
                if 0 < value <= 1000:
                    return value
        # "the oldest order" is one.
        single = re.search(rf"\b{superlative} (\w+)\b", self.lower)
        if single and not single[1].endswith("s") and stem(single[1]) == stem(self.table.lower()):
            return 1
        return DEFAULT_LIMIT


def _quoted(value: str) -> str:
    return value.replace("'", "''")
