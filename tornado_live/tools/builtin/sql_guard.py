"""What a query may ask, told from its syntax alone: one statement, only reading, listed tables.

For SQLite this is the first of two gates; its authorizer is the other. PostgreSQL has no authorizer, so here
everything is refused that is not known to be harmless, and what is sent is written anew from the syntax tree:
comments, quoting and whatever else two parsers might see differently do not reach the server.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, ParseError, SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from tornado_live.errors import nearest
from tornado_live.tools.result import ToolCode, ToolError

Dialect: TypeAlias = Literal["sqlite", "postgres"]

# It warns of statements that it only half understands, with their text. They are refused here.
logging.getLogger("sqlglot").setLevel(logging.CRITICAL)

LONGEST_QUERY: Final = 20_000
_MOST_TOKENS: Final = 3_000
_DEEPEST: Final = 50
# sqlglot 30.30 takes twice as long for each further ARRAY[ in an ARRAY[.
_DEEPEST_BRACKETS: Final = 4

_READ_ONLY: Final = "Only reading is allowed: one SELECT."
_OPENING: Final = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE})
_CLOSING: Final = frozenset({TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END})
_STARTS: Final = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.VALUES, TokenType.L_PAREN})
_BRACKETS: Final = frozenset({TokenType.L_BRACKET, TokenType.L_BRACE})

# Lambda is what sqlglot takes column -> 'key' for among the arguments of a function; it writes the same again.
_NODES: Final = frozenset(
    """
    Add Alias Aliases All And Any Array AtTimeZone Between BitwiseAnd BitwiseLeftShift BitwiseNot
    BitwiseOr BitwiseRightShift BitwiseXor Boolean Bracket CTE Case Cast Coalesce Collate Column ColumnDef
    Cube DPipe DataType DataTypeParam Distinct Div EQ Escape Except Exists Fetch Filter From GT GTE Group
    GroupingSets Having ILike Identifier If In Intersect Interval IntervalSpan Is JSONPath JSONPathKey
    JSONPathRoot JSONPathSubscript Join Kwarg LT LTE Lambda Lateral Like Limit LimitOptions Literal Mod
    Mul NEQ Neg Not Null NullSafeEQ NullSafeNEQ Offset Or Order Ordered Overlaps Paren Rollup Select
    SimilarTo Slice Star Sub Subquery Table TableAlias Tuple Union Unnest Values Var Where Window
    WindowSpec With WithinGroup
    """.split()  # noqa: SIM905 - a list of words
)
# By the names that PostgreSQL has for them and, where sqlglot knows them, by sqlglot's. Left out: whatever tells
# about the server or its other tables, writes, waits, runs SQL of its own, or makes much out of a number.
_FUNCTIONS: Final = frozenset(
    """
    abs age all any array array_agg array_contained_by array_contains_all array_length array_overlaps
    array_position array_size array_to_string ascii avg bit_length cardinality cbrt ceil char_length chr
    clock_timestamp coalesce concat concat_ws corr count covar_pop covar_samp cume_dist current_date
    current_timestamp date_bin date_part date_trunc degrees dense_rank every exists exp explode
    exploding_generate_series extract first_value floor gcd greatest group_concat initcap isfinite
    j_s_o_n_array_agg j_s_o_n_b_contains_all_top_keys j_s_o_n_b_contains_any_top_keys
    j_s_o_n_b_contains_top_key j_s_o_n_b_object_agg j_s_o_n_b_path_exists j_s_o_n_object_agg json_agg
    json_array_elements json_array_elements_text json_array_length json_build_array json_build_object
    json_each json_each_text json_extract json_extract_scalar json_object_agg json_object_keys json_typeof
    jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_contains jsonb_each jsonb_each_text jsonb_exists jsonb_extract
    jsonb_extract_path jsonb_extract_path_text jsonb_extract_scalar jsonb_object_keys jsonb_path_exists
    jsonb_typeof justify_days justify_hours justify_interval lag last_value lcm lead least left length ln
    localtimestamp log logical_and logical_or lower make_date make_interval max md5 min mode nth_value
    ntile nullif octet_length percent_rank percentile_cont percentile_disc pi pow power radians rand
    random rank regexp_count regexp_i_like regexp_like regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table regexp_substr replace reverse right round row row_number
    row_to_json scale sign some split_part sqrt starts_with statement_timestamp stddev stddev_pop
    stddev_samp str_position str_to_date str_to_time string_to_array substring sum time_to_str
    timestamp_from_parts timestamp_trunc to_json to_jsonb to_number transaction_timestamp translate trim
    trunc unix_to_time unnest upper variance variance_pop width_bucket
    """.split()  # noqa: SIM905 - a list of words
)
# Checked as nodes: these are functions to sqlglot alone.
_NO_FUNCTIONS: Final = frozenset({"And", "Or", "Case", "If", "Cast", "Collate"})
_TYPES: Final = frozenset(
    """
    ARRAY BIGDECIMAL BIGINT BOOLEAN CHAR DATE DECIMAL DOUBLE FLOAT INET INT INTERVAL JSON JSONB MONEY
    NCHAR NVARCHAR SMALLINT TEXT TIME TIMESTAMP TIMESTAMPTZ TIMETZ UUID VARBINARY VARCHAR
    """.split()  # noqa: SIM905 - a list of words
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view that may be read, and of it only `columns`; `whole` says that it has no others."""

    schema: str
    name: str
    columns: tuple[str, ...]
    whole: bool


