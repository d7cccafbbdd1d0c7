"""What users said of answers (mission row O4), with the model version and backend that gave them."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from dataclasses import dataclass

from foveal.core.errors import OverloadedError
from foveal.gateway.state.database import StateDatabase

__all__ = ["AnswerOrigin", "Feedback", "FeedbackStore"]


@dataclass(frozen=True, slots=True)
class AnswerOrigin:
    """Who gave an answer."""

    model: str
    version: str
    backend: str


@dataclass(frozen=True, slots=True)
class Feedback:
    request_id: str
    tenant: str
    score: float
    """From -1 (bad) to 1 (good)."""
    comment: str
    at: float
    """Seconds since 1970 (UTC)."""
    origin: AnswerOrigin | None = None
    """None for an answer too old to be remembered."""


class FeedbackStore:
    """Origins of recent answers are in memory, feedback is in the state file. One feedback per request: the last counts."""

    def __init__(self, database: StateDatabase, max_remembered: int = 20_000) -> None:
        self._database = database
        self._origins: OrderedDict[tuple[str, str], AnswerOrigin] = OrderedDict()
        self._max_remembered = max_remembered

    def remember(self, tenant: str, request_id: str, origin: AnswerOrigin) -> None:
        """Called for each answer; about a microsecond."""
        self._origins[tenant, request_id] = origin
        if len(self._origins) > self._max_remembered:
            self._origins.popitem(last=False)

    def origin_of(self, tenant: str, request_id: str) -> AnswerOrigin | None:
        """None also for another tenant's request: nobody can speak about answers that he did not get."""
        return self._origins.get((tenant, request_id))

    def add(self, tenant: str, request_id: str, score: float, comment: str, at: float) -> Feedback:
        """Written behind. Raises ValueError for a score outside -1 .. 1, OverloadedError if too much waits to be written."""
        if not -1.0 <= score <= 1.0:
            raise ValueError(f"score is {score}; it must be between -1 (bad) and 1 (good)")
        feedback = Feedback(request_id, tenant, score, comment, at, self.origin_of(tenant, request_id))
        if not self._database.post(lambda connection: _insert(connection, feedback)):
            raise OverloadedError("feedback cannot be recorded now: the state file is behind", retry_after_s=1.0)
        return feedback

    async def latest(self, limit: int = 100, tenant: str | None = None) -> list[Feedback]:
        """Newest first."""
        return await self._database.run(lambda connection: _latest(connection, limit, tenant))


def _insert(connection: sqlite3.Connection, feedback: Feedback) -> None:
    origin = feedback.origin
    connection.execute(
        "INSERT INTO feedback (at, tenant, request_id, model, version, backend, score, comment) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, request_id) DO UPDATE SET at = excluded.at, "
        "score = excluded.score, comment = excluded.comment",
        (
            feedback.at,
            feedback.tenant,
            feedback.request_id,
            origin.model if origin else None,
            origin.version if origin else None,
            origin.backend if origin else None,
            feedback.score,
            feedback.comment,
        ),
    )


def _latest(connection: sqlite3.Connection, limit: int, tenant: str | None) -> list[Feedback]:
    rows = connection.execute(
        "SELECT request_id, tenant, score, comment, at, model, version, backend FROM feedback "
        "WHERE ?1 IS NULL OR tenant = ?1 ORDER BY at DESC, id DESC LIMIT ?2",
        (tenant, limit),
    )
    return [_read(*row) for row in rows]


def _read(
    request_id: str,
    tenant: str,
    score: float,
    comment: str,
    at: float,
    model: str | None,
    version: str | None,
    backend: str | None,
) -> Feedback:
    origin = AnswerOrigin(model, version or "", backend or "") if model is not None else None
    return Feedback(request_id, tenant, score, comment, at, origin)
