"""Wrong tools.yaml files, and what exactly is told of each: file, line, place and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tornado_live.errors import ConfigError, Problem
from tornado_live.tools.catalog import UnusableTools, load_catalog

HEAD = "version: 1\n"
Q = "    parameters: {type: object, properties: {q: {type: string}}, required: [q]}\n"
URL = 'http: {url: "https://a.example/{q}"}'


def tool(*lines: str, parameters: str = Q, description: str = "    description: Finds.\n") -> str:
    """A file with one tool; `lines` begin in line 6."""
    return f"{HEAD}tools:\n  find:\n{description}{parameters}" + "".join(f"    {line}\n" for line in lines)


def params(text: str) -> str:
    return tool(URL, parameters=f"    parameters: {text}\n")


def src(text: str) -> str:
    return f"{HEAD}sources:\n{text}tools: {{}}\n"


def problems(home: Path, text: str, environment: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
    (home / "tools.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_catalog(home / "tools.yaml", home=home, data_dir=home, environment=environment or {})
    return caught.value.problems


WRONG: dict[str, tuple[str, list[str]]] = {
    "no_version": (
        "tools: {}\n",
        [
            'tools.yaml:1: version is missing - write "version: 1" at the top',
        ],
    ),
    "version_2": (
        "version: 2\ntools: {}\n",
        [
            "tools.yaml:1: version: 2 must be 1",
        ],
    ),
    "version_text": (
        'version: "1"\ntools: {}\n',
        [
            'tools.yaml:1: version: "1" must be 1',
        ],
    ),
    "nothing_but_version": (
        HEAD,
        [
            'tools.yaml:1: tools is missing - write "tools:" and the tools below it',
        ],
    ),
    "a list": (
        "- version: 1\n",
        [
            "tools.yaml:1: must begin with version: 1 and tools:",
        ],
    ),
    "a text": (
        "hello\n",
        [
            "tools.yaml:1: must begin with version: 1 and tools:",
        ],
    ),
    "empty": (
        "",
        [
            "tools.yaml: must begin with version: 1 and tools:",
        ],
    ),
    "tools_list": (
        HEAD + "tools: [get_weather]\n",
        [
            'tools.yaml:2: tools: ["get_weather"] must be a mapping of names and values',
        ],
    ),
    "tools nothing": (
        HEAD + "tools:\n",
        [
            "tools.yaml:2: tools: null must be a mapping of names and values",
        ],
    ),
    "top key": (
        HEAD + "tool: {}\ntools: {}\n",
        [
            'tools.yaml:2: tool: is not a key - did you mean "tools"?',
        ],
    ),
    "tab": (
        HEAD + "tools:\n\tfind: {}\n",
        [
            "tools.yaml:3: is indented with a tab; YAML takes spaces only",
        ],
    ),
    "broken": (
        HEAD + "tools: {find: [\n",
        [
            "tools.yaml:3: this is not YAML: did not find expected node content",
        ],
    ),
    "colon": (
        HEAD + "tools:\n  find:\n    description: Finds: things\n",
        [
            'tools.yaml:4: a ":" is not allowed here; put the text in quotes, or check the indentation',
        ],
    ),
    "anchor": (
        HEAD + "tools: &all {}\n",
        [
            "tools.yaml:2: the anchor &all is not allowed; remove it",
        ],
    ),
    "alias": (
        HEAD + "tools: *all\n",
        [
            "tools.yaml:2: the alias *all is not allowed; write the value out",
        ],
    ),
    "tag": (
        HEAD + "tools: !!python/name:os.system {}\n",
        [
            "tools.yaml:2: the tag tag:yaml.org,2002:python/name:os.system is not allowed; remove it",
        ],
    ),
    "merge": (
        HEAD + "tools:\n  find:\n    <<: {description: x}\n",
        [
            'tools.yaml:4: tools.find: the merge key "<<" is not allowed; write the keys out',
        ],
    ),
    "twice": (
        HEAD + "tools:\n  find: {}\n  find: {}\n",
        [
            "tools.yaml:4: tools.find: is there twice; the first is in line 3",
        ],
    ),
    "two documents": (
        HEAD + "tools: {}\n---\nversion: 1\n",
        [
            'tools.yaml:3: a second document ("---") is not allowed',
        ],
    ),
    "tool name": (
        HEAD + "tools:\n  1st: {}\n",
        [
            "tools.yaml:3: 1st: a name is a letter or _, then letters, digits, _ and -, at most 63",
            "tools.yaml:3: 1st: needs description: when and for what the model should call this",
            (
                "tools.yaml:3: 1st: needs parameters: JSON Schema (draft 2020-12) of the arguments; its"
                " type is object"
            ),
            "tools.yaml:3: 1st: needs one of python, http and client: true",
        ],
    ),
    "tool name space": (
        HEAD + "tools:\n  look up: {}\n",
        [
            ("tools.yaml:3: look up: a name is a letter or _, then letters, digits, _ and -, at most 63"),
            "tools.yaml:3: look up: needs description: when and for what the model should call this",
            (
                "tools.yaml:3: look up: needs parameters: JSON Schema (draft 2020-12) of the arguments;"
                " its type is object"
            ),
            "tools.yaml:3: look up: needs one of python, http and client: true",
        ],
    ),
    "tool is text": (
        HEAD + "tools:\n  find: builtin.sql:query\n",
        [
            'tools.yaml:3: find: "builtin.sql:query" must be a mapping of names and values',
        ],
    ),
    "no description": (
        tool(URL, description=""),
        [
            "tools.yaml:3: find: needs description: when and for what the model should call this",
        ],
    ),
    "empty description": (
        tool(URL, description="    description: ''\n"),
        [
            'tools.yaml:4: find.description: "" must not be empty',
        ],
    ),
    "number description": (
        tool(URL, description="    description: 12\n"),
        [
            "tools.yaml:4: find.description: 12 must be a text (put it in quotes)",
        ],
    ),
    "no parameters": (
        tool('http: {url: "https://a.example"}', parameters=""),
        [
            "tools.yaml:3: find: needs parameters: JSON Schema (draft 2020-12) of the arguments; its"
            " type is object",
        ],
    ),
    "parameters list": (
        params("[q]"),
        [
            'tools.yaml:5: find.parameters: ["q"] must be a mapping of names and values',
        ],
    ),
    "parameters type": (
        params("{type: array, items: {type: string}}"),
        [
            "tools.yaml:5: find.parameters: needs type: object",
        ],
    ),
    "parameters no type": (
        params("{properties: {q: {type: string}}}"),
        [
            "tools.yaml:5: find.parameters: needs type: object",
        ],
    ),
    "type": (
        params("{type: object, properties: {q: {type: strng}}, required: [q]}"),
        [
            'tools.yaml:5: find.parameters.properties.q.type: "strng" is not a type of JSON Schema -'
            ' did you mean "string"?',
        ],
    ),
    "required": (
        params("{type: object, properties: {q: {type: string}}, required: [q, p]}"),
        [
            'tools.yaml:5: find.parameters.required: "p" is required but is not among the properties',
        ],
    ),
    "ref": (
        params('{type: object, properties: {q: {$ref: "#/$defs/no"}}, required: [q]}'),
        [
            'tools.yaml:5: find.parameters.properties.q.$ref: $ref "#/$defs/no" points at nothing',
        ],
    ),
    "ref out": (
        params('{type: object, properties: {q: {$ref: "https://example.com/s.json"}}, required: [q]}'),
        [
            'tools.yaml:5: find.parameters.properties.q.$ref: $ref "https://example.com/s.json"'
            " leaves the file; write it into $defs",
        ],
    ),
    "minimum text": (
        params('{type: object, properties: {q: {type: integer, minimum: "1"}}, required: [q]}'),
        [
            'tools.yaml:5: find.parameters.properties.q.minimum: "1" is not JSON Schema: must be a number',
        ],
    ),
    "ref name": (
        params('{type: object, properties: {q: {$ref: "#place"}}, required: [q]}'),
        [
            'tools.yaml:5: find.parameters.properties.q.$ref: $ref "#place" is not a path; write #/$defs/NAME',
        ],
    ),
    "pattern lookahead": (
        params('{type: object, properties: {q: {type: string, pattern: "^(?=.*[0-9]).+$"}}, required: [q]}'),
        [
            'tools.yaml:5: find.parameters.properties.q.pattern: "^(?=.*[0-9]).+$" has lookahead (?=,'
            " which patterns cannot have here; write a second pattern, both under allOf",
        ],
    ),
    "pattern again": (
        params(r"{type: object, properties: {q: {type: string, pattern: '^(a|b)\1$'}}, required: [q]}"),
        [
            r'tools.yaml:5: find.parameters.properties.q.pattern: "^(a|b)\\1$" has a back-reference \1,'
            " which patterns cannot have here; write what it may repeat as enum or anyOf",
        ],
    ),
    "pattern bracket": (
        params("{type: object, properties: {q: {type: string, pattern: '^[0-9'}}, required: [q]}"),
        [
            'tools.yaml:5: find.parameters.properties.q.pattern: "^[0-9" is no pattern: a [ has no ];'
            r" write \[ for the character itself",
        ],
    ),
    "pattern elsewhere": (
        params(
            "{type: object, $defs: {a: {items: {not: {pattern: 'a++'}}}}, properties: {q: {type: string}},"
            " required: [q], patternProperties: {'^x(?!y)': {}}, propertyNames: {pattern: '('}}"
        ),
        [
            'tools.yaml:5: find.parameters.patternProperties.^x(?!y): "^x(?!y)" has negative lookahead (?!,'
            " which patterns cannot have here; write what is not allowed as a pattern under not",
            r'tools.yaml:5: find.parameters.propertyNames.pattern: "(" is no pattern: a ( has no );'
            r" write \( for the character itself",
            'tools.yaml:5: find.parameters.$defs.a.items.not.pattern: "a++" has a possessive ++,'
            " which patterns cannot have here; write +; nothing is ever tried again",
        ],
    ),
    "pattern number": (
        params("{type: object, properties: {q: {type: string, pattern: 5}}, required: [q]}"),
        [
            "tools.yaml:5: find.parameters.properties.q.pattern: 5 is not JSON Schema: must be a text"
            " (put it in quotes)",
        ],
    ),
    "pattern and unevaluated": (
        params(
            "{type: object, properties: {q: {type: string}}, required: [q], patternProperties: {'^x': {}},"
            " unevaluatedProperties: false}"
        ),
        [
            "tools.yaml:5: find.parameters.unevaluatedProperties: cannot stand beside patternProperties;"
            " write additionalProperties",
        ],
    ),
    "draft inside": (
        params(
            '{type: object, properties: {q: {$schema: "http://json-schema.org/draft-07/schema#"}}, required: [q]}'
        ),
        [
            "tools.yaml:5: find.parameters.properties.q.$schema: has its place at the top alone; remove it",
        ],
    ),
    "neither": (
        tool("timeout: 4s"),
        [
            "tools.yaml:3: find: needs one of python, http and client: true",
        ],
    ),
    "both": (
        tool(URL, "python: builtin.sql:query"),
        [
            "tools.yaml:3: find: has both python and http; remove one",
        ],
    ),
    "client and http": (
        tool(URL, "client: true"),
        [
            "tools.yaml:3: find: has client: true and python or http; the page runs it, remove one",
        ],
    ),
    "client false alone": (
        tool("client: false"),
        [
            "tools.yaml:3: find: needs one of python, http and client: true",
        ],
    ),
    "options": (
        tool(URL, "options: {a: 1}"),
        [
            "tools.yaml:3: find: options need python",
        ],
    ),
    "misspelt key": (
        tool(URL, "timout: 4s"),
        [
            'tools.yaml:7: find.timout: is not a key of tool - did you mean "timeout"?',
        ],
    ),
    "later": (
        tool(URL, "mcp: {server: x}"),
        [
            "tools.yaml:7: find.mcp: is not known yet; remove it",
        ],
    ),
    "timeout number": (
        tool(URL, "timeout: 4"),
        [
            "tools.yaml:7: find.timeout: 4 is not a time; write 4s",
        ],
    ),
    "timeout quoted": (
        tool(URL, 'timeout: "2.5"', "cache: 5 minutes", "slow_after: 300 milliseconds"),
        [
            'tools.yaml:7: find.timeout: "2.5" is not a time; write 2.5s',
            'tools.yaml:8: find.cache: "5 minutes" is not a time; write 5m',
            'tools.yaml:9: find.slow_after: "300 milliseconds" is not a time; write 300ms',
        ],
    ),
    "timeout true": (
        tool(URL, "timeout: true"),
        [
            "tools.yaml:7: find.timeout: true is not a time; write 250ms, 10s, 5m or 2h",
        ],
    ),
    "timeout word": (
        tool(URL, "timeout: soon"),
        [
            'tools.yaml:7: find.timeout: "soon" is not a time; write 250ms, 10s, 5m or 2h',
        ],
    ),
    "timeout long": (
        tool(URL, "timeout: 1h"),
        [
            'tools.yaml:7: find.timeout: "1h" is out of range; write more than 0s and at most 10m',
        ],
    ),
    "cache long": (
        tool(URL, "cache: 48h"),
        [
            'tools.yaml:7: find.cache: "48h" is out of range; write more than 0s and at most 24h',
        ],
    ),
    "cache effects": (
        tool(URL, "side_effects: true", "cache: 5m"),
        [
            "tools.yaml:8: find.cache: is for tools without side effects; remove it",
        ],
    ),
    "cache client": (
        tool("client: true", "cache: 5m"),
        [
            "tools.yaml:7: find.cache: the page runs this tool, and its answers are not stored; remove it",
        ],
    ),
    "retry attempts": (
        tool(URL, "retry: {attempts: 9}"),
        [
            "tools.yaml:7: find.retry.attempts: 9 must be at most 5",
        ],
    ),
    "retry none": (
        tool(URL, "retry: {on: [429]}"),
        [
            "tools.yaml:7: find.retry: needs attempts: in all, the first one included",
        ],
    ),
    "retry on": (
        tool(URL, "retry: {attempts: 2, on: [404]}"),
        [
            "tools.yaml:7: find.retry.on[0]: 404 is not one of connect, 429, 5xx",
        ],
    ),
    "retry effects": (
        tool(URL, "side_effects: true", "retry: {attempts: 2}"),
        [
            "tools.yaml:8: find.retry: is for tools without side effects; remove it",
        ],
    ),
    "retry client": (
        tool("client: true", "retry: {attempts: 2}"),
        [
            "tools.yaml:7: find.retry: is for http tools; remove it",
        ],
    ),
    "side effects text": (
        tool(URL, "side_effects: maybe"),
        [
            'tools.yaml:7: find.side_effects: "maybe" must be true or false',
        ],
    ),
    "confirm": (
        tool(URL, "confirm: yes"),
        [
            'tools.yaml:7: find.confirm: "yes" must be true or false',
        ],
    ),
    "wait": (
        tool(URL, "wait: never"),
        [
            'tools.yaml:7: find.wait: "never" is not one of blocking, background',
        ],
    ),
    "when_done": (
        tool(URL, "when_done: silent"),
        [
            "tools.yaml:7: find.when_done: is for wait: background; without it the model waits for"
            " the answer",
        ],
    ),
    "on_interrupt": (
        tool(URL, "on_interrupt: stop"),
        [
            'tools.yaml:7: find.on_interrupt: "stop" is not one of cancel, finish, detach',
        ],
    ),
    "slow say": (
        tool(URL, "slow_say: Still looking."),
        [
            "tools.yaml:7: find.slow_say: needs slow_after: the time after which it is to be said",
        ],
    ),
    "slow after": (
        tool(URL, "timeout: 2s", "slow_after: 2s"),
        [
            'tools.yaml:8: find.slow_after: "2s" must be less than the timeout (2 s)',
        ],
    ),
    "bind claim": (
        tool(URL, "bind: {tenant: token.tenant}"),
        [
            'tools.yaml:7: find.bind.tenant: "token.tenant" is not claims.NAME, session.id,'
            " session.user or environment.NAME",
        ],
    ),
    "bind empty": (
        tool(URL, "bind: {}"),
        [
            "tools.yaml:7: find.bind: must not be empty",
        ],
    ),
    "bind env": (
        tool(
            'http: {url: "https://a.example/{q}", headers: {X-T: "{tenant}"}}',
            "bind: {tenant: environment.TENANT}",
        ),
        [
            "tools.yaml:7: find.bind.tenant: TENANT is not set; set it in the environment or .env",
        ],
    ),
    "bind name": (
        tool(URL, "bind: {a-b: session.id}"),
        [
            (
                "tools.yaml:7: find.bind.a-b: the name of a parameter is a letter or _, then letters,"
                " digits and _"
            ),
            (
                "tools.yaml:7: find.bind.a-b: is used nowhere in http; write {a-b} in path, query or"
                " headers, or in json or form"
            ),
        ],
    ),
    "bind unused": (
        tool(URL, "bind: {tenant: session.user}"),
        [
            "tools.yaml:7: find.bind.tenant: is used nowhere in http; write {tenant} in path, query"
            " or headers, or in json or form",
        ],
    ),
    "bind elsewhere": (
        tool(
            URL,
            "bind: {q: session.user}",
            parameters="    parameters: {type: object, properties: {q: {}}, anyOf: [{required: [q]}]}\n",
        ),
        [
            "tools.yaml:7: find.bind.q: is named in more than properties; bound parameters stand there alone",
        ],
    ),
    "requires text": (
        tool(URL, "requires: admin"),
        [
            'tools.yaml:7: find.requires: "admin" must be a list',
        ],
    ),
    "limits empty": (
        tool(URL, "limits: {}"),
        [
            "tools.yaml:7: find.limits: needs one of per_minute, per_session, concurrency",
        ],
    ),
    "limits zero": (
        tool(URL, "limits: {per_minute: 0}"),
        [
            "tools.yaml:7: find.limits.per_minute: 0 must be at least 1",
        ],
    ),
    "limits key": (
        tool(URL, "limits: {per_hour: 5}"),
        [
            "tools.yaml:7: find.limits.per_hour: is not a key of limits; known: concurrency,"
            " per_minute, per_session",
        ],
    ),
    "select": (
        tool(URL, "result: {select: 'items[}'}"),
        [
            'tools.yaml:7: find.result.select: "items[}" is not JMESPath: } is not understood at character 7',
        ],
    ),
    "select beside another mistake": (
        tool(URL, "result: {select: 'items[', max_bytes: 5}"),
        [
            "tools.yaml:7: find.result.max_bytes: 5 must be at least 256",
            'tools.yaml:7: find.result.select: "items[" is not JMESPath: it breaks off at the end',
        ],
    ),
    "select empty": (
        tool(URL, "result: {select: ''}"),
        [
            'tools.yaml:7: find.result.select: "" must not be empty',
        ],
    ),
    "bind of the page": (
        tool("client: true", "bind: {who: session.user}"),
        [
            "tools.yaml:7: find.bind: has its place in tools that run here, for the page gets none of it;"
            " remove it",
        ],
    ),
    "include of itself": (
        "version: 1\ninclude: [tools.yaml]\ntools: {}\n",
        [
            'tools.yaml:2: include[0]: "tools.yaml" is this file itself; remove it',
        ],
    ),
    "sql of an unknown kind": (
        src("  s:\n    sql: {url: 'mysql://u:canary@h/x'}\n"),
        [
            "tools.yaml:4: sources.s.sql.url: is the address of no known database; write sqlite:///data/shop.db"
            " or postgresql://user@host/name",
        ],
    ),
    "select end": (
        tool(URL, "result: {select: 'length(items'}"),
        [
            'tools.yaml:7: find.result.select: "length(items" is not JMESPath: it breaks off at the end',
        ],
    ),
    "select quote": (
        tool(URL, "result: {select: 'items.`a'}"),
        [
            'tools.yaml:7: find.result.select: "items.`a" is not JMESPath: what begins with ` at character 7'
            " has no end",
        ],
    ),
    "select function": (
        tool(URL, "result: {select: '{n: xyz(items), m: lenght(items), s: sort(items)}'}"),
        [
            "tools.yaml:7: find.result.select: xyz() is no function of JMESPath; known: abs, avg, ceil,"
            " contains, ends_with, floor, join, keys, length, map, max, max_by, merge, min, min_by, not_null,"
            " reverse, sort, sort_by, starts_with, sum, to_array, to_number, to_string, type, values",
            'tools.yaml:7: find.result.select: lenght() is no function of JMESPath - did you mean "length"?',
        ],
    ),
    "slot without quotes": (
        tool('http: {url: "https://a.example", query: {q: {q}}}'),
        [
            'tools.yaml:6: find.http.query.q: {"q": null} must be a text or a number or true or false;'
            ' put the placeholder in quotes: "{q}"',
        ],
    ),
    "max_bytes": (
        tool(URL, "result: {max_bytes: 10}"),
        [
            "tools.yaml:7: find.result.max_bytes: 10 must be at least 256",
        ],
    ),
    "max_items": (
        tool(URL, "result: {max_items: many}"),
        [
            'tools.yaml:7: find.result.max_items: "many" must be a whole number',
        ],
    ),
    "examples": (
        tool(URL, "examples: [{args: {q: 1}, expect: {}}]"),
        [
            "tools.yaml:7: find.examples[0].args.q: does not fit the parameters: 1 is not of type 'string'",
        ],
    ),
    "examples key": (
        tool(URL, "examples: [{arguments: {q: x}, expect: {}}]"),
        [
            "tools.yaml:7: find.examples[0]: needs args: the arguments",
            'tools.yaml:7: find.examples[0].arguments: is not a key - did you mean "args"?',
        ],
    ),
    "examples env": (
        tool(URL, "examples: [{args: {q: '${KEY}'}, expect: {}}]"),
        [
            "tools.yaml:7: find.examples[0].args.q: ${…} is not filled in here, since the model and"
            " the page may see this text",
        ],
    ),
    "env mock": (
        tool(URL, "mock: ${KEY}"),
        [
            "tools.yaml:7: find.mock: ${…} is not filled in here, since the model and the page may"
            " see this text",
        ],
    ),
    "env missing": (
        tool('http: {url: "https://a.example/{q}", headers: {X-Key: "${NO_SUCH_NAME}"}}'),
        [
            "tools.yaml:6: find.http.headers.X-Key: NO_SUCH_NAME is not set; set it in the"
            " environment or .env, or write ${NO_SUCH_NAME:-default}",
        ],
    ),
    "env name": (
        tool('http: {url: "https://a.example/{q}", headers: {X-Key: "${1}"}}'),
        [
            "tools.yaml:6: find.http.headers.X-Key: after ${ comes a name: write ${NAME} or ${NAME:-default}",
        ],
    ),
    "mock when": (
        tool(URL, "mock: [{when: {Q: a}, answer: 1}, {when: {z: 1}, answer: 2}, {answer: 3}]"),
        [
            'tools.yaml:7: find.mock[0].when.Q: is not among the parameters - did you mean "q"?',
            "tools.yaml:7: find.mock[1].when.z: is not among the parameters; known: q",
        ],
    ),
    "mock when value": (
        tool(URL, "mock: [{when: {q: 5}, answer: 1}]"),
        [
            "tools.yaml:7: find.mock[0].when.q: does not fit the parameters: 5 is not of type 'string'",
        ],
    ),
    "mock case": (
        tool(URL, "mock: {when: {q: a}, answer: 1}"),
        [
            'tools.yaml:7: find.mock: is a case, of which there is a list: write "- when: …" and'
            ' "answer: …" below',
        ],
    ),
    "mock cases": (
        tool(URL, "mock: [{when: {q: a}, answr: 1}, {when: q, answer: 1}, 5]"),
        [
            "tools.yaml:7: find.mock[0]: is no case as the others are; write when and answer, or answer alone",
            "tools.yaml:7: find.mock[1].when: must be a mapping of arguments and their values",
            "tools.yaml:7: find.mock[2]: is no case as the others are; write when and answer, or answer alone",
        ],
    ),
    "python form": (
        tool("python: builtin.sql.query"),
        [
            'tools.yaml:6: find.python: "builtin.sql.query" is not of the form package.module:function'
            ' - did you mean "builtin.sql:query"?',
        ],
    ),
    "python outside": (
        tool("python: os:system"),
        [
            'tools.yaml:6: find.python: "os:system" is outside the allowed packages'
            " (tornado_live.tools.builtin); see handler_prefixes",
        ],
    ),
    "python unknown": (
        tool("python: builtin.weather:now"),
        [
            'tools.yaml:6: find.python: "builtin.weather:now" is not among the built-in handlers; known:'
            " builtin.analytics:report, builtin.knowledge:search, builtin.llm:ask, builtin.sql:query,"
            " builtin.sql:statement, builtin.weather:current, builtin.web:request",
        ],
    ),
    "python short": (
        tool("python: sql:query"),
        [
            'tools.yaml:6: find.python: "sql:query" is outside the allowed packages'
            ' (tornado_live.tools.builtin) - did you mean "builtin.sql:query"?',
        ],
    ),
    "python needs": (
        tool("python: builtin.weather:current"),
        [
            (
                "tools.yaml:5: find.parameters.properties.q: builtin.weather:current has no such"
                " parameter; known: location"
            ),
            (
                "tools.yaml:5: find.parameters: builtin.weather:current needs location; name it in"
                " properties and required"
            ),
        ],
    ),
    "method": (
        tool('http: {url: "https://a.example/{q}", method: FETCH}'),
        [
            'tools.yaml:6: find.http.method: "FETCH" is not one of GET, POST, PUT, PATCH, DELETE',
        ],
    ),
    "http key": (
        tool('http: {url: "https://a.example/{q}", verify: false}'),
        [
            "tools.yaml:6: find.http.verify: is not a key of http; known: allow_hosts, auth, expect,"
            " follow_redirects, form, headers, json, method, path, query, source, url",
        ],
    ),
    "http scheme": (
        tool('http: {url: "ftp://a.example/{q}"}'),
        [
            'tools.yaml:6: find.http.url: "ftp://a.example/{q}": is not an address such as'
            " https://example.com/api",
        ],
    ),
    "http both": (
        tool('http: {url: "https://a.example/{q}", source: wiki}'),
        [
            "tools.yaml:6: find.http: has both source and url; remove one",
        ],
    ),
    "http source": (
        tool('http: {source: wiki, path: "/{q}"}'),
        [
            'tools.yaml:6: find.http.source: "wiki" is not among the sources',
        ],
    ),
    "http slot": (
        tool('http: {url: "https://a.example/{p}"}'),
        [
            "tools.yaml:6: find.http.url: {p} is not among the parameters; known: q",
        ],
    ),
    "http unused": (
        tool('http: {url: "https://a.example/"}'),
        [
            "tools.yaml:5: find.parameters.properties.q: is used nowhere in http; write {q} in path,"
            " query or headers, or in json or form",
        ],
    ),
    "http private": (
        tool('http: {url: "http://10.0.0.1/{q}"}'),
        [
            'tools.yaml:6: find.http.url: "http://10.0.0.1/{q}" is a private address, which every'
            " call would refuse - make it a source with allow_private: true, if it is a service of"
            " your own",
        ],
    ),
    "http header": (
        tool('http: {url: "https://a.example/{q}", headers: {Host: x}}'),
        [
            "tools.yaml:6: find.http.headers.Host: is set by the client itself; remove it",
        ],
    ),
    "source two": (
        src("  a: {http: {base_url: 'https://a.example'}, sql: {url: 'sqlite:///x'}}\n"),
        [
            "tools.yaml:3: sources.a: needs exactly one of http, sql and documents",
        ],
    ),
    "source none": (
        src("  a: {}\n"),
        [
            "tools.yaml:3: sources.a: needs exactly one of http, sql and documents",
        ],
    ),
    "source kind": (
        src("  a: {mongo: {}}\n"),
        [
            "tools.yaml:3: sources.a.mongo: is not a key of source; known: documents, http, sql",
        ],
    ),
    "source base": (
        src("  a: {http: {}}\n"),
        [
            "tools.yaml:3: sources.a.http: needs base_url: scheme, host and the path that all calls"
            " begin with",
        ],
    ),
    "source auth two": (
        src(
            "  a: {http: {base_url: 'https://a.example', auth: {bearer: x, basic: {user: u, password: p}}}}\n"
        ),
        [
            "tools.yaml:3: sources.a.http.auth: needs exactly one of bearer, basic and header",
        ],
    ),
    "source auth basic": (
        src("  a: {http: {base_url: 'https://a.example', auth: {basic: {user: u}}}}\n"),
        [
            "tools.yaml:3: sources.a.http.auth.basic: needs password: the user's password",
        ],
    ),
    "source sql": (
        src("  a: {sql: {url: shop.db}}\n"),
        [
            'tools.yaml:3: sources.a.sql.url: "shop.db" is not an address such as sqlite:///data/shop.db',
        ],
    ),
    "source documents": (
        src("  a: {documents: {paths: []}}\n"),
        [
            "tools.yaml:3: sources.a.documents.paths: [] must not be empty",
        ],
    ),
    "defaults key": (
        HEAD + "defaults: {description: x}\ntools: {}\n",
        [
            "tools.yaml:2: defaults.description: is not a key of defaults; known: cache, confirm,"
            " limits, on_interrupt, requires, result, retry, slow_after, slow_say, timeout, wait,"
            " when_done",
        ],
    ),
    "defaults timeout": (
        HEAD
        + "defaults: {timeout: 0s}\ntools:\n  find:\n    description: F.\n    parameters: {}\n    http: {url: 'https://a.example'}\n",
        [
            'tools.yaml:2: defaults.timeout: "0s" is out of range; write more than 0s and at most 10m',
        ],
    ),
    "toolset unknown": (
        HEAD + "toolsets: {support: [fnd]}\n" + tool(URL)[len(HEAD) :],
        [
            'tools.yaml:2: toolsets.support[0]: there is no tool "fnd" - did you mean "find"?',
        ],
    ),
    "toolset name": (
        HEAD + "toolsets: {find: [find]}\n" + tool(URL)[len(HEAD) :],
        [
            "tools.yaml:2: toolsets.find: is the name of a tool, too; choose another",
        ],
    ),
    "toolset text": (
        HEAD + "toolsets: {support: find}\n" + tool(URL)[len(HEAD) :],
        [
            'tools.yaml:2: toolsets.support: "find" must be a list',
        ],
    ),
    "include missing": (
        HEAD + "include: [more.yaml]\ntools: {}\n",
        [
            'tools.yaml:2: include[0]: "more.yaml" is not a file; write its path, or a pattern such'
            " as tools.d/*.yaml",
        ],
    ),
    "include text": (
        HEAD + "include: more.yaml\ntools: {}\n",
        [
            'tools.yaml:2: include: "more.yaml" must be a list',
        ],
    ),
    "include out": (
        HEAD + "include: [../more.yaml]\ntools: {}\n",
        [
            'tools.yaml:2: include[0]: "../more.yaml" must be a path below the folder of this file',
        ],
    ),
    "a key of JSON Schema that is nearly one": (
        params("{type: object, properties: {q: {type: string, minLenght: 3}}, required: [q]}"),
        [
            "tools.yaml:5: find.parameters.properties.q.minLenght: is not a key of JSON Schema"
            ' - did you mean "minLength"?',
        ],
    ),
    "a format that is nearly one, and an empty enum": (
        params("{type: object, properties: {q: {type: string, format: emial, enum: []}}, required: [q]}"),
        [
            "tools.yaml:5: find.parameters.properties.q.enum: is empty, so that nothing fits it",
            'tools.yaml:5: find.parameters.properties.q.format: "emial" is not a format of JSON Schema'
            ' - did you mean "email"?',
        ],
    ),
    "a range without a value": (
        params("{type: object, properties: {q: {type: string, minLength: 5, maxLength: 3}}, required: [q]}"),
        [
            "tools.yaml:5: find.parameters.properties.q.minLength: is more than maxLength,"
            " so that nothing fits",
        ],
    ),
    "an example of a failure that there is not": (
        tool(URL, "examples: [{args: {q: x}, expect: {error: time_out}}]"),
        [
            'tools.yaml:7: find.examples[0].expect.error: "time_out" is no code of a failed call'
            ' - did you mean "timeout"?',
        ],
    ),
    "what two handlers say": (
        HEAD
        + "sources:\n  shop: {sql: {url: 'sqlite:///nowhere.db'}}\ntools:\n"
        + "  one: {description: d, parameters: {}, python: 'builtin.weather:current', options: {days: 9}}\n"
        + "  two: {description: d, parameters: {type: object, properties: {query: {type: string}},"
        + " required: [query]}, python: 'builtin.sql:query'}\n",
        [
            "tools.yaml:5: one.parameters: builtin.weather:current needs location;"
            " name it in properties and required",
            "tools.yaml:5: one.options.days: 9 must be at most 7",
            'tools.yaml:6: two.options: builtin.sql:query: The database of the source "shop" does not exist.',
        ],
    ),
    "include absolute": (
        HEAD + "include: [/etc/*.yaml]\ntools: {}\n",
        [
            'tools.yaml:2: include[0]: "/etc/*.yaml" must be a path below the folder of this file',
        ],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_with_line_and_remedy(tmp_path: Path, name: str) -> None:
    text, expected = WRONG[name]
    assert [str(problem) for problem in problems(tmp_path, text, {"KEY": "canary"})] == expected


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) >= 120


def test_a_mistake_has_its_column_and_its_tool_too(tmp_path: Path) -> None:
    [problem] = problems(tmp_path, tool(URL, "timeout: soon"))
    assert (problem.file, problem.line, problem.column, problem.tool, problem.path) == (
        "tools.yaml",
        7,
        5,
        "find",
        "find.timeout",
    )
    [problem] = problems(
        tmp_path, params('{type: object, properties: {q: {type: string, pattern: "a++"}}, required: [q]}')
    )
    assert (problem.line, problem.column, problem.tool, problem.path) == (
        5,
        63,
        "find",
        "find.parameters.properties.q.pattern",
    )
    [problem] = problems(tmp_path, HEAD + "toolsets: {support: [find, fnd]}\n" + tool(URL)[len(HEAD) :])
    assert (problem.line, problem.column, problem.tool) == (2, 28, None)


def test_what_the_environment_lacks_is_known_by_name(tmp_path: Path) -> None:
    text = tool(
        'http: {url: "${BASE}/{q}", headers: {X-A: "${A:-a}", X-B: "${B}", X-T: "{tenant}"}}',
        "bind: {tenant: environment.TENANT}",
    )
    (tmp_path / "tools.yaml").write_text(text)
    with pytest.raises(UnusableTools) as caught:
        load_catalog(tmp_path / "tools.yaml", home=tmp_path, data_dir=tmp_path, environment={})
    assert caught.value.missing == ("B", "BASE", "TENANT")


def test_each_mistake_names_the_file_that_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "tools.d").mkdir()
    (tmp_path / "tools.d/a.yaml").write_text(tool(URL) + "defaults: {timeout: 1s}\ninclude: []\n")
    (tmp_path / "tools.d/b.yaml").write_text(
        "version: 1\ntools:\n  look: {description: L., parameters: {}, http: {source: wiki, path: /}}\n"
    )
    (tmp_path / "tools.d/c.yaml").write_text("tools: [\n")
    found = problems(tmp_path, "version: 1\ninclude: [tools.d/*.yaml]\ntools:\n  look: {}\n  find: 3\n")
    assert [str(problem) for problem in found] == [
        "tools.yaml:4: look: needs description: when and for what the model should call this",
        "tools.yaml:4: look: needs parameters: JSON Schema (draft 2020-12) of the arguments; its type is object",
        "tools.yaml:4: look: needs one of python, http and client: true",
        "tools.yaml:5: find: 3 must be a mapping of names and values",
        "tools.d/a.yaml:3: find: is there twice; the first is in tools.yaml:5",
        "tools.d/a.yaml:7: defaults: belongs into the file that includes this one; move it there",
        "tools.d/a.yaml:8: include: belongs into the file that includes this one; move it there",
        "tools.d/b.yaml:3: look: is there twice; the first is in tools.yaml:4",
        "tools.d/c.yaml:2: this is not YAML: did not find expected node content",
    ]


def test_a_file_includes_what_is_below_its_own_folder_wherever_that_is(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    (other / "tools.d").mkdir(parents=True)
    (home / "tools.d").mkdir(parents=True)
    (other / "tools.yaml").write_text("version: 1\ninclude: [tools.d/*.yaml]\ntools: {}\n")
    (other / "tools.d/a.yaml").write_text(tool(URL))
    (home / "tools.d/b.yaml").write_text(tool(URL).replace("find", "look"))
    catalog = load_catalog(other / "tools.yaml", home=home, data_dir=home, environment={})
    assert list(catalog.tools) == ["find"]


def test_a_file_outside_the_home_directory_is_not_included(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "tools.d").mkdir(parents=True)
    (tmp_path / "other.yaml").write_text(tool(URL))
    (home / "tools.d/link.yaml").symlink_to(tmp_path / "other.yaml")
    [problem] = problems(home, "version: 1\ninclude: [tools.d/*.yaml]\ntools: {}\n")
    assert str(problem) == (
        'tools.yaml:2: include[0]: "tools.d/*.yaml" leads to link.yaml outside the home directory'
    )
