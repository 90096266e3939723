"""The log's lines: one JSON object each, whatever goes in, and never a secret."""

from __future__ import annotations

import base64
import enum
import io
import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tornado_live.observe.logs import MASK, JsonLines, Masker, configure, log_event

logger = logging.getLogger("tornado_live.tests")


class Log:
    def __init__(self, stream: io.StringIO, masker: Masker) -> None:
        self.stream = stream
        self.mask = masker.mask

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        [line] = self.lines
        return line


@contextmanager
def configured(level: str = "info") -> Iterator[Log]:
    """A log into memory; the process's logging is as before afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    level_before = root.level
    levels = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "asyncio", "websockets")}
    masker = configure(level, stream)
    try:
        yield Log(stream, masker)
    finally:
        logging.captureWarnings(False)
        root.setLevel(level_before)
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)
        for handler in root.handlers[:]:
            if isinstance(handler, JsonLines):
                root.removeHandler(handler)


def test_an_event_is_one_line_with_its_fields() -> None:
    with configured() as log:
        log_event(logger, "tool_finished", name="get_weather", ms=12, ok=True, args={"location": "New York"})
        line = log.line
        assert line.pop("time").endswith("Z")
        assert line == {
            "level": "info",
            "event": "tool_finished",
            "logger": "tornado_live.tests",
            "name": "get_weather",
            "ms": 12,
            "ok": True,
            "args": {"location": "New York"},
        }


def test_lines_of_other_packages_carry_their_text() -> None:
    with configured() as log:
        logging.getLogger("tornado.general").warning("SSL %s on %d", "Error", 3)
        line = log.line
        assert (line["level"], line["event"], line["message"]) == ("warning", "message", "SSL Error on 3")


def test_an_error_brings_its_traceback_in_the_same_line() -> None:
    with configured() as log:
        try:
            int("x")
        except ValueError as error:
            log_event(logger, "store_failed", level=logging.ERROR, error=error)
        assert log.line["error"] == "ValueError: invalid literal for int() with base 10: 'x'"
        assert log.line["traceback"].startswith("Traceback")


def test_the_level_decides() -> None:
    with configured("WARNING") as log:
        log_event(logger, "quiet")
        log_event(logger, "loud", level=logging.WARNING)
        assert log.line["event"] == "loud"


def test_configuring_again_replaces_the_handler() -> None:
    with configured() as first, configured() as second:
        log_event(logger, "once")
        assert first.lines == []
        assert second.line["event"] == "once"


def test_a_warning_of_python_is_a_line() -> None:
    with configured() as log, warnings.catch_warnings():
        warnings.simplefilter("always")
        configure("info", log.stream)
        warnings.warn("old spelling", UserWarning, stacklevel=1)
        assert "UserWarning: old spelling" in log.line["message"]


def test_a_field_cannot_take_the_place_of_the_lines_own() -> None:
    with configured() as log:
        log_event(logger, "turn_ended", **{"time": "never", "event": "other", "logger": "x"})
        line = log.line
        assert (line["event"], line["event_"], line["time_"], line["logger_"]) == (
            "turn_ended",
            "other",
            "never",
            "x",
        )


KEY = "AIzaSyD-EXAMPLE_not_a_real_key_000000000"


TICKET = "tlt_" + "obviously-no-real-ticket-0123456789_abcdefg"
API_KEY = "tl_0123456789ab_" + "obviously-no-real-key-0123456789_abcdefghij"
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJub2JvZHkifQ.bm90LWEtc2lnbmF0dXJl"


@pytest.mark.proves("T47", "T50")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"dialling with {KEY}.", "dialling with ***."),
        (f"wss://host/ws?alt=ws&key={KEY}&x=1", "wss://host/ws?alt=ws&key=***&x=1"),
        ("GET /v1?access_token=abc.def HTTP/1.1", "GET /v1?access_token=*** HTTP/1.1"),
        ("GET /v1?api_key=short", "GET /v1?api_key=***"),
        ("Authorization: Bearer abcdefgh.ijk", "Authorization: ***"),
        ("subprotocol bearer abcdefgh-ijk", "subprotocol bearer ***"),
        ("{'x-goog-api-key': 'anything at all'}", "{'x-goog-api-key': '*** at all'}"),
        ("token eyJhbGciOi.eyJzdWIi.c2ln end", "token *** end"),
        ("postgres://shop:hunter2@db/shop", "postgres://***@db/shop"),
        (f"the ticket {TICKET}, once", "the ticket ***, once"),
        (f"key {API_KEY}", "key ***"),
        (f"/ws?ticket={TICKET}&sessionId=s1", "/ws?ticket=***&sessionId=s1"),
        ("/ws#jwt=anything", "/ws#jwt=***"),
        ("token=abc&x=1", "token=***&x=1"),
        ("name auth_tokens/0123456789abcdef", "name ***"),
        (f"tornado-live, bearer.{TICKET}", "tornado-live, bearer.***"),
        (f"bearer.{JWT}", "bearer.***"),
        (JWT.rpartition(".")[0], "***"),
        ("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----.", "***."),
        ("-----BEGIN EC PRIVATE KEY-----\nMIIB", "***"),
        ("the key of the answer is 42", "the key of the answer is 42"),
        ("tl_ and tlt_short, auth_tokens/ and eyJ.a", "tl_ and tlt_short, auth_tokens/ and eyJ.a"),
        ("?sessionId=abc", "?sessionId=abc"),
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str, shown: str) -> None:
    with configured() as log:
        logger.info("%s", text)
        log_event(logger, "x", text=text, deep=[{"text": (text,)}])
        plain, event = log.lines
        assert plain["message"] == event["text"] == shown
        assert event["deep"] == [{"text": [shown]}]


@pytest.mark.proves("T50")
@pytest.mark.parametrize("credential", [KEY, TICKET, API_KEY, JWT, "auth_tokens/0123456789abcdef"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_is_percent_encoded_is_masked_however_much_of_it_is(credential: str, times: int) -> None:
    masker = Masker()
    for encoded in (quote(credential, safe=""), "".join(f"%{byte:02x}" for byte in credential.encode())):
        for _ in range(times - 1):
            encoded = quote(encoded, safe="")
        shown = masker.text(f"GET /ws?x={encoded}&y=a%20b HTTP/1.1")
        assert MASK in shown
        assert encoded not in shown
        assert credential[-12:] not in shown
    assert masker.text(f"/ws?access%5Ftoken={times}&a=1") == "/ws?access_token=***&a=1"
    assert (
        masker.text("/api/sessions?after=a%2Fb%20%E2%82%AC%ff%")
        == "/api/sessions?after=a%2Fb%20%E2%82%AC%ff%"
    )


@pytest.mark.proves("T50")
def test_a_registered_secret_shows_in_no_form_in_the_middle_of_others() -> None:
    masker = Masker()
    secret = 'correct "horse"/battery+staple é'
    masker.mask(secret)
    for before in ("", "a", "ab", "user:", "é"):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(f"{before}{secret}:after".encode()).decode()
            assert whole[8:-12] not in masker.text(whole)
    assert "horse" not in masker.text(json.dumps({"say": json.dumps({"password": secret})}))
    assert "horse" not in masker.text(f"/x?q={quote(secret).lower()}&p={quote(quote(secret))}")


@pytest.mark.proves("T29", "T50")
@pytest.mark.parametrize(
    "piece",
    ["AIza", "%41", "%2525", "eyJaaaa.", "?key", "a://:", "bearer ", "authorization: ", "-----BEGIN "],
)
def test_long_texts_take_no_longer_than_their_length(piece: str) -> None:
    """Measured as what it costs more for ten times the text: twenty times would be a square's beginning."""
    masker = Masker()
    masker.mask(KEY)

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        taken = []
        for _ in range(5):
            begun = time.thread_time()
            masker.text(text)
            taken.append(time.thread_time() - begun)
        return min(taken)

    assert seconds(200_000) < 40 * seconds(20_000) + 0.01


