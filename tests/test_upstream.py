"""Where the model side is, and what its refusals mean."""

from __future__ import annotations

import pytest

from tornado_live.errors import Unavailable, UpstreamRejected
from tornado_live.live.upstream import (
    GOOGLE,
    GeminiAddress,
    KeyRejected,
    Upstream,
    close_cause,
    http_cause,
    live_url,
)

PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"


def test_every_scheme_of_a_base_url_leads_to_its_websocket() -> None:
    assert live_url(GOOGLE, "v1beta") == f"wss://generativelanguage.googleapis.com{PATH}"
    assert live_url("http://127.0.0.1:9000/", "v1beta") == f"ws://127.0.0.1:9000{PATH}"
    assert live_url("ws://host:1/gateway", "v1beta") == f"ws://host:1/gateway{PATH}"
    assert live_url("wss://host", "v1alpha").endswith(".v1alpha.GenerativeService.BidiGenerateContent")


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (1007, "API key not valid. Please pass a valid API key.", "GEMINI_API_KEY"),
        (1008, "Your API key was reported as leaked. Please use another API key.", "leaked"),
        (
            1008,
            "models/x is not found for API version v1beta, or is not supp",
            "LIVE_MODEL",
        ),
        (1007, "No matching speaker voice found for name: alloy", "voice"),
        (1007, "Text output is not supported for native audio output model.", "modality"),
        (1007, "User location is not supported for the API use.", "location"),
        (1007, "Request contains an invalid argument.", "invalid argument"),
        (1008, "", "refused the setup"),
    ],
)
def test_a_refusal_for_good_names_its_cause_and_remedy(code: int, reason: str, words: str) -> None:
    cause = close_cause(code, reason, opened=False)
    assert isinstance(cause, UpstreamRejected)
    assert words in cause.message


def test_what_may_pass_is_unavailable() -> None:
    for code, reason in (
        (1011, "Internal error encountered."),
        (1011, "The service is currently unavailable."),
        (1006, ""),
        (1011, "Resource has been exhausted (e.g. check quota)."),
    ):
        assert isinstance(close_cause(code, reason, opened=False), Unavailable)
    assert isinstance(close_cause(1007, "Request contains an invalid argument.", opened=True), Unavailable)


def test_http_statuses_of_a_refused_handshake_are_told_apart() -> None:
    for status in (400, 401, 403, 404):
        assert isinstance(http_cause(status), UpstreamRejected)
    assert http_cause(429).retry_after_ms == 30_000
    assert isinstance(http_cause(503), Unavailable)


def test_a_refusal_of_the_key_is_kept_until_a_setup_is_accepted() -> None:
    upstream = Upstream(GeminiAddress(), None, "v1beta")
    upstream.refused(Unavailable("later"))
    assert upstream.unready() is None
    upstream.refused(UpstreamRejected("no such voice"))
    assert upstream.unready() is None, "that is one client's matter"
    upstream.refused(KeyRejected("bad key"))
    assert upstream.unready() == "bad key"
    upstream.accepted()
    assert upstream.unready() is None
