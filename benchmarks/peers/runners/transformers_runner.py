"""Plain transformers: `generate` in one static batch, eager mode with its default (SDPA) attention."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM


class Runner:
    def convert(self, model: str, mode: str, out: str) -> None:
        """It reads the checkpoint."""

    def load(self, model: str, mode: str, converted: str, limits: dict[str, int]) -> dict[str, Any]:
        torch.set_num_threads(limits["threads"])
        torch.set_flush_denormal(True)
        dtype = getattr(torch, mode)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
        self.model.generation_config.pad_token_id = 2
        # `min_new_tokens` would forbid the end token; everyone else here only ignores it.
        self.model.generation_config.eos_token_id = None
        text = self.model.config
        width = text.num_key_value_heads * (
            getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        )
        return {
            "weights": mode,
            "weight_bits": dtype.itemsize * 8,
            "kv": mode,
            # Tied: the head reads the embedding table.
            "weight_bytes": sum(parameter.nbytes for parameter in self.model.parameters()),
            "kv_bytes_per_token": 2 * text.num_hidden_layers * width * dtype.itemsize,
        }

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        ids = torch.tensor(prompts)
        answered = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
        )
        return answered[:, ids.shape[1] :].tolist()

    @torch.inference_mode()
    def logits(self, prompt: list[int]) -> Any:
        return self.model(torch.tensor([prompt])).logits[0].float().numpy()
