"""The finished demo model as the draft's teacher: its language model, projector and tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, LlamaForCausalLM, PreTrainedTokenizerBase

from foveal.demo.language_weights import IMAGE_TOKEN

__all__ = ["Target", "load_target"]


@dataclass(frozen=True)
class Target:
    language: LlamaForCausalLM
    projector: nn.Sequential
    tokenizer: PreTrainedTokenizerBase

    @property
    def end_of_turn(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def image_token(self) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN))


@torch.no_grad()
def load_target(directory: Path) -> Target:
    """From a checkpoint that `foveal demo-model` wrote; fp32, frozen."""
    model = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval().requires_grad_(False)
    return Target(
        language_model(model),
        nn.Sequential(
            model.model.multi_modal_projector.linear_1, nn.GELU(), model.model.multi_modal_projector.linear_2
        ),
        AutoProcessor.from_pretrained(directory).tokenizer,
    )


def language_model(model: nn.Module) -> LlamaForCausalLM:
    """The text part of a LLaVA as a causal language model; shares its tensors."""
    with torch.device("meta"):
        language = LlamaForCausalLM(model.config.text_config)
    language.model = model.model.language_model
    language.lm_head = model.lm_head
    language.generation_config = model.generation_config
    return language.eval().requires_grad_(False)
