"""Final hidden states of one whole prompt, for any loaded model."""

from __future__ import annotations

import torch

from foveal.compression.calibration_inputs import PreparedSample
from foveal.compression.prefill import PrefillBatch, build_step, encode, scratch_cache
from foveal.models.image_input import PromptInput
from foveal.models.language_model import TransformersModel
from support.step_driver import span_ids_of

__all__ = ["prefill_batch", "prefill_once"]


def prefill_batch(prompt: PromptInput) -> PrefillBatch:
    mask = (span_ids_of(prompt) >= 0).numpy()
    return PrefillBatch((PreparedSample(prompt, mask, mask),), False)


@torch.inference_mode()
def prefill_once(model: TransformersModel, prompt: PromptInput) -> torch.Tensor:
    """[T, hidden]."""
    batch = prefill_batch(prompt)
    return model.forward(build_step(model, batch, encode(model, batch)), scratch_cache(model, [batch]))
