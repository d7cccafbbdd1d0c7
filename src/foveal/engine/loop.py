"""schedule -> execute -> commit: one engine, one thread."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog
from msgspec.structs import replace

from foveal.core.clock import Clock
from foveal.core.errors import InvalidRequestError, ModelLoadError
from foveal.core.sampling_params import SamplingParams
from foveal.engine.api import EngineStats
from foveal.engine.execution.guided import Guide, GuideFactory
from foveal.engine.execution.runner import Runner, StepResult
from foveal.engine.execution.speculator import Speculator
from foveal.engine.ipc import TokenEvent
from foveal.engine.memory.memory_guard import ACTIONS
from foveal.engine.memory.memory_keeper import MemoryKeeper
from foveal.engine.outputs import TokenLogprob
from foveal.engine.scheduling.events import TokenEvent as CommittedTokens
from foveal.engine.scheduling.plan import StepPlan
from foveal.engine.scheduling.request import FinishReason, Request
from foveal.engine.scheduling.scheduler import Scheduler
from foveal.models.image_input import PromptInput

__all__ = ["EngineLoop"]

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waterfall:
    """Where the time to a request's first token went, seconds."""

    queued_s: float
    """When it could first have been taken. The front end's preprocessing came before."""
    queue_s: float = 0.0
    encode_s: float = 0.0
    first_token_s: float | None = None
    cached_tokens: int = 0
    open_choices: set[int] = field(default_factory=set)
    """Indices of the choices that have not finished."""

    @property
    def prefill_s(self) -> float:
        if self.first_token_s is None:
            return 0.0
        return max(0.0, self.first_token_s - self.queued_s - self.queue_s - self.encode_s)


