"""The untrained draft: the target with few layers, and in each of them the FFN channels that matter most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from foveal.compression.training.prune import PruneTarget, prune
from foveal.demo.draft.classroom import Lesson
from foveal.demo.draft.shape import DraftShape
from foveal.demo.draft.target import Target

__all__ = ["cut_draft"]


def cut_draft(target: Target, lessons: Sequence[Lesson], shape: DraftShape) -> LlamaForCausalLM:
    """A draft of `shape`. Channels are chosen by second-order saliency: how much likelier the target's own words get
    less likely without them, on `lessons`. The embedding is a copy and stays frozen."""
    draft, _ = prune(
        target.language,
        list(lessons),  # type: ignore[arg-type]
        PruneTarget(layers=len(shape.layers), ffn_channels=shape.ffn_channels),
        loss=_surprise,
        keep_layers=shape.layers,
    )
    for parameter in draft.parameters():
        parameter.requires_grad_(True)
    draft.get_input_embeddings().weight.requires_grad_(False)
    return draft


def _surprise(model: Any, lesson: Lesson) -> torch.Tensor:
    """Negative log-likelihood of the target's most likely words."""
    logits = model.lm_head(lesson.states_of(model)[lesson.places])
    return F.cross_entropy(logits, lesson.likely[:, 0].long())
