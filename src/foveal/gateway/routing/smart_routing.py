"""Simple requests go to a small model, by rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from foveal.gateway.request.view import RequestView

__all__ = ["SimpleRequestRule", "smart_target"]


class SimpleRequestRule(Protocol):
    """All conditions must hold; see SmartRule in the configuration."""

    @property
    def to(self) -> str: ...
    @property
    def max_images(self) -> int: ...
    @property
    def max_text_chars(self) -> int | None: ...
    @property
    def max_output_tokens(self) -> int | None: ...
    @property
    def tools(self) -> bool: ...


def smart_target(rules: Sequence[SimpleRequestRule], request: RequestView) -> str | None:
    """The model of the first rule that holds; None if none does: the request stays with its model."""
    for rule in rules:
        if _holds(rule, request):
            return rule.to
    return None


def _holds(rule: SimpleRequestRule, request: RequestView) -> bool:
    if len(request.images) > rule.max_images or (request.has_tools and not rule.tools):
        return False
    if rule.max_text_chars is not None and request.text_chars > rule.max_text_chars:
        return False
    if rule.max_output_tokens is None:
        return True
    # Without a limit of its own an answer may become long.
    return request.max_tokens is not None and request.max_tokens <= rule.max_output_tokens