def check_reading(sql: str, dialect: Dialect) -> exp.Expr:
    """The tree of a query that, by its syntax, only reads.

    Raises ToolError: invalid_arguments for what cannot be read as one statement, not_allowed for any other
    statement than a SELECT, too_large for a long or deep one.
    """
    tree = _parsed(sql, dialect)
    if not isinstance(tree, exp.Query | exp.Values) or isinstance(tree, exp.Table):
        raise ToolError(ToolCode.NOT_ALLOWED, _READ_ONLY)
    if tree.find(exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock) not in (None, tree):
        raise ToolError(ToolCode.NOT_ALLOWED, _READ_ONLY)
    return tree


def check_statement(sql: str, dialect: Dialect) -> None:
    """As far as can be told without understanding it, `sql` is one SELECT; the database knows the rest.

    Raises ToolError(invalid_arguments).
    """
    try:
        tokens = sqlglot.Dialect.get_or_raise(dialect).tokenize(sql)
    except SqlglotError as error:
        raise _incomplete() from error
    kinds = [token.token_type for token in tokens]
    while kinds and kinds[-1] is TokenType.SEMICOLON:
        kinds.pop()
    if not kinds or kinds[0] not in _STARTS:
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "The statement is not a SELECT.")
    if TokenType.SEMICOLON in kinds:
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "There is more than one statement.")


def tables_of(sql: str, dialect: Dialect) -> list[str]:
    """The tables and views that a statement names. Raises ToolError for one that is not understood."""
    tree = _parsed(sql, dialect)
    with_names = {_folded(cte.args["alias"].this) for cte in tree.find_all(exp.CTE)}
    found = []
    for table in tree.find_all(exp.Table, bfs=False):
        schema = table.args.get("db")
        name = _folded(table.this) if isinstance(table.this, exp.Identifier) else ""
        if name and (schema is not None or name not in with_names):
            found.append(f"{_folded(schema)}.{name}" if schema is not None else name)
    return list(dict.fromkeys(found))


def for_postgres(sql: str, relations: Mapping[str, Relation]) -> str:
    """The query as it is sent: every table by its full name, cut down to the columns that may be read.

    `relations` are what may be read by the names that queries use: `orders`, or `sales.orders` for a schema
    that is not on the search path. The result means what `sql` means only if nothing but pg_catalog is on the
    search path: a name that is left without its schema is that of a WITH query. Raises as `check_reading` does.
    """
    tree = check_reading(sql, "postgres")
    try:
        with_names = {_folded(cte.args["alias"].this) for cte in tree.find_all(exp.CTE)}
        for node in list(tree.walk()):
            _check(node)
        for table in list(tree.find_all(exp.Table)):
            _resolve(table, relations, with_names)
        for identifier in tree.find_all(exp.Identifier):
            identifier.set("this", _folded(identifier))
            identifier.set("quoted", True)
        return tree.sql(dialect="postgres", comments=False, unsupported_level=ErrorLevel.RAISE)
    except RecursionError:
        raise _too_large() from None
    except SqlglotError as error:
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "The query uses what is not supported.") from error


def _parsed(sql: str, name: Dialect) -> exp.Expr:
    if len(sql) > LONGEST_QUERY:
        raise _too_large()
    dialect = sqlglot.Dialect.get_or_raise(name)
    try:
        tokens = dialect.tokenize(sql)
        if len(tokens) > _MOST_TOKENS:
            raise _too_large()
        _check_depth(tokens)
        trees = [tree for tree in dialect.parser(error_level=ErrorLevel.IMMEDIATE).parse(tokens, sql) if tree]
    except ParseError as error:
        found = error.errors[0] if error.errors else {}
        near = str(found.get("highlight") or "")[:60]
        at = f' near "{near}"' if near else ""
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS, f"SQL error: syntax error{at}.", hint="Write one SELECT."
        ) from error
    except (SqlglotError, ValueError) as error:
        raise _incomplete() from error
    except RecursionError:
        raise _too_large() from None
    trees = [tree for tree in trees if not isinstance(tree, exp.Semicolon)]
    if not trees:
        raise ToolError(ToolCode.INVALID_ARGUMENTS, "There is no SELECT in the query.")
    if len(trees) > 1:
        raise ToolError(
            ToolCode.INVALID_ARGUMENTS,
            "The query has more than one statement.",
            hint="Send one SELECT at a time.",
        )
    return trees[0]


def _incomplete() -> ToolError:
    return ToolError(
        ToolCode.INVALID_ARGUMENTS, "SQL error: the query is not complete.", hint="Write one SELECT."
    )


