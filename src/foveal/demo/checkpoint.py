"""Puts the parts together: a Hugging Face LLaVA checkpoint that plain transformers loads."""

from __future__ import annotations

import torch
from transformers import (
    BitImageProcessor,
    Dinov2Model,
    GenerationConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from foveal.demo.language_weights import CHAT_TEMPLATE, IMAGE_TOKEN

__all__ = ["FEATURE_LAYERS", "PICTURE_SIDE", "build_model", "build_processor"]

FEATURE_LAYERS = [4, 8, 12]
PICTURE_SIDE = 112
PATCH_SIDE = 14
_VOCABULARY_MULTIPLE = 64


def build_processor(tokenizer: PreTrainedTokenizerBase) -> LlavaProcessor:
    """Pictures become 112 x 112 pixels, hence 64 image tokens; the tower's class token is not among them."""
    size = {"height": PICTURE_SIDE, "width": PICTURE_SIDE}
    images = BitImageProcessor(
        do_resize=True,
        size=size,
        resample=3,
        do_center_crop=False,
        crop_size=size,
        do_rescale=True,
        do_normalize=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        do_convert_rgb=True,
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH_SIDE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


@torch.no_grad()
def build_model(
    language: LlamaForCausalLM,
    tower: Dinov2Model,
    projector: dict[str, torch.Tensor],
    updates: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
) -> LlavaForConditionalGeneration:
    """fp32, eval mode, updates merged. `language` is changed in place."""
    parameters = dict(language.model.named_parameters())
    for name, update in updates.items():
        parameters[name] += update
    _grow_vocabulary(language, len(tokenizer))
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=language.config,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_select_strategy="default",
        vision_feature_layer=list(FEATURE_LAYERS),
        image_seq_length=(PICTURE_SIDE // PATCH_SIDE) ** 2,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(config).float().eval()
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.model.multi_modal_projector.load_state_dict(projector)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model


def _grow_vocabulary(language: LlamaForCausalLM, tokens: int) -> None:
    """Room for `<image>`, up to a multiple of 64. New rows are the mean row: never likely, and always the same."""
    old = language.model.embed_tokens.weight.data
    rows = -(-tokens // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    grown = torch.cat([old, old.mean(0, keepdim=True).expand(rows - len(old), -1)])
    language.model.embed_tokens = torch.nn.Embedding.from_pretrained(grown, freeze=False)
    language.config.vocab_size = rows
    language.tie_weights()
