"""The long run: projector and low-rank updates together, on packed questions and rehearsal texts."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from foveal.demo.training.decoder import Decoder
from foveal.demo.training.packing import Batch, PromptCodec, Row, all_of_next, collate
from foveal.demo.training.pool import Example
from foveal.demo.training.rehearsal import Rehearsal
from foveal.demo.training.warm_start import FeatureScale

__all__ = [
    "JointConfig",
    "Parts",
    "RowSampler",
    "forward",
    "input_embeddings",
    "losses",
    "monitor",
    "run",
    "share_between_workers",
]

KIND_SHARES = {"shapes": 0.24, "relations": 0.34, "text": 0.07, "bars": 0.18, "easy_vqa": 0.10, "clip_art": 0.07}


@dataclass(frozen=True)
class JointConfig:
    """One run; `rows` are per worker. The schedule follows the wall clock, so that it ends on time on any machine."""

    minutes: float = 93.0
    rows: int = 2
    row_tokens: int = 288
    rate: float = 1e-3
    projector_rate: float = 5e-4
    warm_up_steps: int = 30
    clip: float = 1.0
    text_share_of_rows: float = 0.4
    text_positions: int = 24
    text_weight: float = 1.0
    most_questions: int = 12
    monitor_every_minutes: float = 10.0
    checkpoint_every_minutes: float = 3.0
    seed: int = 0


@dataclass
class Parts:
    """What a run works on."""

    decoder: Decoder
    projector: nn.Sequential
    scale: FeatureScale
    codec: PromptCodec
    rehearsal: Rehearsal
    pool: list[Example]
    features: np.ndarray
    monitor_pool: list[Example]
    monitor_features: np.ndarray
    pad: int


def run(parts: Parts, config: JointConfig, folder: Path, report: Callable[[str], None]) -> None:
    """Trains until `config.minutes` are used; goes on from `folder/joint.pt` if that exists."""
    decoder, projector = parts.decoder, parts.projector
    low_rank = [p for p in decoder.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": low_rank, "lr": config.rate, "peak": config.rate, "weight_decay": 0.0},
        {
            "params": list(projector.parameters()),
            "lr": config.projector_rate,
            "peak": config.projector_rate,
            "weight_decay": 0.01,
        },
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    trainable = [p for group in groups for p in group["params"]]
    checkpoint = folder / "joint.pt"
    spent, step, curve = _resume(checkpoint, parts, optimiser)
    worker = dist.get_rank() if dist.is_initialized() else 0
    rng = random.Random(config.seed + step + 1_000_003 * worker)
    torch.manual_seed(config.seed + step + 1_000_003 * worker)
    sampler = RowSampler(parts, config, rng)
    next_save, next_monitor = spent + config.checkpoint_every_minutes, spent + config.monitor_every_minutes
    recent: dict[str, list[float]] = defaultdict(list)
    last = time.monotonic()
    while spent < config.minutes:
        share = spent / config.minutes
        warmth = min(1.0, (step + 1) / config.warm_up_steps)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * warmth * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        batch = collate(sampler.rows(), config.row_tokens, parts.pad)
        answer_loss, text_loss = losses(parts, config, batch)
        optimiser.zero_grad(set_to_none=True)
        (answer_loss + config.text_weight * text_loss).backward()
        spent = share_between_workers(trainable, spent)
        torch.nn.utils.clip_grad_norm_(trainable, config.clip)
        optimiser.step()
        step += 1
        now = time.monotonic()
        spent += (now - last) / 60
        last = now
        for name, value in (
            ("answers", answer_loss.item()),
            ("text", float(text_loss)),
            ("questions", float((batch.answer_weights > 0).sum())),
            ("pictures", float(len(batch.examples))),
        ):
            recent[name].append(value)
        if worker != 0:
            continue
        if step % 25 == 0:
            means = {name: sum(values) / len(values) for name, values in recent.items()}
            recent.clear()
            report(
                f"step {step}, {spent:.1f} min: answer loss {means['answers']:.3f}, text KL {means['text']:.4f}, "
                f"{means['pictures']:.1f} pictures and {means['questions']:.0f} answer tokens a step"
            )
        if spent >= next_save or spent >= config.minutes:
            next_save = spent + config.checkpoint_every_minutes
            _save(checkpoint, parts, optimiser, spent, step, curve, config)
        if spent >= next_monitor or spent >= config.minutes:
            next_monitor = spent + config.monitor_every_minutes
            table = monitor(parts)
            curve.append({"minutes": round(spent, 2), "step": step, "exact_match": table})
            report("held-out exact match, answers forced: " + json.dumps(table))
            _save(checkpoint, parts, optimiser, spent, step, curve, config)
            (folder / "curve.json").write_text(json.dumps(curve, indent=1) + "\n")
            last = time.monotonic()  # measuring is not training time


def share_between_workers(trainable: Sequence[nn.Parameter], spent: float) -> float:
    """Averages gradients, and the clock, over all worker processes; does nothing when there is only one."""
    if not dist.is_initialized():
        return spent
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trainable]
    flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor([spent])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for parameter in trainable:
        parameter.grad = flat[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
    return float(flat[-1])


def losses(parts: Parts, config: JointConfig, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted cross-entropy of the answers, and KL from the base model on the texts."""
    states = forward(parts, batch, parts.features)
    flat = states.flatten(0, 1)
    head = parts.decoder.embeddings
    logits = flat[batch.answer_offsets] @ head.T
    each = F.cross_entropy(logits, batch.answer_tokens, reduction="none")
    answer_loss = (each * batch.answer_weights).sum() / batch.answer_weights.sum()
    if not batch.texts:
        return answer_loss, torch.zeros(())
    offsets, remembered = [], []
    for offset, number in batch.texts:
        length = len(parts.rehearsal.texts[number])
        chosen = torch.randperm(length - 1)[: config.text_positions]
        offsets.append(offset + chosen)
        remembered.append(parts.rehearsal.states[number][chosen])
    with torch.no_grad():
        expected = (torch.cat(remembered).float() @ head.T).log_softmax(-1)
    found = (flat[torch.cat(offsets)] @ head.T).log_softmax(-1)
    text_loss = F.kl_div(found, expected, reduction="batchmean", log_target=True)
    return answer_loss, text_loss


