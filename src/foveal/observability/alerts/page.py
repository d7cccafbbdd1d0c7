"""docs/reference/alerts.md, from the rules."""

from __future__ import annotations

from foveal.observability.alerts.render import alert_groups
from foveal.observability.alerts.rule import AlertRule
from foveal.observability.alerts.thresholds import AlertThresholds

__all__ = ["render_alerts_page"]

_HEAD = """# Alerts

Generated from the rules by `make docs`, at the default thresholds. `foveal observe alerts DIRECTORY` writes them with others;
[how to use them](../guides/observability.md#alerts).
critical: wake somebody. warning: look today. info: money is lost, nobody suffers.
"""


def render_alerts_page() -> str:
    """Markdown, ending in a newline."""
    parts = [_HEAD]
    for group, rules in alert_groups(AlertThresholds()).items():
        parts.append(f"\n## {group}\n\n| alert | severity | for | meaning and first step |\n|---|---|---|---|\n")
        parts += [_row(rule) for rule in rules]
    return "".join(parts)


def _row(rule: AlertRule) -> str:
    wait = f"{rule.for_minutes} min" if rule.for_minutes else "at once"
    return f"| {rule.name} | {rule.severity} | {wait} | {rule.description.replace('|', chr(92) + '|')} |\n"
