"""Who goes first and who gives way: pure functions of a request's class and of how long it waited.

Running requests keep the effective priority they were admitted with. An order that does not move while they run needs
no sorting, and two requests cannot preempt each other in turn as both grow older.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveal.core.priority import effective_priority, is_urgent
from foveal.engine.scheduling.request import Request

__all__ = ["admission_victims", "choose_victim", "queue_level", "running_rank"]


def queue_level(request: Request, now_s: float, ageing_s: float) -> int:
    """Class in which a waiting request competes, lower first; first come first served within it.

    That is its effective priority, and one class better from 80 % of its class deadline on. An urgent P1 so goes ahead
    of a fresh P0, but under overload, where everything is urgent, the classes keep their order.
    """
    waited_s = now_s - request.arrival_s
    return effective_priority(request.priority, waited_s, ageing_s) - is_urgent(request.priority, waited_s)


def running_rank(request: Request, now_s: float, ageing_s: float) -> tuple[int, float, int]:
    """Order among running requests, fixed at admission; unique, lowest first."""
    level = effective_priority(request.priority, now_s - request.arrival_s, ageing_s)
    return level, request.arrival_s, request.number


def choose_victim(running: Sequence[Request], needy: Request, is_scheduled: Callable[[str], bool]) -> Request:
    """Whom to preempt so that `needy` gets blocks: the last in rank that is not part of this step yet.

    That is `needy` itself if all behind it are scheduled: nobody gives way to a request of a lower rank. `running` is
    sorted by rank.
    """
    for request in reversed(running):
        if request is needy:
            break
        if not is_scheduled(request.request_id):
            return request
    return needy


def admission_victims(
    running: Sequence[Request],
    waiting: Request,
    missing_seqs: int,
    missing_blocks: int,
    exclusive_blocks: Callable[[Request], int],
    now_s: float,
    ageing_s: float,
) -> list[Request]:
    """Whom to preempt so that `waiting` can be admitted: the fewest, last in rank first; none if it would not help.

    Only an urgent request displaces others, only those of a lower class, and never one that has aged to its own level:
    this keeps the deadline of P0 without starving P2, and equals never displace each other.
    """
    waited_s = now_s - waiting.arrival_s
    if not is_urgent(waiting.priority, waited_s):
        return []
    level = effective_priority(waiting.priority, waited_s, ageing_s)
    victims: list[Request] = []
    for request in reversed(running):
        if request.rank[0] <= level or (missing_seqs <= 0 and missing_blocks <= 0):
            break
        if request.priority > waiting.priority:
            victims.append(request)
            missing_seqs -= request.fanout
            missing_blocks -= exclusive_blocks(request)
    return victims if missing_seqs <= 0 and missing_blocks <= 0 else []
