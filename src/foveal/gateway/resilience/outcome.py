"""How a request to a backend ended."""

from __future__ import annotations

import enum

__all__ = ["Outcome"]


class Outcome(enum.Enum):
    SUCCESS = "success"
    CLIENT_ERROR = "client_error"
    """The backend said 4xx (but 429): it is well, the request was not."""
    CLIENT_GONE = "client_gone"
    """Nobody waited for the end. Says nothing about the backend."""
    CONNECT_FAILED = "connect_failed"
    """Refused, unreachable or no such name: nothing was sent."""
    TIMED_OUT = "timed_out"
    """No first byte, or silence between two, for too long."""
    BROKEN = "broken"
    """The connection broke before the answer's end."""
    BAD_ANSWER = "bad_answer"
    """Not HTTP, or not what was asked for."""
    SERVER_ERROR = "server_error"
    """5xx but 503."""
    OVERLOADED = "overloaded"
    """429 or 503: well, but full."""

    @property
    def is_success(self) -> bool:
        """True if it speaks for the backend."""
        return self is Outcome.SUCCESS or self is Outcome.CLIENT_ERROR

    @property
    def is_failure(self) -> bool:
        """True if it speaks against the backend."""
        return not self.is_success and self is not Outcome.CLIENT_GONE and self is not Outcome.OVERLOADED

    @property
    def may_retry(self) -> bool:
        """True if another backend may do better, provided that the client saw no byte yet."""
        return self.is_failure or self is Outcome.OVERLOADED
