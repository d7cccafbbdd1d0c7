"""A checkpoint counts as written when a fresh process loads it and answers as this one does.

python -m foveal.pipeline.reload_check DIRECTORY LOGITS.npy
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from foveal.compression.records import CompressionResult
from foveal.core.errors import FovealError, ModelLoadError
from foveal.evaluation.model import Prompt
from foveal.models.language_model import TransformersModel
from foveal.models.loading import load_model, load_processor
from foveal.pipeline.fresh_process import run_fresh
from foveal.pipeline.prompt_preparation import prepare_prompt
from foveal.pipeline.verified_decoding import VerifiedDecoder

__all__ = ["check_reload"]

_SIDE = 64
TOLERANCE = 1e-3
"""Largest difference of logits, as a share of the largest logit; one checkpoint on one machine should give zero."""


def check_reload(directory: Path, result: CompressionResult) -> None:
    """Load it here and in a fresh process. Raises ModelLoadError for missing or unexpected tensors, NaN, weights that are
    not those that were quantised, and answers that differ."""
    model = load_model(directory, dtype="float32")
    _compare_weights(directory, model, result)
    here = _logits(directory, model)
    del model
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "logits.npy"
        run_fresh(__name__, str(directory), str(target), failure=f"{directory} does not load in a fresh process")
        there = np.load(target)
    if not np.isfinite(there).all():
        raise ModelLoadError(f"{directory} gives logits that are not finite. Compress with another recipe.")
    worst = float(np.abs(here - there).max() / max(1e-6, float(np.abs(here).max())))
    if worst > TOLERANCE:
        raise ModelLoadError(
            f"{directory} gives other logits in a fresh process (by {worst:.2g} of the largest; the limit is "
            f"{TOLERANCE:g}). This is a bug of the checkpoint format: choose another --format and report it."
        )


def _compare_weights(directory: Path, model: TransformersModel, result: CompressionResult) -> None:
    for name, quantised in result.weights.items():
        wanted = quantised.dequantise()
        found = model.hf_model.get_submodule(name).weight.float()
        if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=1e-3, atol=1e-6):
            raise ModelLoadError(
                f"{name} of {directory} reads back as other numbers than were written. This is a bug of the checkpoint "
                "format: choose another --format and report it."
            )


def _logits(directory: Path, model: TransformersModel) -> np.ndarray:
    """[2, vocab] behind a question about a picture, where the model takes one."""
    picture = None
    if model.spec.supports_images:
        ramp = np.linspace(0, 255, _SIDE, dtype=np.uint8)
        picture = Image.fromarray(np.stack(np.broadcast_arrays(ramp, ramp[:, None], 128 - ramp // 2), -1))
    prompt = Prompt("What do you see?", picture, "a")
    drafted = prepare_prompt(load_processor(directory), prompt, model.spec.eos_token_ids)
    [[completion]] = VerifiedDecoder(model).complete([[drafted]], max_tokens=1, keep_logits=True)
    assert completion.logits is not None
    return completion.logits.cpu().numpy()


def main() -> None:
    directory, target = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        np.save(target, _logits(directory, load_model(directory, dtype="float32")))
    except FovealError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
