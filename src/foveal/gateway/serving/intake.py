"""From received bytes to an admitted call: who asks, for what, at what price, and whether that may be."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass

from foveal.core.errors import PayloadTooLargeError
from foveal.gateway.request.read_view import read_view
from foveal.gateway.request.remote_images import Budget
from foveal.gateway.request.view import RequestView
from foveal.gateway.serving.call import Call
from foveal.gateway.serving.isolation import granted_priority, priority_splice, salt_splice
from foveal.gateway.serving.model_choice import choose_model
from foveal.gateway.serving.parts import Parts
from foveal.gateway.serving.splicing import Splice
from foveal.gateway.tenancy.rate_limiter import Reservation
from foveal.gateway.tenancy.tenant import Tenant
from foveal.gateway.wire.incoming import Incoming
from foveal.observability.exchange_record import ExchangeRecord
from foveal.observability.waterfall import Waterfall

__all__ = ["PATHS", "Admitted", "HeldBytes", "Intake", "RequestIds"]

PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


class RequestIds:
    """Unique over restarts; cheaper than a UUID per request."""

    def __init__(self) -> None:
        self._run = uuid.uuid4().hex[:16]
        self._serial = itertools.count()

    def new(self) -> str:
        return f"req-{self._run}{next(self._serial):08x}"


@dataclass(slots=True)
class Admitted:
    """Whoever has it settles the reservation; all of it ends with the last holder's `close`."""

    call: Call
    reservation: Reservation
    held: tuple[HeldBytes, ...] = ()
    """Bytes of fetched images, and of the body once its client need not stay."""
    _num_holders: int = 1

    def share(self, incoming: Incoming) -> None:
        """Another holder, which may outlive the client: somebody else waits for the same answer."""
        self._num_holders += 1
        if incoming.budget is not None:
            self.held += (HeldBytes(incoming.budget, incoming.reserved),)
            incoming.reserved = 0

    def close(self) -> None:
        """Once by each holder."""
        self._num_holders -= 1
        if self._num_holders == 0:
            self.reservation.release()
            for held in self.held:
                held.release()


class HeldBytes:
    """Room that one request takes in a byte budget."""

    def __init__(self, budget: Budget, num_bytes: int) -> None:
        self._budget = budget
        self._num_bytes = num_bytes

    def release(self) -> None:
        num_bytes, self._num_bytes = self._num_bytes, 0
        if num_bytes:
            self._budget.release(num_bytes)


class Intake:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def admit(self, incoming: Incoming, call_id: str, record: ExchangeRecord, waterfall: Waterfall) -> Admitted:
        """Raises RequestError in all its kinds: 400, 401, 404, 413, 429, and 503 while keys cannot be checked."""
        parts = self._parts
        config = parts.config
        tenant = await parts.tenancy.authenticate(incoming.headers)
        record.tenant = tenant.id
        waterfall.mark("auth")
        _check_size(tenant, len(incoming.body))
        view = read_view(incoming.body, incoming.headers, incoming.endpoint, config.request_limits)
        record.stream = view.stream
        choice = choose_model(config, view, tenant)
        record.model, record.num_images = choice.asked, len(view.images)
        record.priority = granted_priority(view.priority, tenant)
        if choice.model != choice.asked:
            record.served_model = choice.model
            parts.metrics.count("smart_routed_total", choice.asked)
        waterfall.mark("parse")
        images = parts.images
        if not images.concerns(view):
            return self._reserve(incoming, call_id, tenant, view, choice.model, [], None, (), record, waterfall)
        # Before the fetch: nobody over his limits has images fetched.
        entered = parts.tenancy.limiter.enter(tenant, parts.clock.now_s())
        fetched: tuple[HeldBytes, ...] = ()
        try:
            resolved = await images.resolve(view, incoming.body, parts.budget, tenant.id)
            waterfall.mark("fetch")
            fetched = (HeldBytes(parts.budget, resolved.claimed_bytes),)
            splices = [Splice(*replacement) for replacement in resolved.replacements]
            return self._reserve(
                incoming, call_id, tenant, resolved.view, choice.model, splices, entered, fetched, record, waterfall
            )
        except BaseException:
            entered.release()
            for held in fetched:
                held.release()
            raise

    def _reserve(
        self,
        incoming: Incoming,
        call_id: str,
        tenant: Tenant,
        view: RequestView,
        model: str,
        splices: list[Splice],
        entered: Reservation | None,
        fetched: tuple[HeldBytes, ...],
        record: ExchangeRecord,
        waterfall: Waterfall,
    ) -> Admitted:
        """Price and limits; without those that were taken with `entered`."""
        parts = self._parts
        config = parts.config
        price = parts.pricing.price(view, model)
        record.priced_prompt_tokens, record.cost_ms = price.prompt_tokens, price.cost_ms
        record.vision_tokens, record.vision_ms = price.vision.num_tokens, price.vision.encode_ms
        waterfall.mark("price")
        timeouts = config.timeouts_of(model)
        clamped = priority_splice(view, record.priority)
        if clamped is not None:
            splices.append(clamped)
        if config.keys_required:
            splices.append(salt_splice(incoming.body, view, tenant))
        limiter, now_s = parts.tenancy.limiter, parts.clock.now_s()
        reservation = entered
        if reservation is None:
            reservation = limiter.reserve(tenant, price, now_s)
        else:
            limiter.charge(reservation, price, now_s)
        waterfall.mark("limit")
        call = Call(
            id=call_id,
            request_id=record.request_id.encode(),
            path=PATHS[view.endpoint],
            headers=incoming.headers,
            body=incoming.body,
            view=view,
            tenant=tenant,
            priority=record.priority,
            price=price,
            model=model,
            timeouts=timeouts,
            arrival_s=incoming.body_done_s,
            deadline_s=incoming.body_done_s + timeouts.total_s,
            splices=tuple(splices),
            traceparent=record.traceparent.encode() if record.traceparent else incoming.headers.get(b"traceparent"),
        )
        return Admitted(call, reservation, fetched)


def _check_size(tenant: Tenant, num_bytes: int) -> None:
    limit = tenant.max_body_bytes
    if limit is not None and num_bytes > limit:
        raise PayloadTooLargeError(
            f"the request body has {num_bytes:,} bytes; this tenant's limit is {limit:,}. Send smaller or fewer images"
        )
