"""Close codes and reasons into named causes: every text that was seen, and any other."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ROOT

from tornado_live.doctor.page import written
from tornado_live.errors import Unavailable, UpstreamRejected, UpstreamTimeout
from tornado_live.live import causes
from tornado_live.live.causes import CAUSES, Cause, Own, Retry, Seen, Status, of_close, of_status
from tornado_live.wire.models import LiveModel, load_models

INVALID = "Request contains an invalid argument."
NOT_IMPLEMENTED = "Operation is not implemented, or supported, or enabled."
NOT_FOUND = "Requested entity was not found."
OVERRUN = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway signal once"
    " the session durat"
)


MODELS = load_models((ROOT / "config/models.yaml").read_text(encoding="utf-8"), "models.yaml")
DEAF, UNKNOWN = MODELS.of("gemini-2.5-flash-native-audio-preview-12-2025"), MODELS.of("gemini-9")


def while_opening(code: int, reason: str, *, resuming: bool = False) -> Cause:
    return of_close(code, reason, facts=None, last_sent="setup", opened=False, resuming=resuming)


def in_conversation(code: int, reason: str, *, sent: str = "audio", resuming: bool = False) -> Cause:
    return of_close(code, reason, facts=None, last_sent=sent, opened=True, resuming=resuming)


@pytest.mark.parametrize(
    ("code", "reason", "name"),
    [
        (1007, "API key not valid. Please pass a valid API key.", "key_invalid"),
        (1007, "API key expired. Please renew the API key.", "key_expired"),
        (1008, "Your API key was reported as leaked. Please use another API key.", "key_leaked"),
        (1008, "Your project has been denied access. Please contact support.", "project_denied"),
        (1008, "Generative Language API has not been used in project 7 before or it is", "project_denied"),
        (1008, "Request trace id: f7, Project 'projects/ x ' not found or deleted.", "project_unknown"),
        (1011, "Token has been used too many times", "token_spent"),
        (1007, "User location is not supported for the API use.", "location_refused"),
        (
            1007,
            "Request trace id: 6e8473cab002a9c9, [ORIGINAL ERROR] generic::failed_precondition: User location is"
            " not supported for the A",
            "location_refused",
        ),
        (1007, INVALID, "setup_refused"),
        (1007, "Cannot extract voices from a non-audio request.", "voice_without_audio"),
        (1007, "No matching speaker voice found for name: alloy", "voice_unknown"),
        (
            1007,
            "The requested combination of response modalities (TEXT) is not supported by the model",
            "modality_refused",
        ),
        (1007, "Text output is not supported for native audio output model.", "modality_refused"),
        (
            1007,
            "The audio content type (CONTENT_TYPE_AUDIO) is not supported for this model configuration",
            "audio_input_refused",
        ),
        (1007, "Thinking level must be specified for this model", "thinking_level_missing"),
        (1007, "Thinking budget is not supported for this model.", "thinking_refused"),
        (1007, "explicitVadSignal is not supported in the live api.", "field_unsupported"),
        (1007, "Precondition check failed.", "precondition_failed"),
        (
            1008,
            "models/x is not found for API version v1beta, or is not supported for bidiGenerateContent. Call",
            "model_unknown",
        ),
        (
            1008,
            "Publisher Model projects/p/locations/l/publishers/google/models/m",
            "publisher_model_unknown",
        ),
        (1008, NOT_FOUND, "model_unknown"),
        (1008, NOT_IMPLEMENTED, "setup_unsupported"),
        (1008, "", "setup_refused"),
        (4001, "who are you?", "setup_refused"),
    ],
)
def test_a_refused_setup_is_refused_for_good_where_only_a_person_can_mend_it(
    code: int, reason: str, name: str
) -> None:
    cause = while_opening(code, reason)
    assert (cause.name, cause.retry) == (name, Retry.NEVER)
    assert issubclass(cause.error, UpstreamRejected)


@pytest.mark.proves("F6")
@pytest.mark.parametrize(
    ("code", "reason", "name", "retry"),
    [
        (1011, "Resource has been exhausted (e.g. check quota).", "quota_exhausted", Retry.LATER),
        (1011, "You exceeded your current quota, please check your plan", "quota_exhausted", Retry.LATER),
        (1011, "Your prepayment credits are depleted. Please go to AI S", "credits_depleted", Retry.LATER),
        (1011, "Deadline expired before operation could complete.", "age_limit", Retry.RESUME),
        (1011, "Internal error encountered.", "internal_error", Retry.RESUME),
        (1011, "Internal error occurred.", "internal_error", Retry.RESUME),
        (1011, "The service is currently unavailable.", "service_unavailable", Retry.RESUME),
        (1011, "Thread was cancelled when writing StartStep status", "internal_error", Retry.RESUME),
        (1011, "Failed to run inference for model: x", "internal_error", Retry.RESUME),
        (1011, "keepalive ping timeout", "no_pong", Retry.RESUME),
        (1011, "", "closed", Retry.RESUME),
    ],
)
def test_1011_is_read_by_its_words_and_tried_again_by_default(
    code: int, reason: str, name: str, retry: Retry
) -> None:
    cause = in_conversation(code, reason)
    assert (cause.name, cause.retry) == (name, retry)
    assert (cause.retry_after_ms is not None) == (retry is Retry.LATER)


@pytest.mark.proves("F5")
@pytest.mark.parametrize(
    ("reason", "sent", "name"),
    [
        (NOT_IMPLEMENTED, "tool_response", "tool_answer_refused"),
        (NOT_IMPLEMENTED, "audio", "operation_refused"),
        (NOT_FOUND, "tool_response", "tool_answer_refused"),
        (NOT_FOUND, "audio", "message_refused"),
        ("BidiGenerateContent session not found", "audio", "session_lost"),
        (OVERRUN, "audio", "age_limit"),
        ("The operation was aborted.", "", "age_limit"),
        ("", "audio", "message_refused"),
    ],
)
def test_1008_in_a_conversation_is_resumed_and_says_what_it_met(reason: str, sent: str, name: str) -> None:
    cause = in_conversation(1008, reason, sent=sent)
    assert (cause.name, cause.retry) == (name, Retry.RESUME)


@pytest.mark.proves("F4")
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1007, INVALID),
        (1007, "Invalid session handle"),
        (1007, "Precondition check failed."),
        (1008, "BidiGenerateContent session not found"),
        (1008, NOT_FOUND),
        (1008, NOT_IMPLEMENTED),
        (1008, ""),
    ],
)
def test_a_refused_handle_is_not_tried_again_and_the_setup_without_it_is(code: int, reason: str) -> None:
    cause = while_opening(code, reason, resuming=True)
    assert (cause.name, cause.retry) == ("handle_refused", Retry.FRESH)


@pytest.mark.parametrize(
    "reason", ["API key not valid. Please pass a valid API key.", "Text output is not supported for native"]
)
def test_a_cause_that_is_named_is_not_put_down_to_the_handle(reason: str) -> None:
    assert while_opening(1007, reason, resuming=True).retry is Retry.NEVER


def test_a_handle_is_tried_again_where_the_old_connection_may_still_be_open() -> None:
    cause = while_opening(1011, "Internal error encountered.", resuming=True)
    assert (cause.name, cause.retry) == ("resume_too_early", Retry.RESUME)
    assert while_opening(1011, "The service is currently unavailable.", resuming=True).name == (
        "service_unavailable"
    )


@pytest.mark.proves("F4")
@pytest.mark.parametrize(
    ("sent", "name", "retry"),
    [
        ("text", "text_refused", Retry.FRESH),
        ("history", "text_refused", Retry.FRESH),
        ("activity", "activity_refused", Retry.RESUME),
        ("audio", "audio_refused", Retry.RESUME),
        ("video", "video_refused", Retry.RESUME),
        ("tool_response", "tool_answer_refused", Retry.RESUME),
        ("", "message_refused", Retry.RESUME),
    ],
)
def test_1007_in_a_conversation_is_put_down_to_what_was_sent_last(sent: str, name: str, retry: Retry) -> None:
    cause = in_conversation(1007, INVALID, sent=sent)
    assert (cause.name, cause.retry) == (name, retry)


@pytest.mark.proves("F5")
def test_sound_during_a_call_is_named_where_the_model_does_not_take_it() -> None:
    assert not DEAF.hears_during_call
    cause = of_close(1008, NOT_IMPLEMENTED, facts=DEAF, last_sent="audio", opened=True, resuming=False)
    assert (cause.name, cause.retry) == ("audio_during_call", Retry.RESUME)
    hears = of_close(1008, NOT_IMPLEMENTED, facts=UNKNOWN, last_sent="audio", opened=True, resuming=False)
    assert hears.name == ("operation_refused" if UNKNOWN.hears_during_call else "audio_during_call")


def test_a_setup_of_a_model_that_nobody_described_is_put_down_to_that() -> None:
    cause = of_close(1007, INVALID, facts=UNKNOWN, last_sent="setup", opened=False, resuming=False)
    assert (cause.name, cause.retry) == ("model_not_described", Retry.NEVER)
    assert "models.yaml" in cause.remedy
    assert INVALID in cause.message
    listed = of_close(1007, INVALID, facts=DEAF, last_sent="setup", opened=False, resuming=False)
    assert listed.name == "setup_refused"


@pytest.mark.parametrize(
    ("code", "reason", "name", "retry"),
    [
        (1000, "", "session_finished", Retry.FRESH),
        (1000, "The operation was cancelled.", "age_limit", Retry.RESUME),
        (1007, "The input token count (131073) exceeds the maximum number", "context_full", Retry.FRESH),
        (1001, "", "server_restart", Retry.RESUME),
        (1005, "", "line_lost", Retry.RESUME),
        (1006, "the connection was lost", "line_lost", Retry.RESUME),
        (1006, "no answer to a ping within 60 s", "no_pong", Retry.RESUME),
        (1009, "", "too_large", Retry.RESUME),
        (1002, "reserved bits must be 0", "protocol_error", Retry.RESUME),
        (1012, "", "server_restart", Retry.RESUME),
        (4999, "", "message_refused", Retry.RESUME),
        (2999, "something new", "closed", Retry.RESUME),
    ],
)
def test_a_conversation_that_was_cut_goes_on(code: int, reason: str, name: str, retry: Retry) -> None:
    cause = in_conversation(code, reason)
    assert (cause.name, cause.retry) == (name, retry)


@pytest.mark.proves("F16")
def test_a_line_that_was_reset_in_the_middle_of_a_frame_is_a_lost_line() -> None:
    reset = "the connection was lost: [Errno 104] Connection reset by peer"
    assert in_conversation(1006, reset) == causes.LINE_LOST
    assert while_opening(1006, reset) == causes.LINE_LOST


@pytest.mark.parametrize("code", [1000, 1011, 1013])
def test_a_close_before_the_setup_was_answered_is_tried_again_where_no_word_is_against_it(code: int) -> None:
    assert while_opening(code, "").retry is Retry.RESUME


@pytest.mark.proves("F2")
@pytest.mark.parametrize("status", [401, 403])
def test_a_handshake_that_is_refused_for_the_key_is_not_tried_again(status: int) -> None:
    cause = of_status(status, None)
    assert (cause.retry, cause.error, cause.key_refused) == (Retry.NEVER, UpstreamRejected, True)
    assert str(status) in cause.message


@pytest.mark.proves("F3")
@pytest.mark.parametrize(
    ("status", "asked", "retry", "after"),
    [
        (429, None, Retry.LATER, causes.QUOTA_RETRY_MS),
        (429, 7, Retry.LATER, 7_000),
        (429, 0.0, Retry.LATER, 0),
        (503, None, Retry.RESUME, None),
        (503, 2.5, Retry.LATER, 2_500),
        (503, float("inf"), Retry.LATER, 3_600_000),
        (503, float("nan"), Retry.RESUME, None),
        (429, -1, Retry.LATER, causes.QUOTA_RETRY_MS),
        (500, 5, Retry.RESUME, None),
    ],
)
def test_what_the_server_asks_to_wait_is_kept(
    status: int, asked: float | None, retry: Retry, after: int | None
) -> None:
    cause = of_status(status, asked)
    assert (cause.retry, cause.error, cause.retry_after_ms) == (retry, Unavailable, after)
    assert cause.failure().retry_after_ms == after


@pytest.mark.parametrize("status", [100, 200, 301, 400, 404, 426])
def test_another_status_means_that_this_is_no_live_api(status: int) -> None:
    cause = of_status(status, 5)
    assert (cause.retry, cause.key_refused) == (Retry.NEVER, False)
    assert f"(HTTP {status})" in cause.message


@pytest.mark.proves("F1")
@pytest.mark.proves("F7")
@pytest.mark.proves("F13")
@pytest.mark.proves("F15")
def test_what_is_noticed_on_our_side_is_tried_again() -> None:
    own = [
        (causes.UNREACHABLE, Unavailable),
        (causes.DIAL_TIMED_OUT, UpstreamTimeout),
        (causes.NO_SETUP_ANSWER, UpstreamTimeout),
        (causes.LINE_LOST, Unavailable),
        (causes.UNREADABLE, Unavailable),
        (causes.TOO_LARGE, Unavailable),
        (causes.WENT_SILENT, Unavailable),
    ]
    assert [(cause.retry, cause.error) for cause, _ in own] == [(Retry.RESUME, error) for _, error in own]


def test_the_words_of_the_model_side_are_told_where_they_name_the_mistake() -> None:
    assert while_opening(1007, 'Unknown name "x"\n at setup').message == (
        'The model refused the setup ("Unknown name "x"  at setup"); check the configuration of the assistant.'
    )
    assert while_opening(1008, "").message == (
        "The model refused the setup; check the configuration of the assistant."
    )
    assert "AIza" not in while_opening(1007, "the key AIza0123456789abcdef is odd").message


@given(
    code=st.integers(1000, 4999) | st.integers(),
    reason=st.text() | st.sampled_from([row.seen.reason for row in CAUSES if isinstance(row.seen, Seen)]),
    facts=st.none() | st.sampled_from([MODELS.of(name) for name in (*MODELS.names, "gemini-9")]),
    last_sent=st.sampled_from(["setup", "history", "audio", "text", "video", "tool_response", "activity", ""])
    | st.text(),
    opened=st.booleans(),
    resuming=st.booleans(),
)
def test_every_close_has_a_cause(
    code: int, reason: str, facts: LiveModel | None, last_sent: str, opened: bool, resuming: bool
) -> None:
    cause = of_close(code, reason, facts=facts, last_sent=last_sent, opened=opened, resuming=resuming)
    assert cause.name in {row.cause.name for row in CAUSES}
    assert "{said}" not in cause.message or "{said}" in reason
    assert cause.failure().message == cause.message


@given(status=st.integers(100, 999), retry_after_s=st.none() | st.floats())
def test_every_status_has_a_cause(status: int, retry_after_s: float | None) -> None:
    cause = of_status(status, retry_after_s)
    assert cause.retry_after_ms is None or cause.retry_after_ms >= 0
    assert str(status) in cause.message


# The table itself.


def test_a_name_stands_for_one_cause() -> None:
    by_name = {row.cause.name: row.cause for row in CAUSES}
    assert [row.cause for row in CAUSES if by_name[row.cause.name] != row.cause] == []
    assert [name for name in by_name if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


def test_what_is_refused_for_good_is_not_retryable_and_the_rest_is() -> None:
    for row in CAUSES:
        assert row.cause.error.retryable == (row.cause.retry is not Retry.NEVER), row.cause.name
        assert (row.cause.retry_after_ms is not None) == (row.cause.retry is Retry.LATER), row.cause.name
        assert not row.cause.key_refused or row.cause.retry is Retry.NEVER, row.cause.name


def test_every_row_says_what_to_do_and_how_it_is_known() -> None:
    for row in CAUSES:
        assert row.cause.message.endswith("."), row.cause.name
        assert row.cause.remedy.endswith("."), row.cause.name
        assert row.source, row.cause.name


def test_every_row_is_reached_by_what_it_shows() -> None:
    """No row is hidden by one above it."""
    for row in CAUSES:
        match row.seen:
            case Status(of=statuses):
                assert of_status(statuses[0], None).name == row.cause.name
            case Own():
                assert row.cause in vars(causes).values()
            case Seen() as seen:
                met = {
                    of_close(
                        code,
                        seen.reason,
                        facts=facts,
                        last_sent=sent,
                        opened=opened,
                        resuming=resuming,
                    ).name
                    for code in seen.codes or (2999,)
                    for sent in seen.sent or ("",)
                    for opened in (True, False)
                    for resuming in (True, False)
                    for facts in (None, DEAF, UNKNOWN)
                }
                assert row.cause.name in met, (row.cause.name, seen, met)


# docs/troubleshooting.md


def test_the_documentation_shows_the_same_table() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    assert page == written(page), "run: python -m tornado_live.doctor.page docs/troubleshooting.md"
    shown = re.findall(
        r"^\| `([a-z_]+)` \| (?:(resume|fresh) \| )?[^|]+ \| [^|]+ \| [a-z, ]+ \|$", page, re.M
    )
    expected = {
        row.cause.name: row.cause.retry.value if row.cause.retry in (Retry.RESUME, Retry.FRESH) else ""
        for row in CAUSES
    }
    assert len(shown) == len(expected)
    assert dict(shown) == expected


def test_the_documentation_names_settings_that_exist() -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for row in CAUSES:
        for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", f"{row.cause.message} {row.cause.remedy}"):
            if name not in ("SSL_CERT_FILE", "HTTPS_PROXY"):
                assert f"`{name}`" in page, (row.cause.name, name)
