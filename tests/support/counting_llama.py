"""A Llama of two to four small layers, and text that it can learn."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 40


def tiny_llama(seed: int = 0, **sizes: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    config = LlamaConfig(**settings | sizes, tie_word_embeddings=True, initializer_range=0.2)
    return LlamaForCausalLM(config).eval()


def counting_batches(number: int, seed: int = 0, rows: int = 4, length: int = 12) -> list[dict[str, torch.Tensor]]:
    """Rows that count upwards in steps of 1 to 3, modulo the vocabulary; every token is a label."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(number):
        start = torch.randint(0, VOCABULARY, (rows, 1), generator=generator)
        step = torch.randint(1, 4, (rows, 1), generator=generator)
        ids = (start + step * torch.arange(length)) % VOCABULARY
        batches.append({"input_ids": ids, "labels": ids})
    return batches


def trained_llama(steps: int = 120, **sizes: int) -> LlamaForCausalLM:
    """Taught to count, so that rounding and pruning have something to spoil."""
    model = tiny_llama(**sizes)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for batch in counting_batches(steps):
        loss = model(**batch, use_cache=False).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def mean_loss(model: LlamaForCausalLM, batches: list[dict[str, torch.Tensor]]) -> float:
    return sum(float(model(**batch, use_cache=False).loss) for batch in batches) / len(batches)
