"""All steps of a draft's training in one folder; each is skipped or resumed when its result is there."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import LlamaForCausalLM

from foveal.demo.draft.classroom import Classroom
from foveal.demo.draft.examination import CHAT, by_subject, load_or_set
from foveal.demo.draft.initial import cut_draft
from foveal.demo.draft.learning import LearningConfig, learn
from foveal.demo.draft.lessons import Pictures, gather_rows, gather_texts, load_lessons, picture_parts
from foveal.demo.draft.shape import DraftShape
from foveal.demo.draft.target import Target
from foveal.demo.draft.weights import save_draft

__all__ = ["Minutes", "Schooling"]

_SALIENCY_LESSONS = 6


@dataclass(frozen=True)
class Minutes:
    """Wall-clock minutes of each step; 17 in all, and one for the cut and the examination."""

    texts: float = 3.0
    rows: float = 3.0
    learning: float = 11.0


@dataclass(frozen=True)
class Schooling:
    """One worker's view of a run in `folder`; all workers do each step at the same time."""

    folder: Path
    target: Target
    pictures: Pictures
    held_out: Pictures
    rehearsal: list[list[int]]
    shape: DraftShape
    minutes: Minutes
    config: LearningConfig
    report: Callable[[str], None]
    int8: bool = True
    worker: int = 0
    workers: int = 1
    monitor_chats: int = 24
    monitor_pictures: int = 40

    def run(self) -> None:
        """Gathers, cuts, trains. The result is in `folder/draft.pt`."""
        self.gather()
        self._wait()
        self.learn()

    def gather(self) -> None:
        """Steps 1 and 2: texts and rows with the target's states."""
        gather_texts(
            self.target,
            self.rehearsal,
            self.minutes.texts,
            self.folder / f"texts.{self.worker}.pt",
            self.worker,
            self.workers,
            self.report,
        )
        parts = picture_parts(self.target, self.pictures, self.int8)
        store = self.folder / f"rows.{self.worker}.pt"
        gather_rows(parts, self.minutes.rows, store, 1000 + self.worker, self.report)

    def learn(self) -> None:
        """Steps 3 and 4: the cut target, trained."""
        rows, texts = load_lessons(self.folder)
        parts = picture_parts(self.target, self.pictures, int8=False)
        classroom = Classroom(parts, rows, texts, random.Random(self.worker))
        start = self.folder / "start.pt"
        if self.worker == 0 and not start.exists():
            lessons = Classroom(parts, rows, texts, random.Random(99))
            draft = cut_draft(self.target, [lessons.lesson() for _ in range(_SALIENCY_LESSONS)], self.shape)
            torch.save((draft.config, draft.state_dict()), start)
            self.report(f"cut: {len(self.shape.layers)} layers, {self.shape.ffn_channels} channels")
        self._wait()
        draft = self._started()
        examination = None
        if self.worker == 0:
            examination = load_or_set(
                self.folder / "monitor.pt",
                self.target,
                self.held_out.pool,
                self.held_out.features,
                chats=self.monitor_chats,
                pictures=self.monitor_pictures,
            )
        self._wait()

        def examine(draft: LlamaForCausalLM) -> str:
            found = by_subject(self.target, draft, examination or {})
            shown = {name: found[name] for name in (CHAT, "pictures")}
            return json.dumps({name: round(result.agreement, 3) for name, result in shown.items()})

        learn(draft, classroom, self.config, self.folder / "draft.pt", self.report, examine)

    def export(self, path: Path) -> None:
        """Step 5: the fp16 file; possible from any checkpoint of a run."""
        saved = torch.load(self.folder / "draft.pt")
        draft = self._started()
        draft.load_state_dict(draft.state_dict() | saved["draft"])
        metadata = {
            "minutes": f"{saved['minutes']:.1f}",
            "steps": str(saved["step"]),
            "config": json.dumps(saved["config"]),
        }
        save_draft(path, draft, metadata | {"layers_of_target": json.dumps(self.shape.layers)})
        self.report(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB) after {saved['minutes']:.1f} min")

    def _started(self) -> LlamaForCausalLM:
        config, state = torch.load(self.folder / "start.pt", weights_only=False)
        draft = LlamaForCausalLM(config).float()
        draft.load_state_dict(state)
        draft.tie_weights()
        draft.get_input_embeddings().weight.requires_grad_(False)
        return draft

    def _wait(self) -> None:
        if dist.is_initialized():
            dist.barrier()