def forward(parts: Parts, batch: Batch, features: np.ndarray) -> torch.Tensor:
    """Final states [rows, length, hidden], with projected patches in the place of the image tokens."""
    x = input_embeddings(parts, batch, features)
    states: torch.Tensor = parts.decoder(x, batch.positions, batch.mask)
    return states


def input_embeddings(parts: Parts, batch: Batch, features: np.ndarray) -> torch.Tensor:
    """What the decoder gets, [rows, length, hidden]: word embeddings and projected patches."""
    embeddings = parts.decoder.embeddings
    x = embeddings[batch.ids.clamp_max(len(embeddings) - 1)].flatten(0, 1)
    if batch.examples:
        patches = parts.projector(parts.scale.apply(torch.from_numpy(features[batch.examples])))
        places = (batch.patch_offsets[:, None] + torch.arange(patches.shape[1])).flatten()
        x = x.index_copy(0, places, patches.flatten(0, 1))
    return x.unflatten(0, batch.ids.shape)


class RowSampler:
    """Draws rows: perhaps a rehearsal text first, then pictures until the row is full."""

    def __init__(self, parts: Parts, config: JointConfig, rng: random.Random) -> None:
        self._parts, self._config, self._rng = parts, config, rng
        self._decks: dict[str, list[int]] = {}
        self._by_kind: dict[str, list[int]] = defaultdict(list)
        for number, example in enumerate(parts.pool):
            self._by_kind[example.kind].append(number)
        self._kinds = [kind for kind in KIND_SHARES if self._by_kind[kind]]

    def rows(self) -> list[Row]:
        return [self._row() for _ in range(self._config.rows)]

    def _row(self) -> Row:
        row, rng, texts = Row(), self._rng, self._parts.rehearsal.texts
        length, prefix = self._config.row_tokens, len(self._parts.codec.prefix)
        if texts and rng.random() < self._config.text_share_of_rows:
            number = rng.randrange(len(texts))
            row.add_text(number, texts[number])
        while (room := length - len(row.ids)) >= prefix + 32:
            number = self._draw()
            questions = self._parts.pool[number].questions
            if len(questions) > self._config.most_questions:
                room = min(room, prefix + 15 * self._config.most_questions)
            row.add_picture(number, questions, self._parts.codec, room, rng)
        return row

    def _draw(self) -> int:
        """Kinds by share, pictures of a kind in shuffled rounds."""
        kind = self._rng.choices(self._kinds, [KIND_SHARES[k] for k in self._kinds])[0]
        if not self._decks.get(kind):
            deck = list(self._by_kind[kind])
            self._rng.shuffle(deck)
            self._decks[kind] = deck
        return self._decks[kind].pop()


@torch.no_grad()
def monitor(parts: Parts, pictures: int = 90) -> dict[str, float]:
    """Share of held-out questions whose every answer token is the most likely one, per task."""
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, min(pictures, len(parts.monitor_pool)), 4):
        rows, asked = [], []
        for number in range(start, min(start + 4, len(parts.monitor_pool))):
            row = Row()
            example = parts.monitor_pool[number]
            asked += row.add_picture(number, example.questions, parts.codec, 144, random.Random(number))
            rows.append(row)
        batch = collate(rows, max(len(row.ids) for row in rows), parts.pad)
        states = forward(parts, batch, parts.monitor_features).flatten(0, 1)
        best = (states[batch.answer_offsets] @ parts.decoder.embeddings.T).argmax(-1)
        hits = iter((best == batch.answer_tokens).tolist())
        for question in asked:
            right[question.task].append(all_of_next(hits, len(parts.codec.question(question)[1])))
    return {task: round(100 * sum(values) / len(values), 1) for task, values in sorted(right.items())}


def _save(
    path: Path,
    parts: Parts,
    optimiser: torch.optim.Optimizer,
    spent: float,
    step: int,
    curve: list[dict[str, object]],
    config: JointConfig,
) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(
        {
            "decoder": parts.decoder.state_dict(),
            "projector": parts.projector.state_dict(),
            "optimiser": optimiser.state_dict(),
            "mean": parts.scale.mean,
            "deviation": parts.scale.deviation,
            "minutes": spent,
            "step": step,
            "curve": curve,
            "config": asdict(config),
        },
        temporary,
    )
    os.replace(temporary, path)


def _resume(path: Path, parts: Parts, optimiser: torch.optim.Optimizer) -> tuple[float, int, list[dict[str, object]]]:
    if not path.exists():
        return 0.0, 0, []
    saved = torch.load(path)
    parts.decoder.load_state_dict(saved["decoder"])
    parts.projector.load_state_dict(saved["projector"])
    optimiser.load_state_dict(saved["optimiser"])
    return saved["minutes"], saved["step"], saved["curve"]
