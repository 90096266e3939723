"""A question to a text model of Google's, with a prompt of the operator's: to plan, to sum up, to translate."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx
from jsonschema.exceptions import SchemaError

from tornado_live.errors import nearest
from tornado_live.tools.complaints import listed
from tornado_live.tools.context import ToolContext
from tornado_live.tools.handler import Mistake, Sources, handler
from tornado_live.tools.result import Json, ToolCode, ToolError
from tornado_live.tools.validation import check_schema, checker_of, schema_mistakes

if TYPE_CHECKING:
    from google.genai import Client
    from google.genai.errors import APIError
    from google.genai.types import GenerateContentConfig, GenerateContentResponse

logger = logging.getLogger(__name__)

OPTIONS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "model": {
            "type": "string",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$",
            "description": "A text model of the Gemini API",
        },
        "prompt": {
            "type": "string",
            "minLength": 1,
            "description": "What is asked; {parameter} stands for what the assistant gives",
        },
        "system": {"type": "string", "minLength": 1, "description": "System instruction"},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "thinking_budget": {
            "type": "integer",
            "minimum": -1,
            "description": "Tokens for thinking, 0 for none; the model's own if left out",
        },
        "max_output_tokens": {"type": "integer", "minimum": 1, "maximum": 65_536, "default": 1_024},
        "max_input_chars": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 20_000},
        "schema": {"type": "object", "description": "JSON Schema: the answer is data of this shape"},
        "api_key": {"type": "string", "description": "GEMINI_API_KEY if left out"},
        "base_url": {
            "type": "string",
            "pattern": r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
            "default": "https://generativelanguage.googleapis.com",
        },
        "api_version": {"type": "string", "enum": ["v1beta", "v1", "v1alpha"], "default": "v1beta"},
        "allow_private": {
            "type": "boolean",
            "default": False,
            "description": "true: base_url is a service in the operator's own network",
        },
    },
    "required": ["model", "prompt"],
    "additionalProperties": False,
}

_SLOT: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LARGEST_ANSWER: Final = 4_000_000
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


def check_prompt(
    options: Mapping[str, Json], parameters: Mapping[str, Json], _: Sources
) -> Iterator[Mistake]:
    """What of the options does not go together with the tool's parameters, or with itself."""
    properties = parameters.get("properties")
    known = list(properties) if isinstance(properties, dict) else []
    used = {key: _SLOT.findall(str(options.get(key, ""))) for key in ("prompt", "system")}
    for key, names in used.items():
        for name in dict.fromkeys(names):
            if name not in known:
                yield (key,), f"{{{name}}} is not among the parameters{nearest(name, known) or listed(known)}"
    for name in known:
        if not any(name in names for names in used.values()):
            yield (), f"the parameter {name} is used nowhere; write {{{name}}} in prompt or system"
    schema = options.get("schema")
    if isinstance(schema, dict):
        try:
            check_schema(schema)
        except SchemaError as error:
            at = ("schema", *error.absolute_path)
            yield at, f"is not JSON Schema: {error.message.splitlines()[0][:200]}"
        else:
            for path, mistake in schema_mistakes(schema):
                yield ("schema", *path), mistake
    base = urlsplit(str(options["base_url"]))
    if base.scheme == "http" and base.hostname not in _LOOPBACK:
        yield ("base_url",), "the key would cross the network unencrypted; write https://"


@handler(options=OPTIONS, check=check_prompt, environment={"api_key": ("GEMINI_API_KEY", "GOOGLE_API_KEY")})
async def ask(context: ToolContext, **arguments: Json) -> Json:
    """What the model answers: `{"text"}`, or `{"data"}` in the shape of `schema`; `note` where it was cut."""
    options = context.options
    key = str(options.get("api_key") or "")
    if not key:
        raise ToolError(
            ToolCode.UNREACHABLE,
            "The text model cannot be asked, for there is no key for it.",
            hint="Say that whoever runs this server has to set GEMINI_API_KEY.",
        )
    prompt, system = _filled(str(options["prompt"]), arguments), options.get("system")
    instruction = _filled(system, arguments) if isinstance(system, str) else None
    most = int(str(options["max_input_chars"]))
    if len(prompt) + len(instruction or "") > most:
        raise ToolError(
            ToolCode.TOO_LARGE,
            f"That is too much to ask at once: more than {most} characters.",
            hint="Ask with a shorter text.",
        )
    # The library takes a second to import, and a client some time to make.
    client, config = await asyncio.to_thread(_prepared, context, key, instruction)
    from google.genai.errors import APIError

    try:
        answer = await client.aio.models.generate_content(
            model=str(options["model"]),
            contents=[{"role": "user", "parts": [{"text": prompt}]}],
            config=config,
        )
    except APIError as error:
        raise _explained(error) from error
    except (httpx.HTTPError, ValueError) as error:  # ValueError: an answer that is none of Google's
        raise ToolError(
            ToolCode.BAD_ANSWER,
            "The text model's service sent an answer that cannot be read.",
            retryable=True,
        ) from error
    _count(context, answer)
    return await asyncio.to_thread(_told, answer, options.get("schema"))


