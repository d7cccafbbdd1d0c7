"""Write a complete, loadable checkpoint of a tiny random model: what a hub directory holds."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from support.tiny_configs import IMAGE_TOKENS, TOKEN_IDS, tiny_config

__all__ = ["build_tiny_checkpoint", "tiny_hf_model", "tiny_tokenizer"]

_SQUARE = {"height": 28, "width": 28}
_IMAGE_PROCESSORS: dict[str, Any] = {
    "llava": lambda: LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size=_SQUARE),
    "llava_next": lambda: LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size=_SQUARE, image_grid_pinpoints=[[28, 56], [56, 28], [56, 56]]
    ),
    "qwen2_5_vl": lambda: _qwen_image_processor(),
    "qwen3_vl": lambda: _qwen_image_processor(),
    "idefics3": lambda: Idefics3ImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}),
    "smolvlm": lambda: SmolVLMImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}),
    "internvl": lambda: GotOcr2ImageProcessorPil(size=_SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
    "gemma3": lambda: Gemma3ImageProcessorPil(size=_SQUARE),
}
_LLAVA_SETTINGS = {"patch_size": 7, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
_PROCESSOR_SETTINGS: dict[str, dict[str, Any]] = {
    "llava": {"processor_class": "LlavaProcessor"} | _LLAVA_SETTINGS,
    "llava_next": {"processor_class": "LlavaNextProcessor"} | _LLAVA_SETTINGS,
    "qwen2_5_vl": {"processor_class": "Qwen2_5_VLProcessor"},
    "qwen3_vl": {"processor_class": "Qwen3VLProcessor"},
    "idefics3": {"processor_class": "Idefics3Processor", "image_seq_len": 4},
    "smolvlm": {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
    "internvl": {"processor_class": "InternVLProcessor", "image_seq_length": 4},
    "gemma3": {"processor_class": "Gemma3Processor", "image_seq_length": 4},
}
# What transformers' own processors look up on the tokenizer.
_NAMED_TOKENS: dict[str, dict[str, str]] = {
    "internvl": {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    },
    "gemma3": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
}
_PLACEHOLDERS = {
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "internvl": "<IMG_CONTEXT>\n",
    "gemma3": "<start_of_image>",
}
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}PLACEHOLDER{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tiny_checkpoint(family: str, directory: str | Path, *, seed: int = 0) -> Path:
    """Save config, safetensors, tokenizer, chat template and processor configuration of a tiny `family` model.

    Weights are random but fixed by `seed`, and large enough for outputs to vary. The tokenizer has one token per byte.
    Returns the directory. About 1 MB; context length 1,024.
    """
    path = Path(directory)
    tiny_hf_model(family, seed=seed).save_pretrained(path)
    tiny_tokenizer(family).save_pretrained(path)
    if family in _IMAGE_PROCESSORS:
        _IMAGE_PROCESSORS[family]().save_pretrained(path)
        (path / "processor_config.json").write_text(json.dumps(_PROCESSOR_SETTINGS[family]))
    return path


def tiny_hf_model(family: str, *, seed: int = 0) -> tf.PreTrainedModel:
    """The plain transformers model, float32."""
    config = tiny_config(family)
    auto = tf.AutoModelForImageTextToText if family in IMAGE_TOKENS else tf.AutoModelForCausalLM
    torch.manual_seed(seed)
    model = auto.from_config(config, dtype=torch.float32).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            # Gemma scales embeddings by sqrt(hidden): keep the image features visible beside them.
            std = 0.05 if family == "gemma3" and "embed_tokens" in name else 0.25
            torch.nn.init.normal_(parameter, std=std)
        elif "norm" not in name and "ln_" not in name:
            torch.nn.init.normal_(parameter, std=0.1)  # biases, which start as zeros and would test nothing
    return model


@cache
def tiny_tokenizer(family: str) -> tf.PreTrainedTokenizerFast:
    """One token per byte, then the special tokens of the family."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    spelling = IMAGE_TOKENS.get(family, {})
    names = [spelling.get(name, name) for name in TOKEN_IDS]
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    assert [backend.token_to_id(name) for name in names] == list(TOKEN_IDS.values())
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        extra_special_tokens=_NAMED_TOKENS.get(family, {}),
    )
    placeholder = _PLACEHOLDERS.get(family, spelling.get("IMAGE", ""))
    tokenizer.chat_template = _CHAT_TEMPLATE.replace("PLACEHOLDER", placeholder)
    return tokenizer


def _qwen_image_processor() -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 256, "longest_edge": 2048}
    )
