"""Why a connection to the model side was refused or lost: close codes and reasons into named causes. Pure.

Google closes with 1007, 1008 or 1011 for nearly everything, and the reason, cut at 123 bytes, is for people.
What a close means depends on the words, on whether the setup was accepted, on what was sent last, and on the
model. `CAUSES` is the one table: each row says how it is recognised, by which evidence, and what it means. The
first row that fits counts, and the last two fit everything. docs/troubleshooting.md shows the same table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from tornado_live.errors import (
    BadMessage,
    Limited,
    LiveError,
    SetupRejected,
    Unavailable,
    UpstreamRejected,
    UpstreamTimeout,
)
from tornado_live.observe.logs import masked
from tornado_live.wire.models import Kind, LiveModel

QUOTA_RETRY_MS = 30_000


class Retry(StrEnum):
    """What may be tried after a failure.

    RESUME: dial again, with the handle if there is one. FRESH: dial again without the handle, seeded from
    memory. LATER: not now, but the client may. NEVER: somebody has to mend something first.
    """

    RESUME = "resume"
    FRESH = "fresh"
    LATER = "later"
    NEVER = "never"


class Blame(StrEnum):
    """Whether a message of the client's was to blame. A guest writes its own: it is closed with the blame, where
    that is only likely once it has happened twice in a row."""

    NOBODY = "nobody"
    LIKELY = "likely"
    MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that goes wrong. `name` is stable: it stands in the log, in events and in metrics.

    `message` is told to the client: what happened and what to do; in the table, {said} stands for what the other
    side said. `remedy` is for the operator.
    `key_refused`: it meets every conversation alike, until the key is changed.
    """

    name: str
    retry: Retry
    error: type[LiveError]
    message: str
    remedy: str
    key_refused: bool = False
    retry_after_ms: int | None = None
    unquoted: str | None = None
    """The message without what the other side said, where it has any of it."""
    blames: Blame = Blame.NOBODY

    def failure(self) -> LiveError:
        """What the client is told once nothing more is tried."""
        return self.error(self.message, retry_after_ms=self.retry_after_ms)

    def guests_failure(self) -> LiveError:
        """The same for a client of Google's protocol, which wrote its setup and its messages itself.

        Nothing of it is in the other side's words, and nothing is for the operator: that is in the log.
        """
        if self.blames is not Blame.NOBODY:
            return BadMessage(self.message if self.unquoted is None else self.unquoted)
        if self.error is SetupRejected:
            return SetupRejected(_GUESTS_SETUP.get(self.name, _SETUP_NOT_TAKEN))
        if self.error is UpstreamRejected:
            return UpstreamRejected(_GUESTS_SETUP.get(self.name, _NOT_TO_BE_HAD))
        # With Limited's code such clients do not come back at once.
        error = Limited if self.retry is Retry.LATER else self.error
        return error(_LATER_AGAIN, retry_after_ms=self.retry_after_ms)


_SETUP_NOT_TAKEN = "The model does not take this setup; check its fields against what the model takes."
_NOT_TO_BE_HAD = "The model cannot be had here; the operator of this server must mend that."
_LATER_AGAIN = "The service is currently unavailable."
_GUESTS_SETUP = {
    "model_unknown": "There is no model of this name here.",
    "publisher_model_unknown": "There is no model of this name here.",
    "modality_refused": "The model does not answer in these responseModalities.",
    "voice_unknown": "The model has no voice of this name.",
    "voice_without_audio": "speechConfig goes with responseModalities AUDIO only.",
    "thinking_level_missing": "This model wants a thinkingConfig.thinkingLevel.",
    "thinking_refused": "This model does not take this thinkingConfig.",
}


def _never(name: str, message: str, remedy: str, *, key_refused: bool = False) -> Cause:
    return Cause(name, Retry.NEVER, UpstreamRejected, message, remedy, key_refused)


def _never_so(name: str, message: str, remedy: str) -> Cause:
    """Never with this setup, which may be the client's own."""
    return Cause(name, Retry.NEVER, SetupRejected, message, remedy)


def _later(name: str, message: str, remedy: str, retry_after_ms: int) -> Cause:
    return Cause(name, Retry.LATER, Unavailable, message, remedy, retry_after_ms=retry_after_ms)


def _resume(name: str, message: str, remedy: str, error: type[LiveError] = Unavailable) -> Cause:
    return Cause(name, Retry.RESUME, error, message, remedy)


def _blaming(blames: Blame, retry: Retry, name: str, message: str, remedy: str) -> Cause:
    return Cause(name, retry, Unavailable, message, remedy, blames=blames)


def _fresh(name: str, message: str, remedy: str) -> Cause:
    return Cause(name, Retry.FRESH, Unavailable, message, remedy)


# --- what is seen on our side, without a close or a status of the model side

