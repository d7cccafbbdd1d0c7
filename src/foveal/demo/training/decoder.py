"""The language model as training runs it: frozen Llama layers, trainable low-rank updates, a block mask.

Plain functions over packed rows; the numbers equal transformers' (a test checks it).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaForCausalLM

from foveal.demo.training.frozen_linear import FrozenLinear

__all__ = ["LINEARS", "Decoder", "Layer", "LowRankUpdate", "rms_norm", "rotate"]

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LowRankUpdate(nn.Module):
    """`scale * B A x` beside a frozen linear; B starts at zero."""

    def __init__(self, width_in: int, width_out: int, rank: int, scale: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, width_in) / math.sqrt(width_in))
        self.up = nn.Parameter(torch.zeros(width_out, rank))
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.linear(x, self.down * self.scale), self.up)


class Layer(nn.Module):
    """One decoder layer; the frozen weights of q, k, v and of gate, up are stacked into one matrix each."""

    def __init__(self, layer: nn.Module, rank: int, scale: float, int8: bool) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        parts = {
            name: getattr(attention if name in ("q_proj", "k_proj", "v_proj", "o_proj") else mlp, name).weight.data
            for name in LINEARS
        }
        self.updates = nn.ModuleDict(
            {name: LowRankUpdate(w.shape[1], w.shape[0], rank, scale) for name, w in parts.items()}
        )
        self.qkv = FrozenLinear(torch.cat([parts["q_proj"], parts["k_proj"], parts["v_proj"]]), int8, int8)
        self.o = FrozenLinear(parts["o_proj"], int8, int8)
        self.gate_up = FrozenLinear(torch.cat([parts["gate_proj"], parts["up_proj"]]), int8, int8)
        # The input of `down` has rare huge values, which per-row int8 would flatten: exact forward, int8 backward.
        self.down = FrozenLinear(parts["down_proj"], False, int8)
        self.norm_in = layer.input_layernorm.weight.data
        self.norm_mid = layer.post_attention_layernorm.weight.data
        self.heads, self.kv_heads = parts["q_proj"].shape[0] // 64, parts["k_proj"].shape[0] // 64

    def forward(
        self, x: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """x [rows, length, hidden]; rope cos/sin [rows, 1, length, 64]; mask bool [rows, 1, length, length]."""
        update = self.updates
        h = rms_norm(x, self.norm_in, eps)
        q, k, v = self.qkv(h).split([self.heads * 64, self.kv_heads * 64, self.kv_heads * 64], dim=-1)
        q, k, v = q + update["q_proj"](h), k + update["k_proj"](h), v + update["v_proj"](h)
        q, k, v = (
            t.unflatten(-1, (n, 64)).transpose(1, 2)
            for t, n in ((q, self.heads), (k, self.kv_heads), (v, self.kv_heads))
        )
        q, k = rotate(q, *rope), rotate(k, *rope)
        repeat = self.heads // self.kv_heads
        k, v = (t.repeat_interleave(repeat, dim=1) for t in (k, v))
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + self.o(a) + update["o_proj"](a)
        h = rms_norm(x, self.norm_mid, eps)
        gate, up = self.gate_up(h).chunk(2, dim=-1)
        g = F.silu(gate + update["gate_proj"](h)) * (up + update["up_proj"](h))
        return x + self.down(g) + update["down_proj"](g)


class Decoder(nn.Module):
    """All layers and the final norm; the tied head is applied by the caller, only where a loss is."""

    def __init__(self, model: LlamaForCausalLM, rank: int, scale: float, int8: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(layer, rank, scale, int8) for layer in model.model.layers)
        self.norm = model.model.norm.weight.data
        self.embeddings = model.model.embed_tokens.weight.data
        self.eps = model.config.rms_norm_eps
        theta = model.config.rope_parameters["rope_theta"]
        self.frequencies = theta ** (-torch.arange(0, 64, 2).float() / 64)

    def forward(self, x: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Input embeddings [rows, length, hidden] -> final normalised states of the same shape."""
        angles = positions[:, None, :, None].float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)
        rope = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, rope, mask, self.eps)
        return rms_norm(x, self.norm, self.eps)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding, halves convention."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
