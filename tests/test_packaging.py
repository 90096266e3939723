"""The package as it is installed elsewhere: a wheel in an empty environment, and an editable install.

The environment sees the dependencies of the one that runs the tests by a .pth file, because installing them
once more would test pip and cost a minute. tornado-live itself it has only from what is installed into it, and
`-P`, an empty PYTHONPATH and a home directory elsewhere keep the checkout out of sight.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from audit import wheel_complaints
from serving import ROOT, Server, clean_environment
from tornado.httpclient import AsyncHTTPClient

# setuptools writes next to setup.py, and several builds at a time would meet there.
_COPIED = ("tornado_live", "config", "static", "knowledge", "docs", "requirements")
_FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "tools.yaml", "LICENSE", "README.md", "CHANGELOG.md")


def quietly(*command: str | Path, cwd: Path) -> str:
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout without what is not in version control."""
    copy = tmp_path_factory.mktemp("source")
    listed = quietly("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        if name.split("/")[0] in _COPIED or name in _FILES:
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                target.write_bytes((ROOT / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    quietly(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder
    )
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path) -> Path:
    """The interpreter of a new environment without tornado-live."""
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    packages = Path(
        quietly(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    (packages / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *what: str | Path) -> None:
    quietly(
        *(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--disable-pip-version-check", "--ignore-installed", *what),
        cwd=python.parent,
    )


def where(python: Path) -> Path:
    """The package that the environment has."""
    printed = quietly(
        python, "-P", "-c", "import tornado_live; print(tornado_live.__file__)", cwd=python.parent
    )
    return Path(printed.strip()).parent


async def serves(python: Path) -> None:
    """The page, its client module, the tools and the health, from an empty home directory."""
    command = ("-P", "-m", "tornado_live", "serve")
    async with Server(python=(str(python),), command=command, environ={"PYTHONPATH": ""}) as server:
        client = AsyncHTTPClient()
        page = (await client.fetch(f"{server.url}/")).body.decode()
        assert "<title>" in page
        module = await client.fetch(f"{server.url}/tornado-live.js")
        assert module.headers["Content-Type"].startswith("text/javascript")
        tools = json.loads((await client.fetch(f"{server.url}/api/tools")).body)["tools"]
        assert {"get_weather", "search_knowledge_base", "look_up_article"} <= {tool["name"] for tool in tools}
        health = json.loads((await client.fetch(f"{server.url}/health")).body)
        assert health["status"] == "ok"


async def searches(python: Path, home: Path) -> None:
    """The sample articles are found from any home directory."""
    printed = quietly(
        *(python, "-P", "-m", "tornado_live", "tools", "call", "search_knowledge_base"),
        '{"query": "artificial intelligence"}',
        cwd=home,
    )
    assert '"status": "ok"' in printed
    assert "ntelligence" in printed


def test_the_wheel_holds_code_files_and_schema_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "tornado_live/py.typed",
        "tornado_live/tools/tools.schema.json",
        "tornado_live/_files/tools.yaml",
        "tornado_live/_files/config/development.yaml",
        "tornado_live/_files/config/production.yaml",
        "tornado_live/_files/static/index.html",
        "tornado_live/_files/static/tornado-live.js",
        "tornado_live/_files/docs/settings.md",
    ):
        assert wanted in names
    assert any(name.startswith("tornado_live/_files/knowledge/") for name in names)
    for name in names:
        assert name.startswith("tornado_live"), name
        assert not re.search(r"__pycache__|\.py[co]$|(^|/)(tests|bench)/|\.env$", name), name


def test_the_wheel_names_its_dependencies_and_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    required = re.findall(r"^Requires-Dist: ([^;\n]+)", metadata, re.M)
    assert all("==" in line for line in required)
    assert list(wheel_complaints(re.findall(r"^Requires-Dist: (.+)", metadata, re.M))) == []
    assert "License-Expression: MIT" in metadata
    assert set(re.findall(r"^Provides-Extra: (\w+)", metadata, re.M)) == {
        "voice",
        "postgres",
        "dev",
        "testing",
    }
    assert "Requires-Python: >=3.11" in metadata


async def test_a_wheel_in_an_empty_environment_serves_and_finds_its_files(
    wheel: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path / "environment")
    install(python, wheel)
    package = where(python)
    assert package.is_relative_to(tmp_path)
    await serves(python)
    home = tmp_path / "home"
    home.mkdir()
    await searches(python, home)
    mine = tmp_path / "mine"
    quietly(python, "-P", "-m", "tornado_live", "init", "--home", mine, cwd=tmp_path)
    for name in ("tools.yaml", "config/development.yaml", "knowledge/products-guide.md"):
        written, ours = ((place / name).read_bytes().splitlines() for place in (mine, ROOT))
        assert written[1:] == ours[1:], (
            "the first line of tools.yaml names its schema, which is elsewhere here"
        )
    await searches(python, mine)
    found = quietly(
        *(python, "-P", "-m", "tornado_live", "serve", "--print-config", "--upstream", "simulator"),
        *("--config", "config/production.yaml"),
        cwd=home,
    )
    assert f"{package}/_files/config/production.yaml" in found


async def test_an_editable_install_serves_and_finds_the_files_of_its_checkout(
    source: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path / "environment")
    install(python, "--editable", source)
    assert where(python) == source / "tornado_live"
    assert not (source / "tornado_live/_files").exists()
    await serves(python)
    await searches(python, tmp_path)


def test_the_console_script_is_installed(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "environment")
    install(python, wheel)
    assert quietly(python.parent / "tornado-live", "version", cwd=tmp_path).strip() == "0.1.0"


@pytest.mark.parametrize("name", ["build", "runtime", "voice", "dev"])
def test_every_requirement_is_pinned_with_hashes_and_names_no_index(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
    assert not re.search(r"index-url|find-links|trusted-host|https?://|file://", text)
    for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n|^\s*# .*\n", "", text, flags=re.M)):
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


def test_the_requirements_are_those_of_setup_py() -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    lists = {
        name: re.findall(r'"([a-z0-9-]+==[^";]+)', body)
        for name, body in re.findall(r"^(DEPENDENCIES|VOICE|DEV) = \[(.*?)\]$", setup, re.M | re.S)
    }
    wanted = {
        "runtime": lists["DEPENDENCIES"],
        "voice": lists["DEPENDENCIES"] + lists["VOICE"],
        "dev": lists["DEPENDENCIES"] + lists["DEV"],
    }
    for name, pins in wanted.items():
        text = (ROOT / f"requirements/{name}.txt").read_text(encoding="utf-8")
        resolved = set(re.findall(r"^([a-z0-9._-]+==[^\s;\\]+)", text, re.M))
        assert {pin.strip() for pin in pins} - resolved == set()
