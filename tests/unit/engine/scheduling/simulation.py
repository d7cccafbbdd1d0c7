"""Random traffic against the scheduler, with every promise checked after every move."""

from __future__ import annotations

import random
from collections.abc import Sequence

from foveal.core.errors import OverloadedError
from foveal.core.image_span import ImageSpan
from foveal.core.priority import Priority
from foveal.core.sampling_params import SamplingParams
from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.request import ImageRef, Request
from foveal.engine.scheduling.scheduler import Scheduler
from unit.engine.scheduling.builders import PLACEHOLDER
from unit.engine.scheduling.simulated_runner import SimulatedRunner

__all__ = ["EOS", "Simulation"]

EOS = 0
MARKER = 98

# (image, lengths of its spans): several sizes, one tiled, one larger than encoder budget and cache of most configs.
IMAGES: Sequence[tuple[ImageRef, tuple[int, ...]]] = (
    (ImageRef(b"dot", 1, 10, 4), (1,)),
    (ImageRef(b"cat", 4, 40, 16), (4,)),
    (ImageRef(b"dog", 4, 40, 16), (4,)),
    (ImageRef(b"tiles", 7, 70, 28), (3, 2, 2)),
    (ImageRef(b"wide", 9, 90, 36), (9,)),
    (ImageRef(b"huge", 14, 400, 200), (14,)),
)
PREFIXES = ((), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6, 7, 8, 1), (5, 5, 5, 5))


