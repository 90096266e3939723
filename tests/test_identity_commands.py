"""The commands of `tornado-live token`: what people read, what a pipe gets, and what the server makes of it."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from redis_server import NEEDS_REDIS, running
from serving import Server, nobody_listens

from tornado_live.__main__ import main
from tornado_live.access.commands import FAILED, OK, Asked, block, create, revoke, show_all
from tornado_live.errors import ConfigError
from tornado_live.settings import Settings, load_settings

KEY = re.compile(r"tl_[a-z0-9]{12}_[A-Za-z0-9_-]{43}\n", re.ASCII)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=NEEDS_REDIS)])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """Of a server that asks for keys, with either store."""
    with ExitStack() as owned:
        given = {"AUTH__MODES": "api_key", "LIMITS__REQUESTS_PER_MINUTE": "off"}
        if request.param == "redis":
            folder = tmp_path / "redis"
            folder.mkdir()
            given["REDIS_URL"] = owned.enter_context(running(folder)).url
        yield given


def settings(home: Path, environ: Mapping[str, str] | None = None) -> Settings:
    return load_settings(home=home, config=None, environ=environ or {"AUTH__MODES": "api_key"}, overrides={})


class Typed:
    """What was printed by commands with these settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.out = io.StringIO()
        self.told = io.StringIO()

    async def create(self, asked: Asked) -> int:
        return await create(self.settings, asked, self.out, self.told)

    async def list(self) -> int:
        return await show_all(self.settings, self.out, self.told)

    async def revoke(self, named: str) -> int:
        return await revoke(self.settings, named, self.out, self.told)

    async def block(self, lasts: str = "24h", **subjects: str) -> int:
        return await block(self.settings, subjects, lasts, self.out, self.told)

    def read(self) -> tuple[str, str]:
        """What was printed since."""
        printed = self.out.getvalue(), self.told.getvalue()
        self.out, self.told = io.StringIO(), io.StringIO()
        self.out.seek(0)
        return printed


async def made(typed: Typed, name: str = "web") -> str:
    assert await typed.create(Asked(name)) == OK
    return typed.read()[0].strip()


async def test_create_prints_the_key_alone_and_beside_it_what_it_may_do(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    typed = Typed(settings(tmp_path, environ))
    asked = Asked(
        "web", "ann", ("operator", "nurse"), "default", "90d", ("cost_per_day=5", "conversation_s=60")
    )
    assert await typed.create(asked) == OK
    out, told = typed.read()
    assert KEY.fullmatch(out)
    lines = told.splitlines()
    assert lines[0] == 'This is the API key "web". It is shown once: only a hash of it is kept.'
    ends = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 90 * 86_400))
    said = {line[:12].strip(): line[13:] for line in lines[1:]}
    assert said["id"] == out[3:15]
    assert said["acts for"] == "ann"
    assert said["roles"] == "nurse, operator (metrics, every tool by REST)"
    assert said["assistant"] == "default"
    assert said["limits"] == "conversation_s=60, cost_per_day=5"
    assert said["ends"].startswith(ends)
    assert said["kept in"] == str(tmp_path / "data") or said["kept in"].startswith("Redis at 127.0.0.1:")
    assert out[16:].strip() not in told


async def test_list_is_a_table_without_secrets(tmp_path: Path, environ: Mapping[str, str]) -> None:
    typed = Typed(settings(tmp_path, environ))
    assert await typed.list() == OK
    assert typed.read()[0].startswith("There are no API keys in ")
    web = await made(typed)
    assert await typed.create(Asked("app", "ann", ("backend",), None, "12h", ("cost_per_day=0.5",))) == OK
    app = typed.read()[0]
    assert await typed.list() == OK
    out, told = typed.read()
    head, *rows = [re.split(r"  +", line) for line in out.splitlines()]
    assert head == ["ID", "NAME", "ACTS FOR", "ROLES", "ASSISTANT", "LIMITS", "MADE", "ENDS"]
    by_name = {row[1]: row for row in rows}
    assert by_name["web"][:6] == [web[3:15], "web", "key:web", "-", "-", "-"]
    assert by_name["web"][7] == "never"
    assert by_name["app"][:6] == [app[3:15], "app", "ann", "backend", "-", "cost_per_day=0.5"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", by_name["app"][7])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", by_name["web"][6])
    assert told == ""
    assert web[16:] not in out
    assert app[16:] not in out


