"""The draft's training: it is pulled towards the target's distribution, by the clock."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import LlamaForCausalLM

from foveal.compression.training.distillation_loss import DistillationLoss, SoftTargets
from foveal.demo.draft.classroom import Classroom, Lesson
from foveal.demo.training.joint import share_between_workers

__all__ = ["LearningConfig", "learn", "lesson_loss"]


@dataclass(frozen=True)
class LearningConfig:
    """`other_words` of the vocabulary are drawn for every step beside those that the target finds likely somewhere: the
    loss compares distributions over these, which costs a quarter of the whole head."""

    minutes: float = 11.0
    rate: float = 1.5e-3
    warm_up_steps: int = 30
    clip: float = 1.0
    temperature: float = 1.0
    alpha: float = 0.3
    beta: float = 0.1
    other_words: int = 3000
    checkpoint_every_minutes: float = 3.0
    seed: int = 0


def learn(
    draft: LlamaForCausalLM,
    classroom: Classroom,
    config: LearningConfig,
    checkpoint: Path,
    report: Callable[[str], None],
    examine: Callable[[LlamaForCausalLM], str] | None = None,
) -> None:
    """Trains until the minutes are used; goes on from `checkpoint` if it exists. `examine` tells how the draft does."""
    trained = [p for p in draft.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=config.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    spent, step = _resume(checkpoint, draft, optimiser)
    worker = dist.get_rank() if dist.is_initialized() else 0
    torch.manual_seed(config.seed + step + 1_000_003 * worker)
    loss_of = DistillationLoss(config.temperature, config.alpha, config.beta)
    words = classroom.vocabulary()
    head = draft.get_output_embeddings().weight.detach()
    next_save = spent + config.checkpoint_every_minutes
    recent: dict[str, list[float]] = defaultdict(list)
    last = time.monotonic()
    while spent < config.minutes:
        rate = config.rate * min(1.0, (step + 1) / config.warm_up_steps)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * spent / config.minutes))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss, agreed = lesson_loss(draft, classroom.lesson(), loss_of, _compared(words, len(head), config), head)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        spent = share_between_workers(trained, spent)
        torch.nn.utils.clip_grad_norm_(trained, config.clip)
        optimiser.step()
        step += 1
        now = time.monotonic()
        spent, last = spent + (now - last) / 60, now
        recent["loss"].append(loss.item())
        recent["agreed"].append(agreed)
        if worker != 0:
            continue
        if step % 25 == 0:
            means = {name: sum(values) / len(values) for name, values in recent.items()}
            recent.clear()
            report(f"step {step}, {spent:.1f} min: loss {means['loss']:.3f}, top word agrees {means['agreed']:.3f}")
        if spent >= next_save or spent >= config.minutes:
            next_save = spent + config.checkpoint_every_minutes
            if examine is not None:
                report(f"{spent:.1f} min, held-out: {examine(draft)}")
            _save(checkpoint, draft, optimiser, spent, step, config)
            last = time.monotonic()  # measuring is not training time


def lesson_loss(
    draft: LlamaForCausalLM, lesson: Lesson, loss_of: DistillationLoss, words: torch.Tensor, head: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """The loss over `words` (ascending token ids), and the share of places where the most likely of them is the same."""
    rows = head[words]
    states = lesson.states_of(draft)[lesson.places]
    with torch.no_grad():
        expected = lesson.states @ rows.T
        targets = SoftTargets.of_logits(expected, loss_of.temperature)
        labels = torch.searchsorted(words, lesson.likely[:, 0].long())
    logits = states @ rows.T
    loss = loss_of(logits, targets, labels, lesson.weights, (states, lesson.states))
    return loss, float((logits.detach().argmax(-1) == labels).float().mean())


def _compared(words: torch.Tensor, vocabulary: int, config: LearningConfig) -> torch.Tensor:
    others = torch.randint(0, vocabulary, (config.other_words,))
    return torch.cat([words, others]).unique()


def _save(
    path: Path,
    draft: LlamaForCausalLM,
    optimiser: torch.optim.Optimizer,
    spent: float,
    step: int,
    config: LearningConfig,
) -> None:
    temporary = path.with_suffix(".tmp")
    state = {name: value for name, value in draft.state_dict().items() if _is_trained(name)}
    saved = {"draft": state, "optimiser": optimiser.state_dict(), "minutes": spent, "step": step}
    torch.save(saved | {"config": asdict(config), "model_config": draft.config.to_dict()}, temporary)
    os.replace(temporary, path)


def _resume(path: Path, draft: LlamaForCausalLM, optimiser: torch.optim.Optimizer) -> tuple[float, int]:
    if not path.exists():
        return 0.0, 0
    saved = torch.load(path)
    draft.load_state_dict(draft.state_dict() | saved["draft"])
    optimiser.load_state_dict(saved["optimiser"])
    return saved["minutes"], saved["step"]


def _is_trained(name: str) -> bool:
    return "embed_tokens" not in name and not name.startswith("lm_head")
