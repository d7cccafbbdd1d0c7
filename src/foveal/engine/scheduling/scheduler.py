"""Decides what each engine step computes. Pure: no torch, no clock, no threads.

    plan = scheduler.schedule(now_s)         # ids and integers
    samples = runner.execute(plan)           # owns tensors
    events = scheduler.commit(plan, samples, now_s)

Requests may be added, aborted or finished at any time, also between `schedule` and `commit`: rows of requests that are
gone are ignored. `planner.py` decides, `ledger.py` keeps the accounts.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace

from foveal.core.errors import IntegrityError, InvalidRequestError, OverloadedError
from foveal.engine.scheduling.admission import check_request
from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.events import TokenEvent
from foveal.engine.scheduling.ledger import RequestLedger
from foveal.engine.scheduling.pacing.latency_control import LatencyControl
from foveal.engine.scheduling.plan import ScheduledRow, StepPlan
from foveal.engine.scheduling.planner import StepPlanner
from foveal.engine.scheduling.request import FinishReason, Request, RequestStatus
from foveal.engine.scheduling.stats import SchedulerStats
from foveal.engine.scheduling.stopping import finish_reason_after

__all__ = ["Scheduler"]


class Scheduler:
    """Continuous batching over a paged KV pool, with chunked prefill, prefix and feature caches, and preemption."""

    def __init__(self, config: SchedulerConfig, latency: LatencyControl | None = None) -> None:
        """`latency` keeps steps to a target; without one only the budgets of `config` bound them."""
        self.config = config
        self.latency = latency
        self._eos_token_ids = frozenset(config.eos_token_ids)
        self._context_limit = config.context_limit
        self._ledger = RequestLedger(config)
        pace, wait = (None, None) if latency is None else (latency.pace, latency.vision_wait)
        self._planner = StepPlanner(config, self._ledger, pace, wait)
        self._seats = config.max_num_seqs
        self._deadlines: list[tuple[float, str]] = []
        self._in_flight: StepPlan | None = None

    # --- requests come and go ---------------------------------------------------------------------------------------

    def add(self, request: Request, now_s: float) -> None:
        """Queue a request.

        Raises InvalidRequestError or PromptTooLongError if it can never be served, OverloadedError if the queue is
        full. A request with sampling.n > 1 stands for all its choices until its prompt is complete.
        """
        check_request(request, self.config)
        if request.request_id in self._ledger.requests or request.request_id in self._ledger.groups:
            raise InvalidRequestError(
                f"request id {request.request_id!r} is in use; choose another one", param="request_id"
            )
        num_waiting = len(self._ledger.waiting)
        if num_waiting >= self.config.max_waiting:
            raise OverloadedError(
                f"{num_waiting} requests are waiting; the limit is {self.config.max_waiting}. Try again later.",
                retry_after_s=self.config.retry_after_s,
            )
        self._refuse_late(request)
        self._ledger.enqueue(request)
        self._watch_deadline(request)
        if self.latency is not None and self.latency.vision_wait is not None:
            for image in request.images:
                self.latency.vision_wait.arrived(image.encode_tokens, now_s)

    def abort(self, request_id: str) -> Request | None:
        """End one choice with ABORT and free what it holds. None if it is not known (any more)."""
        return self.finish(request_id, FinishReason.ABORT)

    def abort_group(self, group_id: str) -> list[Request]:
        """End all choices of a request with ABORT."""
        names = tuple(self._ledger.groups.get(group_id, ()))
        return [request for name in names if (request := self.abort(name))]

    def finish(self, request_id: str, reason: FinishReason) -> Request | None:
        """End a request for a reason that the front end found, such as a stop string. None if it is not known."""
        request = self._ledger.requests.get(request_id)
        if request is not None:
            self._ledger.end(request, reason)
        return request

    def expire(self, now_s: float) -> list[Request]:
        """End requests whose deadline has passed with TIMEOUT, waiting or running."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            deadline_s, request_id = heapq.heappop(self._deadlines)
            request = self._ledger.requests.get(request_id)
            if request is not None and request.deadline_s == deadline_s:
                self._ledger.end(request, FinishReason.TIMEOUT)
                expired.append(request)
        return expired

    def preempt(self, request_id: str) -> bool:
        """Send a running request back to the queue: memory pressure, or a test. False if it does not run."""
        request = self._ledger.requests.get(request_id)
        if request is None or request.status is not RequestStatus.RUNNING:
            return False
        self._ledger.preempt(request)
        return True

    def clear_caches(self) -> None:
        """Forget all prefixes, for benchmarks and after a change of weights. Running requests go on."""
        self._ledger.pool.clear_cache()

    # --- memory pressure --------------------------------------------------------------------------------------------

    @property
    def num_cached_blocks(self) -> int:
        """Blocks that only the prefix cache holds."""
        return self._ledger.pool.num_cached

    @property
    def feature_cache_share(self) -> float:
        """Of the configured bytes."""
        configured = self.config.feature_cache_bytes
        return self._ledger.vision.capacity_bytes / configured if configured else 1.0

    @feature_cache_share.setter
    def feature_cache_share(self, share: float) -> None:
        self._ledger.vision.capacity_bytes = int(share * self.config.feature_cache_bytes)

    def preempt_down_to(self, num_seqs: int) -> int:
        """Send running requests back to the queue, last in rank first, until at most `num_seqs` sequences run, one request
        at least. Not between `schedule` and `commit`. Returns how many."""
        ledger, count = self._ledger, 0
        while len(ledger.running) > 1 and ledger.num_seqs > num_seqs:
            ledger.preempt(ledger.running[-1])
            count += 1
        return count

    def withhold_blocks(self) -> list[int]:
        """Take half of the free blocks out of the pool, as far as one sequence of full length still fits. Returns them;
        nobody writes to them until `restore_blocks`."""
        pool = self._ledger.pool
        usable = pool.num_blocks - pool.num_withheld
        spare = usable - self._ledger.blocks_for(self._context_limit) - pool.num_owned
        return pool.withhold(max(0, min(pool.num_free // 2, spare)))

    def restore_blocks(self) -> int:
        """Blocks that were withheld are free again; returns how many."""
        return self._ledger.pool.restore()

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def decoding(self) -> list[Request]:
        """Running requests that lack exactly one token and have output: those that drafts can help, best rank first."""
        return [r for r in self._ledger.running if r.output_token_ids and r.num_tokens - r.num_computed_tokens == 1]

    @property
    def context_limit(self) -> int:
        """Longest sequence that can be served, tokens."""
        return self._context_limit

    def get(self, request_id: str) -> Request | None:
        """An unfinished request."""
        return self._ledger.requests.get(request_id)

    @property
    def has_unfinished(self) -> bool:
        return bool(self._ledger.requests)

    @property
    def num_running(self) -> int:
        return len(self._ledger.running)

    @property
    def num_waiting(self) -> int:
        return len(self._ledger.waiting)

    @property
    def max_num_seqs(self) -> int:
        """Sequences that may run at once, at most config.max_num_seqs. Lowering it preempts nobody."""
        return self._planner.max_num_seqs

    @max_num_seqs.setter
    def max_num_seqs(self, limit: int) -> None:
        self._seats = max(1, min(limit, self.config.max_num_seqs))
        self._apply_seats()

    @property
    def wake_s(self) -> float | None:
        """After an empty plan: when the next one may not be empty. None if only a new request changes that."""
        return self._planner.wake_s

    def stats(self) -> SchedulerStats:
        ledger = self._ledger
        return SchedulerStats(
            num_running=len(ledger.running),
            num_waiting=len(ledger.waiting),
            kv_blocks_total=ledger.pool.num_blocks,
            kv_blocks_owned=ledger.pool.num_owned,
            kv_blocks_cached=ledger.pool.num_cached,
            feature_cache_bytes=ledger.vision.num_bytes,
            feature_pinned_bytes=ledger.vision.pinned_bytes,
            feature_cache_queries=ledger.vision.num_queries,
            feature_cache_hits=ledger.vision.num_hits,
            counters=replace(ledger.counters),
        )

    def check_integrity(self, idle: bool = False) -> None:
        """Raises IntegrityError if blocks, pins or queues do not add up; with `idle`, if anything is held at all."""
        self._ledger.check(idle=idle)

    # --- one step ---------------------------------------------------------------------------------------------------

    def schedule(self, now_s: float, drafts: Mapping[str, Sequence[int]] | None = None) -> StepPlan:
        """What the next step computes. A plan with rows must be given back by `commit` or `fail`.

        `drafts`: by request id, tokens guessed to follow its committed ones; rows carry those for which there is room.

        Empty while there are unfinished requests only if all of them wait for pictures of their size: until `wake_s`.
        """
        if self._in_flight is not None:
            raise IntegrityError("schedule() is called before the plan in flight was committed")
        plan = self._planner.plan_step(now_s, drafts or {})
        if plan.rows:
            self._in_flight = plan
        return plan

    def commit(self, plan: StepPlan, samples: Mapping[str, Sequence[int]], now_s: float) -> list[TokenEvent]:
        """Account for an executed plan; `samples` has `num_samples` token ids for every row that asked for some.

        Returns one event per request that got tokens, forked choices included. A row with drafts gets the accepted ones
        and one token more, and `num_computed_tokens` advances to the last accepted position instead of `row.end`. Blocks
        are registered and features unpinned by committed tokens only, so a rejected draft needs no other rollback: its
        KV is overwritten.
        """
        self._take(plan)
        ledger = self._ledger
        uses_prefix, block_size = self.config.uses_prefix_cache, self.config.block_size
        ledger.counters.steps += bool(plan.rows)
        ledger.counters.encoded_images += len(plan.encode)
        events: list[TokenEvent] = []
        for row in plan.rows:
            request = ledger.requests.get(row.request_id)
            if request is None or request.status is not RequestStatus.RUNNING:
                continue  # aborted, finished or preempted since
            if request.num_computed_tokens != row.start:
                raise IntegrityError(f"{row} does not continue at {request.num_computed_tokens}")
            if row.draft_token_ids:
                events.append(self._commit_verified(row, request, samples.get(row.request_id, ())))
                continue
            end = row.end
            request.num_computed_tokens = end
            if request.spans and row.start < request.spans[-1].end:
                ledger.vision.release_passed(request)
            if uses_prefix and end // block_size > request.num_registered_blocks:
                ledger.prefix.register(request)
            if not row.num_samples:
                continue
            tokens = samples.get(row.request_id, ())
            if len(tokens) != row.num_samples:
                raise IntegrityError(f"{row} got {len(tokens)} samples")
            if request.first_token_s is None:
                request.first_token_s = now_s
                ledger.counters.prompt_tokens += request.num_prompt_tokens
            if request.fanout == 1:
                events.append(self._accept(request, tokens))
                continue
            choices = [request, *ledger.fork(request)]
            for choice, token in zip(choices, tokens, strict=True):
                if choice is not request:
                    self._watch_deadline(choice)
                events.append(self._accept(choice, (token,)))
        return events

    def fail(self, plan: StepPlan) -> list[Request]:
        """The plan could not be executed: end its requests with ERROR. Nothing it should have computed counts."""
        self._take(plan)
        failed = [request for row in plan.rows if (request := self.finish(row.request_id, FinishReason.ERROR))]
        for item in plan.encode:
            self._ledger.vision.forget(item.content_hash)
        return failed

    def observe(self, plan: StepPlan, seconds: float, encode_s: float = 0.0) -> None:
        """An executed plan took `seconds` in all, `encode_s` of it for its images. Call it before `commit`."""
        control = self.latency
        if control is None or not control.observes:
            return
        requests = self._ledger.requests
        images = [
            request.images[item.image_index].encode_tokens
            for item in plan.encode
            if (request := requests.get(item.request_id)) is not None
        ]
        rows = [(row.start, row.num_tokens, len(row.draft_token_ids) + min(row.num_samples, 1)) for row in plan.rows]
        control.observe(rows, images, seconds, encode_s)
        self._apply_seats()

    # --- details ----------------------------------------------------------------------------------------------------

    def _apply_seats(self) -> None:
        limit = None if self.latency is None else self.latency.batch_limit
        self._planner.max_num_seqs = self._seats if limit is None else min(self._seats, limit.limit)

    def _refuse_late(self, request: Request) -> None:
        """Raises OverloadedError if what waits and runs already makes the first token miss its target.

        A prompt that would miss it on an idle engine may wait as long as the target again: refusing it for ever helps nobody.
        """
        control = self.latency
        if control is None or control.first_token is None or control.targets.ttft_s is None:
            return
        ledger, predict = self._ledger, control.first_token.predict_s
        running = ledger.running
        unread = sum(max(0, r.num_tokens - r.num_computed_tokens - 1) for r in running)
        decode_kv = sum(r.num_computed_tokens for r in running)
        images = [
            image.encode_tokens
            for other in (*ledger.waiting, request)
            for image in other.images
            if image.content_hash not in ledger.vision
        ]
        budget = self.config.max_num_batched_tokens
        ahead = ledger.waiting.num_tokens + unread
        found_s = predict(ahead + request.num_tokens, images, len(running), decode_kv, budget)
        alone_s = predict(request.num_tokens, [image.encode_tokens for image in request.images], 0, 0, budget)
        limit_s = max(
            control.targets.ttft_s, alone_s + control.targets.ttft_s if alone_s > control.targets.ttft_s else 0
        )
        if found_s > limit_s:
            control.num_refused += 1
            raise OverloadedError(
                f"the first token would come after {found_s * 1e3:,.0f} ms ({ahead:,} prompt tokens and {len(images)} images "
                f"go before or with it); the limit is {limit_s * 1e3:,.0f} ms. Try again later, or raise --target-ttft-ms.",
                retry_after_s=max(self.config.retry_after_s, found_s - limit_s),
            )

    def _take(self, plan: StepPlan) -> None:
        if plan.rows and plan is not self._in_flight:
            raise IntegrityError("this is not the plan in flight")
        self._in_flight = None

    def _accept(self, request: Request, tokens: Sequence[int]) -> TokenEvent:
        """Append committed tokens up to the first that ends the request."""
        count, reason = self._append(request, tokens)
        if reason is not None:
            self._ledger.end(request, reason)
        elif not self.config.kv_cache:
            request.num_computed_tokens = 0
        return TokenEvent(request, tuple(tokens[:count]), reason)

    def _commit_verified(self, row: ScheduledRow, request: Request, tokens: Sequence[int]) -> TokenEvent:
        """`tokens` are the accepted drafts of the row and the target's own next token."""
        num_accepted = len(tokens) - 1
        if not 0 <= num_accepted <= len(row.draft_token_ids) or (
            tuple(tokens[:num_accepted]) != row.draft_token_ids[:num_accepted]
        ):
            raise IntegrityError(f"{row} got {list(tokens)}, which does not begin with its drafts")
        # The output comes first here: prefix keys of the accepted tokens' blocks are made from it.
        count, reason = self._append(request, tokens)
        request.num_computed_tokens = row.start + count
        if self.config.uses_prefix_cache:
            self._ledger.prefix.register(request)
        if reason is not None:
            self._ledger.end(request, reason)
        return TokenEvent(request, tuple(tokens[:count]), reason)

    def _append(self, request: Request, tokens: Sequence[int]) -> tuple[int, FinishReason | None]:
        """Extend the output up to the first token that ends the request: (tokens taken, why it ends)."""
        reason = None
        count = 0
        output = request.output_token_ids
        for token in tokens:
            output.append(token)
            count += 1
            reason = finish_reason_after(request, self._eos_token_ids, self._context_limit)
            if reason is not None:
                break
        self._ledger.counters.generation_tokens += count
        return count, reason

    def _watch_deadline(self, request: Request) -> None:
        if request.deadline_s is None:
            return
        heapq.heappush(self._deadlines, (request.deadline_s, request.request_id))
        if len(self._deadlines) > 64 + 2 * len(self._ledger.requests):
            # Most entries belong to requests that are done.
            self._deadlines = [
                entry
                for entry in self._deadlines
                if (known := self._ledger.requests.get(entry[1])) is not None and known.deadline_s == entry[0]
            ]
            heapq.heapify(self._deadlines)