UNREACHABLE = _resume(
    "unreachable",
    "The model's server cannot be reached; check GEMINI_BASE_URL and the network.",
    "Name resolution, firewall, route, TLS: try `curl -v` on GEMINI_BASE_URL from this machine. The Live "
    "connection does not use HTTPS_PROXY.",
)
CERTIFICATE_UNTRUSTED = _never(
    "certificate_untrusted",
    "The certificate of the model's server is not trusted; the server's operator must mend that.",
    "A proxy that opens TLS? Name its authority in SSL_CERT_FILE. Else check GEMINI_BASE_URL and the "
    "machine's clock.",
)
DIAL_TIMED_OUT = _resume(
    "dial_timed_out",
    "The model's server did not answer; check the network.",
    "Something swallows the packets on the way: a firewall, or a proxy that does not pass WebSockets on.",
    UpstreamTimeout,
)
NO_SETUP_ANSWER = _resume(
    "no_setup_answer",
    "The model did not answer the setup in time; try again.",
    "Google's side is overloaded, or the address is no Live API. If it stays, try another model or region.",
    UpstreamTimeout,
)
SIMULATOR_DOWN = _resume(
    "simulator_down",
    "The simulator does not start; the log says why.",
    "Look for `simulator_ended` in the log. Without a key the simulator answers; with GEMINI_API_KEY in "
    ".env it is Gemini.",
)
CREDENTIALS_MISSING = _never(
    "credentials_missing",
    "The server has no Google Cloud credentials; its operator must give it some.",
    "Name a file in GOOGLE_APPLICATION_CREDENTIALS, run `gcloud auth application-default login`, or give "
    "the machine a service account; it needs the role Vertex AI User.",
    key_refused=True,
)
CREDENTIALS_REFUSED = _never(
    "credentials_refused",
    "Google does not accept the server's credentials; its operator must renew them.",
    "Make a new key for the service account, or run `gcloud auth application-default login` again; check "
    "the machine's clock.",
    key_refused=True,
)
LINE_LOST = _resume(
    "line_lost",
    "The connection to the model was lost; connect again.",
    "The network between here and Google, or Google's front end. Look at it only if it is frequent: a NAT "
    "or proxy that forgets connections, or a machine out of memory.",
)
UNREADABLE = _resume(
    "unreadable",
    "The model's server sent what cannot be read; connect again.",
    "Three messages in a row were no JSON. A proxy between here and Google changes the traffic, or the "
    "address is no Live API: check GEMINI_BASE_URL.",
)
TOO_LARGE = _blaming(
    Blame.LIKELY,
    Retry.RESUME,
    "too_large",
    "A message was too large for the connection to the model; send smaller pictures or texts.",
    "Google takes messages up to about 1 MB, this server up to 16 MiB. Look for large pictures, tool "
    "answers or instructions.",
)
WENT_SILENT = _resume(
    "went_silent",
    "The model does not answer; say it again, or connect anew.",
    "Known of Google's models, mostly after tool answers and interruptions. If it is frequent, try "
    "another model, and shorter tool answers.",
)

# --- what several rows mean