class EngineLoop:
    """Owns a scheduler and a runner. Not thread-safe: call it from one thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        clock: Clock,
        max_model_len: int,
        guide_factory: GuideFactory | None = None,
        speculator: Speculator | None = None,
        memory: MemoryKeeper | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.runner = runner
        self.max_model_len = max_model_len
        self._clock = clock
        self._guides = guide_factory
        self.speculator = speculator
        self.memory = memory
        self._waterfalls: dict[str, _Waterfall] = {}
        self.check_every_step = False
        """Tests set it: verify the block account after each step, not only when idle."""

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_unfinished

    @property
    def pause_s(self) -> float:
        """Seconds in which there is nothing to compute although there are requests: pictures wait for more of their size."""
        wake_s = self.scheduler.wake_s
        if wake_s is None or self.scheduler.num_running:
            return 0.0
        return max(0.0, wake_s - self._clock.now_s())

    def compile_guide(self, sampling: SamplingParams) -> Guide:
        """Thread-safe. Raises InvalidRequestError for a grammar that cannot be compiled."""
        if self._guides is None or sampling.guided is None:
            raise InvalidRequestError(
                "guided decoding needs a fast tokenizer and an end-of-sequence token, and this model lacks one of them; "
                "leave response_format out",
                param="response_format",
            )
        return self._guides.compile(sampling.guided)

    def add(
        self,
        request: Request,
        prompt: PromptInput,
        *,
        seed: int = 0,
        guide: Guide | None = None,
        prepared_s: float | None = None,
    ) -> None:
        """Queue a request, which has waited since `prepared_s`; now by default. Raises RequestError; nothing is held of it
        then."""
        if self.memory is not None:
            self.memory.admit(request, self._clock.now_s())
        self.scheduler.add(request, self._clock.now_s())
        try:
            self.runner.add(request, prompt, seed=seed, guide=guide)
        except BaseException:
            self.scheduler.abort_group(request.group_id)
            raise
        now_s = self._clock.now_s()
        queued_s = now_s if prepared_s is None else min(prepared_s, now_s)
        self._waterfalls[request.group_id] = _Waterfall(queued_s, open_choices=set(range(request.sampling.n)))

    def abort(self, group_id: str) -> None:
        """End all choices of a request, in whatever state. Unknown ids are ignored: they may just have finished."""
        for request in self.scheduler.abort_group(group_id):
            self._forget_choice(request)
        self._forget_group(group_id)

    def finish_choice(self, group_id: str, index: int) -> None:
        """The front end found a stop string in one choice."""
        waterfall = self._waterfalls.get(group_id)
        for request in self._choices(group_id, index):
            self.scheduler.finish(request.request_id, FinishReason.STOP)
            self._forget_choice(request)
            if waterfall is not None:
                self._choice_ended(request, waterfall)

    def step(self) -> list[TokenEvent]:
        """Compute one step and return what it means for requests: new tokens, ends, time-outs."""
        events = self._expire()
        began_s = self._clock.now_s()
        if self.memory is not None:
            self.memory.check(began_s)
        plan = self.scheduler.schedule(began_s, self._drafts())
        if not plan.rows:
            return events
        requests = self._requests_of(plan)
        self._note_first_schedule(requests.values())
        started_s = self._clock.now_s()
        try:
            result = self.runner.execute(plan, requests)
        except Exception:
            _log.exception("step_failed", rows=len(plan.rows), tokens=plan.num_tokens, images=len(plan.encode))
            self.runner.drop_features(item.content_hash for item in plan.encode)
            return events + self._end(self.scheduler.fail(plan))
        now_s = self._clock.now_s()
        self.scheduler.observe(plan, now_s - began_s, result.encode_s)
        if self.speculator is not None:
            self.speculator.observe(plan, result.samples, now_s - started_s)
        for group_id in {requests[item.request_id].group_id for item in plan.encode}:
            if (waterfall := self._waterfalls.get(group_id)) is not None:
                waterfall.encode_s += result.encode_s
        ids = {name: [token.token_id for token in tokens] for name, tokens in result.samples.items()}
        committed = self.scheduler.commit(plan, ids, now_s)
        events += self._publish(plan, committed, result, now_s)
        if self.check_every_step:
            self.scheduler.check_integrity()
        return events

    def check_idle(self) -> None:
        """Raises IntegrityError if anything is still held although no request is left."""
        self.scheduler.check_integrity(idle=True)

    def stats(self) -> EngineStats:
        now = self.scheduler.stats()
        counters, control = now.counters, self.scheduler.latency
        return EngineStats(
            num_running=now.num_running,
            num_waiting=now.num_waiting,
            kv_blocks_total=now.kv_blocks_total,
            kv_blocks_used=now.kv_blocks_owned,
            prefix_cache_queries=counters.prefix_cache_queries,
            prefix_cache_hits=counters.prefix_cache_hits,
            feature_cache_queries=now.feature_cache_queries,
            feature_cache_hits=now.feature_cache_hits,
            feature_cache_bytes=now.feature_cache_bytes,
            num_preemptions=counters.num_preemptions,
            steps=counters.steps,
            prompt_tokens=counters.prompt_tokens,
            generation_tokens=counters.generation_tokens,
            encoded_images=counters.encoded_images,
            cpu_s=time.process_time(),
            max_num_seqs=self.scheduler.max_num_seqs,
            latency_correction=1.0 if control is None else control.correction.factor,
            refused_late=0 if control is None else control.num_refused,
            **self._memory_stats(),
            **({} if self.speculator is None else self.speculator.counters.as_stats()),
        )

    def _memory_stats(self) -> dict[str, int]:
        memory = self.memory
        if memory is None:
            return {}
        return {
            "memory_used_bytes": memory.reading.used_bytes,
            "memory_limit_bytes": memory.reading.limit_bytes,
            "refused_memory": memory.num_refused,
            **{f"memory_{action}": memory.actions[action] for action in ACTIONS},
        }

    def _drafts(self) -> dict[str, list[int]]:
        if self.speculator is None or not (decoding := self.scheduler.decoding):
            return {}
        return self.speculator.propose(decoding, self.runner.sampling_rows)

    def _requests_of(self, plan: StepPlan) -> dict[str, Request]:
        names = {row.request_id for row in plan.rows} | {item.request_id for item in plan.encode}
        return {name: request for name in names if (request := self.scheduler.get(name)) is not None}

    def _choices(self, group_id: str, index: int) -> list[Request]:
        name = group_id if index == 0 else f"{group_id}#{index}"
        request = self.scheduler.get(name)
        return [] if request is None else [request]

    def _note_first_schedule(self, requests: Iterable[Request]) -> None:
        for request in requests:
            waterfall = self._waterfalls.get(request.group_id)
            if waterfall is not None and not waterfall.queue_s and request.scheduled_s is not None:
                waterfall.queue_s = max(1e-9, request.scheduled_s - waterfall.queued_s)
                waterfall.cached_tokens = request.num_cached_tokens

    def _publish(
        self, plan: StepPlan, committed: list[CommittedTokens], result: StepResult, now_s: float
    ) -> list[TokenEvent]:
        logprobs = self._logprobs(result, plan)
        # Children fork from their parent's grammar before the parent's own token advances it.
        for event in committed:
            child = event.request
            if child.index and len(child.output_token_ids) == len(event.token_ids):
                parent = child.group_id
                self.runner.fork(parent, child)
        published, ended = [], []
        for event in committed:
            request = event.request
            waterfall = self._waterfalls[request.group_id]
            if waterfall.first_token_s is None:
                waterfall.first_token_s = now_s
            reason = event.finish_reason
            if reason is None and not self.runner.accept(request, event.token_ids):
                # The grammar ran out of its work budget: what was generated is an invalid beginning.
                reason = FinishReason.ERROR
                self.scheduler.finish(request.request_id, reason)
            # Behind a token that ends the request, accepted drafts and their log-probabilities are dropped.
            known = logprobs.get(request.request_id)
            described = None if known is None else known[: len(event.token_ids)]
            published.append(self._event(request, event.token_ids, reason, described))
            if reason is not None:
                ended.append(request)
        for request in ended:
            self._forget_choice(request)
            self._choice_ended(request, self._waterfalls[request.group_id])
        return published

    def _logprobs(self, result: StepResult, plan: StepPlan) -> dict[str, tuple[TokenLogprob, ...]]:
        """By request id of each choice; a row that completed an n-choice prompt has one sample per choice, one with
        drafts several of the same choice."""
        found = {}
        for row in plan.rows:
            tokens = result.samples.get(row.request_id, ())
            described = tuple(token.logprob for token in tokens if token.logprob is not None)
            if described and row.draft_token_ids:
                found[row.request_id] = described
            else:
                for k, logprob in enumerate(described):
                    found[row.request_id if k == 0 else f"{row.request_id}#{k}"] = (logprob,)
        return found

    def _event(
        self,
        request: Request,
        token_ids: tuple[int, ...],
        finish_reason: FinishReason | None,
        logprobs: tuple[TokenLogprob, ...] | None,
    ) -> TokenEvent:
        waterfall = self._waterfalls[request.group_id]
        return TokenEvent(
            request_id=request.group_id,
            index=request.index,
            token_ids=token_ids,
            logprobs=logprobs,
            finish_reason=finish_reason,
            # OpenAI's stop_reason names what the client asked for; the model's own end token is not news.
            stop_token_id=request.stop_token_id if request.stop_token_id in request.sampling.stop_token_ids else None,
            cached_tokens=waterfall.cached_tokens,
            queue_s=waterfall.queue_s,
            encode_s=waterfall.encode_s,
            prefill_s=waterfall.prefill_s,
        )

    def _expire(self) -> list[TokenEvent]:
        return self._end(self.scheduler.expire(self._clock.now_s()))

    def _end(self, requests: Iterable[Request]) -> list[TokenEvent]:
        """Tell about requests that the scheduler has ended without tokens, and forget them."""
        events = []
        for request in requests:
            self._forget_choice(request)
            waterfall = self._waterfalls.get(request.group_id)
            if waterfall is not None:
                # All choices end with it, whether they had forked or not, and each is waited for.
                event = self._event(request, (), request.finish_reason, None)
                events += [replace(event, index=index) for index in sorted(waterfall.open_choices)]
                self.abort(request.group_id)
        return events

    def _choice_ended(self, request: Request, waterfall: _Waterfall) -> None:
        waterfall.open_choices.discard(request.index)
        if not waterfall.open_choices:
            self._forget_group(request.group_id)

    def _forget_choice(self, request: Request) -> None:
        self.runner.forget_choice(request.request_id)
        if self.speculator is not None:
            self.speculator.forget(request.request_id)

    def _forget_group(self, group_id: str) -> None:
        self._waterfalls.pop(group_id, None)
        self.runner.forget_group(group_id)

    def warm_up(self) -> float:
        """Run a text prompt and a few decode steps through the whole stack; returns the seconds it took.

        The first calls allocate buffers and prepare kernels; a client should not pay for that. Raises ModelLoadError if
        a step failed: such an engine must not say that it is ready.
        """
        started = time.perf_counter()
        length = max(1, min(self.scheduler.config.max_num_batched_tokens, self.max_model_len - 8, 64))
        room = min(4, self.max_model_len - length)
        if room < 1:
            return 0.0
        request = Request(
            request_id="warm-up",
            prompt_token_ids=[0] * length,
            sampling=SamplingParams(max_tokens=room, temperature=0.0, ignore_eos=True),
            arrival_s=self._clock.now_s(),
            cache_salt=b"warm-up",
        )
        self.add(request, PromptInput(request.prompt_token_ids))
        while self.has_work:
            if any(event.finish_reason is FinishReason.ERROR for event in self.step()):
                raise ModelLoadError("the first step failed, see the log above: the model cannot run as it was loaded")
        self.scheduler.clear_caches()
        if self.speculator is not None:
            self.speculator.reset()
        return time.perf_counter() - started
