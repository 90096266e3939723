"""Gemini Live on Vertex AI: where it is, and the token that opens it.

google.auth finds the credentials and refreshes the token. It waits for the network, so that is done in a thread; a
token is kept until google.auth calls it stale, a few minutes before its end.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from tornado_live.live.causes import CREDENTIALS_MISSING, CREDENTIALS_REFUSED, UNREACHABLE
from tornado_live.live.commands import Warned
from tornado_live.live.upstream import DialFailed, Patience, Upstream
from tornado_live.settings import Vertex

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

VERTEX_METHOD = "google.cloud.aiplatform.{version}.LlmBidiService/BidiGenerateContent"
"""Under /ws/, as live_url takes it."""

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_TIMEOUT_S = 5.0
# google-genai, _api_client: multi-regions have addresses of another form.
_MULTI_REGIONS = ("us", "eu")


def service_url(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def vertex_upstream(
    vertex: Vertex,
    key: SecretStr | None,
    api_version: str,
    url: str | None,
    ssl_context: ssl.SSLContext,
    patience: Patience,
) -> Upstream:
    """`key` is only sent in express mode; `url` stands in the place of Google's own address."""
    address = VertexAddress(vertex, url)
    return Upstream(
        address,
        None if vertex.project else key,
        "v1" if api_version == "v1" else "v1beta1",
        ssl_context,
        method=VERTEX_METHOD,
        authorize=address.headers if vertex.project else None,
        patience=patience,
    )


class VertexAddress:
    """live.upstream.Address, and the headers of each dial."""

    name: Final = "vertex"

    def __init__(self, vertex: Vertex, url: str | None = None) -> None:
        self._vertex = vertex
        self._url = url if url is not None else service_url(vertex.location)
        self._credentials: Credentials | None = None
        self._one_at_a_time = asyncio.Lock()

    async def base_url(self) -> str:
        return self._url

    def unready(self) -> str | None:
        return None

    def notice(self) -> Warned | None:
        return None

    async def headers(self) -> Mapping[str, str]:
        """The token, and the project that pays where it is another one. Raises DialFailed."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._headers)

    def _headers(self) -> dict[str, str]:
        from google.auth.credentials import TokenState
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError

        try:
            if self._credentials is None:
                self._credentials = self._load()
            state = self._credentials.token_state
            if state is not TokenState.FRESH:
                try:
                    self._refresh(self._credentials)
                except GoogleAuthError:
                    if state is not TokenState.STALE:  # a stale token still opens a connection
                        raise
        except (DefaultCredentialsError, OSError) as missing:
            raise DialFailed(CREDENTIALS_MISSING) from missing
        except TransportError as failed:
            raise DialFailed(UNREACHABLE) from failed
        except GoogleAuthError as refused:
            raise DialFailed(UNREACHABLE if refused.retryable else CREDENTIALS_REFUSED) from refused
        headers = {"Authorization": f"Bearer {self._credentials.token}"}
        if self._credentials.quota_project_id:
            headers["x-goog-user-project"] = self._credentials.quota_project_id
        return headers

    def _load(self) -> Credentials:
        import google.auth

        if self._vertex.credentials is None:
            return google.auth.default(scopes=[_SCOPE])[0]
        with warnings.catch_warnings():
            # It warns of files that come from strangers; this one is the operator's own.
            warnings.simplefilter("ignore", DeprecationWarning)
            credentials: Credentials
            credentials, _ = google.auth.load_credentials_from_file(  # type: ignore[no-untyped-call]
                str(self._vertex.credentials), scopes=[_SCOPE]
            )
        return credentials

    def _refresh(self, credentials: Credentials) -> None:
        from google.auth.transport.requests import Request

        request = functools.partial(Request(), timeout=_TOKEN_TIMEOUT_S)
        credentials.refresh(request)  # type: ignore[no-untyped-call]