HANDLE_REFUSED = _fresh(
    "handle_refused",
    "The model's memory of this conversation is gone; connect again.",
    "The handle was too old, or Google has lost the session: the conversation goes on in a new one, "
    "seeded from memory. Frequent only if conversations are away for more than two hours.",
)
AGE_LIMIT = _resume(
    "age_limit",
    "The model's server ended the connection for its age; connect again.",
    "Google limits how long a connection lives; the conversation is moved to a new one before. If it is "
    "frequent, set `connection_s` of this model in config/models.yaml lower than the age that the log "
    "shows.",
)
INTERNAL = _resume(
    "internal_error",
    "The model's server had a failure of its own; connect again.",
    "Google's side failed. If it is frequent: shorter instructions and tool answers, or another model; "
    "the status page of Google AI Studio.",
)
TOOL_ANSWER_REFUSED = _resume(
    "tool_answer_refused",
    "The model's server broke off at a tool's answer; connect again.",
    "Known of Google's models, mostly of 2.5: some tool answers end the connection. If it is always the "
    "same tool, make its answer smaller and plainer; else try another model.",
)
MODEL_UNKNOWN = _never(
    "model_unknown",
    "The model is not known to this key; check GEMINI_LIVE_MODEL (tornado-live doctor lists the models).",
    "Take a model that `tornado-live doctor` names. Google ends preview models; API_VERSION may matter too.",
)
PROJECT_DENIED = _never(
    "project_denied",
    "The key's project may not use this API.",
    "Switch on the Generative Language API (Vertex: the Vertex AI API) for the project, or ask Google's "
    "support why it is blocked.",
    key_refused=True,
)
MODALITY_REFUSED = _never_so(
    "modality_refused",
    "The model does not answer in that modality.",
    "Live models of today answer with AUDIO only; take TEXT out of `response_modalities` and use the "
    "transcript.",
)
SETUP_REFUSED = _never_so(
    "setup_refused",
    "The model refused the setup{said}; check the configuration of the assistant.",
    "The words are Google's; they name the part of `gemini:` or `assistants:` that this model does not "
    "take. With no name in them, take parts away until it opens: first tools, then the newest options.",
)
MESSAGE_REFUSED = _blaming(
    Blame.LIKELY,
    Retry.RESUME,
    "message_refused",
    "The model's server refused a message{said}; connect again.",
    "A message of a form that this model does not take. If it is frequent, please report it with the "
    "log's `model_closed` line and the model's name.",
)


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a connection as it was met; the fields are those of `of_close`."""

    code: int
    reason: str
    facts: LiveModel | None
    last_sent: str
    opened: bool
    resuming: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """How a row is recognised: by the words of the reason, or by the code where they do not matter.

    `reason` is what was read; `pattern` is the regular expression that is looked for, None for the very words and
    "" for any. `codes` are those that it came with, and decide only with the pattern "". Every other field is a
    condition, which holds where it is left out. `model` does not hold for a model whose facts are not known; its
    docstring says it in words.
    """

    reason: str = ""
    codes: tuple[int, ...] = ()
    pattern: str | None = None
    opened: bool | None = None
    resuming: bool | None = None
    sent: frozenset[str] = frozenset()
    model: Callable[[LiveModel], bool] | None = None

    def fits(self, close: Close) -> bool:
        return (
            self._said(close)
            and (self.opened is None or self.opened == close.opened)
            and (self.resuming is None or self.resuming == close.resuming)
            and (not self.sent or close.last_sent in self.sent)
            and (self.model is None or (close.facts is not None and self.model(close.facts)))
        )

    def _said(self, close: Close) -> bool:
        words = re.escape(self.reason) if self.pattern is None else self.pattern
        if words:
            return re.search(words, close.reason, re.IGNORECASE) is not None
        return not self.codes or close.code in self.codes


@dataclass(frozen=True, slots=True)
class Status:
    """A handshake that was answered with another HTTP status than 101."""

    of: range
    shown: str


@dataclass(frozen=True, slots=True)
class Own:
    """What is noticed on our side; no close frame says it."""

    words: str


@dataclass(frozen=True, slots=True)
class Row:
    """What is seen, what it means, and how that is known: `evidence`, and where it can be read."""

    seen: Seen | Status | Own
    cause: Cause
    evidence: Kind
    source: str


def _deaf_during_call(facts: LiveModel) -> bool:
    """by a model that hears nothing during a call"""
    return not facts.hears_during_call


def _not_described(facts: LiveModel) -> bool:
    """by a model that is not in models.yaml"""
    return not facts.listed


_TEXT = frozenset({"text", "history"})
_AUDIO = frozenset({"audio"})
_VIDEO = frozenset({"video"})
_TOOL = frozenset({"tool_response"})
_ACTIVITY = frozenset({"activity"})
_INVALID = "Request contains an invalid argument."
_NOT_IMPLEMENTED = "Operation is not implemented, or supported, or enabled."
_NOT_FOUND = "Requested entity was not found."

_STATUSES = (
    Row(
        Status(range(401, 402), "HTTP 401"),
        _never(
            "upgrade_unauthorised",
            "The model's server refused the key (HTTP 401); check GEMINI_API_KEY.",
            "Copy the key anew from aistudio.google.com/apikey; behind a gateway, the key that the "
            "gateway wants.",
            key_refused=True,
        ),
        "inferred",
        "RFC 9110",
    ),
    Row(
        Status(range(403, 404), "HTTP 403"),
        _never(
            "upgrade_forbidden",
            "The model's server refused the key (HTTP 403); check GEMINI_API_KEY.",
            "The key or its project may not use the Live API, or a gateway or firewall says no.",
            key_refused=True,
        ),
        "inferred",
        "RFC 9110",
    ),
    Row(
        Status(range(404, 405), "HTTP 404"),
        _never(
            "upgrade_not_found",
            "The model's server does not know this address (HTTP 404); check GEMINI_BASE_URL.",
            "GEMINI_BASE_URL or API_VERSION names something that is no Live API.",
        ),
        "inferred",
        "RFC 9110",
    ),
    Row(
        Status(range(429, 430), "HTTP 429"),
        _later(
            "upgrade_quota",
            "The quota of the key is used up for now (HTTP 429); try later.",
            "Raise the quota in AI Studio, or allow fewer conversations at a time.",
            QUOTA_RETRY_MS,
        ),
        "reported",
        "kazunori279/interpretab#13",
    ),
    Row(
        Status(range(500, 600), "HTTP 5xx; after 503 with Retry-After not before that"),
        _resume(
            "upgrade_unavailable",
            "The model's server is not available (HTTP {said}); try later.",
            "Google's side, or the gateway before it, is down or overloaded. Wait; look at its status page.",
        ),
        "inferred",
        "RFC 9110",
    ),
    Row(
        Status(range(1000), "any other HTTP status"),
        _never(
            "upgrade_refused",
            "The model's server refused the connection (HTTP {said}); check GEMINI_BASE_URL.",
            "GEMINI_BASE_URL leads to something that is no Live API: a redirect, a proxy, a web page.",
        ),
        "inferred",
        "RFC 9110",
    ),
)

_KEY = (
    Row(
        Seen("API key not valid. Please pass a valid API key.", (1007,), "API key not valid|API_KEY_INVALID"),
        _never(
            "key_invalid",
            "The key is not valid; check GEMINI_API_KEY.",
            "Copy it anew from aistudio.google.com/apikey into .env; no quotes, no spaces.",
            key_refused=True,
        ),
        "reported",
        "sonichi/sutando#569",
    ),
    Row(
        Seen("API key expired. Please renew the API key.", (1007,), "API key expired"),
        _never(
            "key_expired",
            "The key is not valid any more; check GEMINI_API_KEY.",
            "Make a new key at aistudio.google.com/apikey.",
            key_refused=True,
        ),
        "reported",
        "yagudaev/voiceclaw#155",
    ),
    Row(
        Seen(
            "Method doesn't allow unregistered callers",
            (1008,),
            "unregistered callers|API key is missing",
        ),
        _never(
            "key_missing",
            "The model's server wants a key; put GEMINI_API_KEY into .env.",
            "Make a key at aistudio.google.com/apikey.",
            key_refused=True,
        ),
        "documented",
        "https://ai.google.dev/gemini-api/docs/troubleshooting",
    ),
    Row(
        Seen(
            "Your API key was reported as leaked. Please use another API key.", (1008,), "reported as leaked"
        ),
        _never(
            "key_leaked",
            "Google has blocked this key as leaked; make a new one.",
            "Make a new key, keep it out of version control, and look for where the old one got out.",
            key_refused=True,
        ),
        "reported",
        "googleapis/python-genai#1710",
    ),
    Row(
        Seen("Token has been used too many times", (1011,), "Token has been used too many"),
        _never(
            "token_spent",
            "The short-lived token was used too often; use a new one.",
            "GEMINI_API_KEY is a token (auth_tokens/…) that opens a limited number of sessions: put an "
            "API key there.",
            key_refused=True,
        ),
        "reported",
        "reports of the real service, 2026",
    ),
    Row(
        Seen("Your project has been denied access. Please contact support.", (1008,), "denied access"),
        PROJECT_DENIED,
        "reported",
        "FatihMakes/Mark-LIII#44",
    ),
    Row(
        Seen(
            "Generative Language API has not been used in project … before or it is disabled.",
            (1008,),
            "has not been used in project|it is disabled",
        ),
        PROJECT_DENIED,
        "reported",
        "reports of the real service, 2026",
    ),
    Row(
        Seen("Project 'projects/…' not found or deleted.", (1008,), "Project .* not found or deleted"),
        _never(
            "project_unknown",
            "The Google Cloud project is not known.",
            "GOOGLE_CLOUD_PROJECT is misspelt, has blanks around it, or names a project that was deleted.",
            key_refused=True,
        ),
        "reported",
        "GoogleCloudPlatform/generative-ai#1748",
    ),
    Row(
        Seen("User location is not supported for the API use.", (1007,), "User location is not supported"),
        _never(
            "location_refused",
            "Google does not offer this API at the server's location.",
            "Run the server in a country where Google offers the API, or use Vertex in a region of its own.",
        ),
        "reported",
        "google-gemini/cookbook#781; nishuzumi/gemini-teacher#7",
    ),
)

_QUOTA = (
    Row(
        Seen("Your prepayment credits are depleted.", (1011,), "credits are depleted|billing account"),
        _later(
            "credits_depleted",
            "The credits of the key's project are used up; try later.",
            "Add credits to the project in AI Studio; nobody can talk before.",
            10 * QUOTA_RETRY_MS,
        ),
        "reported",
        "sonichi/sutando#569",
    ),
    Row(
        Seen(
            "Resource has been exhausted (e.g. check quota).",
            (1011,),
            "quota|exhausted|rate limit",
        ),
        _later(
            "quota_exhausted",
            "The quota of the key is used up; try later.",
            "Each key has a limit of conversations at a time and of tokens a minute: raise it in AI "
            "Studio, or set `limits.max_conversations` below it.",
            QUOTA_RETRY_MS,
        ),
        "reported",
        "kazunori279/adk-streaming-guide#11",
    ),
)

_MODEL = (
    Row(
        Seen(
            "models/… is not found for API version v1beta, or is not supported for bidiGenerateContent.",
            (1008,),
            "is not found for API version|not supported for bidiGenerateContent",
        ),
        MODEL_UNKNOWN,
        "reported",
        "NousResearch/hermes-agent#114116",
    ),
    Row(
        Seen("Publisher Model projects/… was not found", (1008,), "Publisher Model"),
        _never(
            "publisher_model_unknown",
            "The model is not offered to this project in this region; check GEMINI_LIVE_MODEL and the "
            "location.",
            "Vertex has other model names than AI Studio, and not every region has every model.",
        ),
        "reported",
        "google/adk-python#3314",
    ),
    Row(
        Seen("No matching speaker voice found for name: …", (1007,), "No matching speaker voice"),
        _never_so(
            "voice_unknown",
            "The model has no voice of that name; leave it out, or name one of Google's, such as Kore.",
            "Check `speech_config` of the assistant; the list of voices is on Google's page on speech "
            "generation.",
        ),
        "reported",
        "pydantic/pydantic-ai, tests/realtime",
    ),
    Row(
        Seen("Cannot extract voices from a non-audio request.", (1007,), "Cannot extract voices"),
        _never_so(
            "voice_without_audio",
            "A voice was asked for where the model does not speak.",
            "Take `speech_config` out of the assistant, or answer with AUDIO.",
        ),
        "reported",
        "livekit/agents#3540",
    ),
    Row(
        Seen(
            "The requested combination of response modalities (TEXT) is not supported by the model",
            (1007,),
            "response modalit|Text output is not supported",
        ),
        MODALITY_REFUSED,
        "reported",
        "pydantic/pydantic-ai#7269",
    ),
    Row(
        Seen(
            "The audio content type (CONTENT_TYPE_AUDIO) is not supported for this model configuration",
            (1007,),
            "CONTENT_TYPE_AUDIO",
        ),
        _never_so(
            "audio_input_refused",
            "The model does not listen with this configuration.",
            "Take a Live model that hears, or leave out the option that makes it deaf "
            "(`response_modalities: [TEXT]`).",
        ),
        "reported",
        "reports of the real service, 2026",
    ),
    Row(
        Seen("Thinking level must be specified for this model", (1007,), "Thinking level must be specified"),
        _never_so(
            "thinking_level_missing",
            "The model needs a thinking level in its configuration.",
            "Set `thinking_config.thinking_level` to LOW, MEDIUM or HIGH for the assistant.",
        ),
        "reported",
        "NousResearch/hermes-agent#114116",
    ),
    Row(
        Seen(
            "Thinking … is not supported", (1007,), r"thinking.{0,40}(not supported|unsupported|not allowed)"
        ),
        _never_so(
            "thinking_refused",
            "The model takes no thinking configuration of this kind.",
            "Take `thinking_config` out of the assistant; config/models.yaml says what each model takes.",
        ),
        "inferred",
        "https://ai.google.dev/gemini-api/docs/live-api/thinking",
    ),
    Row(
        Seen("… is not supported in the live api.", (1007,), "not supported in the live api"),
        _never_so(
            "field_unsupported",
            "The model refused a part of the setup{said}; check the configuration of the assistant.",
            "The words name the field: take it out of `gemini:` or `assistants:`.",
        ),
        "reported",
        "Vertex; reports of the real service, 2026",
    ),
)

_BUSY = (
    Row(
        Seen("Thread was cancelled when writing StartStep status", (1011,), "Thread was cancel"),
        INTERNAL,
        "reported",
        "reports of the real service, 2026",
    ),
    Row(
        Seen("Failed to run inference for model: …", (1011,), "Failed to run inference"),
        INTERNAL,
        "reported",
        "reports of the real service, 2026",
    ),
    Row(
        Seen("The service is currently unavailable.", (1011,), "service is currently unavailable|overloaded"),
        _resume(
            "service_unavailable",
            "The model's server is not available; try again.",
            "Google's side is down or overloaded. Wait; look at the status page of Google AI Studio.",
        ),
        "reported",
        "googleapis/python-genai#760",
    ),
)

_RESUMING = (
    Row(
        Seen("Invalid session handle", (1007,), "session handle"),
        HANDLE_REFUSED,
        "reported",
        "googleapis/python-genai#2197",
    ),
    Row(
        Seen("BidiGenerateContent session not found", (1008,), "session not found", opened=False),
        HANDLE_REFUSED,
        "reported",
        "reports of the real service, 2026",
    ),
    Row(
        Seen("BidiGenerateContent session not found", (1008,), "session not found"),
        _resume(
            "session_lost",
            "The model's server has lost the conversation; connect again.",
            "Google has moved or dropped the session; nothing to do, unless it is frequent.",
        ),
        "reported",
        "reports of the real service, 2026",
    ),
    Row(
        Seen(_INVALID, (1007, 1008), "", opened=False, resuming=True),
        HANDLE_REFUSED,
        "reported",
        "https://discuss.ai.google.dev/t/186392",
    ),
    Row(
        Seen("Internal error encountered.", (1011,), "", opened=False, resuming=True),
        _resume(
            "resume_too_early",
            "The model's server still holds the old connection; connect again.",
            "Google refuses a handle while it believes the old connection to be open. It passes within "
            "seconds.",
        ),
        "reported",
        "aicc2025/sip-to-ai#14",
    ),
)

_FULL = _fresh(
    "context_full",
    "The conversation has become too long for the model; connect again.",
    "It goes on in a new session, with the newest part of what was said. Set `context_window_compression` "
    "for the assistant, which is the default, and look for large tool answers.",
)
_TOO_LONG = "token count.{0,40}exceeds|context.{0,24}(exhaust|exceed)"

_AGE = (
    Row(
        Seen(
            "The input token count exceeds the maximum number of tokens allowed",
            (1007,),
            _TOO_LONG,
            opened=True,
        ),
        _FULL,
        "reported",
        "1007: livekit/agents-js#1841; the words: Gemini's other APIs",
    ),
    Row(
        Seen(
            "The input token count exceeds the maximum number of tokens allowed",
            (1007,),
            _TOO_LONG,
            resuming=True,
        ),
        _FULL,
        "inferred",
        "as in conversation",
    ),
    Row(
        Seen("Deadline expired before operation could complete.", (1011,), "Deadline expired", opened=True),
        AGE_LIMIT,
        "reported",
        "kizuna-ai-lab/sokuji#179; https://discuss.ai.google.dev/t/186392",
    ),
    Row(
        Seen("Deadline expired before operation could complete.", (1011,), "Deadline expired", opened=False),
        _resume(
            "overloaded",
            "The model's server did not get ready in time; try again.",
            "Google's side is overloaded. If it stays, try another model or region.",
        ),
        "reported",
        "kizuna-ai-lab/sokuji#179",
    ),
    Row(
        Seen("The operation was cancelled.", (1000,), "operation was cancell?ed", opened=True),
        AGE_LIMIT,
        "reported",
        "Vertex, after 10 minutes: pipecat-ai/pipecat#3112",
    ),
    Row(
        Seen(
            "Connection aborted because the client failed to close the connection after receiving a "
            "GoAway signal once the session durat",
            (1008,),
            "GoAway",
        ),
        AGE_LIMIT,
        "reported",
        "pollen-robotics/reachy_mini_conversation_app#357",
    ),
    Row(
        Seen("The operation was aborted.", (1008,), "operation was aborted", opened=True),
        AGE_LIMIT,
        "reported",
        "after a GoAway: autonomous-ai/autonomous-os#238",
    ),
)

_TALKING = (
    Row(
        Seen(_NOT_IMPLEMENTED, (1008,), "not implemented, or supported", opened=True, sent=_TOOL),
        TOOL_ANSWER_REFUSED,
        "reported",
        "googleapis/js-genai#1236; livekit/agents#4545",
    ),
    Row(
        Seen(_NOT_FOUND, (1008,), "", opened=True, sent=_TOOL),
        TOOL_ANSWER_REFUSED,
        "reported",
        "google-gemini/deprecated-generative-ai-js#487",
    ),
    Row(
        Seen("Internal error occurred.", (1011, 1007), "", opened=True, sent=_TOOL),
        TOOL_ANSWER_REFUSED,
        "reported",
        "google-gemini/deprecated-generative-ai-js#487; google/adk-python#3918",
    ),
    Row(
        Seen("application/json isn't supported", (1008,), "application/json isn"),
        _fresh(
            "code_output_refused",
            "The model's server could not use the output of its own code; connect again.",
            "Known of code execution that draws. Take `codeExecution` out of the assistant's tools.",
        ),
        "reported",
        "googleapis/python-genai#182",
    ),
    Row(
        Seen(_NOT_IMPLEMENTED, (1008,), "not implemented, or supported", opened=False),
        _never_so(
            "setup_unsupported",
            "The model's server does not offer a part of the setup; check the configuration of the "
            "assistant.",
            "A field that only Vertex takes, or one that this model or API version has not: take the "
            "newest options out of `gemini:` and `assistants:` one by one.",
        ),
        "reported",
        "Vertex-only setup fields on the Developer API",
    ),
    Row(
        Seen(
            _NOT_IMPLEMENTED,
            (1008,),
            "not implemented, or supported",
            opened=True,
            sent=_AUDIO,
            model=_deaf_during_call,
        ),
        _resume(
            "audio_during_call",
            "The model's server broke off while a tool was working; connect again.",
            "This model does not take sound while it waits for a tool; the sound is held back, but a call "
            "may begin while some is on its way. If it is frequent, make the tool quicker, or take a "
            "model that hears meanwhile.",
        ),
        "reported",
        "googleapis/js-genai#1236",
    ),
    Row(
        Seen(_NOT_IMPLEMENTED, (1008,), "not implemented, or supported", opened=True),
        _resume(
            "operation_refused",
            "The model's server broke off the conversation; connect again.",
            "Known of Google's models, mostly of 2.5, at random and around tool calls. If it is frequent, "
            "try another model.",
        ),
        "reported",
        "googleapis/js-genai#1236",
    ),
    Row(
        Seen(_INVALID, (1007,), "", opened=True, sent=_TEXT),
        _blaming(
            Blame.MESSAGE,
            Retry.FRESH,
            "text_refused",
            "The model's server refused a text; connect again.",
            "The model takes typed text or the conversation's memory in another form than "
            "config/models.yaml says: look at `typed` and `seed` of the model there.",
        ),
        "reported",
        "livekit/agents-js#1179",
    ),
    Row(
        Seen(_INVALID, (1007,), "", opened=True, sent=_ACTIVITY),
        _blaming(
            Blame.MESSAGE,
            Retry.RESUME,
            "activity_refused",
            "The model's server refused a mark of who speaks; connect again.",
            "activityStart and activityEnd are for setups without automatic detection; please report it.",
        ),
        "reported",
        "googleapis/python-genai#1720",
    ),
    Row(
        Seen(_INVALID, (1007,), "", opened=True, sent=_AUDIO),
        _blaming(
            Blame.LIKELY,
            Retry.RESUME,
            "audio_refused",
            "The model's server refused the sound; connect again.",
            "Without automatic detection, sound is refused before activityStart. Else a mistake of "
            "Google's side, or a rate that the model does not take.",
        ),
        "reported",
        "BasedHardware/omi#7611",
    ),
    Row(
        Seen(_INVALID, (1007,), "", opened=True, sent=_VIDEO),
        _blaming(
            Blame.MESSAGE,
            Retry.RESUME,
            "video_refused",
            "The model's server refused a picture; connect again, and send smaller JPEG pictures.",
            "Messages near 1 MB and pictures of other kinds than JPEG and PNG are refused.",
        ),
        "reported",
        "googleapis/mcp-toolbox#3637",
    ),
    Row(
        Seen("Internal error encountered.", (1011,), "Internal error"),
        INTERNAL,
        "reported",
        "googleapis/python-genai#985; livekit/agents#2274",
    ),
)

_LINE = (
    Row(
        Seen("keepalive ping timeout", (1011, 1006), "ping timeout|no answer to a ping"),
        _resume(
            "no_pong",
            "The connection to the model was lost; connect again.",
            "No answer to a ping for a minute: the line was cut without a word. A NAT, proxy or firewall "
            "that forgets connections, or the network's own failure.",
        ),
        "reported",
        "googleapis/python-genai#2935",
    ),
    Row(
        Seen("", (1000,), "", opened=True),
        _fresh(
            "session_finished",
            "The model's server ended the conversation; connect again.",
            "Google gives no reason: the model's context was full, or on Vertex the time was over or "
            "nobody spoke. It goes on in a new session. If it is frequent, set "
            "`context_window_compression` for the assistant.",
        ),
        "documented",
        "https://docs.cloud.google.com Live API, troubleshooting; pipecat-ai/pipecat#3112",
    ),
    Row(
        Seen("", (1001, 1012, 1013, 1014), ""),
        _resume(
            "server_restart",
            "The model's server is going away; connect again.",
            "A server at Google, or the gateway before it, restarts. Nothing to do.",
        ),
        "inferred",
        "RFC 6455 and the IANA registry of close codes",
    ),
    Row(Seen("", (1009,), ""), TOO_LARGE, "inferred", "RFC 6455"),
    Row(Seen("", (1005, 1006, 1015), ""), LINE_LOST, "inferred", "RFC 6455"),
    Row(
        Seen("", (1002, 1003), "", opened=True),
        _resume(
            "protocol_error",
            "The connection to the model broke; connect again.",
            "A frame was not as the WebSocket protocol wants it, mostly a proxy that changes the traffic.",
        ),
        "inferred",
        "RFC 6455",
    ),
)

_ANY = (
    Row(
        Seen(_NOT_FOUND, (1008,), None, opened=False),
        MODEL_UNKNOWN,
        "reported",
        "google-gemini/deprecated-generative-ai-js#487",
    ),
    Row(
        Seen("Precondition check failed.", (1007,), None, opened=False),
        _never_so(
            "precondition_failed",
            "The model's server refused the setup without a reason; check the model and the key's project.",
            "Seen where the project lacks something that the model or a tool needs: billing, a region, an "
            "API that is switched on. Try another model, then another project.",
        ),
        "reported",
        "googleapis/python-genai#130",
    ),
    Row(
        Seen(_INVALID, (1007, 1008), "", opened=False, model=_not_described),
        _never_so(
            "model_not_described",
            "The model refused the setup{said}; check the configuration of the assistant.",
            "The model is not in models.yaml, so its setup was made with care and may still not fit: "
            "describe the model in config/models.yaml, or take one that is in the list.",
        ),
        "inferred",
        "what is known of a model fits its setups",
    ),
    Row(
        Seen(_INVALID, (1002, 1003, 1007, 1008, 1010, *range(3000, 5000)), "", opened=False),
        SETUP_REFUSED,
        "reported",
        "pipecat-ai/pipecat#4403",
    ),
    Row(
        Seen("", (1007, 1008, 1010, *range(3000, 5000)), "", opened=True),
        MESSAGE_REFUSED,
        "reported",
        "BerriAI/litellm#31494",
    ),
    Row(
        Seen("", (), "", opened=True),
        _resume(
            "closed",
            "The connection to the model was lost; connect again.",
            "The model's server closed without a known reason; the log's `model_closed` line has its words.",
        ),
        "inferred",
        "what is not known is tried again",
    ),
    Row(
        Seen("", (), "", opened=False),
        _resume(
            "closed_early",
            "The model's server closed the connection before it was ready; try again.",
            "The model's server closed without a known reason; the log's `model_closed` line has its words.",
        ),
        "inferred",
        "what is not known is tried again",
    ),
)

_OWN = (
    Row(Own("no connection comes about: refused, no such name"), UNREACHABLE, "inferred", "TCP, DNS"),
    Row(Own("TLS: the certificate is not trusted here"), CERTIFICATE_UNTRUSTED, "inferred", "RFC 5280"),
    Row(Own("no handshake within 10 s"), DIAL_TIMED_OUT, "inferred", "TCP, HTTP"),
    Row(Own("no answer to the setup within 10 s"), NO_SETUP_ANSWER, "inferred", "setups take 0.3 to 2 s"),
    Row(Own("the simulator that this server starts does not come up"), SIMULATOR_DOWN, "inferred", "our own"),
    Row(
        Own("Vertex AI: google.auth finds no credentials"),
        CREDENTIALS_MISSING,
        "documented",
        "https://docs.cloud.google.com/docs/authentication/application-default-credentials",
    ),
    Row(
        Own("Vertex AI: google.auth gets no token for the credentials"),
        CREDENTIALS_REFUSED,
        "documented",
        "https://docs.cloud.google.com/docs/authentication/application-default-credentials",
    ),
    Row(Own("three messages in a row that are not JSON"), UNREADABLE, "inferred", "never reported of Google"),
    Row(
        Own("silence after a text, a tool's answer or the end of speech, also after a nudge"),
        WENT_SILENT,
        "reported",
        "livekit/agents#6600; googleapis/python-genai#2117",
    ),
)

CAUSES: tuple[Row, ...] = (
    *_OWN,
    *_STATUSES,
    *_KEY,
    *_QUOTA,
    *_MODEL,
    *_AGE,
    *_BUSY,
    *_RESUMING,
    *_TALKING,
    *_LINE,
    *_ANY,
)


def of_close(
    code: int, reason: str, *, facts: LiveModel | None, last_sent: str, opened: bool, resuming: bool
) -> Cause:
    """What a close with `code` and `reason` means; for any code and any text.

    `last_sent` is what went to the model side last: setup, history, audio, text, video, tool_response, activity,
    or nothing. `opened`: the setup had been accepted. `resuming`: the setup carried a handle.
    """
    close = Close(code, reason, facts, last_sent, opened, resuming)
    cause = next(row.cause for row in CAUSES if isinstance(row.seen, Seen) and row.seen.fits(close))
    words = "".join(letter if letter.isprintable() else " " for letter in reason).strip()
    return _saying(cause, f' ("{masked(words)}")' if words else "")


LONGEST_WAIT_S = 3600.0


def of_status(status: int, retry_after_s: float | None) -> Cause:
    """What a handshake that was answered with `status` means; `retry_after_s` is what the server asked for."""
    cause = next(row.cause for row in CAUSES if isinstance(row.seen, Status) and status in row.seen.of)
    if status in (429, 503) and retry_after_s is not None and retry_after_s >= 0:
        wait_ms = round(min(retry_after_s, LONGEST_WAIT_S) * 1000)
        cause = replace(cause, retry=Retry.LATER, retry_after_ms=wait_ms)
    return _saying(cause, str(status))


def _saying(cause: Cause, said: str) -> Cause:
    if "{said}" not in cause.message:
        return cause
    unquoted = cause.message.replace(" (HTTP {said})", "").replace("{said}", "")
    return replace(cause, message=cause.message.replace("{said}", said), unquoted=unquoted)
