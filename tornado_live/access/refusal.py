"""A credential that is not taken: few words for whoever shows it, the reason for the operator's log."""

from __future__ import annotations

from tornado_live.errors import Unauthenticated

WRONG = "The credential is wrong, has expired, or was revoked. Show another one."
EXPIRED = "The token has expired. Show a new one."


class Refused(Unauthenticated):
    """`reason` holds nothing of the credential. Who guesses learns nothing from `message`, which is one for all
    but for tokens that were good once: their owners are to make new ones."""

    def __init__(self, reason: str, message: str = WRONG) -> None:
        super().__init__(message)
        self.reason = reason