def _prepared(
    context: ToolContext, key: str, instruction: str | None
) -> tuple[Client, GenerateContentConfig]:
    from google.genai import types

    options = context.options
    base_url, version = str(options["base_url"]), str(options["api_version"])
    private = options["allow_private"] is True
    client = context.owned.get(
        (_client, key, base_url, version, private),
        lambda: _client(context.http, key, base_url, version, allow_private=private),
    )
    schema, budget = options.get("schema"), options.get("thinking_budget")
    config = types.GenerateContentConfig.model_validate(
        {
            "max_output_tokens": options["max_output_tokens"],
            "temperature": options.get("temperature"),
            "system_instruction": instruction,
            "thinking_config": None if budget is None else {"thinking_budget": budget},
            "response_mime_type": "application/json" if schema else None,
            "response_json_schema": schema or None,
            "automatic_function_calling": {"disable": True},
        }
    )
    return client, config


def _client(http: httpx.AsyncClient, key: str, base_url: str, version: str, *, allow_private: bool) -> Client:
    from google.genai import Client, types

    # No timeouts of its own: the whole call has one.
    way = httpx.AsyncClient(
        transport=_Shared(http, allow_private=allow_private), trust_env=False, timeout=httpx.Timeout(None)
    )
    return Client(
        api_key=key,
        vertexai=False,
        http_options=types.HttpOptions(base_url=base_url, api_version=version, httpx_async_client=way),
    )


class _Shared(httpx.AsyncBaseTransport):
    """Google's library goes the way of all HTTP of tools: guarded, counted, without proxies of the environment."""

    def __init__(self, http: httpx.AsyncClient, *, allow_private: bool) -> None:
        self._http = http
        self._allowed = {"allow_private": allow_private, "max_bytes": _LARGEST_ANSWER}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, **self._allowed}
        return await self._http.send(request, stream=True)


def _filled(template: str, arguments: Mapping[str, Json]) -> str:
    """`template` with its slots filled, in one pass; what was not given is left empty."""
    return _SLOT.sub(lambda slot: _text(arguments.get(slot[1])), template)


def _text(value: Json) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def _explained(error: APIError) -> ToolError:
    """The service's refusal in words of ours; its own are in the log, for they may quote what was asked."""
    logger.warning(
        "the text model's service refused: %s %s",
        error.code,
        error.status,
        extra={"event": "llm_refused", "fields": {"status": error.code, "error": str(error.message)[:300]}},
    )
    words = f"{error.status} {error.message}"
    match error.code:
        case 429:
            return ToolError(
                ToolCode.LIMITED,
                "The text model has been asked too often for now.",
                retryable=True,
                hint="Say that it is busy, and try again in a minute.",
            )
        case 401 | 403:
            return _key_refused()
        case 400 if "API key" in words or "API_KEY" in words:
            return _key_refused()
        case 404:
            return ToolError(
                ToolCode.HTTP_ERROR,
                "There is no such text model (HTTP 404).",
                hint="Say that whoever runs this server has to choose another model for this tool.",
            )
        case 504:
            return ToolError(ToolCode.TIMEOUT, "The text model took too long.", retryable=True)
        case code:
            return ToolError(
                ToolCode.HTTP_ERROR,
                f"The text model's service answered with HTTP {code}.",
                retryable=code >= 500,
            )


def _key_refused() -> ToolError:
    return ToolError(
        ToolCode.NOT_ALLOWED,
        "The text model's service does not take the key.",
        hint="Say that whoever runs this server has to look at its key.",
    )


def _count(context: ToolContext, answer: GenerateContentResponse) -> None:
    usage = answer.usage_metadata
    counted: dict[str, Json] = {"tool": context.tool, "model": str(context.options["model"])}
    if usage is not None:
        counted |= {
            "inputTokens": usage.prompt_token_count,
            "outputTokens": usage.candidates_token_count,
            "thoughtTokens": usage.thoughts_token_count,
        }
    logger.info(
        "tool %s asked %s", context.tool, counted["model"], extra={"event": "llm_asked", "fields": counted}
    )


def _told(answer: GenerateContentResponse, schema: Json) -> Json:
    candidate = answer.candidates[0] if answer.candidates else None
    parts = (candidate.content.parts or []) if candidate is not None and candidate.content is not None else []
    text = "".join(part.text for part in parts if part.text and not part.thought).strip()
    reason = candidate.finish_reason if candidate is not None else None
    why = str(reason.value) if reason is not None else ""
    if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason is not None:
        why = str(answer.prompt_feedback.block_reason.value)
    is_cut = why == "MAX_TOKENS"
    if not text:
        said = "its tokens were used up" if is_cut else why or "nothing was said"
        raise ToolError(
            ToolCode.BAD_ANSWER,
            f"The text model gave no answer ({said}).",
            hint="Ask for less." if is_cut else "Say that there is no answer to that.",
        )
    if not isinstance(schema, dict):
        return {"text": text, "note": "The answer was cut: it was too long."} if is_cut else {"text": text}
    try:
        data: Json = json.loads(text)
        checker_of(schema).validate(data)
    except Exception as error:  # whatever a schema's check may come to with data of a model
        cut = " because it was too long" if is_cut else ""
        raise ToolError(
            ToolCode.BAD_ANSWER,
            f"The text model's answer has not the shape that was asked for{cut}.",
            retryable=True,
        ) from error
    return {"data": data}
