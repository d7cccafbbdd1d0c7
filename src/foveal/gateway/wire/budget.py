"""A bound on the bytes of all bodies in memory: image payloads kill gateways that admit whatever is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["ByteBudget", "Reservation", "split_budget"]

_SMALL = 64 << 10
_SMALL_SHARE = 16


def split_budget(limit: int) -> tuple[int, int, int]:
    """(bytes for large bodies, bytes for small ones, largest small one).

    Small ones have a sixteenth to themselves: an urgent question of 2 KB must not wait behind somebody's 60 MB.
    """
    small = limit // _SMALL_SHARE
    return limit - small, small, min(_SMALL, small // _SMALL_SHARE)


class Reservation:
    """A claim that waits for room. `granted` is called once, from within somebody's `release`."""

    __slots__ = ("granted", "num_bytes", "open")

    def __init__(self, num_bytes: int, granted: Callable[[], None]) -> None:
        self.num_bytes = num_bytes
        self.granted = granted
        self.open = True


class ByteBudget:
    """First come, first served: a small claim never overtakes a large one, or large ones would starve. No clock, no I/O."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.peak = 0
        self.num_waiting = 0
        self._waiting: deque[Reservation] = deque()

    def try_reserve(self, num_bytes: int) -> bool:
        """True if the bytes are now ours. False if there is no room, or others wait already."""
        used = self.used + num_bytes
        if self.num_waiting or used > self.limit:
            return False
        self.used = used
        if used > self.peak:
            self.peak = used
        return True

    def wait(self, num_bytes: int, granted: Callable[[], None]) -> Reservation:
        """Queues a claim. Give up by `cancel`."""
        claim = Reservation(num_bytes, granted)
        self._waiting.append(claim)
        self.num_waiting += 1
        return claim

    def resize(self, limit: int) -> None:
        """Below what is out already, nothing more is given until enough came back."""
        self.limit = limit
        self._grant()

    def cancel(self, claim: Reservation) -> None:
        """The claim is dropped; those behind it may fit now. Idempotent; a granted claim is given back by `release`."""
        if claim.open:
            claim.open = False
            self.num_waiting -= 1
            self._grant()

    def release(self, num_bytes: int) -> None:
        """Raises ValueError if more is given back than was taken."""
        if num_bytes > self.used:
            raise ValueError(f"{num_bytes} bytes released, only {self.used} are reserved")
        self.used -= num_bytes
        if self._waiting:
            self._grant()

    def _grant(self) -> None:
        while self._waiting:
            claim = self._waiting[0]
            if claim.open and self.used + claim.num_bytes > self.limit:
                return
            self._waiting.popleft()
            if claim.open:
                claim.open = False
                self.num_waiting -= 1
                self.used += claim.num_bytes
                self.peak = max(self.peak, self.used)
                claim.granted()
