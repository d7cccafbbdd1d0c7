"""Where the error of 8 bits comes from: logits of a Llama with rounded inputs or weights, relative to float32's.

    python benchmarks/rounding_error.py .demo/peers/checkpoints/random-0.4b

Everything is computed in float32 on rounded values, so only the rounding counts. Random tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from harness.record import write_result

PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
GROUPS = (None, 128, 64, 32)


def rounded(x: torch.Tensor, group: int | None) -> torch.Tensor:
    """127 steps up to the largest of `group` neighbours, or of the whole last dimension."""
    values = x if group is None else x.unflatten(-1, (-1, group))
    scale = values.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
    return ((values / scale).round() * scale).reshape(x.shape)


class Rounding:
    """Rounds inputs and weights of a model's linears as told; weights are written anew each time."""

    def __init__(self, model: Any, token_ids: torch.Tensor) -> None:
        self._model, self._token_ids = model, token_ids
        self._linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        self._weights = {name: linear.weight.data for name, linear in self._linears.items()}
        self._of_inputs: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
        for linear in self._linears.values():
            linear.register_forward_pre_hook(lambda _, inputs: (self._of_inputs(inputs[0]),))
        self._reference = self._logits()

    def error(self, weights: Callable[[str, torch.Tensor], torch.Tensor], inputs: Callable[..., torch.Tensor]) -> float:
        """Of all logits, Frobenius."""
        for name, linear in self._linears.items():
            linear.weight.data = weights(name, self._weights[name])
        self._of_inputs = inputs
        return float((self._logits() - self._reference).norm() / self._reference.norm())

    @torch.inference_mode()
    def _logits(self) -> torch.Tensor:
        return self._model(self._token_ids).logits[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a Llama checkpoint")
    parser.add_argument("--tokens", type=int, default=96)
    options = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    rounding = Rounding(model, torch.randint(0, model.config.vocab_size, (1, options.tokens), generator=generator))
    figures: dict[str, float] = {}

    def note(name: str, error: float) -> None:
        figures[name] = round(error, 4)
        print(f"{name:40s} {error:.4f}", flush=True)

    for group in (None, 32):
        of = "token" if group is None else f"{group}"
        note(f"inputs, a scale per {of}", rounding.error(lambda _, w: w, lambda x, g=group: rounded(x, g)))
    for group in GROUPS:
        of = "output" if group is None else f"{group}"
        note(f"weights, a scale per {of}", rounding.error(lambda _, w, g=group: rounded(w, g), lambda x: x))
    for part in PARTS:
        only = rounding.error(lambda name, w, p=part: rounded(w, None) if p in name else w, lambda x: x)
        note(f"weights of {part}, a scale per output", only)
    print("written to", write_result("rounding_error", figures))


if __name__ == "__main__":
    main()
