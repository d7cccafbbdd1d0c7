"""The gateway's metrics: one call per request at its end, one for each rare event, everything bound beforehand."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from foveal.core.priority import Priority
from foveal.observability.active_tenants import ActiveTenants
from foveal.observability.cells import CounterCell
from foveal.observability.exchange_record import OUTCOMES, ExchangeRecord, Outcome
from foveal.observability.gateway_catalogue import GATEWAY_CATALOGUE
from foveal.observability.gateway_snapshot import GatewaySnapshot
from foveal.observability.label_cap import LabelCap
from foveal.observability.metric_table import MetricTable, Snapshot
from foveal.observability.waterfall import OWN_STAGES, STAGES, Waterfall

__all__ = ["GatewayMetrics"]

_PREFIX = "foveal_gateway_"
_MAX_MODELS = 100
_SETTLE_EVERY = 32
"""Requests after which one histogram is settled: it bounds the memory of pending values where nobody scrapes."""
_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})

_SENDING = ("connect", "send", "first_byte", "body", "protocol")
BACKEND_RESULTS = ("ok", "client_error", "server_error", "cancelled", *_SENDING)
RETRY_STAGES = ("status", *_SENDING)
SHED_REASONS = ("queue_full", "deadline", "bytes", "connections", "draining", "no_backend")
CACHE_RESULTS = ("hit", "miss", "joined")
"""Label values that are made known at 0 before the first event."""


class GatewayMetrics:
    """Lives on the gateway's event loop, with a registry of its own. `read_snapshot` is called on each scrape."""

    def __init__(
        self, read_snapshot: Callable[[], GatewaySnapshot], now_s: Callable[[], float], max_tenants: int = 50
    ) -> None:
        """Tenants beyond `max_tenants` get the label `other`. `now_s` reads the clock that waterfalls use."""
        self.registry = CollectorRegistry()
        self._read = read_snapshot
        self._now_s = now_s
        self._tenants = LabelCap(max_tenants)
        self._models = LabelCap(_MAX_MODELS)
        self._active = ActiveTenants()
        self._table = table = MetricTable(GATEWAY_CATALOGUE, self._values)
        self.registry.register(table)
        ProcessCollector(registry=self.registry)
        self._received = table.counter(_PREFIX + "requests_received_total")
        self._add_overhead = table.histogram(_PREFIX + "overhead_seconds").pending.append
        self._add_body_bytes = table.histogram(_PREFIX + "body_bytes").pending.append
        stages = {stage: table.histogram(_PREFIX + "stage_seconds", stage) for stage in STAGES}
        self._stage_add = {stage: cell.pending.append for stage, cell in stages.items()}
        self._unsettled = 0
        self._meters: dict[tuple[str, str, Priority], _Meters] = {}
        self._backends: set[str] = set()
        for priority in Priority:
            for reason in SHED_REASONS:
                table.counter(_PREFIX + "shed_total", priority.name, reason)

    # The hot path.

    def received(self) -> None:
        """A request's head was read."""
        self._received.value += 1

    def finished(self, record: ExchangeRecord, waterfall: Waterfall) -> None:
        """A request ended. Call it exactly once for each `received`."""
        key = (record.model, record.tenant, record.priority)
        meters = self._meters.get(key)
        if meters is None:
            meters = self._bind(*key)
        meters.outcomes[record.outcome].value += 1
        # One flat loop over locals: this and `observe` are most of what metrics cost a request.
        add, own, own_s = self._stage_add, OWN_STAGES, 0.0
        body_done_s, last_byte_s, first_byte_s, queue_s = waterfall.start_s, waterfall.last_s, 0.0, 0.0
        for stage, begin_s, end_s in waterfall.spans:
            seconds = end_s - begin_s
            add[stage](seconds)
            if stage in own:
                own_s += seconds
            elif stage == "backend":
                first_byte_s = end_s
            elif stage == "stream":
                last_byte_s = end_s
            elif stage == "read":
                body_done_s = end_s
            elif stage == "queue":
                queue_s += seconds
        self._add_overhead(own_s)
        self._add_body_bytes(record.body_bytes)
        self._active.last_s[record.tenant] = waterfall.last_s
        succeeded = record.outcome == "success"
        if not succeeded:
            self.count("errors_total", meters.model, record.code or record.outcome)
        if record.cost_ms:
            meters.cost.value += record.cost_ms / 1000
            if record.num_images:
                meters.images.value += record.num_images
                meters.vision_tokens.value += record.vision_tokens
                meters.vision_seconds.value += record.vision_ms / 1000
        if record.cache:
            self.count("cache_requests_total", meters.model, record.cache)
        if succeeded or first_byte_s:
            meters.add_queue(queue_s)
            if succeeded:
                meters.add_e2e(last_byte_s - body_done_s)
            if record.stream and first_byte_s:
                meters.observe_stream(record, first_byte_s - body_done_s, last_byte_s - first_byte_s)
            if record.prompt_tokens:
                meters.observe_tokens(record)
            for reason in record.finish_reasons:
                meters.count_reason(reason)
        self._unsettled += 1
        if self._unsettled >= _SETTLE_EVERY:
            self._unsettled = 0
            self._table.settle_next()

    # Rare events, and events with few labels.

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        """Add to a counter of the catalogue: `count("retries_total", backend, stage)`, without the prefix.

        Raises KeyError for an unknown name, ValueError for the wrong number of labels. Label values must come from a
        small fixed set.
        """
        self._table.counter(_PREFIX + name, *labels).value += by

    def backend_finished(self, backend: str, result: str, first_byte_s: float | None = None) -> None:
        """An attempt ended. `first_byte_s`: seconds from the request's last byte to the answer's first; None without."""
        self._table.counter(_PREFIX + "backend_requests_total", backend, result).value += 1
        if first_byte_s is not None:
            self._table.histogram(_PREFIX + "backend_first_byte_seconds", backend).observe(first_byte_s)

    def tenant_label(self, tenant: str) -> str:
        """For `count` with a tenant."""
        return self._tenants.label(tenant)

    # Reading.

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """One sample by its full name, for tests and pages; None if there is none yet."""
        return self.registry.get_sample_value(name, labels)

    @property
    def num_pending(self) -> int:
        """Values that wait to be sorted into buckets, over all histograms."""
        return self._table.num_pending

    def _values(self) -> Snapshot:
        snapshot = self._read()
        for backend in snapshot.backends:
            self._expect_backend(backend.id)
        return snapshot.values(self._active.count(self._now_s()))

    def _expect_backend(self, backend: str) -> None:
        """A series that first appears with its first event has no rate for it: Prometheus sees no 0 before."""
        if backend in self._backends:
            return
        self._backends.add(backend)
        self._table.histogram(_PREFIX + "backend_first_byte_seconds", backend)
        self._table.counter(_PREFIX + "backend_ejections_total", backend)
        for name, values in (
            ("backend_requests_total", BACKEND_RESULTS),
            ("retries_total", RETRY_STAGES),
        ):
            for value in values:
                self._table.counter(_PREFIX + name, backend, value)

    def _bind(self, model: str, tenant: str, priority: Priority) -> _Meters:
        key = (model, tenant, priority)
        labels = (self._models.label(model), self._tenants.label(tenant), priority)
        meters = _Meters(self._table, *labels)
        # Bounded by the caps: a name beyond them is bound again each time.
        if labels == key:
            self._meters[key] = meters
        return meters


