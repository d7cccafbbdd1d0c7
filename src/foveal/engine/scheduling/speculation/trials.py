"""When drafts that are off are tried again: after some offers that were declined, then twice as many, and so on."""

from __future__ import annotations

__all__ = ["Trials"]


class Trials:
    """Counts declined offers up to `first`, then 2 x `first`, ... at most `last`."""

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._declined = 0
        self._patience = first

    @property
    def is_due(self) -> bool:
        return self._declined >= self._patience

    def decline(self) -> None:
        """Drafts were on offer and were not worth verifying."""
        self._declined += 1

    def observe(self, *, all_accepted: bool) -> None:
        """Drafts were verified, on trial or not."""
        was_trial, self._declined = self.is_due, 0
        if all_accepted:
            self._patience = self._first
        elif was_trial:
            self._patience = min(self._last, 2 * self._patience)
