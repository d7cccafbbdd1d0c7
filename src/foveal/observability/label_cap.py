"""A bound on what tenants and clients can do to the number of series."""

from __future__ import annotations

__all__ = ["OTHER", "LabelCap"]

OTHER = "other"


class LabelCap:
    """The first `limit` names keep their own label value, later ones share `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[str, str] = {}

    def label(self, name: str) -> str:
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        if len(self._kept) >= self._limit:
            return OTHER
        self._kept[name] = name
        return name