@pytest.mark.proves("T47")
@given(secret=st.text(min_size=6, max_size=40), around=st.text(max_size=10))
def test_a_registered_secret_shows_in_no_form(secret: str, around: str) -> None:
    masker = Masker()
    masker.mask(secret)
    encoded = secret.encode()
    for form in (secret, quote(secret, safe=""), base64.b64encode(encoded).decode().rstrip("=")):
        assert form not in masker.text(f"{around}<{form}>").replace("***", "\0")


def test_a_secret_in_an_exception_is_masked_there_and_in_its_traceback() -> None:
    with configured() as log:
        log.mask("correct horse battery")
        try:
            raise RuntimeError("refused: correct horse battery")
        except RuntimeError as error:
            log_event(logger, "x", error=error, cause=error)
        assert log.line["cause"] == "RuntimeError: refused: ***"
        assert "correct horse" not in log.stream.getvalue()


def test_fields_named_as_secrets_are_masked_and_counts_are_not() -> None:
    with configured() as log:
        log_event(logger, "x", api_key="k", access_token="t", tokens=5, output_tokens="7", monkey="banana")
        log_event(logger, "x", headers={"Authorization": "z", "Accept": "json"}, secret=SecretStr("s3cret!"))
        first, second = log.lines
        assert (first["api_key"], first["access_token"]) == ("***", "***")
        assert (first["tokens"], first["output_tokens"], first["monkey"]) == (5, "7", "banana")
        assert second["headers"] == {"Authorization": "***", "Accept": "json"}
        assert "s3cret!" not in log.stream.getvalue()


