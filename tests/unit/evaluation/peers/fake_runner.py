"""A peer engine that counts upwards: the next token is the last one plus one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

VOCABULARY = 16


class Runner:
    def convert(self, model: str, mode: str, out: str) -> None:
        Path(out).mkdir(parents=True)
        Path(out, "weights").write_text(mode)

    def load(self, model: str, mode: str, converted: str, limits: dict[str, int]) -> dict[str, Any]:
        if mode == "broken":
            raise RuntimeError("illegal instruction set")
        print("libraries print things", flush=True)
        self.mode = mode
        assert Path(converted, "weights").read_text() == mode
        return {"weights": mode, "weight_bits": 8, "kv": "int8", "weight_bytes": 1000, "kv_bytes_per_token": 10}

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        if self.mode == "dies" and len(prompts) > 1:
            sys.stderr.write("out of memory\n")
            sys.stderr.flush()
            os._exit(7)
        if self.mode == "short":
            new_tokens -= 1
        return [[(ids[-1] + 1 + k) % VOCABULARY for k in range(new_tokens)] for ids in prompts]

    def logits(self, prompt: list[int]) -> list[list[float]]:
        if self.mode == "mute":
            raise NotImplementedError("no logits here")
        return [[4.0 * (column == (token + 1) % VOCABULARY) for column in range(VOCABULARY)] for token in prompt]