class Simulation:
    """Drives one scheduler and one simulated runner."""

    def __init__(self, config: SchedulerConfig, rng: random.Random, *, draft_share: float = 0.0) -> None:
        self.config = config
        self.rng = rng
        self.scheduler = Scheduler(config)
        self.runner = SimulatedRunner(config, self.scheduler, lambda _: rng.choice((EOS, 1, 2, 3, 4, 5, 6, 7, 8)))
        self.draft_share = draft_share
        """How often a decoding request has drafts."""
        self.num_drafted = 0
        self.num_accepted = 0
        self.now_s = 0.0
        self.num_steps = 0
        self.num_added = 0
        self.added_at: dict[str, int] = {}
        """group id -> step of adding, for groups that have not ended."""
        self.choices_left: dict[str, int] = {}
        self.outputs: dict[str, list[int]] = {}
        self.longest_life_steps = 0

    # --- moves ------------------------------------------------------------------------------------------------------

    def add(self, num_images: int, n: int, priority: Priority, *, deadline: bool, salted: bool) -> None:
        rng = self.rng
        tokens = list(rng.choice(PREFIXES))
        images: list[ImageRef] = []
        spans: list[ImageSpan] = []
        for _ in range(num_images):
            ref, lengths = rng.choice(IMAGES)
            offset = 0
            for length in lengths:
                spans.append(ImageSpan(len(tokens), length, len(images), offset))
                tokens += [PLACEHOLDER] * length + [MARKER] * (len(lengths) > 1)
                offset += length
            images.append(ref)
            tokens += [rng.randint(1, 3)] * rng.choice((0, 0, 1, 4))
        tokens += [rng.randint(1, 3) for _ in range(rng.choice((0, 1, 2, 9)))] or ([] if tokens else [1])
        room = min(self.config.pool_tokens, self.config.max_model_len) - len(tokens)
        if room < 1:
            return
        name = f"r{self.num_added}"
        self.num_added += 1
        request = Request(
            request_id=name,
            prompt_token_ids=tokens,
            sampling=SamplingParams(n=min(n, self.config.max_num_seqs), max_tokens=rng.randint(1, min(room, 20))),
            arrival_s=self.now_s - rng.choice((0.0, 0.3)),
            priority=priority,
            deadline_s=self.now_s + rng.uniform(0, 30) if deadline else None,
            images=tuple(images),
            spans=tuple(spans),
            cache_salt=b"tenant" if salted else b"",
        )
        try:
            self.scheduler.add(request, self.now_s)
        except OverloadedError:
            assert self.scheduler.num_waiting >= self.config.max_waiting
            return
        self.added_at[name] = self.num_steps
        self.choices_left[name] = request.sampling.n
        self.outputs[name] = []
        self.scheduler.check_integrity()

    def abort(self) -> None:
        """One choice."""
        if (name := self._any_request()) is not None:
            request = self.scheduler.abort(name)
            assert request is not None
            self._ended(request)
            self.scheduler.check_integrity()

    def abort_group(self) -> None:
        if self.choices_left:
            group = self.rng.choice(sorted(self.choices_left))
            for request in self.scheduler.abort_group(group):
                self._ended(request)
            assert group not in self.choices_left
            self.scheduler.check_integrity()

    def preempt(self) -> None:
        if (name := self._any_request()) is not None:
            self.scheduler.preempt(name)
            self.scheduler.check_integrity()

    def expire(self) -> None:
        for request in self.scheduler.expire(self.now_s):
            assert request.deadline_s is not None
            assert request.deadline_s <= self.now_s
            self._ended(request)
        self.scheduler.check_integrity()

    def clear_caches(self) -> None:
        self.scheduler.clear_caches()
        self.scheduler.check_integrity()

    def step(self, *, interfere: bool = False, fail: bool = False) -> None:
        """One engine step; `interfere` ends or preempts somebody between schedule and commit."""
        self.now_s += self.rng.choice((0.0, 0.01, 0.05, 0.5))
        plan = self.scheduler.schedule(self.now_s, self._drafts())
        self.scheduler.check_integrity()
        assert plan.rows or not self.scheduler.has_unfinished, "unfinished requests, but nothing to do"
        assert self.scheduler.stats().num_running <= self.config.max_num_seqs
        samples = self.runner.execute(plan)
        for row in plan.rows:
            self.num_drafted += len(row.draft_token_ids)
            self.num_accepted += len(samples[row.request_id]) - 1 if row.draft_token_ids else 0
        if fail and plan.rows:
            for request in self.scheduler.fail(plan):
                self._ended(request)
            self.scheduler.check_integrity()
            return
        if interfere:
            self.rng.choice((self.abort, self.preempt, self.abort_group))()
        for event in self.scheduler.commit(plan, samples, self.now_s):
            self.outputs.setdefault(event.request.request_id, []).extend(event.token_ids)
            assert self.outputs[event.request.request_id] == event.request.output_token_ids
            assert (
                event.request.index == 0
                or event.request.request_id == f"{event.request.group_id}#{event.request.index}"
            )
            if event.finish_reason is not None:
                self._ended(event.request)
        self.num_steps += 1
        self.scheduler.check_integrity()

    def random_move(self) -> None:
        rng = self.rng
        roll = rng.random()
        if roll < 0.25:
            self.add(
                rng.choice((0, 0, 1, 1, 2, 3)),
                rng.choice((1, 1, 1, 2, 3)),
                rng.choice(tuple(Priority)),
                deadline=rng.random() < 0.2,
                salted=rng.random() < 0.2,
            )
        elif roll < 0.28:
            self.abort()
        elif roll < 0.29:
            self.abort_group()
        elif roll < 0.32:
            self.preempt()
        elif roll < 0.34:
            self.expire()
        elif roll < 0.341:
            self.clear_caches()
        else:
            self.step(interfere=rng.random() < 0.05, fail=rng.random() < 0.002)

    def drain(self, limit_steps: int) -> None:
        """Run until nothing is left; AssertionError if that takes longer than the limit."""
        for _ in range(limit_steps):
            if not self.scheduler.has_unfinished:
                break
            self.step()
        assert not self.scheduler.has_unfinished, f"not idle after {limit_steps} steps"
        assert not self.choices_left
        self.scheduler.check_integrity(idle=True)

    def _drafts(self) -> dict[str, list[int]]:
        """For some of the decoding requests, and now and then for one that does not decode: those are ignored."""
        rng = self.rng
        names = [r.request_id for r in self.scheduler.decoding if rng.random() < self.draft_share]
        if self.outputs and rng.random() < self.draft_share / 4:
            names.append(rng.choice(sorted(self.outputs)))
        return {name: [rng.randint(1, 3) for _ in range(rng.randint(1, 8))] for name in names}

    # --- book-keeping -----------------------------------------------------------------------------------------------

    def _any_request(self) -> str | None:
        names = sorted(self.outputs)
        return self.rng.choice(names) if names else None

    def _ended(self, request: Request) -> None:
        """Every choice ends exactly once; a prompt that has not forked takes all its choices along."""
        assert request.finish_reason is not None
        assert self.scheduler.get(request.request_id) is None
        self.outputs.pop(request.request_id)
        group = request.group_id
        self.choices_left[group] -= request.fanout
        assert self.choices_left[group] >= 0
        self.longest_life_steps = max(self.longest_life_steps, self.num_steps - self.added_at[group])
        if not self.choices_left[group]:
            del self.choices_left[group], self.added_at[group]
