"""Dockerfile, compose.yaml and the systemd unit, as far as they can be tried where neither of the two runs."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from nginx import CONFIGURATION
from redis_server import NEEDS_REDIS
from serving import ROOT, Server, clean_environment, nobody_listens

from tornado_live.settings import load_settings

CONFIG = ROOT / "config"
DOCKERFILE = (CONFIG / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((CONFIG / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNIT = CONFIG / "tornado-live.service"
PROGRAMS = Path(sys.executable).parent
# limits.drain_s and what the end takes beside it: docs/operations.md, "Several processes".
STOPPED_S = 10 + 7
KEY = "a-fake-key-for-tests"


def ran(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=clean_environment(**environ),
        capture_output=True,
        text=True,
        check=False,
    )


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage: name and the rest, continued lines joined."""
    found: list[list[tuple[str, str]]] = []
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE))
    for line in filter(None, joined.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found


def values(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == name]


def image_environment() -> dict[str, str]:
    (line,) = values(stages()[-1], "ENV")
    return dict(pair.split("=", 1) for pair in shlex.split(line))


def test_the_linter_finds_nothing_in_the_dockerfile(tmp_path: Path) -> None:
    linter = PROGRAMS / "hadolint"
    assert (ran(linter, CONFIG / "Dockerfile").stdout) == ""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN sudo pip install tornado\n")
    assert "DL3006" in ran(linter, bad).stdout, "it does find what is wrong"


def test_the_image_is_for_nobody_in_particular_and_has_no_compiler() -> None:
    _, final = stages()
    assert values(final, "USER") == ["10001:10001"]
    assert values(final, "STOPSIGNAL") == ["SIGTERM"]
    for stage in stages():
        base = stage[0][1].split()[0]
        assert re.fullmatch(r"python:3\.1[1-3]-slim-\w+", base), "slim has no compiler"
        assert not re.search(r"apt-get|gcc|build-essential|curl|wget", " ".join(values(stage, "RUN")))
    assert values(final, "COPY") == ["--from=build /opt/tornado-live /opt/tornado-live"]


def test_the_image_has_what_is_pinned_by_hashes_and_nothing_compiled() -> None:
    build, _ = stages()
    (environment,) = values(build, "ENV")
    assert "PIP_REQUIRE_HASHES=1" in environment
    assert "PIP_ONLY_BINARY=:all:" in environment
    installs, package = values(build, "RUN")
    assert re.findall(r"-r (\S+)", installs) == ["requirements/build.txt", "requirements/runtime.txt"]
    # A wheel of our own cannot be in the list of hashes; it needs nothing from anywhere.
    assert package.count("PIP_REQUIRE_HASHES=0") == package.count("--no-deps") == 2
    assert "--no-build-isolation" in package
    assert "--no-index" in package


def test_what_is_copied_is_there_and_goes_to_the_engine() -> None:
    lines = (CONFIG / "Dockerfile.dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    kept_out = [line for line in lines if line and not line.startswith(("!", "#"))]
    assert kept_out[0] == "*"
    copied = {
        source
        for line in values(stages()[0], "COPY")
        for source in line.split()[:-1]
        if not source.startswith("--")
    }
    assert copied == let_in
    for source in copied:
        assert (ROOT / source).exists(), source
    for secret in (".env", "config/compose.env", "config/tls/server.key", "docs/a.pem", "tornado_live/.env"):
        patterns = [line.removeprefix("**/") for line in kept_out[1:]]
        hidden = any(fnmatch.fnmatch(Path(secret).name, pattern) for pattern in patterns)
        assert hidden or Path(secret).parts[0] not in let_in, secret


def test_every_file_that_the_wheel_is_made_of_is_copied() -> None:
    """Or the image would lack a page, and only its users would find out."""
    copied = " ".join(values(stages()[0], "COPY"))
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    (files,) = re.findall(r"^FILES = \[(.*?)^\]", setup, re.M | re.S)
    for name in re.findall(r'^    \("([^"]+)"', files, re.M):
        assert re.search(rf"\b{re.escape(name)}\b", copied), name


async def test_the_health_check_of_the_image_tells_a_server_from_none() -> None:
    (check,) = values(stages()[-1], "HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    assert command[0] == "python"

    async def healthy(port: int) -> bool:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command[1:],
            env=clean_environment(PORT=str(port)),
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait() == 0

    async with Server(ports=("--port", "0", "--ws-port", "off")) as server:
        assert await healthy(server.port)
    with nobody_listens() as port:
        assert not await healthy(port)


def test_the_image_starts_with_its_own_settings(tmp_path: Path) -> None:
    environment = {name: value for name, value in image_environment().items() if name not in ("PATH",)}
    (command,) = values(stages()[-1], "CMD")
    arguments = [str(tmp_path) if one == "/srv/tornado-live" else one for one in json.loads(command)]
    shown = ran(
        sys.executable,
        *("-m", "tornado_live", *arguments, "--print-config"),
        PYTHONPATH=str(ROOT),
        GEMINI_API_KEY=KEY,
        **environment,
    )
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^auth.modes: \[api_key\] ", shown.stdout, re.M)
    (port,) = values(stages()[-1], "EXPOSE")
    assert environment["PORT"] == port
    assert environment["DATA_DIR"] == "/data"
    assert values(stages()[-1], "VOLUME") == ["/data"]


def test_compose_takes_the_file() -> None:
    checked = ran(
        PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", CONFIG / "compose.yaml"
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "pid", "network_mode", "devices"}
    assert not any("docker.sock" in str(volume) for volume in service["volumes"])
    assert ("cap_add" in service) == (name == "nginx")
    if name not in ("one", "two"):  # theirs is the image's
        assert "healthcheck" in service
    assert int(service["stop_grace_period"].removesuffix("s")) > STOPPED_S


def test_only_nginx_can_be_reached_from_outside() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert SERVICES["redis"]["networks"] == ["inside"]


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_nodes_settings_are_taken(name: str, tmp_path: Path) -> None:
    node = SERVICES[name]
    environment = {
        key: value.replace("${REDIS_PASSWORD:?}", "fake") for key, value in node["environment"].items()
    }
    environment |= {"PUBLIC_URL": "https://voice.example.com", "GEMINI_API_KEY": KEY}
    (command,) = values(stages()[-1], "CMD")
    assert "command" not in node, "it is the image's"
    config = Path(json.loads(command)[-1])
    settings = load_settings(home=tmp_path, config=config, environ=environment, overrides={})
    assert settings.host == "0.0.0.0"
    assert (settings.auth.modes, settings.public_without_auth) == ({"api_key"}, False)
    assert settings.limits.cost_per_day_in_all is not None
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:fake@redis:6379/0"
    (trusted,) = settings.trusted_proxies
    assert str(trusted) == f"{SERVICES['nginx']['networks']['inside']['ipv4_address']}/32"
    for variable in node["environment"]:
        assert variable.lower() in settings.sources, variable


def test_a_node_is_given_no_more_than_it_needs() -> None:
    for name in ("one", "two"):
        assert "env_file" not in SERVICES[name]
        given = {
            word
            for value in SERVICES[name]["environment"].values()
            for word in re.findall(r"\$\{(\w+)", value)
        }
        assert given == {"GEMINI_API_KEY", "PUBLIC_URL", "REDIS_PASSWORD"}


@NEEDS_REDIS
def test_the_redis_of_compose_wants_its_password_and_shows_it_to_nobody(tmp_path: Path) -> None:
    """The container's own command, on a socket in a directory of the test's."""
    shell, option, command = SERVICES["redis"]["command"]
    own = f"redis-server - --port 0 --unixsocket {tmp_path}/redis --dir {tmp_path}"
    command = command.replace("$$", "$").replace("redis-server -", own)
    with subprocess.Popen(
        [shell, option, command],
        env=clean_environment(REDIS_PASSWORD="fake"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            said = []
            for line in server.stdout:
                said.append(line)
                if "ready to accept connections" in line:
                    break
            else:
                pytest.fail("".join(said))
            assert "fake" not in Path(f"/proc/{server.pid}/cmdline").read_text()
            with (
                redis.Redis(unix_socket_path=f"{tmp_path}/redis") as nobody,
                pytest.raises(redis.AuthenticationError),
            ):
                nobody.ping()
            with redis.Redis(unix_socket_path=f"{tmp_path}/redis", password="fake") as node:
                assert node.config_get("maxmemory-policy", "appendonly") == {
                    "maxmemory-policy": "noeviction",
                    "appendonly": "yes",
                }
        finally:
            server.terminate()


def first_keys() -> dict[str, list[str]]:
    """How each place says that the first API key is made: what follows `tornado-live`."""
    places = [CONFIG / "Dockerfile", CONFIG / "compose.yaml", UNIT, ROOT / "docs/deployment.md"]
    found: dict[str, list[str]] = {}
    for place in places:
        text = re.sub(r"\\\n#? *", "", place.read_text(encoding="utf-8"))
        found[place.name] = re.findall(r"tornado-live (token create [^\n`]+)", text)
    return found


def test_each_place_says_how_the_first_key_is_made_and_so_it_is(tmp_path: Path) -> None:
    said = first_keys()
    assert {place: len(lines) for place, lines in said.items()} == {
        "Dockerfile": 1,
        "compose.yaml": 1,
        UNIT.name: 1,
        "deployment.md": 2,
    }
    shortened = {
        line.replace(" --home /var/lib/tornado-live", "") for lines in said.values() for line in lines
    }
    for number, line in enumerate(sorted(shortened)):
        home = tmp_path / str(number)
        home.mkdir()
        made = ran(
            sys.executable,
            *("-m", "tornado_live", *line.split(), "--home", home),
            PYTHONPATH=str(ROOT),
            GEMINI_API_KEY=KEY,
        )
        assert (made.returncode, "warning" in made.stderr) == (0, False), made.stderr
        assert re.fullmatch(r"tl_[a-z0-9]{12}_[\w-]{43}\n", made.stdout)


def test_the_head_of_the_file_names_what_has_to_be_given() -> None:
    text = (CONFIG / "compose.yaml").read_text(encoding="utf-8")
    head = text[: text.index("\nname:")]
    wanted = {*re.findall(r"\$\{(\w+):\?\}", text), "GEMINI_API_KEY", "PUBLIC_URL"}
    assert set(re.findall(r"^#   (\w+)=", head, re.M)) == wanted


def test_the_nginx_of_compose_has_the_one_file_with_the_nodes_in_it(tmp_path: Path) -> None:
    """The container's own command writes it, in a directory of the test's."""
    shell, option, command = SERVICES["nginx"]["command"]
    written = tmp_path / "nginx.conf"
    command = command.split("&& exec")[0].replace("$$", "$").replace("/tmp/nginx.conf", str(written))
    command = command.replace("/etc/tornado-live/nginx.conf", str(CONFIGURATION))
    made = ran(shell, option, command, PUBLIC_NAME="talk.example.org")
    assert made.returncode == 0, made.stderr
    text = written.read_text()
    for name in ("one", "two"):
        assert f"server {SERVICES[name]['networks']['inside']['ipv4_address']}:3001 " in text
    assert "127.0.0.1" not in text
    assert "voice.example.com" not in text
    mounted = [volume.split(":")[-2] for volume in SERVICES["nginx"]["volumes"] if "certificate" in volume]
    assert mounted == re.findall(r"ssl_certificate(?:_key)? (\S+);", text)
    own = re.sub(r"/etc/tornado-live/certificate", "/etc/ssl/voice.example.com", text)
    own = own.replace("talk.example.org", "voice.example.com")
    for name, port in (("one", 3001), ("two", 3011)):
        address = SERVICES[name]["networks"]["inside"]["ipv4_address"]
        own = own.replace(f"{address}:3001", f"127.0.0.1:{port}")
    assert own == CONFIGURATION.read_text()


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(encoding="utf-8"), re.M):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def startable(tmp_path: Path) -> Path:
    """The unit with a program that is there; systemd looks for it."""
    text = UNIT.read_text(encoding="utf-8").replace("/opt/tornado-live/bin/tornado-live", "/bin/true")
    path = tmp_path / UNIT.name
    path.write_text(text)
    return path


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd is not installed; make packages-for-tests installs it"
    return ran(program, *arguments)


def test_systemd_takes_the_unit(startable: Path) -> None:
    verified = systemd_analyze("verify", "--man=no", startable)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_systemd_finds_the_unit_well_confined(startable: Path) -> None:
    secured = systemd_analyze("security", "--offline=true", "--no-pager", "--threshold=20", startable)
    assert secured.returncode == 0, secured.stdout[-300:]


def test_the_unit_ends_a_server_that_hangs_and_keeps_no_picture_of_its_memory() -> None:
    found = unit()
    wanted = {"Type": "notify", "NotifyAccess": "main", "WatchdogSec": "15", "WatchdogSignal": "SIGKILL"}
    assert {name: found[name] for name in wanted} == {name: [value] for name, value in wanted.items()}
    assert found["Restart"] == ["always"]


def test_the_unit_gives_the_server_time_to_end_and_starts_what_there_is(tmp_path: Path) -> None:
    found = unit()
    assert int(found["TimeoutStopSec"][0]) > STOPPED_S
    assert found["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    program, *arguments = shlex.split(found["ExecStart"][0])
    assert program.endswith("/bin/tornado-live")
    arguments = [str(tmp_path) if one == "/var/lib/tornado-live" else one for one in arguments]
    shown = ran(
        sys.executable,
        *("-m", "tornado_live", *arguments, "--print-config"),
        PYTHONPATH=str(ROOT),
        GEMINI_API_KEY=KEY,
    )
    assert shown.returncode == 0, shown.stderr
    assert os.path.commonpath([found["WorkingDirectory"][0], "/var/lib"]) == "/var/lib"
