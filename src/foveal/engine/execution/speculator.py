"""Asks the proposers for drafts before a step, and learns from what became of them after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from foveal.core.clock import Clock
from foveal.engine.execution.proposers.base import MOST_DRAFT_TOKENS, DraftJob, Proposer
from foveal.engine.execution.sampling.row import SampledToken, SamplingRow
from foveal.engine.scheduling.plan import ScheduledRow, StepPlan
from foveal.engine.scheduling.request import Request
from foveal.engine.scheduling.speculation.acceptance import AcceptanceRate
from foveal.engine.scheduling.speculation.draft_control import DraftControl
from foveal.engine.scheduling.speculation.draft_policy import Candidate, choose_lengths, net_gain
from foveal.engine.scheduling.speculation.statistics import SpeculationCounters
from foveal.engine.scheduling.speculation.step_cost import StepCost
from foveal.engine.scheduling.speculation.trials import Trials

__all__ = ["Speculator"]

PLAIN_EVERY = 64
"""After that many steps with drafts one is done without, so that the price of a plain step is known as it is now."""

DRAFT_STEP_SHARE = 0.15
"""What one step of a draft model takes of a plain step, until measured."""

DRAFT_SHARE_WEIGHT = 0.2
"""Of the latest reading."""

PAID_TRIAL_AFTER = 64
LAST_PAID_TRIAL_AFTER = 2048
"""Declined offers over all requests: a draft model reads what it has missed before its first guess, so a trial is dear."""

SHARED_DECAY = 0.98
"""The acceptance over all requests fades slowly: it is where new requests start."""


@dataclass(slots=True)
class _Offer:
    """What could be verified for one request."""

    request: Request
    row: SamplingRow
    room: int
    """Drafts that could still become output."""
    tokens: list[int] = field(default_factory=list)
    parts: list[tuple[Proposer, int]] = field(default_factory=list)
    """Who guessed how many of them, in order; a proposer that is not free has not been asked yet."""


class Speculator:
    """Owns the proposers. One thread."""

    def __init__(
        self,
        proposers: Sequence[Proposer],
        clock: Clock,
        *,
        most_tokens: int,
        context_limit: int,
        adaptive: bool = True,
    ) -> None:
        """`most_tokens` a round from each proposer; without `adaptive` always as many as there are, as a baseline."""
        self._free = [proposer for proposer in proposers if proposer.is_free]
        self._paid = next((proposer for proposer in proposers if not proposer.is_free), None)
        self._clock = clock
        self._most_tokens = most_tokens
        self._context_limit = context_limit
        self._adaptive = adaptive
        self._controls: dict[str, dict[str, DraftControl]] = {}
        """request id -> proposer name -> control"""
        self._in_flight: dict[str, list[tuple[str, int]]] = {}
        """request id -> (proposer name, drafts) in order, of the step being executed."""
        self.reset()

    def reset(self) -> None:
        """Forget what was counted and learned: after a warm-up, which says nothing about real requests."""
        self.counters = SpeculationCounters()
        self._shared = {proposer.name: AcceptanceRate(decay=SHARED_DECAY) for proposer in self._proposers()}
        self._paid_trials = Trials(PAID_TRIAL_AFTER, LAST_PAID_TRIAL_AFTER)
        self._step_cost = StepCost()
        self._draft_share = DRAFT_STEP_SHARE
        """What one step of the draft model takes of a plain step for as many requests."""
        self._steps_since_plain = PLAIN_EVERY

    @property
    def num_held(self) -> int:
        """Requests of which something is kept: 0 when idle."""
        return len(self._controls) + sum(proposer.num_held for proposer in self._proposers())

    def propose(self, requests: Sequence[Request], rows: Mapping[str, SamplingRow]) -> dict[str, list[int]]:
        """Drafts for decoding `requests` by request id; `rows` are their sampling rows."""
        self._in_flight = {}
        if self._adaptive and self._steps_since_plain >= PLAIN_EVERY:
            return {}
        offers = [
            _Offer(request, rows[request.request_id], room) for request in requests if (room := self._room(request)) > 0
        ]
        for proposer in self._free:
            self._ask(proposer, offers)
        candidates = [self._candidate(offer, len(offers)) for offer in offers]
        if self._paid is not None:
            for i, offer in enumerate(offers):
                candidates[i] = self._add_paid(self._paid, offer, candidates[i], len(offers))
        lengths = self._lengths(candidates, len(requests))
        self._decline(offers, lengths)
        self._run_paid(offers, lengths)
        return self._take(offers, lengths)

    def observe(self, plan: StepPlan, samples: Mapping[str, Sequence[SampledToken]], step_s: float) -> None:
        """A step was executed in `step_s` seconds; `samples` are what its rows yielded."""
        has_drafts = False
        is_decode = bool(plan.rows) and not plan.encode
        for row in plan.rows:
            is_decode = is_decode and row.num_tokens == 1 + len(row.draft_token_ids)
            if row.draft_token_ids:
                has_drafts = True
                self._learn(row, len(samples[row.request_id]) - 1)
        if is_decode:
            self._step_cost.observe(plan.num_tokens, step_s)
            self._steps_since_plain = self._steps_since_plain + 1 if has_drafts else 0
        self._in_flight = {}

    def forget(self, request_id: str) -> None:
        """The request ended. Unknown ids are ignored."""
        self._controls.pop(request_id, None)
        for proposer in self._proposers():
            proposer.forget(request_id)

    # --- details ----------------------------------------------------------------------------------------------------

    def _proposers(self) -> Iterator[Proposer]:
        yield from self._free
        if self._paid is not None:
            yield self._paid

    def _room(self, request: Request) -> int:
        room = self._context_limit - request.num_tokens
        if request.sampling.max_tokens is not None:
            room = min(room, request.sampling.max_tokens - len(request.output_token_ids))
        return min(room - 1, MOST_DRAFT_TOKENS)

    def _control(self, request: Request, proposer: Proposer) -> DraftControl:
        controls = self._controls.setdefault(request.request_id, {})
        control = controls.get(proposer.name)
        if control is None:
            most = proposer.most_tokens or self._most_tokens
            trials = None if proposer.is_free else self._paid_trials
            control = controls[proposer.name] = DraftControl(most, self._shared[proposer.name], trials)
        return control

    def _wanted(self, offer: _Offer, proposer: Proposer) -> int:
        """Tokens to ask a proposer for, behind those that the offer has already."""
        if proposer.most_tokens is not None:
            wanted = proposer.most_tokens
        else:
            wanted = self._control(offer.request, proposer).tokens if self._adaptive else self._most_tokens
        return min(wanted, offer.room - len(offer.tokens))

    def _ask(self, proposer: Proposer, offers: Sequence[_Offer]) -> None:
        asked = [offer for offer in offers if self._wanted(offer, proposer) > 0]
        jobs = [
            DraftJob(offer.request, offer.row, self._wanted(offer, proposer), tuple(offer.tokens)) for offer in asked
        ]
        for offer, tokens in zip(asked, proposer.propose(jobs), strict=True):
            self._extend(offer, proposer, tokens)

    @staticmethod
    def _extend(offer: _Offer, proposer: Proposer, tokens: list[int]) -> None:
        """Add what the guide allows."""
        guide = offer.row.guide
        if tokens and guide is not None:
            allowed = guide.count_allowed([*offer.tokens, *tokens])
            tokens = tokens[: max(0, allowed - len(offer.tokens))]
        if tokens:
            offer.tokens += tokens
            offer.parts.append((proposer, len(tokens)))

    def _candidate(self, offer: _Offer, num_offers: int) -> Candidate:
        rates: list[float] = []
        prices: list[float] = []
        trial = 0
        for proposer, count in offer.parts:
            control = self._control(offer.request, proposer)
            if control.trial and not trial:
                trial = len(rates) + min(control.trial, count)
            rates += [control.rate] * count
            prices += [0.0 if proposer.is_free else self._price(num_offers)] * count
        return Candidate(tuple(rates), tuple(prices), trial)

    def _price(self, num_offers: int) -> float:
        """Share of a plain step that one token of the draft model takes one of `num_offers` requests."""
        return self._draft_share / num_offers

    def _add_paid(self, proposer: Proposer, offer: _Offer, free: Candidate, num_offers: int) -> Candidate:
        """Let the draft model go on behind forced tokens, or in place of looked-up ones where that promises more."""
        kept = sum(count for part, count in offer.parts if part.most_tokens is not None)
        wanted = min(self._wanted(offer, proposer) + len(offer.tokens) - kept, offer.room - kept)
        if wanted <= 0:
            return free
        forced = [(part, count) for part, count in offer.parts if part.most_tokens is not None]
        paid = _Offer(offer.request, offer.row, offer.room, offer.tokens[:kept], [*forced, (proposer, wanted)])
        candidate = self._candidate(paid, num_offers)
        if self._adaptive and len(offer.tokens) > kept:
            if net_gain(candidate, num_offers, self._step_cost) <= net_gain(free, num_offers, self._step_cost):
                return free
        elif not self._adaptive and len(offer.tokens) > kept:
            return free
        offer.tokens, offer.parts = paid.tokens, paid.parts
        return candidate

    def _lengths(self, candidates: Sequence[Candidate], num_rows: int) -> list[int]:
        if not self._adaptive:
            return [len(candidate.rates) for candidate in candidates]
        return choose_lengths(candidates, num_rows, self._step_cost)

    def _decline(self, offers: Sequence[_Offer], lengths: Sequence[int]) -> None:
        for offer, length in zip(offers, lengths, strict=True):
            start = 0
            for proposer, count in offer.parts:
                if length <= start:
                    self._control(offer.request, proposer).decline()
                start += count

    def _run_paid(self, offers: Sequence[_Offer], lengths: Sequence[int]) -> None:
        proposer = self._paid
        if proposer is None:
            return
        asked: list[_Offer] = []
        jobs: list[DraftJob] = []
        for offer, length in zip(offers, lengths, strict=True):
            if offer.parts and offer.parts[-1][0] is proposer:
                offer.parts.pop()
                if length > len(offer.tokens):
                    limit = length - len(offer.tokens)
                    asked.append(offer)
                    jobs.append(DraftJob(offer.request, offer.row, limit, tuple(offer.tokens)))
        if not jobs:
            return
        started = self._clock.now_s()
        drafted = proposer.propose(jobs)
        rounds = max(map(len, drafted))
        if rounds > 1:  # the first one may have read a whole prompt
            self._note_draft_step((self._clock.now_s() - started) / rounds, len(jobs))
        for offer, tokens in zip(asked, drafted, strict=True):
            self._extend(offer, proposer, tokens)

    def _note_draft_step(self, seconds: float, num_rows: int) -> None:
        plain_s = self._step_cost.estimate(num_rows)
        if seconds > 0.0 and plain_s is not None:
            self._draft_share += DRAFT_SHARE_WEIGHT * (min(1.0, seconds / plain_s) - self._draft_share)

    def _take(self, offers: Sequence[_Offer], lengths: Sequence[int]) -> dict[str, list[int]]:
        drafts = {}
        for offer, length in zip(offers, lengths, strict=True):
            if offer.tokens[:length]:
                name = offer.request.request_id
                drafts[name] = offer.tokens[:length]
                self._in_flight[name] = [(proposer.name, count) for proposer, count in offer.parts]
        return drafts

    def _learn(self, row: ScheduledRow, num_accepted: int) -> None:
        """Credit each proposer with its part of the row's drafts."""
        self.counters.rounds += 1
        controls = self._controls.get(row.request_id, {})
        left, accepted = len(row.draft_token_ids), num_accepted
        for name, count in self._in_flight.get(row.request_id, ()):
            drafted = min(count, left)
            right = min(accepted, drafted)
            self.counters.proposers[name].drafted += drafted
            self.counters.proposers[name].accepted += right
            if drafted and name in controls:
                controls[name].observe(drafted, right)
            left -= drafted
            accepted -= right
            if right < drafted:
                break  # what came behind was not put to the test
