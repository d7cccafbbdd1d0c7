"""A runner without a model: it stores in every KV slot what the real one would have computed it from.

So a test can compare what a row sees in its blocks with the row's true history: a wrong prefix hit, a missed copy, an
evicted feature or a block given away too early becomes a visible difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.plan import EncodeItem, ScheduledRow, StepPlan
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.scheduler import Scheduler

__all__ = ["SimulatedRunner"]

Content = tuple[int, int, bytes, int, bytes]
"""(position, token id, image content hash, feature offset, cache salt)"""


class SimulatedRunner:
    def __init__(self, config: SchedulerConfig, scheduler: Scheduler, sample: Callable[[Request], int]) -> None:
        self._config = config
        self._scheduler = scheduler
        self._sample = sample
        self._drafts: dict[str, tuple[int, ...]] = {}
        """Of the step being executed."""
        self.slots: dict[int, Content] = {}
        self.features: dict[bytes, int] = {}
        """content hash -> bytes"""

    def execute(self, plan: StepPlan) -> dict[str, list[int]]:
        """Samples per row. AssertionError if the plan breaks a promise."""
        self._encode(plan)
        self._copy(plan)
        rows = [(row, self._known(row)) for row in plan.rows]
        self._drafts = {row.request_id: row.draft_token_ids for row in plan.rows}
        self._check_budgets(plan, [request for _, request in rows])
        written: set[int] = set()
        for row, request in rows:
            self._check_row_features(row, request)
            for position in range(row.start, row.end):
                slot = self._slot(request, position)
                assert slot not in written, f"two rows write slot {slot}"
                written.add(slot)
                self.slots[slot] = self._truth(request, position)
        for row, request in rows:
            for position in range(row.end):
                seen, truth = self.slots.get(self._slot(request, position)), self._truth(request, position)
                assert seen == truth, f"{row} sees {seen} at {position} instead of {truth}"
        for row, _ in rows:
            self._drafts.pop(row.request_id, None)
        return {
            row.request_id: self._verify(row, request)
            if row.draft_token_ids
            else [self._sample(request) for _ in range(row.num_samples)]
            for row, request in rows
            if row.num_samples
        }

    def _verify(self, row: ScheduledRow, request: Request) -> list[int]:
        """Drafts up to the first that is not what gets sampled, and that one."""
        taken: list[int] = []
        for draft in row.draft_token_ids:
            taken.append(self._sample(request))
            if taken[-1] != draft:
                return taken
        return [*taken, self._sample(request)]

    def _encode(self, plan: StepPlan) -> None:
        for content_hash in plan.evicted_features:
            del self.features[content_hash]
        for item in plan.encode:
            image = self._known(item).images[item.image_index]
            assert image.content_hash == item.content_hash
            assert item.content_hash not in self.features, "an image is encoded although its features exist"
            self.features[item.content_hash] = image.feature_bytes
        total = sum(self.features.values())
        assert total <= self._config.feature_cache_bytes or len(self.features) == 1, f"{total} feature bytes"

    def _copy(self, plan: StepPlan) -> None:
        size = self._config.block_size
        before = dict(self.slots)
        targets = [copy.target for copy in plan.copies]
        assert len(set(targets)) == len(targets)
        for copy in plan.copies:
            for offset in range(size):
                self.slots.pop(copy.target * size + offset, None)
                if copy.source * size + offset in before:
                    self.slots[copy.target * size + offset] = before[copy.source * size + offset]

    def _check_budgets(self, plan: StepPlan, requests: Sequence[Request]) -> None:
        config = self._config
        assert len({row.request_id for row in plan.rows}) == len(plan.rows)
        spans = [span for request in requests for span in request.spans]
        longest = max((span.length for span in spans), default=0) if config.atomic_image_spans else 0
        assert plan.num_tokens <= config.max_num_batched_tokens + longest
        patches = [self._known(item).images[item.image_index].encode_tokens for item in plan.encode]
        assert sum(patches) <= config.encoder_budget_tokens or len(patches) == 1
        for row, request in zip(plan.rows, requests, strict=True):
            assert row.num_tokens > 0
            committed_end = row.end - len(row.draft_token_ids)
            assert row.num_samples == (request.fanout if committed_end == request.num_tokens else 0)
            assert committed_end <= request.num_tokens
            if row.draft_token_ids:
                assert row.num_samples == 1
                assert committed_end == row.start + 1, "drafts follow a single committed token"
                most = request.sampling.max_tokens or config.context_limit
                assert len(request.output_token_ids) + len(row.draft_token_ids) < most
                assert row.end < config.context_limit
            if config.atomic_image_spans:
                for span in request.spans:
                    assert not span.offset < row.start < span.end, "a row starts inside an atomic span"
                    assert not span.offset < row.end < span.end, "a row ends inside an atomic span"

    def _known(self, item: ScheduledRow | EncodeItem) -> Request:
        request = self._scheduler.get(item.request_id)
        assert request is not None
        return request

    def _slot(self, request: Request, position: int) -> int:
        size = self._config.block_size
        return request.block_table[position // size] * size + position % size

    def _truth(self, request: Request, position: int) -> Content:
        """What the KV at that position is computed from."""
        drafts = self._drafts.get(request.request_id, ())
        token = [*request.token_slice(position, position + 1), *drafts[max(0, position - request.num_tokens) :]][0]
        for span in request.spans:
            if span.offset <= position < span.end:
                content_hash = request.images[span.image_index].content_hash
                return (position, token, content_hash, span.feature_offset + position - span.offset, request.cache_salt)
        return (position, token, b"", 0, request.cache_salt)

    def _check_row_features(self, row: ScheduledRow, request: Request) -> None:
        for span in request.spans:
            if span.offset < row.end and row.start < span.end:
                content_hash = request.images[span.image_index].content_hash
                assert content_hash in self.features, f"{row} reads features that were evicted or never encoded"
