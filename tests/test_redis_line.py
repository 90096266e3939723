"""The line to Redis: answers in step whatever is given up, causes with remedies, TLS, users, no secret told."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis_server import NEEDS_REDIS, Authority, RedisServer, running

from tornado_live.errors import ConfigError
from tornado_live.observe.logs import configure
from tornado_live.sessions.redis_line import Away, Call, Line, Refused
from tornado_live.sessions.redis_scripts import Script

pytestmark = NEEDS_REDIS
PATIENT = 30.0


def script(text: str) -> Script:
    return Script("of a test", text, hashlib.sha1(text.encode()).hexdigest(), writes=True)


ECHO = script("return ARGV[1]")


def echo(word: str) -> Call:
    return Call(ECHO, [], [word])


@asynccontextmanager
async def line_to(url: str, *, deadline_s: float = PATIENT, connections: int = 16) -> AsyncIterator[Line]:
    line = Line(url, deadline_s=deadline_s, connections=connections)
    try:
        yield line
    finally:
        await line.close()


async def cause_of(line: Line) -> str:
    with pytest.raises(Away) as away:
        await line.ask(echo("x"))
    assert away.value.do
    return away.value.cause


async def test_what_is_cancelled_at_any_moment_answers_nobody_else(tmp_path: Path) -> None:
    chance = random.Random(6)
    with running(tmp_path) as server:
        async with line_to(server.url, connections=3) as line:

            async def cut_short(word: str, turns: int) -> None:
                asking = asyncio.get_running_loop().create_task(line.ask(echo(word)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                asking.cancel()
                try:
                    assert await asking == word.encode()
                except asyncio.CancelledError:
                    pass

            for round in range(150):
                words = [f"{round}/{number}" for number in range(6)]
                cut = [cut_short(f"given up {word}", chance.randrange(14)) for word in words]
                kept = [line.ask(echo(word)) for word in words]
                together = [*cut, *kept]
                chance.shuffle(together)
                await asyncio.gather(*together)
                answers = await asyncio.gather(*(line.ask(echo(word)) for word in words))
                assert answers == [word.encode() for word in words]


@pytest.mark.proves("F30")
async def test_answers_that_come_after_the_deadline_are_nobodys(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with line_to(server.url, deadline_s=0.05, connections=4) as line:
            with server.hung():
                late = await asyncio.gather(
                    *(line.ask(echo(f"late {number}")) for number in range(12)), return_exceptions=True
                )
            assert [type(answer) for answer in late] == [Away] * 12
            assert line.failing == "timeout"
        async with line_to(server.url, connections=4) as line:
            with server.hung():
                asking = [asyncio.get_running_loop().create_task(line.ask(echo("late"))) for _ in range(4)]
                await asyncio.sleep(0)
                for each in asking:
                    each.cancel()
                await asyncio.wait(asking)
            words = [str(number) for number in range(40)]
            assert await asyncio.gather(*(line.ask(echo(word)) for word in words)) == [
                word.encode() for word in words
            ]


async def test_no_more_connections_are_opened_than_there_may_be(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as onlooker:
        async with line_to(server.url, connections=3) as line:
            await asyncio.gather(*(line.ask(echo("x")) for _ in range(50)))
            assert len(onlooker.client_list()) == 3 + 1


async def test_scripts_that_redis_forgot_are_given_to_it_again(tmp_path: Path) -> None:
    with running(tmp_path) as server, server.client() as other:
        async with line_to(server.url) as line:
            assert await line.ask(echo("one")) == b"one"
            other.script_flush()
            assert await line.ask_all([echo("two"), echo("three")]) == [b"two", b"three"]


async def test_what_will_never_be_done_is_told_from_what_may_be_later(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        async with line_to(server.url) as line:
            wrong = Call(script("redis.call('SET', 'a', 1) return redis.call('LPUSH', 'a', 1)"), [], [])
            with pytest.raises(Refused, match="WRONGTYPE"):
                await line.ask(wrong)
            answers = await line.ask_all([echo("before"), wrong, echo("behind")])
            assert [type(answer) for answer in answers] == [bytes, Refused, bytes]
            assert line.failing is None


async def test_a_full_redis_says_so(tmp_path: Path) -> None:
    write = Call(script("return redis.call('SET', 'a', 1)"), [], [])
    with running(tmp_path) as server, server.client() as other:
        async with line_to(server.url) as line:
            other.config_set("maxmemory", "1")
            with pytest.raises(Away) as away:
                await line.ask(write)
            assert (away.value.cause, away.value.do) == ("full", "raise Redis's maxmemory, or free memory")
            other.config_set("maxmemory", "0")
            assert await line.ask(write) == b"OK"


async def test_a_replica_says_so(tmp_path: Path) -> None:
    write = Call(script("return redis.call('SET', 'a', 1)"), [], [])
    with running(tmp_path) as server, server.client() as other:
        async with line_to(server.url) as line:
            other.replicaof("127.0.0.1", 1)
            with pytest.raises(Away) as away:
                await line.ask(write)
            assert away.value.cause == "read_only"
            other.replicaof("NO", "ONE")
            assert await line.ask(write) == b"OK"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk", "no_disk"),
        ("NOREPLICAS Not enough good replicas to write.", "no_replicas"),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "busy"),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "no_primary"),
        ("CLUSTERDOWN Hash slot not served", "cluster"),
        ("MOVED 3999 127.0.0.1:6381", "cluster"),
        ("CROSSSLOT Keys in request don't hash to the same slot", "cluster"),
        ("ERR max number of clients reached", "connections"),
        ("NOAUTH Authentication required.", "password"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "no_permission"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "full"),
        ("ERR Error running script (call to f_0): @user_script:1: -OOM command not allowed", "full"),
        ("READONLY You can't write against a read only replica.", "read_only"),
    ],
)
async def test_what_redis_says_has_a_cause_and_a_remedy(said: str, cause: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                writer.write(f"-{said}\r\n".encode())
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        async with line_to(f"redis://127.0.0.1:{port}/0") as line:
            assert await cause_of(line) == cause
    finally:
        server.close()
        await server.wait_closed()


async def test_who_hangs_up_in_the_middle_of_an_answer_is_unreachable() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(b"$100\r\nhalf")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        async with line_to(f"redis://127.0.0.1:{port}/0") as line:
            assert await cause_of(line) == "unreachable"
    finally:
        server.close()
        await server.wait_closed()


# Users, passwords, TLS


async def test_a_user_of_redis_is_let_in_with_the_password_and_not_without(tmp_path: Path) -> None:
    (tmp_path / "users.acl").write_text("user default off\nuser voice on >p%2Fw-not-secret +@all ~* &*\n")
    with running(tmp_path, "--aclfile", str(tmp_path / "users.acl")) as server:
        for url, cause in (
            (server.url, "password"),
            (server.url_of("voice", "wrong-not-secret"), "password"),
            (server.url_of("nobody", "p%252Fw-not-secret"), "password"),
        ):
            async with line_to(url) as line:
                assert await cause_of(line) == cause
        async with line_to(server.url_of("voice", "p%252Fw-not-secret")) as line:
            assert await line.ask(echo("in")) == b"in"


async def test_a_user_without_rights_is_told_where_they_are_listed(tmp_path: Path) -> None:
    (tmp_path / "users.acl").write_text("user default on nopass -@all +ping ~* &*\n")
    with running(tmp_path, "--aclfile", str(tmp_path / "users.acl")) as server:
        async with line_to(server.url) as line:
            with pytest.raises(Away) as away:
                await line.ask(echo("x"))
            assert away.value.cause == "no_permission"
            assert "docs/redis.md" in away.value.do
    (tmp_path / "users.acl").write_text("user default on nopass +evalsha +eval ~mine:* &*\n")
    write = script("return redis.call('SET', 'theirs:a', 1)")
    with running(tmp_path, "--aclfile", str(tmp_path / "users.acl")) as server:
        async with line_to(server.url) as line:
            with pytest.raises(Away) as away:
                await line.ask(Call(write, [], []))
            assert away.value.cause == "no_permission"


async def test_over_tls_the_certificate_is_checked(tmp_path: Path) -> None:
    authority = Authority.made(tmp_path, "localhost")
    with running(tmp_path, tls=authority) as server:
        async with line_to(server.url) as line:
            assert await line.ask(echo("safe")) == b"safe"
            async with line.subscribed("news") as connection, line_to(server.url) as other:
                await other.ask(Call(script("return redis.call('PUBLISH', 'news', 'hello')"), [], []))
                assert await connection.read_response() == [b"message", b"news", b"hello"]
        for url in (
            f"rediss://localhost:{server.port}/0",
            server.url.replace("localhost", "127.0.0.1"),
        ):
            async with line_to(url) as line:
                assert await cause_of(line) == "certificate"


async def test_redis_may_be_reached_by_a_socket_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with running(tmp_path, "--unixsocket", str(path), "--requirepass", "not-secret-1"):
        async with line_to(f"unix://{path}?password=not-secret-1&db=3") as line:
            assert await line.ask(echo("near")) == b"near"


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("?ssl_ca_cert=/x", 'did you mean "ssl_ca_certs"?'),
        ("?socket_timeout=5", '"socket_timeout" is no parameter that can be set'),
        ("?db=first", "db"),
        ("?ssl_ca_certs=/nowhere/ca.pem", "TLS parameters cannot be used"),
        ("?ssl_cert_reqs=maybe", "TLS parameters cannot be used"),
    ],
)
async def test_an_address_that_cannot_be_used_is_told_without_its_password(
    parameters: str, told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Line("rediss://voice:not-secret-2@localhost:1/0" + parameters)
    assert told in str(refused.value)
    assert str(refused.value).startswith("REDIS_URL: ")
    assert "not-secret-2" not in str(refused.value)


async def test_no_log_shows_the_password(tmp_path: Path) -> None:
    log = io.StringIO()
    configure("debug", log)
    try:
        server = RedisServer(tmp_path, "--requirepass", "not-secret-3")
        async with line_to(server.url_of("default", "not-secret-4")) as line:
            assert await cause_of(line) == "unreachable"
            server.start()
            assert await cause_of(line) == "password"
        server.close()
    finally:
        logging.getLogger().handlers.pop()
    assert "redis_failed" in log.getvalue()
    assert "not-secret-4" not in log.getvalue()


async def test_what_fails_again_and_again_is_logged_once_and_its_end_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = RedisServer(tmp_path)
    async with line_to(server.url) as line:
        for _ in range(5):
            assert await cause_of(line) == "unreachable"
        server.start()
        try:
            for _ in range(5):
                assert await line.ask(echo("x")) == b"x"
        finally:
            server.close()
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events.count("redis_failed") == 1
    assert events.count("redis_recovered") == 1