def _too_large() -> ToolError:
    return ToolError(
        ToolCode.TOO_LARGE, "The query is too long or too deeply nested.", hint="Ask for less at a time."
    )


def _check_depth(tokens: Iterable[Token]) -> None:
    """Refuses what would cost the parser its stack or its time."""
    open_now: list[TokenType] = []
    for token in tokens:
        if token.token_type in _OPENING:
            open_now.append(token.token_type)
            brackets = sum(each in _BRACKETS for each in open_now)
            if len(open_now) > _DEEPEST or brackets > _DEEPEST_BRACKETS:
                raise _too_large()
        elif token.token_type in _CLOSING and open_now:
            open_now.pop()


def _check(node: exp.Expr) -> None:
    kind = type(node).__name__
    if isinstance(node, exp.Func) and kind not in _NO_FUNCTIONS:
        name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
        if name not in _FUNCTIONS:
            raise ToolError(ToolCode.NOT_ALLOWED, f'The function "{_written(node, name)}" may not be used.')
        return
    if isinstance(node, exp.DataType) and getattr(node.this, "name", "") not in _TYPES:
        raise ToolError(ToolCode.NOT_ALLOWED, f'The type "{node.sql("postgres")[:60]}" may not be used.')
    if kind not in _NODES:
        raise ToolError(
            ToolCode.NOT_ALLOWED,
            f'"{node.sql("postgres")[:60]}" may not be used here.',
            hint="Write a plain SELECT.",
        )
    # Text that goes into the query as it is.
    if isinstance(node, exp.Var) and not node.name.replace("_", "").replace(" ", "").isalnum():
        raise ToolError(ToolCode.NOT_ALLOWED, f'"{node.name[:60]}" may not be used here.')


def _written(node: exp.Func, name: str) -> str:
    if isinstance(node, exp.Anonymous):
        return name
    return node.sql("postgres").partition("(")[0].lower()[:60]


def _resolve(table: exp.Table, relations: Mapping[str, Relation], with_names: set[str]) -> None:
    if not isinstance(table.this, exp.Identifier):
        return  # a function in FROM, checked as one
    if table.args.get("only"):
        raise ToolError(ToolCode.NOT_ALLOWED, "ONLY may not be used.")
    name, schema = _folded(table.this), _folded(table.args["db"]) if table.args.get("db") else ""
    if not schema and name in with_names:
        if name in relations or name.startswith("pg_"):
            raise ToolError(
                ToolCode.NOT_ALLOWED,
                f'"{name}" is a WITH query and a table.',
                hint="Give the WITH query a name that no table has.",
            )
        return
    relation = _found(name, schema, relations) if not table.args.get("catalog") else None
    if relation is None:
        shown = f"{schema}.{name}" if schema else name
        raise ToolError(
            ToolCode.NOT_ALLOWED,
            f'There is no table "{shown}" that may be read.',
            hint=f"Tables that may be read: {', '.join(relations)}{nearest(shown, relations)}",
        )
    alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(name, quoted=True))
    table.set("this", exp.to_identifier(relation.name, quoted=True))
    table.set("db", exp.to_identifier(relation.schema, quoted=True))
    if relation.whole:
        return
    columns = [exp.column(exp.to_identifier(each, quoted=True)) for each in relation.columns]
    kept = {key: table.args.pop(key) for key in ("joins", "laterals") if table.args.get(key)}
    table.set("alias", None)
    place = exp.Subquery(alias=alias.copy())
    table.replace(place)
    place.set("this", exp.Select(expressions=columns).from_(table, copy=False))
    for key, value in kept.items():
        place.set(key, value)


def _found(name: str, schema: str, relations: Mapping[str, Relation]) -> Relation | None:
    if not schema:
        return relations.get(name)
    return next((each for each in relations.values() if (each.schema, each.name) == (schema, name)), None)


def _folded(identifier: exp.Expr) -> str:
    """The name that PostgreSQL reads: in lower case unless it is in quotes (of ASCII only, as in UTF-8)."""
    name = identifier.name
    if identifier.args.get("quoted"):
        return name
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A :name in a statement, from `start` up to `end`."""

    name: str
    start: int
    end: int


def placeholders(sql: str, dialect: Dialect) -> list[Placeholder]:
    """Where a statement names parameters; what looks like one in a text, a comment or a cast is none.

    Raises ToolError(invalid_arguments).
    """
    try:
        tokens = sqlglot.Dialect.get_or_raise(dialect).tokenize(sql)
    except SqlglotError as error:
        raise _incomplete() from error
    found = []
    for colon, name in pairwise(tokens):
        touches = colon.end + 1 == name.start and not re.match(r"[\w\])]", sql[colon.start - 1 : colon.start])
        if colon.token_type is TokenType.COLON and touches and re.fullmatch(r"[A-Za-z_]\w*", name.text):
            found.append(Placeholder(name.text, colon.start, name.end + 1))
    return found
