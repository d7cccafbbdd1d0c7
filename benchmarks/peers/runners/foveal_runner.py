"""Foveal's own engine. A mode is float32, float16, bfloat16, int8 or int4, and -kv8 behind it for an INT8 KV cache."""

from typing import Any

from foveal.engine.config import EngineConfig
from foveal.engine.offline import OfflineEngine

_BITS = {"float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "int4": 4}


def engine_config(model: str, mode: str, limits: dict[str, int]) -> EngineConfig:
    weights, _, cache = mode.partition("-")
    quantised = weights != "float32"
    return EngineConfig(
        model=model,
        dtype="float32",
        decoder="native",
        quantize=weights if quantised else "none",  # type: ignore[arg-type]
        kv_dtype="int8" if cache == "kv8" else "auto",
        max_num_seqs=limits["sequences"],
        max_num_batched_tokens=2048,
        num_kv_blocks=limits["sequences"] * (limits["tokens"] // 2 + 8),
        enable_prefix_caching=False,
        num_threads=limits["threads"],
    )


class Runner:
    def convert(self, model: str, mode: str, out: str) -> None:
        """It rounds on load."""

    def load(self, model: str, mode: str, converted: str, limits: dict[str, int]) -> dict[str, Any]:
        self.engine = OfflineEngine(engine_config(model, mode, limits))
        return {
            "weights": mode.partition("-")[0],
            "weight_bits": _BITS[mode.partition("-")[0]],
            "kv": self.engine.kv_dtype,
            "weight_bytes": self.engine.weight_bytes,
            "kv_bytes_per_token": self.engine.kv_bytes_per_token,
        }

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        return self.engine.generate(prompts, new_tokens).token_ids

    def logits(self, prompt: list[int]) -> Any:
        return self.engine.logits(prompt).numpy()
