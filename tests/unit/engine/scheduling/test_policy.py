from __future__ import annotations

from foveal.core.priority import Priority
from foveal.engine.scheduling.policy import admission_victims, choose_victim, queue_level, running_rank
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.waiting_queue import WaitingQueue
from unit.engine.scheduling.builders import image, request

AGEING_S = 10.0
P0, P1, P2 = Priority.P0, Priority.P1, Priority.P2


def running(name: str, priority: Priority, arrival_s: float = 0.0, admitted_s: float | None = None) -> Request:
    item = request(name, arrival_s=arrival_s, priority=priority)
    item.rank = running_rank(item, arrival_s if admitted_s is None else admitted_s, AGEING_S)
    return item


def order(queue: WaitingQueue, now_s: float) -> str:
    names = ""
    while (item := queue.best(now_s)) is not None:
        names += item.request_id
        queue.remove(item)
    return names


def waiting(*items: Request) -> WaitingQueue:
    queue = WaitingQueue(AGEING_S)
    for number, item in enumerate(items):
        item.number = number
        queue.add(item)
    return queue


def test_classes_come_in_order_and_arrivals_in_turn_within_a_class() -> None:
    queue = waiting(
        request("d", arrival_s=5.0, priority=P2),
        request("c", arrival_s=5.02, priority=P1),
        request("b", arrival_s=5.01, priority=P1),
        request("a", arrival_s=5.03, priority=P0),
    )
    assert order(queue, 5.03) == "abcd"


def test_an_urgent_request_competes_one_class_higher() -> None:
    item = request(arrival_s=0.0, priority=P1)
    assert queue_level(item, 0.39, AGEING_S) == 1
    assert queue_level(item, 0.4, AGEING_S) == 0
    queue = waiting(request("b", arrival_s=0.45, priority=P0), request("a", arrival_s=0.0, priority=P1))
    assert order(queue, 0.45) == "ab"


def test_under_overload_where_all_are_urgent_classes_keep_their_order() -> None:
    queue = waiting(
        request("c", arrival_s=0.0, priority=P2),
        request("b", arrival_s=1.0, priority=P1),
        request("a", arrival_s=2.0, priority=P0),
    )
    assert order(queue, 5.0) == "abc"


def test_an_old_request_of_the_lowest_class_overtakes_fresh_ones_of_the_highest() -> None:
    old = request("a", arrival_s=0.0, priority=P2)
    assert [queue_level(old, now_s, AGEING_S) for now_s in (1.0, 9.0, 11.0, 41.0)] == [2, 1, 0, -3]
    assert order(waiting(old, request("b", arrival_s=31.0, priority=P0)), 31.0) == "ab"


def test_a_request_returns_to_the_front_of_its_class() -> None:
    queue = waiting(request("b", arrival_s=1.0), request("c", arrival_s=2.0))
    queue.add(request("a", arrival_s=0.5))
    assert order(queue, 2.0) == "abc"


def test_equal_image_sizes_fill_up_the_encoder_batch_within_one_level() -> None:
    small, large = image("small", encode_tokens=16), image("large", encode_tokens=64)
    queue = waiting(
        request("a", [small, 1], arrival_s=1.0),
        request("b", [large, 1], arrival_s=1.1),
        request("c", [large, 1], arrival_s=1.2),
    )
    best = queue.best(1.2, encode_sizes={64})
    assert best is not None
    assert best.request_id == "b"
    assert queue.best(1.2, {64}, skipped={"b"}).request_id == "c"  # type: ignore[union-attr]
    assert queue.best(1.2, {32}).request_id == "a"  # type: ignore[union-attr]
    # An urgent request is not passed over for the sake of a fuller batch.
    assert queue.best(1.45, {64}).request_id == "a"  # type: ignore[union-attr]


def test_text_is_not_passed_over_for_an_image_of_the_right_size() -> None:
    queue = waiting(request("a", 4, arrival_s=1.0), request("b", [image(), 1], arrival_s=1.1))
    assert queue.best(1.1, {16}).request_id == "a"  # type: ignore[union-attr]


def test_the_victim_is_the_last_in_rank_that_is_not_scheduled() -> None:
    first, second, third = running("a", P0), running("b", P1), running("c", P2)
    items = [first, second, third]
    assert choose_victim(items, first, {"a"}.__contains__) is third
    assert choose_victim(items, first, {"a", "c"}.__contains__) is second


def test_nobody_gives_way_to_a_request_of_lower_rank() -> None:
    first, second = running("a", P1), running("b", P2)
    assert choose_victim([first, second], second, set().__contains__) is second


def test_running_requests_do_not_age() -> None:
    """Their rank is that of their admission, so two cannot overtake each other in turn."""
    early, late = running("a", P1, arrival_s=0.0), running("b", P1, arrival_s=5.0, admitted_s=16.0)
    assert early.rank[0] == 1
    assert late.rank[0] == 0


def test_an_urgent_request_displaces_as_few_of_a_lower_class_as_possible() -> None:
    items = [running("a", P1), running("b", P2, 0.0), running("c", P2, 0.1)]
    urgent = request("u", arrival_s=1.0, priority=P0)
    assert admission_victims(items, urgent, 1, 0, lambda _: 1, 1.09, AGEING_S) == [items[2]]
    assert admission_victims(items, urgent, 1, 2, lambda _: 1, 1.09, AGEING_S) == [items[2], items[1]]


def test_nobody_is_displaced_in_vain_or_by_an_equal_or_by_one_who_can_wait() -> None:
    items = [running("a", P1), running("b", P2)]
    urgent = request("u", arrival_s=1.0, priority=P0)
    assert admission_victims(items, urgent, 0, 5, lambda _: 1, 1.09, AGEING_S) == []
    assert admission_victims(items, urgent, 1, 0, lambda _: 1, 1.07, AGEING_S) == []
    equal = request("u", arrival_s=1.0, priority=P2)
    assert admission_victims(items, equal, 1, 0, lambda _: 1, 25.0, AGEING_S) == []


def test_a_request_that_has_aged_to_the_level_of_an_urgent_one_is_not_displaced() -> None:
    aged = running("a", P2, arrival_s=0.0, admitted_s=20.0)
    urgent = request("u", arrival_s=20.0, priority=P0)
    assert admission_victims([aged], urgent, 1, 0, lambda _: 1, 20.09, AGEING_S) == []