class _Meters:
    """The cells of one (model, tenant, class)."""

    __slots__ = (
        *("_table", "cost", "generation", "images", "model", "outcomes", "prompt", "reasons"),
        *("vision_seconds", "vision_tokens", "add_e2e", "add_price_ratio", "add_queue"),
        *("add_request_generation", "add_request_prompt", "add_tpot", "add_ttft"),
    )

    def __init__(self, table: MetricTable, model: str, tenant: str, priority: Priority) -> None:
        def counter(name: str, *labels: str) -> CounterCell:
            return table.counter(_PREFIX + name, *labels)

        def adder(name: str, *labels: str) -> Callable[[float], None]:
            # Bound once. What it appends to is settled by the table, in turn.
            return table.histogram(_PREFIX + name, *labels).pending.append

        self._table = table
        self.model = model
        for result in CACHE_RESULTS:
            counter("cache_requests_total", model, result)
        for reason in ("stop", "length"):
            counter("choices_finished_total", model, reason)
        self.reasons: dict[str, CounterCell] = {}
        self.outcomes: dict[Outcome, CounterCell] = {
            outcome: counter("requests_total", model, tenant, priority.name, outcome) for outcome in OUTCOMES
        }
        self.add_ttft = adder("time_to_first_token_seconds", model, priority.name)
        self.add_e2e = adder("e2e_request_latency_seconds", model, priority.name)
        self.add_queue = adder("request_queue_time_seconds", model, priority.name)
        self.add_tpot = adder("request_time_per_output_token_seconds", model)
        self.prompt = counter("prompt_tokens_total", model, tenant)
        self.generation = counter("generation_tokens_total", model, tenant)
        self.vision_tokens = counter("vision_tokens_total", model, tenant)
        self.vision_seconds = counter("vision_seconds_total", model, tenant)
        self.cost = counter("cost_seconds_total", model, tenant)
        self.images = counter("images_total", model)
        self.add_request_prompt = adder("request_prompt_tokens", model)
        self.add_request_generation = adder("request_generation_tokens", model)
        self.add_price_ratio = adder("price_ratio", model)

    def observe_stream(self, record: ExchangeRecord, ttft_s: float, stream_s: float) -> None:
        self.add_ttft(ttft_s)
        later_tokens = record.completion_tokens / (len(record.finish_reasons) or 1) - 1
        if later_tokens > 0:
            self.add_tpot(stream_s / later_tokens)

    def observe_tokens(self, record: ExchangeRecord) -> None:
        self.prompt.value += record.prompt_tokens
        self.generation.value += record.completion_tokens
        self.add_request_prompt(record.prompt_tokens)
        self.add_request_generation(record.completion_tokens)
        if record.priced_prompt_tokens:
            self.add_price_ratio(record.priced_prompt_tokens / record.prompt_tokens)

    def count_reason(self, reason: str) -> None:
        cell = self.reasons.get(reason)
        if cell is None:
            # Only OpenAI's words become labels: a backend cannot make up series.
            label = reason if reason in _FINISH_REASONS else "other"
            cell = self._table.counter(_PREFIX + "choices_finished_total", self.model, label)
            if label == reason:
                self.reasons[reason] = cell
        cell.value += 1
