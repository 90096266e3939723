"""Where each kind of client puts its credential."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from tornado_live.errors import Unauthenticated
from tornado_live.handlers.credentials import of_google, of_request, of_socket

OFFERS = "Sec-WebSocket-Protocol"


def asked(headers: HTTPHeaders, query: str = "") -> HTTPServerRequest:
    headers["Host"] = "localhost"
    return HTTPServerRequest(headers=headers, start_line=RequestStartLine("GET", f"/{query}", "HTTP/1.1"))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("Bearer tl_x", "tl_x"),
        ("bearer tl_x", "tl_x"),
        ("BEARER   tl_x  ", "tl_x"),
        ("Bearer a b", "a b"),
    ],
)
def test_a_program_sends_it_as_bearer(header: str | None, found: str | None) -> None:
    headers = HTTPHeaders({} if header is None else {"Authorization": header})
    assert of_request(headers) == of_socket(headers) == found


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "tl_x", "Basic dXNlcg==", "Token tl_x", "Digest a=b"]
)
def test_another_authorization_is_told_what_is_wanted(header: str) -> None:
    for where in (of_request, of_socket):
        with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
            where(HTTPHeaders({"Authorization": header}))


@pytest.mark.parametrize(
    ("offered", "found"),
    [
        ("tornado-live, bearer.tl_x", "tl_x"),
        ("bearer.tl_x,tornado-live", "tl_x"),
        ("tornado-live, bearer.auth_tokens%2Fabc", "auth_tokens/abc"),
        ("tornado-live, bearer.a.b.c", "a.b.c"),
        ("tornado-live, bearer.one, bearer.two", "one"),
        ("tornado-live", None),
        ("tornado-live, bearer.", None),
        ("bearer.tl_x", None),
        ("other, bearer.tl_x", None),
        ("Tornado-Live, bearer.tl_x", None),
        ("", None),
    ],
)
def test_a_page_sends_it_as_a_subprotocol(offered: str, found: str | None) -> None:
    assert of_socket(HTTPHeaders({OFFERS: offered})) == found


def test_a_program_that_sends_both_is_who_its_authorization_says() -> None:
    headers = HTTPHeaders({"Authorization": "Bearer one", OFFERS: "tornado-live, bearer.two"})
    assert of_socket(headers) == "one"


@pytest.mark.parametrize(
    ("query", "headers", "found"),
    [
        ("", {}, []),
        ("?key=k", {}, ["k"]),
        ("?access_token=auth_tokens/a", {}, ["auth_tokens/a"]),
        ("?key=k&access_token=a", {"x-goog-api-key": "g", "Authorization": "Token t"}, ["t", "a", "g", "k"]),
        ("", {"Authorization": "Bearer b"}, ["b"]),
        ("", {"Authorization": "Basic dXNlcg=="}, []),
        ("?key=first&key=last", {}, ["last"]),
        ("?key=&access_token=%20", {"x-goog-api-key": " "}, []),
        ("?key=%FF", {}, ["\ufffd"]),
    ],
)
def test_a_client_of_google_s_has_several_places_in_their_order(
    query: str, headers: dict[str, str], found: list[str]
) -> None:
    assert list(of_google(asked(HTTPHeaders(headers), query))) == found


@given(text=st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0")))
def test_no_header_is_ever_anything_but_a_credential_or_refused(text: str) -> None:
    for name in ("Authorization", OFFERS, "x-goog-api-key"):
        headers = HTTPHeaders()
        headers[name] = text
        list(of_google(asked(headers)))
        for where in (of_request, of_socket):
            try:
                found = where(headers)
            except Unauthenticated:
                continue
            assert found is None or found
