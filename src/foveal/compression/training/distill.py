"""Trains a student towards a teacher that runs beside it or whose answers were stored before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from foveal.compression.training.distillation_loss import DistillationLoss, SoftTargets
from foveal.core.errors import ConfigurationError

__all__ = ["CachedStates", "CachedTopK", "DistillConfig", "LiveTeacher", "Teacher", "TeacherView", "distill"]

IGNORED = -100
_WARM_UP_SHARE = 0.05

Batch = dict[str, torch.Tensor]
"""Keyword inputs of a causal model with `labels` [rows, length]; positions whose next label is -100 teach nothing."""


@dataclass(frozen=True)
class TeacherView:
    """What the teacher says at the n taught positions of a batch; states [n, hidden] where it knows them."""

    targets: SoftTargets
    states: torch.Tensor | None = None


class Teacher(Protocol):
    def view(self, number: int, batch: Batch, temperature: float) -> TeacherView:
        """Of batch `number` in the list that is trained on."""
        ...


@dataclass(frozen=True)
class LiveTeacher:
    """The teacher runs for every batch: no storage, and no limit to the data."""

    model: PreTrainedModel

    @torch.no_grad()
    def view(self, number: int, batch: Batch, temperature: float) -> TeacherView:
        states = final_states(self.model, batch)[taught(batch["labels"])[:, :-1]]
        logits = self.model.get_output_embeddings()(states)
        return TeacherView(SoftTargets.of_logits(logits, temperature), states)


@dataclass(frozen=True)
class CachedStates:
    """The teacher's final states, stored once; its head turns them into logits. fp16: 2 bytes a hidden unit."""

    states: Sequence[torch.Tensor]
    head: torch.nn.Module

    @classmethod
    def record(cls, model: PreTrainedModel, batches: Sequence[Batch]) -> CachedStates:
        live = LiveTeacher(model)
        views = [live.view(number, batch, 1.0) for number, batch in enumerate(batches)]
        return cls([view.states.half() for view in views if view.states is not None], model.get_output_embeddings())

    @torch.no_grad()
    def view(self, number: int, batch: Batch, temperature: float) -> TeacherView:
        states = self.states[number].float()
        return TeacherView(SoftTargets.of_logits(self.head(states), temperature), states)


@dataclass(frozen=True)
class CachedTopK:
    """The teacher's most likely tokens, stored once at one temperature; needs neither the teacher nor its head."""

    targets: Sequence[SoftTargets]

    @classmethod
    def record(cls, model: PreTrainedModel, batches: Sequence[Batch], temperature: float, top: int) -> CachedTopK:
        live = LiveTeacher(model)
        head, found = model.get_output_embeddings(), []
        for number, batch in enumerate(batches):
            states = live.view(number, batch, temperature).states
            with torch.no_grad():
                found.append(SoftTargets.of_logits(head(states), temperature, top))
        return cls(found)

    def view(self, number: int, batch: Batch, temperature: float) -> TeacherView:
        return TeacherView(self.targets[number])


@dataclass(frozen=True)
class DistillConfig:
    steps: int
    rate: float = 1e-3
    clip: float = 1.0
    loss: DistillationLoss = field(default_factory=DistillationLoss)


def distill(
    student: PreTrainedModel,
    teacher: Teacher,
    batches: Sequence[Batch],
    config: DistillConfig,
    report: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Trains the student's parameters that require a gradient, in place; returns the loss of every step.

    Batches are used in turn, as often as `config.steps` needs; the rate warms up and falls on a cosine.
    Raises ConfigurationError when nothing is taught.
    """
    if not any(bool(taught(batch["labels"]).any()) for batch in batches):
        raise ConfigurationError(
            f"distillation got {len(batches)} batches without a single label; give answers to learn"
        )
    trained = [p for p in student.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=config.rate, betas=(0.9, 0.98), weight_decay=0.0)
    head, history = student.get_output_embeddings(), []
    for step in range(config.steps):
        share = step / config.steps
        warmth = min(1.0, (step + 1) / max(1.0, _WARM_UP_SHARE * config.steps))
        for group in optimiser.param_groups:
            group["lr"] = config.rate * warmth * 0.5 * (1 + math.cos(math.pi * share))
        number = step % len(batches)
        batch = batches[number]
        view = teacher.view(number, batch, config.loss.temperature)
        mask = taught(batch["labels"])
        states = final_states(student, batch)[mask[:, :-1]]
        labels = batch["labels"][:, 1:][mask[:, :-1]]
        pair = (states, view.states) if config.loss.beta and view.states is not None else None
        loss = config.loss(head(states), view.targets, labels, states=pair)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip)
        optimiser.step()
        history.append(loss.item())
        if report is not None:
            report(step, history[-1])
    return history


def taught(labels: torch.Tensor) -> torch.Tensor:
    """bool [rows, length]: positions whose next token is a label; the last one never is."""
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[:, :-1] = labels[:, 1:] != IGNORED
    return mask


def final_states(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Normalised states before the head, of all positions but the last: [rows, length - 1, hidden]."""
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
    states: torch.Tensor = model.model(**inputs, use_cache=False).last_hidden_state
    return states[:, :-1]
