"""The live view of an engine, ours or vLLM's."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from foveal.cli.top_parts import bar, duration, findings_text, grid, rates, sparkline, wide_table
from foveal.observability.diagnosis.diagnose import diagnose
from foveal.observability.diagnosis.window import Window

__all__ = ["engine_view"]

E = "foveal_"


def engine_view(window: Window) -> RenderableType:
    """What happened in the window, on about 20 lines."""
    top = Table.grid(expand=True)
    top.add_column(ratio=1)
    top.add_column(ratio=1)
    top.add_row(Panel(_load(window), title="load"), Panel(_latency(window), title="latency"))
    return Group(top, Panel(findings_text(diagnose(window)), title="diagnosis"))


def _load(window: Window) -> Table:
    running, allowed = window.latest(f"{E}num_requests_running") or 0.0, window.latest(f"{E}max_num_seqs")
    used, limit = window.latest(f"{E}memory_used_bytes"), window.latest(f"{E}memory_limit_bytes")
    generated = rates(window, f"{E}generation_tokens_total")
    return grid(
        [
            ("requests/s", f"{window.rate(f'{E}requests_finished_total'):.3g}"),
            (
                "tokens/s",
                f"{window.rate(f'{E}generation_tokens_total'):<8.4g}{sparkline(generated, 30)}",
            ),
            ("prompt tokens/s", f"{window.rate(f'{E}prompt_tokens_total'):.4g}"),
            (
                "sequences",
                f"{running:.0f} running, {window.latest(f'{E}num_requests_waiting') or 0:.0f} waiting"
                + (f", {allowed:.0f} allowed" if allowed else ""),
            ),
            ("seats", bar(running / allowed if allowed else None)),
            ("KV cache", bar(window.latest(f"{E}kv_cache_usage_perc"))),
            ("memory", bar(used / limit if used is not None and limit else None)),
            ("prefix cache", _hits(window, "prefix_cache")),
            ("image features", _hits(window, "feature_cache")),
            ("images encoded/s", f"{window.rate(f'{E}encoded_images_total'):.3g}"),
        ]
    )


def _hits(window: Window, cache: str) -> Text:
    asked = window.increase(f"{E}{cache}_queries_total")
    if not asked:
        return Text("-")
    ratio = window.increase(f"{E}{cache}_hits_total") / asked
    # A full meter is good news here, so no warning colours.
    return Text(f"{100 * ratio:.0f} % of {asked:.0f} found")


def _latency(window: Window) -> Table:
    table = wide_table("", "P50", "P95", "P99", "n")
    for name, histogram in (
        ("first token", "time_to_first_token_seconds"),
        ("between tokens", "inter_token_latency_seconds"),
        ("end to end", "e2e_request_latency_seconds"),
        ("fetch", "request_image_fetch_time_seconds"),
        ("preprocess", "request_preprocess_time_seconds"),
        ("queue", "request_queue_time_seconds"),
        ("encode", "request_encode_time_seconds"),
        ("prefill", "request_prefill_time_seconds"),
    ):
        own = f"{E}{histogram}"
        if window.count(own):
            quantiles = (duration(window.quantile(own, q)) for q in (0.5, 0.95, 0.99))
            table.add_row(name, *quantiles, f"{window.count(own):.0f}")
    return table
