"""Requests and backends that fail."""

from __future__ import annotations

from foveal.observability.diagnosis.finding import Finding, per_cent
from foveal.observability.diagnosis.window import Window

__all__ = ["backends_down", "errors"]

_RATIO = 0.01
_G = "foveal_gateway_"


def backends_down(window: Window) -> Finding | None:
    """Backends out of rotation at the end of the window."""
    names = window.values_of(f"{_G}backend_up", "backend")
    down = [name for name in names if window.latest(f"{_G}backend_up", backend=name) == 0]
    if not down:
        return None
    evidence = [f"out of rotation: {', '.join(down)} ({len(down)} of {len(names)})"]
    for name in down:
        for reason in window.values_of(f"{_G}backend_requests_total", "result"):
            count = window.increase(f"{_G}backend_requests_total", backend=name, result=reason)
            if count and reason not in ("ok", "client_error"):
                evidence.append(f"{name}: {count:.0f} attempts ended in {reason}")
    return Finding(
        "backend_down",
        "problem",
        "A backend is out of rotation" if len(down) == 1 else "Backends are out of rotation",
        "Health checks or real requests failed there; it returns by itself once checks succeed.",
        tuple(evidence),
        ("look at its process and its log", "check its address, TLS and API key in the configuration"),
    )


def errors(window: Window) -> Finding | None:
    """More than 1 % of requests end in an error that is not the client's."""
    if window.has(f"{_G}requests_total"):
        ended = window.increase(f"{_G}requests_total")
        bad = sum(window.increase(f"{_G}requests_total", outcome=outcome) for outcome in ("error", "timeout"))
        counter = f"{_G}errors_total"
    else:
        bad = window.increase("foveal_request_errors_total")
        ended = bad + window.increase("foveal_requests_finished_total")
        counter = "foveal_request_errors_total"
    if not ended or bad / ended <= _RATIO:
        return None
    codes = {code: window.increase(counter, code=code) for code in window.values_of(counter, "code")}
    most = sorted(codes.items(), key=lambda item: -item[1])[:3]
    return Finding(
        "errors",
        "problem",
        "Requests fail",
        "By code: " + ", ".join(f"{code} {count:.0f}" for code, count in most if count) + ".",
        (f"{bad:.0f} of {ended:.0f} requests ({per_cent(bad / ended)})",),
        ("look for these codes in the log; each line has the request id and the backend",),
    )
