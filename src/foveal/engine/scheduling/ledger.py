"""Who is where and holds what: every change of a request's state goes through here.

    add --> waiting --> running --> finished
               ^           |
               +- preempt -+

`_release` is the only way in which blocks and feature pins are given back.
"""

from __future__ import annotations

from bisect import bisect_left, insort

from foveal.core.errors import IntegrityError
from foveal.engine.scheduling.block_pool import BlockPool
from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.policy import running_rank
from foveal.engine.scheduling.prefix_cache import PrefixCache
from foveal.engine.scheduling.request import FinishReason, Request, RequestStatus
from foveal.engine.scheduling.stats import SchedulerCounters
from foveal.engine.scheduling.vision_budget import VisionBudget
from foveal.engine.scheduling.waiting_queue import WaitingQueue

__all__ = ["RequestLedger"]


def _rank(request: Request) -> tuple[int, float, int]:
    return request.rank


class RequestLedger:
    """All unfinished requests with their blocks and feature pins."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self.pool = BlockPool(config.num_blocks)
        self.prefix = PrefixCache(self.pool, config.block_size, atomic_image_spans=config.atomic_image_spans)
        self.vision = VisionBudget(config.encoder_budget_tokens, config.feature_cache_bytes)
        self.requests: dict[str, Request] = {}
        self.groups: dict[str, list[str]] = {}
        """group id -> ids of its unfinished requests."""
        self.waiting = WaitingQueue(config.ageing_s)
        self.running: list[Request] = []
        """Sorted by rank."""
        self.num_seqs = 0
        """Sequences that run, those counted that a running prompt will fork."""
        self.counters = SchedulerCounters()
        self._next_number = 0

    def enqueue(self, request: Request) -> None:
        """A new request waits."""
        request.status = RequestStatus.WAITING
        request.fanout = request.sampling.n
        self._enter(request)
        self.waiting.add(request)

    def start(self, request: Request, hit: list[int], now_s: float) -> None:
        """Admit a waiting request: `hit` are its blocks from the prefix cache, the rest of its tokens gets new ones."""
        self.waiting.remove(request)
        num_cached = len(hit) * self._config.block_size
        self.pool.share(hit)
        request.block_table = hit + self.pool.allocate(self.blocks_for(request.num_tokens) - len(hit))
        request.num_computed_tokens = num_cached
        request.num_registered_blocks = len(hit)
        request.status = RequestStatus.RUNNING
        request.rank = running_rank(request, now_s, self._config.ageing_s)
        if request.scheduled_s is None:
            request.scheduled_s = now_s
            request.num_cached_tokens = num_cached
            if self._config.uses_prefix_cache:
                self.counters.prefix_cache_queries += request.num_prompt_tokens
                self.counters.prefix_cache_hits += num_cached
        self._run(request)

    def fork(self, request: Request) -> list[Request]:
        """The other choices of a request whose prompt is complete; they share its blocks.

        Called before the first output token is appended, so all choices start from the same tokens.
        """
        children = []
        for index in range(1, request.fanout):
            child = Request(
                request_id=f"{request.request_id}#{index}",
                prompt_token_ids=request.prompt_token_ids,
                sampling=request.sampling,
                arrival_s=request.arrival_s,
                priority=request.priority,
                deadline_s=request.deadline_s,
                images=request.images,
                spans=request.spans,
                cache_salt=request.cache_salt,
                index=index,
                group_id=request.group_id,
                status=RequestStatus.RUNNING,
                num_cached_tokens=request.num_cached_tokens,
                scheduled_s=request.scheduled_s,
                first_token_s=request.first_token_s,
                block_keys=list(request.block_keys),
            )
            self._enter(child)
            if self._config.kv_cache:
                child.num_computed_tokens = request.num_computed_tokens
                child.block_table = list(request.block_table)
                child.num_registered_blocks = request.num_registered_blocks
                self.pool.share(child.block_table)
            child.rank = (request.rank[0], child.arrival_s, child.number)
            insort(self.running, child, key=_rank)
            children.append(child)
        # The sequences were counted when the request was admitted.
        request.fanout = 1
        return children

    def preempt(self, request: Request) -> None:
        """Give a running request's blocks away; it waits again, keeps its output and recomputes the rest."""
        self._stop_running(request)
        self._release(request)
        request.status = RequestStatus.PREEMPTED
        request.num_preemptions += 1
        self.counters.num_preemptions += 1
        self.waiting.add(request)

    def end(self, request: Request, reason: FinishReason) -> None:
        """Forget a request, whatever its state."""
        if request.status is RequestStatus.RUNNING:
            self._stop_running(request)
        else:
            self.waiting.remove(request)
        self._release(request)
        request.status = RequestStatus.FINISHED
        request.finish_reason = reason
        del self.requests[request.request_id]
        group = self.groups[request.group_id]
        group.remove(request.request_id)
        if not group:
            del self.groups[request.group_id]
        self.counters.finished += 1

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that hold the KV of that many tokens."""
        return -(-num_tokens // self._config.block_size)

    def exclusive_blocks(self, request: Request) -> int:
        """Blocks that become available when the request gives way."""
        return sum(self.pool.ref_count(block) == 1 for block in request.block_table)

    def check(self, *, idle: bool) -> None:
        """Raises IntegrityError if an account does not add up; with `idle` also if anything is left."""
        self.pool.check(request.block_table for request in self.requests.values())
        self.vision.check(self.running)
        running = {request.request_id for request in self.running}
        waiting = {request.request_id for request in self.waiting}
        if running & waiting or running | waiting != self.requests.keys():
            raise IntegrityError("an unfinished request is not in exactly one of running and waiting")
        if sum(request.fanout for request in self.running) != self.num_seqs:
            raise IntegrityError(f"{self.num_seqs} sequences are counted as running, which is not so")
        if self.running != sorted(self.running, key=_rank):
            raise IntegrityError("running requests are out of order")
        if {name for group in self.groups.values() for name in group} != self.requests.keys():
            raise IntegrityError("a request is not in its group")
        for request in self.waiting:
            if request.block_table or request.num_computed_tokens:
                raise IntegrityError(f"request {request.request_id} waits and holds blocks")
        for request in self.running:
            if request.num_computed_tokens > len(request.block_table) * self._config.block_size:
                raise IntegrityError(f"request {request.request_id} has more KV than blocks")
        if idle and (self.requests or self.pool.num_owned or self.vision.pinned_bytes):
            raise IntegrityError(
                f"idle, but {len(self.requests)} requests, {self.pool.num_owned} owned blocks and "
                f"{self.vision.pinned_bytes} pinned feature bytes are left"
            )

    def _enter(self, request: Request) -> None:
        request.number = self._next_number
        self._next_number += 1
        self.requests[request.request_id] = request
        self.groups.setdefault(request.group_id, []).append(request.request_id)

    def _run(self, request: Request) -> None:
        insort(self.running, request, key=_rank)
        self.num_seqs += request.fanout

    def _stop_running(self, request: Request) -> None:
        position = bisect_left(self.running, request.rank, key=_rank)
        if position == len(self.running) or self.running[position] is not request:
            raise IntegrityError(f"request {request.request_id} does not run")
        del self.running[position]
        self.num_seqs -= request.fanout

    def _release(self, request: Request) -> None:
        """Give back all blocks and feature pins."""
        self.pool.release(request.block_table)
        request.block_table = []
        self.vision.release_all(request)
        request.num_computed_tokens = 0
        request.num_registered_blocks = 0
