"""Each task, and all of them together."""

from __future__ import annotations

from collections.abc import Iterator

from foveal.evaluation.checks.loss_rule import accuracy_loss, classify, items_needed, pooled_loss
from foveal.evaluation.evaluation_result import Evaluation, TaskResult
from foveal.evaluation.metrics.bootstrap import Interval
from foveal.evaluation.thresholds import Thresholds
from foveal.evaluation.verdict import Finding

__all__ = ["check_tasks"]


def check_tasks(candidate: Evaluation, base: Evaluation, limits: Thresholds) -> Iterator[Finding]:
    """One finding per task of the base; one for their mean, where there are two or more."""
    if not base.tasks:
        yield _failure("tasks", "none measured", "at least one task", "there is nothing to judge by. Measure tasks")
        return
    confidence = 1 - (1 - limits.confidence) / len(base.tasks)  # see `loss_rule`
    pairs = []
    for task, before in sorted(base.tasks.items()):
        limit = limits.task_limit(task)
        after = candidate.tasks.get(task)
        if problem := _unpaired(before, after):
            yield _failure(f"task {task}", "no pairs", _allowed(limit), problem)
            continue
        assert after is not None
        pairs.append((before.per_item, after.per_item))
        loss, surest = (
            accuracy_loss(before.per_item, after.per_item, confidence=level, resamples=limits.resamples)
            for level in (limits.confidence, confidence)
        )
        found = f"{100 * before.accuracy:.1f} % -> {100 * after.accuracy:.1f} % of {before.questions}"
        yield _judge_loss(f"task {task}", found, (loss, surest), limit, before.questions, limits)
    if len(pairs) > 1:
        loss = pooled_loss(pairs, confidence=limits.confidence, resamples=limits.resamples)
        count = sum(len(before) for before, _ in pairs)
        found = f"{loss.estimate:+.2f} points lost over {count} questions of {len(pairs)} tasks"
        yield _judge_loss("all tasks", found, (loss, loss), limits.task_points, count, limits)


def _judge_loss(
    check: str, found: str, losses: tuple[Interval, Interval], limit: float, items: int, limits: Thresholds
) -> Finding:
    """`losses`: the loss at the confidence asked for, and at the one that proves it among several tasks."""
    loss, surest = losses
    ceiling = max(limits.task_ceiling_points, limit)
    evidence = classify(loss, limit=limit, ceiling=ceiling, surest=surest)
    spread = f"a loss of {loss.estimate:.1f} points ({loss.low:.1f} to {loss.high:.1f})"
    if evidence == "proved":
        reason = f"{spread}: over the limit, and not by chance"
    elif evidence == "undecided":
        needed = items_needed(loss, items, ceiling=ceiling)
        remedy = f"ask about {needed:,} questions" if needed else "ask more questions"
        reason = f"{spread}: {items} questions cannot exclude a loss of {ceiling:g} points; {remedy}"
    elif evidence == "kept":
        reason = f"{spread}: within the limit"
    else:
        reason = f"{spread}: no loss over the limit is proved"
    passed = evidence in ("kept", "within noise") or (evidence == "undecided" and limits.accept_undecided)
    return Finding(check=check, found=found, limit=_allowed(limit), passed=passed, reason=reason, evidence=evidence)


def _unpaired(before: TaskResult, after: TaskResult | None) -> str | None:
    if after is None:
        return "the candidate was not asked"
    if before.questions != after.questions or before.items_digest != after.items_digest:
        return f"the base answered {before.questions} questions, the candidate {after.questions} others"
    return None if before.questions else "no question was asked"


def _allowed(limit: float) -> str:
    return f"at most {limit:g} points lost"


def _failure(check: str, found: str, limit: str, reason: str) -> Finding:
    return Finding(check=check, found=found, limit=limit, passed=False, reason=reason)
