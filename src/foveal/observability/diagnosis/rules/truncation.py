"""Answers that end in the middle of a sentence."""

from __future__ import annotations

from foveal.observability.diagnosis.finding import Finding, per_cent
from foveal.observability.diagnosis.window import Window

__all__ = ["truncated_answers"]

_RATIO = 0.1
_LEAST = 20
_G = "foveal_gateway_"


def truncated_answers(window: Window) -> Finding | None:
    """More than 10 % of at least 20 answers ended at max_tokens."""
    is_gateway = window.has(f"{_G}choices_finished_total")
    counter = f"{_G}choices_finished_total" if is_gateway else "foveal_requests_finished_total"
    tokens = f"{_G}request_generation_tokens" if is_gateway else "foveal_request_generation_tokens"
    cut, ended = window.increase(counter, finished_reason="length"), window.increase(counter)
    if ended < _LEAST or cut / ended <= _RATIO:
        return None
    evidence = [f"{cut:.0f} of {ended:.0f} answers ended at max_tokens ({per_cent(cut / ended)})"]
    mean = window.average(tokens)
    if mean is not None:
        evidence.append(f"{mean:.0f} tokens per answer")
    worst = _worst_model(window, counter)
    if worst:
        evidence.append(worst)
    all_cut = cut / ended > 0.9
    return Finding(
        "truncated_answers",
        "problem",
        "Answers are cut off",
        "Nearly all answers end at max_tokens: it is too small, or the model never stops by itself."
        if all_cut
        else "max_tokens is too small for part of the requests.",
        tuple(evidence),
        (
            "raise max_tokens in the clients",
            "ask for short answers in the prompt",
            "check the chat template: a model that never sees its end-of-turn token does not stop"
            if all_cut
            else "give long tasks a max_tokens of their own",
        ),
    )


def _worst_model(window: Window, counter: str) -> str:
    ratios: dict[str, float] = {}
    for model in window.values_of(counter, "model_name"):
        ended = window.increase(counter, model_name=model)
        if ended:
            ratios[model] = window.increase(counter, model_name=model, finished_reason="length") / ended
    if len(ratios) < 2:
        return ""
    model = max(ratios, key=lambda one: ratios[one])
    return f"most of them from {model}: {per_cent(ratios[model])} of its answers"
