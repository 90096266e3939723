"""What follows a redirect: by plain values."""

from __future__ import annotations

import httpx
import pytest

from tornado_live.tools.http_addresses import HostRule
from tornado_live.tools.http_redirect import redirected
from tornado_live.tools.result import ToolCode, ToolError

HEADERS = {
    "Accept": "application/json",
    "User-Agent": "tornado-live",
    "Authorization": "Bearer canary",
    "X-Api-Key": "canary",
    "Cookie": "canary",
    "Idempotency-Key": "canary",
}


def request(
    method: str = "GET", url: str = "https://a.example/v1/x?q=1", content: bytes | None = None
) -> httpx.Request:
    headers = HEADERS | ({"Content-Type": "application/json"} if content else {})
    return httpx.Request(method, url, headers=headers, content=content, extensions={"allow_private": True})


@pytest.mark.parametrize("location", ["/v2", "https://a.example/v2", "https://A.example:443/v2", "../v2"])
def test_on_the_same_origin_everything_stays(location: str) -> None:
    found = redirected(request(), 302, location)
    assert (found.method, str(found.url)) == ("GET", "https://a.example/v2")
    assert found.headers == {**httpx.Headers(HEADERS), "host": "a.example"}
    assert found.extensions["allow_private"] is True


@pytest.mark.parametrize(
    "location",
    [
        "https://b.example/",
        "//b.example/",
        "https://a.example:8443/",
        "https://a.example./",
        "https://x.a.example",
    ],
)
def test_another_origin_gets_no_credentials_and_no_leave(location: str) -> None:
    found = redirected(request(), 302, location, ports={8443})
    assert "canary" not in str(found.headers.raw)
    assert found.headers["Accept"] == "application/json"
    assert found.headers["Host"] == found.url.netloc.decode()
    assert found.extensions["allow_private"] is False


def test_what_was_dropped_does_not_come_back_on_the_way_home() -> None:
    home = redirected(redirected(request(), 302, "https://b.example/"), 302, "https://a.example/")
    assert "canary" not in str(home.headers.raw)
    assert home.extensions["allow_private"] is False


def test_from_http_to_https_is_another_origin() -> None:
    found = redirected(request(url="http://a.example/"), 301, "https://a.example/")
    assert "canary" not in str(found.headers.raw)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://a.example/", "from https to http"),
        ("http://b.example/", "from https to http"),
        ("ftp://a.example/", "to something that is no plain http address"),
        ("file:///etc/passwd", "to something that is no plain http address"),
        ("javascript:alert(1)", "to something that is no plain http address"),
        ("https://u:p@a.example/", "to something that is no plain http address"),
        ("https://a.example/\n", "to something that is no plain http address"),
        ("https://[::1", "to something that is no plain http address"),
        ("https://a.example:22/", "to a port that is not allowed"),
        ("https://b.example:6379/", "to a port that is not allowed"),
    ],
)
def test_no_redirect_leads_out_of_https_or_to_a_port_of_its_own(location: str, why: str) -> None:
    with pytest.raises(ToolError) as caught:
        redirected(request(), 302, location, ports={8443})
    assert caught.value.code is ToolCode.NOT_ALLOWED
    assert caught.value.message == f"The service sent a redirect {why}, which is not followed."


def test_a_list_of_hosts_holds_for_redirects() -> None:
    hosts = [HostRule.parse("*.b.example:8443")]
    assert redirected(request(), 302, "https://x.b.example:8443/", ports={8443}, hosts=hosts)
    assert redirected(request(), 302, "/", hosts=hosts)
    for location in ("https://c.example/", "https://x.b.example/", "https://b.example:8443/"):
        with pytest.raises(ToolError):
            redirected(request(), 302, location, ports={8443}, hosts=hosts)


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("POST", 303, "GET"),
        ("PUT", 303, "GET"),
        ("PUT", 302, "PUT"),
        ("POST", 307, "POST"),
        ("DELETE", 308, "DELETE"),
        ("GET", 303, "GET"),
    ],
)
def test_a_status_says_whether_the_method_and_the_body_stay(method: str, status: int, expected: str) -> None:
    found = redirected(request(method, content=b"{}" if method != "GET" else None), status, "/v2")
    assert found.method == expected
    assert found.content == (b"" if expected == "GET" else b"{}")
    assert ("content-type" in found.headers) is (expected != "GET")
    assert found.headers.get("content-length") == (None if expected == "GET" else "2")


def test_a_body_is_not_handed_to_another_host() -> None:
    with pytest.raises(ToolError):
        redirected(request("POST", content=b"{}"), 307, "https://b.example/")
    assert redirected(request("POST", content=b"{}"), 303, "https://b.example/").content == b""
    assert redirected(request("POST"), 308, "https://b.example/").method == "POST"
