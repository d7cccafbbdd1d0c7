"""SmolLM2-135M-Instruct from its GGUF: plain fp32 weights and a tokenizer with an image token."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

__all__ = ["CHAT_TEMPLATE", "IMAGE_TOKEN", "load_language_model", "load_tokenizer"]

IMAGE_TOKEN = "<image>"
END_OF_TURN = "<|im_end|>"

# The GGUF's own template adds a system prompt to every chat; ours adds nothing, in training and in serving alike.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def load_language_model(gguf_file: Path) -> LlamaForCausalLM:
    """Dequantised to fp32. A GGUF-loaded model refuses `save_pretrained`, so its state moves into a fresh one."""
    quantised = LlamaForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    config = LlamaConfig(
        **{
            name: getattr(quantised.config, name)
            for name in (
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "max_position_embeddings",
                "rms_norm_eps",
                "rope_parameters",
                "bos_token_id",
                "eos_token_id",
            )
        },
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).float().eval()
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    return model


def load_tokenizer(gguf_file: Path) -> PreTrainedTokenizerBase:
    """The GGUF's byte-level BPE with `<image>` added as a special token and our chat template."""
    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = END_OF_TURN
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
