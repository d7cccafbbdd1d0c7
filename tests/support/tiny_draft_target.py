"""A tiny target with a character tokenizer and projected pictures, for the draft's recipe."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from foveal.demo.draft.lessons import Pictures
from foveal.demo.draft.target import Target
from foveal.demo.training.pool import Example
from foveal.evaluation.tasks.scene import Question

FEATURES = 12
QUESTIONS = (Question("count", "How many?", "3"), Question("color", "Which?", "red"), Question("exists", "Any?", "no"))


class CharacterTokenizer:
    """One token per character; `<image>` and the turn marks are single tokens."""

    SPECIAL = ("<image>", "<|im_end|>", "<|im_start|>")
    eos_token_id = 201
    pad_token_id = 201

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        ids = []
        while text:
            special = next((s for s in self.SPECIAL if text.startswith(s)), None)
            ids.append(200 + self.SPECIAL.index(special) if special else ord(text[0]))
            text = text[len(special or "x") :]
        return ids

    def convert_tokens_to_ids(self, token: str) -> int:
        return 200 + self.SPECIAL.index(token)

    def apply_chat_template(self, messages: list[dict], **options: bool) -> str:  # type: ignore[type-arg]
        (message,) = messages
        parts = ["<image>\n" if part["type"] == "image" else part["text"] for part in message["content"]]
        return f"<|im_start|>user\n{''.join(parts)}<|im_end|>\n<|im_start|>assistant\n"


def tiny_target(layers: int = 3) -> Target:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        tie_word_embeddings=True,
        initializer_range=0.15,
        eos_token_id=201,
    )
    language = LlamaForCausalLM(config).eval().requires_grad_(False)
    projector = nn.Sequential(nn.Linear(FEATURES, 128), nn.GELU(), nn.Linear(128, 128)).requires_grad_(False)
    return Target(language, projector, CharacterTokenizer())  # type: ignore[arg-type]


def tiny_pictures(number: int = 4) -> Pictures:
    features = np.random.default_rng(0).normal(size=(number, 64, FEATURES)).astype(np.float16)
    return Pictures([Example("shapes", None, QUESTIONS) for _ in range(number)], features)  # type: ignore[arg-type]
