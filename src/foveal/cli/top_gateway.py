"""The live view of a gateway."""

from __future__ import annotations

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from foveal.cli.top_parts import bar, duration, findings_text, grid, rates, sparkline, wide_table
from foveal.core.priority import Priority
from foveal.observability.diagnosis.diagnose import diagnose
from foveal.observability.diagnosis.window import Window
from foveal.observability.waterfall import STAGES

__all__ = ["gateway_view"]

G = "foveal_gateway_"
_GOOD, _BAD = ("success",), ("error", "timeout", "shed")


def gateway_view(window: Window) -> RenderableType:
    """What happened in the window, on about 30 lines."""
    top = Table.grid(expand=True)
    top.add_column(ratio=1)
    top.add_column(ratio=1)
    top.add_row(Panel(_traffic(window), title="traffic"), Panel(_latency(window), title="latency"))
    return Group(
        top,
        Panel(_backends(window), title="backends"),
        Columns(
            [Panel(_queue(window), title="classes"), Panel(_waterfall(window), title="mean waterfall of a request")],
            expand=True,
        ),
        Panel(findings_text(diagnose(window)), title="diagnosis"),
    )


def _traffic(window: Window) -> Table:
    outcomes = {
        outcome: window.rate(f"{G}requests_total", outcome=outcome)
        for outcome in window.values_of(f"{G}requests_total", "outcome")
    }
    shown = Text("  ").join(
        Text(f"{outcome} {rate:.3g}", "green" if outcome in _GOOD else "red" if outcome in _BAD else "yellow")
        for outcome, rate in outcomes.items()
        if rate
    )
    asked = window.increase(f"{G}cache_requests_total")
    saved = sum(window.increase(f"{G}cache_requests_total", result=result) for result in ("hit", "joined"))
    return grid(
        [
            (
                "requests/s",
                f"{sum(outcomes.values()):<8.3g}{sparkline(rates(window, f'{G}requests_total'), 30)}",
            ),
            ("outcomes/s", shown or Text("-")),
            (
                "tokens/s",
                f"{window.rate(f'{G}prompt_tokens_total'):.4g} prompt ({window.rate(f'{G}vision_tokens_total'):.4g} vision), "
                f"{window.rate(f'{G}generation_tokens_total'):.4g} generated",
            ),
            (
                "now",
                f"{window.latest(f'{G}requests_in_flight') or 0:.0f} in flight, "
                f"{(window.latest(f'{G}body_bytes_in_flight') or 0) / 2**20:.1f} MiB of bodies, "
                f"{window.latest(f'{G}active_tenants') or 0:.0f} tenants",
            ),
            ("response cache", bar(saved / asked) if asked else Text("-")),
            (
                "retried/s",
                f"{window.rate(f'{G}retries_total'):.3g}, hedged {window.rate(f'{G}hedges_total'):.3g}, "
                f"fallback {window.rate(f'{G}fallbacks_total'):.3g}, limited {window.rate(f'{G}limited_total'):.3g}",
            ),
        ]
    )


def _latency(window: Window) -> Table:
    table = wide_table("", "P50", "P95", "P99", "n")
    for name, histogram in (
        ("first token", "time_to_first_token_seconds"),
        ("per token", "request_time_per_output_token_seconds"),
        ("end to end", "e2e_request_latency_seconds"),
        ("queue", "request_queue_time_seconds"),
        ("gateway's own work", "overhead_seconds"),
    ):
        own = f"{G}{histogram}"
        quantiles = (duration(window.quantile(own, q)) for q in (0.5, 0.95, 0.99))
        table.add_row(name, *quantiles, f"{window.count(own):.0f}")
    return table


def _backends(window: Window) -> Table:
    table = wide_table(
        "backend", "state", "seats", "in flight", "work", "answers/s", "failures/s", "first byte P50", "P95"
    )
    for name in window.values_of(f"{G}backend_up", "backend"):
        up = window.latest(f"{G}backend_up", backend=name)
        share = window.latest(f"{G}backend_share", backend=name)
        in_flight = window.latest(f"{G}backend_in_flight", backend=name) or 0.0
        seats = window.latest(f"{G}backend_max_in_flight", backend=name)
        first_byte = f"{G}backend_first_byte_seconds"
        results = window.values_of(f"{G}backend_requests_total", "result")
        ended = {one: window.rate(f"{G}backend_requests_total", backend=name, result=one) for one in results}
        failures = sum(rate for one, rate in ended.items() if one not in ("ok", "client_error", "cancelled"))
        returning = up and share is not None and share < 1
        state = Text("returning", "yellow") if returning else Text("up", "green") if up else Text("out", "bold red")
        table.add_row(
            name,
            state,
            bar(in_flight / seats if seats else None, 10),
            f"{in_flight:.0f}",
            duration(window.latest(f"{G}backend_outstanding_seconds", backend=name)),
            f"{ended.get('ok', 0.0):.3g}",
            Text(f"{failures:.3g}", "red" if failures else "default"),
            duration(window.quantile(first_byte, 0.5, backend=name)),
            duration(window.quantile(first_byte, 0.95, backend=name)),
        )
    return table


def _queue(window: Window) -> Table:
    table = wide_table("class", "waiting", "queue P95", "promise", "ended/s", "shed/s")
    for one in Priority:
        p95 = window.quantile(f"{G}request_queue_time_seconds", 0.95, priority=one.name)
        late = p95 is not None and p95 > one.deadline_s * 1.001
        shed = window.rate(f"{G}shed_total", priority=one.name)
        table.add_row(
            one.name,
            f"{window.latest(f'{G}queue_length', priority=one.name) or 0:.0f}",
            Text(duration(p95), "red" if late else "default"),
            duration(one.deadline_s),
            f"{window.rate(f'{G}requests_total', priority=one.name):.3g}",
            Text(f"{shed:.3g}", "yellow" if shed else "default"),
        )
    return table


def _waterfall(window: Window) -> Table:
    ended = window.increase(f"{G}requests_total")
    means = {stage: window.increase(f"{G}stage_seconds_sum", stage=stage) / ended for stage in STAGES} if ended else {}
    longest = max(means.values(), default=0.0)
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    for stage, mean in means.items():
        if mean > 0 and mean >= longest / 1000:
            table.add_row(stage, duration(mean), Text("█" * max(1, round(24 * mean / longest)), "cyan"))
    if not means:
        table.add_row("no request ended", "", "")
    return table
