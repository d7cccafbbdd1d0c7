"""Configurations of tiny models, one per family: every feature of the architecture, a few thousand weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as tf

__all__ = ["FAMILIES", "IMAGE_TOKENS", "TEXT_FAMILIES", "TOKEN_IDS", "VISION_FAMILIES", "tiny_config"]

# Ids 0-255 are bytes; the special tokens follow. The image token takes the family's own spelling.
TOKEN_IDS = {
    "<pad>": 256,
    "<s>": 257,
    "<|im_end|>": 258,
    "<|im_start|>": 259,
    "IMAGE": 260,
    "START": 261,
    "END": 262,
    "VIDEO": 263,
    "<fake_token_around_image>": 264,
    "<global-img>": 265,
    **{f"<row_{row + 1}_col_{column + 1}>": 266 + row * 3 + column for row in range(3) for column in range(3)},
}
VOCAB_SIZE = 280

IMAGE_TOKENS: dict[str, dict[str, str]] = {
    "llava": {"IMAGE": "<image>"},
    "llava_next": {"IMAGE": "<image>"},
    "qwen2_5_vl": {
        "IMAGE": "<|image_pad|>",
        "START": "<|vision_start|>",
        "END": "<|vision_end|>",
        "VIDEO": "<|video_pad|>",
    },
    "qwen3_vl": {
        "IMAGE": "<|image_pad|>",
        "START": "<|vision_start|>",
        "END": "<|vision_end|>",
        "VIDEO": "<|video_pad|>",
    },
    "idefics3": {"IMAGE": "<image>"},
    "smolvlm": {"IMAGE": "<image>"},
    "internvl": {"IMAGE": "<IMG_CONTEXT>", "START": "<img>", "END": "</img>", "VIDEO": "<video>"},
    "gemma3": {"IMAGE": "<image_soft_token>", "START": "<start_of_image>", "END": "<end_of_image>"},
}

_TEXT: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": TOKEN_IDS["<s>"],
    "eos_token_id": TOKEN_IDS["<|im_end|>"],
    "pad_token_id": TOKEN_IDS["<pad>"],
    "tie_word_embeddings": False,
}
_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}
_IDS: dict[str, Any] = {"image_token_id": TOKEN_IDS["IMAGE"]}
_QWEN_IDS = _IDS | {
    "video_token_id": TOKEN_IDS["VIDEO"],
    "vision_start_token_id": TOKEN_IDS["START"],
    "vision_end_token_id": TOKEN_IDS["END"],
}
_QWEN_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 64,
    "in_channels": 3,
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}


def _llama_text() -> dict[str, Any]:
    return tf.LlamaConfig(**_TEXT).to_dict() | {"model_type": "llama"}


def _llava() -> tf.PreTrainedConfig:
    vision = tf.CLIPVisionConfig(**_VISION).to_dict() | {"model_type": "clip_vision_model"}
    return tf.LlavaConfig(text_config=_llama_text(), vision_config=vision, image_seq_length=16, **_IDS)


def _llava_next() -> tf.PreTrainedConfig:
    vision = tf.CLIPVisionConfig(**_VISION).to_dict() | {"model_type": "clip_vision_model"}
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    return tf.LlavaNextConfig(
        text_config=_llama_text(), vision_config=vision, image_grid_pinpoints=pinpoints, image_seq_length=16, **_IDS
    )


def _qwen2_5_vl() -> tf.PreTrainedConfig:
    vision = _QWEN_VISION | {"depth": 2, "window_size": 16, "fullatt_block_indexes": [1]}
    return tf.Qwen2_5_VLConfig(text_config=_TEXT | {"rope_parameters": _ROPE}, vision_config=vision, **_QWEN_IDS)


def _qwen3_vl() -> tf.PreTrainedConfig:
    text = _TEXT | {"head_dim": 16, "rope_parameters": _ROPE | {"mrope_interleaved": True}}
    vision = _QWEN_VISION | {"depth": 3, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    return tf.Qwen3VLConfig(text_config=text, vision_config=vision, **_QWEN_IDS)


def _idefics(config_class: type[tf.PreTrainedConfig]) -> tf.PreTrainedConfig:
    vision = _VISION | {"num_channels": 3}
    return config_class(text_config=_llama_text(), vision_config=vision, scale_factor=2, pad_token_id=256, **_IDS)


def _internvl() -> tf.PreTrainedConfig:
    text = tf.Qwen2Config(**_TEXT).to_dict() | {"model_type": "qwen2"}
    vision = _VISION | {"image_size": [28, 28], "patch_size": [7, 7], "num_channels": 3}
    return tf.InternVLConfig(text_config=text, vision_config=vision, downsample_ratio=0.5, **_IDS)


def _gemma3() -> tf.PreTrainedConfig:
    text = _TEXT | {
        "head_dim": 16,
        "sliding_window": 8,
        "query_pre_attn_scalar": 16,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }
    return tf.Gemma3Config(
        text_config=text,
        vision_config=_VISION,
        mm_tokens_per_image=4,
        image_token_index=TOKEN_IDS["IMAGE"],
        boi_token_index=TOKEN_IDS["START"],
        eoi_token_index=TOKEN_IDS["END"],
        eos_token_id=TOKEN_IDS["<|im_end|>"],
        tie_word_embeddings=False,
    )


def _gpt2() -> tf.PreTrainedConfig:
    return tf.GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_positions=1024,
        bos_token_id=TOKEN_IDS["<s>"],
        eos_token_id=TOKEN_IDS["<|im_end|>"],
        pad_token_id=TOKEN_IDS["<pad>"],
    )


_BUILDERS: dict[str, Callable[[], tf.PreTrainedConfig]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "idefics3": lambda: _idefics(tf.Idefics3Config),
    "smolvlm": lambda: _idefics(tf.SmolVLMConfig),
    "internvl": _internvl,
    "gemma3": _gemma3,
    "llama": lambda: tf.LlamaConfig(**_TEXT),
    # A sliding window on some layers, biases on q, k and v.
    "qwen2": lambda: tf.Qwen2Config(**_TEXT, use_sliding_window=True, sliding_window=8, max_window_layers=1),
    # Tied embeddings, norms on q and k.
    "qwen3": lambda: tf.Qwen3Config(**_TEXT | {"tie_word_embeddings": True, "head_dim": 16}),
    "gpt2": _gpt2,
}
FAMILIES = tuple(_BUILDERS)
VISION_FAMILIES = tuple(IMAGE_TOKENS)
TEXT_FAMILIES = tuple(name for name in FAMILIES if name not in IMAGE_TOKENS)


def tiny_config(family: str) -> tf.PreTrainedConfig:
    """A fresh configuration of `family`."""
    return _BUILDERS[family]()