async def test_a_key_is_revoked_by_its_id_by_its_name_or_by_itself(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    typed = Typed(settings(tmp_path, environ))
    first, second, third = [await made(typed, name) for name in ("first", "second", "third")]
    for named, name, key in (
        (first[3:15], "first", first),
        ("second", "second", second),
        (third, "third", third),
    ):
        assert await typed.revoke(named) == OK
        out, _ = typed.read()
        assert out.startswith(f'The API key "{name}" ({key[3:15]}) is revoked. Whoever talks with it is sent')
        assert await typed.revoke(named) == FAILED
        assert "There is no API key" in typed.read()[1]
    await typed.list()
    assert "There are no API keys" in typed.read()[0]


async def test_a_name_is_given_once_and_a_near_miss_is_told(tmp_path: Path) -> None:
    typed = Typed(settings(tmp_path))
    await made(typed)
    with pytest.raises(ConfigError, match='--name: there is a key "web" already'):
        await typed.create(Asked("web"))
    assert await typed.revoke("wep") == FAILED
    assert typed.read() == ("", 'There is no API key "wep" - did you mean "web".\n')
    assert await typed.revoke("\x1b[2J") == FAILED
    assert typed.read() == ("", 'There is no API key "?[2J" that has not ended.\n')


async def test_every_mistake_is_told_at_once_and_nothing_is_made(tmp_path: Path) -> None:
    typed = Typed(settings(tmp_path))
    asked = Asked(
        "we b",
        "local",
        ("a b", ""),
        "shop",
        "90",
        ("cost=1", "cost_per_day=x", "cost_per_day=-1", "cost_per_day"),
    )
    with pytest.raises(ConfigError) as refused:
        await typed.create(asked)
    told = str(refused.value).splitlines()
    options = [line.split(": ")[1] for line in told]
    assert options == ["--name", "--user", *["--role"] * 2, "--assistant", *["--limit"] * 4, "--expires"]
    assert "a key may have audio_s_per_day, conversation_s," in str(refused.value)
    assert '"90" is no length of time: 12h, 90d, at most 3650d' in told[-1]
    for expires in ("0d", "-1d", "1y", "99999d", "1.5h", "", "٣d"):
        with pytest.raises(ConfigError, match="is no length of time"):
            await typed.create(Asked("web", expires=expires))
    for user in ("", " ", "key:web", "a\nb", "x" * 257):
        with pytest.raises(ConfigError, match="--user"):
            await typed.create(Asked("web", user=user))
    await typed.list()
    assert "There are no API keys" in typed.read()[0]


async def test_where_no_server_takes_keys_that_is_told(tmp_path: Path) -> None:
    typed = Typed(settings(tmp_path, {"AUTH__MODES": "none"}))
    assert await typed.create(Asked("web")) == OK
    assert "warning: auth.modes has no api_key" in typed.read()[1]


async def test_a_store_out_of_reach_is_told_in_words(tmp_path: Path) -> None:
    with nobody_listens() as port:
        typed = Typed(settings(tmp_path, {"REDIS_URL": f"redis://127.0.0.1:{port}/0"}))
        for command in (
            typed.create(Asked("web")),
            typed.list(),
            typed.revoke("web"),
            typed.block(user="ann"),
        ):
            assert await command == FAILED
            out, told = typed.read()
            assert out == ""
            assert told == "The session store cannot be reached. Try again in a moment.\n"


async def test_root_makes_nothing_that_the_server_s_user_cannot_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, data = Typed(settings(tmp_path)), tmp_path / "data"
    data.mkdir()
    if os.geteuid() == 0:
        os.chown(data, 54321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(
        ConfigError, match=r"data_dir: .*/data belongs to .*, not to root - run the command as sudo -u "
    ):
        await typed.create(Asked("web"))
    assert list(data.iterdir()) == []
    for user in (54321, 0):  # once the file is there, nothing of root's is left in it
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert await typed.list() == OK


async def test_who_is_kept_out_is_told_with_until_when(tmp_path: Path) -> None:
    typed = Typed(settings(tmp_path))
    assert await typed.block("3h", user="ann", jwt="one") == OK
    first, second = typed.read()[0].splitlines()
    assert re.match(
        r"Nobody comes in as the user ann until \d{4}-\d\d-\d\dT.*Z\. Whoever talks so is sent away", first
    )
    assert second.startswith("Nobody comes in as the token with jti one until ")
    with pytest.raises(ConfigError, match="--for"):
        await typed.block("soon", user="ann")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["revoke"], "takes the id or name of a key, or --user, or --jti"),
        (["revoke", "web", "--user", "ann"], "takes the id or name of a key, or --user, or --jti"),
        (["revoke", "web", "--for", "3h"], "--for: belongs to --user and --jti"),
        (["revoke", "--user", ""], "is empty"),
        (["create", "--name", "we b"], "--name: is letters, digits"),
    ],
)
def test_a_wrong_command_is_one_line_and_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["tornado-live", "token", *arguments, "--home", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    assert words in line


async def test_keys_are_made_and_revoked_while_the_server_runs(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    async with Server(home=tmp_path, environ=environ) as server, httpx.AsyncClient(trust_env=False) as client:

        async def status(key: str) -> int:
            answer = await client.get(
                f"{server.url}/api/sessions", headers={"Authorization": f"Bearer {key}"}, timeout=60
            )
            return answer.status_code

        typed = Typed(settings(tmp_path, environ))
        shown = await made(typed)
        assert await status(shown) == 200
        assert await status(shown[:-1] + "-") == 401
        assert await typed.block("1h", user="key:web") == OK
        typed.read()
        while await status(shown) != 401:
            pass  # until the server has heard of it, at its next beat
        assert '"revoked: user:key:web"' in server.log
        other = await made(typed, "other")
        assert await status(other) == 200
        assert await typed.revoke("other") == OK
        assert await status(other) == 401
    for key in (shown, other):
        assert key[16:] not in server.log


def test_the_commands_do_what_they_say_and_only_the_key_goes_into_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def typed(*arguments: str) -> tuple[int, str, str]:
        command = [
            "tornado-live",
            "token",
            *arguments,
            "--home",
            str(tmp_path),
            "--set",
            "auth.modes=api_key",
        ]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    options = (
        "--role",
        "operator",
        "--role",
        "nurse",
        "--limit",
        "cost_per_day=5",
        "--limit",
        "talk_s_per_day=60",
    )
    code, shown, told = typed("create", "--name", "web", "--user", "ann", *options, "--expires", "2w")
    assert (code, bool(KEY.fullmatch(shown))) == (OK, True)
    assert "nurse, operator (metrics" in told
    assert "cost_per_day=5, talk_s_per_day=60" in told
    code, listed, _ = typed("list")
    assert (code, len(listed.splitlines())) == (OK, 2)
    assert "web   ann" in listed
    assert typed("revoke", "web")[0] == OK
    assert typed("revoke", "web")[0] == FAILED
    code, out, _ = typed("revoke", "--user", "ann", "--jti", "one", "--for", "2h")
    assert (code, len(out.splitlines())) == (OK, 2)
