"""Plans one step: what to compute, for whom, and who gives way.

In this order: an urgent request may displace lower classes; running requests that need one more token; running prompts
in chunks, better waiting ones before them; waiting requests. All share one token budget.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from foveal.core.image_span import ImageSpan
from foveal.core.priority import is_urgent
from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.ledger import RequestLedger
from foveal.engine.scheduling.pacing.step_pace import StepPace
from foveal.engine.scheduling.pacing.vision_wait import VisionWait
from foveal.engine.scheduling.picture_queue import sizes_to_hold
from foveal.engine.scheduling.plan import BlockCopy, StepPlan
from foveal.engine.scheduling.policy import admission_victims, choose_victim, queue_level
from foveal.engine.scheduling.request import Request, RequestStatus
from foveal.engine.scheduling.step_draft import StepDraft
from foveal.engine.scheduling.waiting_queue import LOOKAHEAD

__all__ = ["StepPlanner"]

DRAFT_SHARE = 0.5
"""Most of a step's token budget that drafts may take: prompts must go on as well."""

_NO_DRAFTS: Mapping[str, Sequence[int]] = {}


def _span_end(span: ImageSpan) -> int:
    return span.end


class StepPlanner:
    """Moves requests between the states of the ledger and hands out tokens, blocks and encoder time."""

    def __init__(
        self,
        config: SchedulerConfig,
        ledger: RequestLedger,
        pace: StepPace | None = None,
        vision_wait: VisionWait | None = None,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._pace = pace
        self._vision_wait = vision_wait
        self.max_num_seqs = config.max_num_seqs
        self.wake_s: float | None = None
        """When pictures that wait for others must go, if the last plan held some back."""

    def plan_step(self, now_s: float, drafts: Mapping[str, Sequence[int]] = _NO_DRAFTS) -> StepPlan:
        """Empty only while all unfinished requests wait for others with pictures of their size, until `wake_s`.

        `drafts` are verified as far as there is room.
        """
        step = self._draft_step(now_s, drafts)
        preempted = step.preempted
        while step.preempted and not step.rows:
            # Everybody gave way, the last one after others had waited for the features it pinned: without a KV cache a
            # request needs blocks in the middle of an image. Now there is room.
            step = self._draft_step(now_s, drafts)
            preempted = preempted + step.preempted
        encode, evicted = self._ledger.vision.end_step()
        return StepPlan(tuple(step.rows), encode, tuple(step.copies), evicted, tuple(preempted))

    def _draft_step(self, now_s: float, drafts: Mapping[str, Sequence[int]]) -> StepDraft:
        ledger = self._ledger
        # Every running request comes before anybody's draft.
        for_drafts = min(
            int(DRAFT_SHARE * self._config.max_num_batched_tokens),
            self._config.max_num_batched_tokens - len(ledger.running),
        )
        step = StepDraft(
            now_s=now_s,
            tokens_left=self._config.max_num_batched_tokens,
            admits=self._config.batching == "continuous" or not ledger.running,
            drafts=drafts,
            draft_tokens_left=for_drafts,
        )
        ledger.vision.begin_step()
        if self._pace is not None:
            self._pace.begin()
        self.wake_s = None
        if self._vision_wait is not None and step.admits and ledger.waiting:
            step.held_sizes, self.wake_s = sizes_to_hold(ledger.waiting, ledger.vision, self._vision_wait, now_s)
        if step.admits and ledger.running:
            self._displace_for_urgent(step)
        prompts = self._schedule_decodes(step)
        if self._pace is not None:
            self._pace.limit((row.start, row.num_tokens, 1 + len(row.draft_token_ids)) for row in step.rows)
        for request in prompts:
            if step.tokens_left <= 0:
                break
            if request.status is not RequestStatus.RUNNING:
                continue  # gave way to one before it
            self._admit_waiting(step, better_than=request.rank[0])
            self._schedule_chunk(request, step)
        self._admit_waiting(step)
        if self._pace is not None:
            self._pace.end()
        return step

    def _schedule_decodes(self, step: StepDraft) -> list[Request]:
        """Rows for running requests that lack one token; returns the others, which wait for what is left."""
        running, pool, block_size = self._ledger.running, self._ledger.pool, self._config.block_size
        prompts: list[Request] = []
        position = 0
        while position < len(running):
            request = running[position]
            start = request.num_computed_tokens
            if request.num_tokens - start > 1:
                prompts.append(request)
            elif request.request_id in step.drafts and request.output_token_ids and step.tokens_left > 0:
                self._schedule_verification(request, step)
            elif step.tokens_left > 0:
                table, spans, block = request.block_table, request.spans, start // block_size
                reads_image = bool(spans) and start < spans[-1].end
                if block == len(table) and not reads_image and pool.num_available:
                    table += pool.allocate(1)
                if block < len(table) and pool.ref_count(table[block]) == 1 and not reads_image:
                    # The usual case, kept short: its last block has room and is its own.
                    step.add_row(request, start, start + 1, request.fanout)
                else:
                    self._schedule_chunk(request, step)
            # A request that had to give way itself is no longer in the list; victims come after it.
            if request.status is RequestStatus.RUNNING:
                position += 1
        return prompts

    def _schedule_verification(self, request: Request, step: StepDraft) -> None:
        """The row of a decoding request with as many of its drafts as budget, blocks and limits allow.

        Nobody gives way for a draft: it takes free blocks only, and leaves one to every running request.
        """
        ledger = self._ledger
        start = request.num_computed_tokens
        if not self._ensure_blocks(request, start + 1, step):
            return
        drafts = step.drafts[request.request_id]
        count = min(len(drafts), step.draft_tokens_left, self._room_for_drafts(request))
        spare = max(0, ledger.pool.num_available - len(ledger.running))
        table = request.block_table
        count = max(0, min(count, (len(table) + spare) * self._config.block_size - start - 1))
        missing = ledger.blocks_for(start + 1 + count) - len(table)
        if missing > 0:
            table.extend(ledger.pool.allocate(missing))
        step.add_row(request, start, start + 1, 1, tuple(drafts[:count]))

    def _room_for_drafts(self, request: Request) -> int:
        """Drafts that could become output: a verification yields one token more."""
        room = self._config.context_limit - request.num_tokens
        if request.sampling.max_tokens is not None:
            room = min(room, request.sampling.max_tokens - len(request.output_token_ids))
        return room - 1

    def _schedule_chunk(self, request: Request, step: StepDraft) -> None:
        """Compute as much of a running request as budget, blocks and images allow."""
        start = request.num_computed_tokens
        end = self._chunk_end(request, start, step)
        if end <= start or not self._ensure_blocks(request, end, step):
            return
        self._add_chunk(request, start, self._reserve(request, start, end, step), step)

    def _reserve(self, request: Request, start: int, end: int, step: StepDraft) -> int:
        """Pin and encode the images of [start, end); the end that is possible in this step, `start` if none is."""
        vision, pace = self._ledger.vision, self._pace
        if pace is None or not request.images:
            possible = vision.reserve(request, start, end)
            step.images_wait |= possible < end
            return possible
        possible = vision.reserve(request, start, end, pace.image, pace.take_image)
        step.images_wait |= possible < end
        if possible <= start or self._config.atomic_image_spans:
            return possible
        # What was encoded took of the time that the chunk was meant to have. One token is paid for.
        return start + max(1, pace.chunk(start, possible - start))

    def _add_chunk(self, request: Request, start: int, end: int, step: StepDraft) -> None:
        if end <= start:
            return
        num_samples = request.fanout if end == request.num_tokens else 0
        step.add_row(request, start, end, num_samples)
        if self._pace is not None:
            self._pace.take(start, end - start, int(num_samples > 0))

    def _chunk_end(self, request: Request, start: int, step: StepDraft) -> int:
        """Where a chunk from `start` ends within the token budget; `start` if it must wait.

        With atomic image spans a cut inside a span moves to before it. A span at the very start of the chunk may exceed
        what is left once per step: otherwise one longer than the budget would wait for ever.
        """
        if step.tokens_left <= 0:
            return start
        most = min(request.num_tokens - start, step.tokens_left)
        end = start + (most if self._pace is None else self._pace.chunk(start, most))
        if end <= start:
            return start
        if not self._config.atomic_image_spans or start >= request.num_prompt_tokens:
            return end
        position = bisect_right(request.spans, end, key=_span_end)
        if position == len(request.spans) or request.spans[position].offset >= end:
            return end
        span = request.spans[position]
        if span.offset > start:
            return span.offset
        if self._pace is not None and self._pace.limited and not self._pace.forced:
            if self._pace.chunk(start, span.end - start) == span.end - start:
                return span.end
            self._pace.refuse()
            return start
        return start if step.has_prefill else span.end

    def _ensure_blocks(self, request: Request, end: int, step: StepDraft) -> bool:
        """Give a running request blocks for positions up to `end`, and a block of its own to write its first one to.

        Preempts requests of lower rank if there are too few. False if it had to give way itself.
        """
        ledger = self._ledger
        table, pool = request.block_table, ledger.pool
        missing = ledger.blocks_for(end) - len(table)
        first = request.num_computed_tokens // self._config.block_size
        # After a fork the last, partly filled block belongs to several choices: copy on write.
        copies = first < len(table) and pool.ref_count(table[first]) > 1
        if missing <= 0 and not copies:
            return True
        while pool.num_available < missing + copies:
            victim = choose_victim(ledger.running, request, step.scheduled.__contains__)
            ledger.preempt(victim)
            step.preempted.append(victim.request_id)
            step.admits = False
            if victim is request:
                return False
            copies = first < len(table) and pool.ref_count(table[first]) > 1
        if copies:
            source = table[first]
            (target,) = pool.allocate(1)
            # The source cannot be overwritten before it is copied: copies run before any row of the step writes.
            pool.release((source,))
            table[first] = target
            step.copies.append(BlockCopy(source, target))
        if missing > 0:
            table.extend(pool.allocate(missing))
        return True

    def _admit_waiting(self, step: StepDraft, better_than: int | None = None) -> None:
        """Admit waiting requests in order, as long as they fit; with `better_than` only those of a better level."""
        ledger = self._ledger
        while step.admits and len(step.skipped) < LOOKAHEAD:
            request = ledger.waiting.best(step.now_s, ledger.vision.encode_sizes, step.skipped)
            if request is None:
                break
            if better_than is not None and queue_level(request, step.now_s, self._config.ageing_s) >= better_than:
                break
            self._try_admit(request, step)

    def _try_admit(self, request: Request, step: StepDraft) -> None:
        """Admit one request and schedule its first chunk. Else either skip it or end this step's admissions."""
        ledger = self._ledger
        if self._missing_seqs(request) > 0:
            step.admits = False
            return
        hit = self._match(request)
        start = len(hit) * self._config.block_size
        end = self._chunk_end(request, start, step)
        # A static batch is formed at once, with or without tokens left for everybody's first chunk.
        out_of_tokens = end <= start and self._config.batching == "continuous"
        if out_of_tokens or self._missing_blocks(request, hit) > 0:
            # Nobody overtakes: otherwise small requests could keep a large one waiting for ever.
            step.admits = False
            return
        possible = end
        if end > start:
            # Once an image has to wait, no other one goes ahead of it, cached or not; text may.
            blocked = step.images_wait and ledger.vision.needs_features(request, start)
            held = bool(step.held_sizes) and ledger.vision.next_to_encode(request, start) in step.held_sizes
            possible = start if blocked or held else self._reserve(request, start, end, step)
            if possible == start:
                step.skipped.add(request.request_id)
                return
        ledger.start(request, hit, step.now_s)
        self._add_chunk(request, start, possible, step)

    def _displace_for_urgent(self, step: StepDraft) -> None:
        """Preempt lower classes if the first waiting request is urgent and does not fit otherwise."""
        ledger = self._ledger
        request = ledger.waiting.best(step.now_s)
        if request is None or not is_urgent(request.priority, step.now_s - request.arrival_s):
            return
        if all(other.priority <= request.priority for other in ledger.running):
            return
        missing_seqs = self._missing_seqs(request)
        missing_blocks = self._missing_blocks(request, self._match(request))
        if missing_seqs <= 0 and missing_blocks <= 0:
            return
        for victim in admission_victims(
            ledger.running,
            request,
            missing_seqs,
            missing_blocks,
            ledger.exclusive_blocks,
            step.now_s,
            self._config.ageing_s,
        ):
            ledger.preempt(victim)
            step.preempted.append(victim.request_id)

    def _match(self, request: Request) -> list[int]:
        return self._ledger.prefix.match(request) if self._config.uses_prefix_cache else []

    def _missing_seqs(self, request: Request) -> int:
        """Sequences too many if the request were admitted; <= 0 is enough."""
        return self._ledger.num_seqs + request.fanout - self.max_num_seqs if self._ledger.running else 0

    def _missing_blocks(self, request: Request, hit: Sequence[int]) -> int:
        """Blocks that lack to admit a request whose first blocks are `hit`; <= 0 is enough.

        All its present tokens get blocks at once, so that no prompt is preempted by its own length. Beside running
        requests a reserve stays free for their growth, and a preempted request also waits for one block per running
        one: else it would be displaced again at once.
        """
        ledger = self._ledger
        pool = ledger.pool
        blocks = ledger.blocks_for(request.num_tokens) - len(hit) + pool.count_cached(hit)
        if ledger.running:
            blocks += int(self._config.watermark * pool.num_blocks)
            if request.num_preemptions:
                blocks += len(ledger.running)
        return blocks - pool.num_available