def test_a_secret_too_short_to_tell_from_words_is_not_registered() -> None:
    masker = Masker()
    masker.mask("")
    masker.mask("a")
    assert masker.text("a banana") == "a banana"


class Colour(enum.Enum):
    RED = "red"


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.proves("T29")
@given(value=JSONISH, text=st.text(st.characters(codec=None)))
def test_whatever_goes_in_comes_out_as_one_line_of_printable_ascii(value: object, text: str) -> None:
    with configured() as log:
        log_event(logger, "x", value=value, text=text)
        logger.info("%s", text)
        written = log.stream.getvalue()
        assert len(log.lines) == 2
        assert written.count("\n") == 2
        assert written.replace("\n", "").isprintable()
        assert written.isascii()


@pytest.mark.proves("T29")
def test_a_forged_line_stays_inside_its_field() -> None:
    forged = 'x\r\n{"event": "paid"}\x1b[31m\u2028'
    with configured() as log:
        log_event(logger, "x", user=forged)
        assert log.line["user"] == forged


@pytest.mark.proves("T50")
@pytest.mark.parametrize("before", [0, 4000, 4090, 8150, 8185])
def test_no_half_of_a_secret_is_left_where_a_text_is_cut(before: int) -> None:
    secret = "correct-horse-battery-staple"
    for filler in ("y" * before, ("?key=abcdefgh&" * 2000)[:before]):
        with configured() as log:
            log.mask(secret)
            log_event(logger, "x", text=filler + secret + "z" * 20_000)
            assert "correct" not in log.stream.getvalue()
            assert log.line["text"].endswith("…")


@pytest.mark.proves("T29")
def test_long_values_are_cut() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with configured() as log:
        log_event(
            logger, "x", text="y" * 1_000_000, many=list(range(100_000)), huge=10**5000, colour=Colour.RED
        )
        log_event(logger, "x", keys={f"k{n}": "v" * 10 for n in range(10_000)})
        assert len(log.stream.getvalue()) < 12_000
        assert log.lines[0]["text"] == "y" * 4095 + "…"
        assert log.lines[0]["colour"] == "Colour.RED"
        assert len(log.lines[0]["many"]) == 100
