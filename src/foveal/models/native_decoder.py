"""The native decoder: all layers of a Llama-shaped stack in one call of the compiled kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.kernels.native.extension import native_kernels, require_native
from foveal.kernels.native.kv_pool import NativePool, step_arrays
from foveal.kernels.native.packed_matrix import NativeMatrix
from foveal.models.decoder import unsupported_reason
from foveal.models.rotary_table import RotaryTable
from foveal.models.weight_packer import WeightPacker

__all__ = ["NativeDecoder", "native_unsupported_reason"]

_DEEP = 8
"""Decoders of fewer layers have no ends to speak of."""


def native_unsupported_reason(decoder: torch.nn.Module) -> str | None:
    """Why this transformers text model cannot run natively, or None if it can. Checks structure, never names of models."""
    reason = unsupported_reason(decoder)
    if reason is not None:
        return reason
    if native_kernels() is None:
        return "this installation has no native kernels"
    parameter = decoder.norm.weight
    if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
        return f"it is {parameter.dtype} on {parameter.device.type}, and native kernels compute float32 on the CPU"
    layers = list(decoder.layers)
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        if not isinstance(mlp.act_fn, torch.nn.SiLU) and type(mlp.act_fn).__name__ != "SiLUActivation":
            return f"its activation is {type(mlp.act_fn).__name__}, not SiLU"
        if (mlp.gate_proj.bias is None) != (mlp.up_proj.bias is None):
            return "only one of the gate and up projections has a bias"
        for name in ("q_norm", "k_norm"):
            norm = getattr(attention, name, None)
            if norm is not None and tuple(norm.weight.shape) != (attention.head_dim,):
                return f"{name} is not a norm of one head"
    shapes = {(a.head_dim, a.scaling, a.q_proj.out_features, a.k_proj.out_features) for a in _attentions(decoder)}
    epsilons = {
        norm.variance_epsilon for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)
    }
    if len(shapes) != 1 or len(epsilons | {decoder.norm.variance_epsilon}) != 1:
        return "its layers differ in shape"
    if (head_dim := layers[0].self_attn.head_dim) % 2:
        return f"its head dimension is odd ({head_dim})"
    return None


class NativeDecoder:
    """Called like FusedDecoder. Owns packed copies of the weights; those of the transformers stack are given up."""

    def __init__(self, decoder: torch.nn.Module, packer: WeightPacker) -> None:
        """Adopts `decoder`. Raises ValueError if `native_unsupported_reason(decoder)` is not None."""
        reason = native_unsupported_reason(decoder)
        if reason is not None:
            raise ValueError(f"{type(decoder).__name__} cannot run natively: {reason}")
        attention = decoder.layers[0].self_attn
        self._rotary = RotaryTable(decoder.rotary_emb, decoder.norm.weight.shape[0])
        self._pool = NativePool()
        q_norm = getattr(attention, "q_norm", None)
        self._native = require_native().Decoder(
            heads=attention.q_proj.out_features // attention.head_dim,
            kv_heads=attention.k_proj.out_features // attention.head_dim,
            head_dim=attention.head_dim,
            scale=attention.scaling,
            epsilon=decoder.norm.variance_epsilon,
            qk_epsilon=decoder.norm.variance_epsilon if q_norm is None else q_norm.variance_epsilon,
            final_norm=_array(decoder.norm),
        )
        self.matrices: list[NativeMatrix] = []
        layers = list(decoder.layers)
        for index, layer in enumerate(layers):
            self._add(layer, packer, at_an_end=len(layers) >= _DEEP and index in (0, len(layers) - 1))

    @property
    def num_weight_bytes(self) -> int:
        """What a step with one token reads of the layers' matrices."""
        return sum(matrix.num_bytes for matrix in self.matrices)

    def __call__(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        batch: AttentionBatch,
        kv_cache: KVCache,
        image_rows: torch.Tensor | None = None,
        deepstack: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """Embeddings float32 [T, hidden] (overwritten), positions [P, T] -> final hidden states [T, hidden].

        Deepstack is not supported: such families take FusedDecoder.
        """
        assert not deepstack, "families with deepstack never get here"
        x = embeddings.contiguous()
        cos, sin = self._rotary(positions)
        self._native.run(
            self._pool.of(kv_cache), x.numpy(), cos.numpy(), sin.numpy(), *step_arrays(batch), torch.get_num_threads()
        )
        return x

    def _add(self, layer: torch.nn.Module, packer: WeightPacker, *, at_an_end: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        groups = (
            [attention.q_proj, attention.k_proj, attention.v_proj],
            [attention.o_proj],
            [mlp.gate_proj, mlp.up_proj],
        )
        # 4 bits cost most in these, and they are small (decision 0014).
        qkv = packer.pack(groups[0], sensitive=True)
        out = packer.pack(groups[1], sensitive=at_an_end)
        gate_up = packer.pack(groups[2], interleaved=True, sensitive=at_an_end)
        down = packer.pack([mlp.down_proj], sensitive=at_an_end)
        self._native.add_layer(
            qkv.handle,
            out.handle,
            gate_up.handle,
            down.handle,
            _array(layer.input_layernorm),
            _array(layer.post_attention_layernorm),
            _array(attention.q_norm) if hasattr(attention, "q_norm") else None,
            _array(attention.k_norm) if hasattr(attention, "k_norm") else None,
            getattr(attention, "sliding_window", None) or 0,
        )
        self.matrices += [qkv, out, gate_up, down]
        for module in (*(module for group in groups for module in group), mlp.down_proj):
            # Both copies together would need twice the memory.
            module.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)


def _attentions(decoder: torch.nn.Module) -> list[torch.nn.Module]:
    return [layer.self_attn for layer in decoder.layers]


def _array(norm: torch.nn.Module) -> object:
    return norm.weight.detach().float().contiguous().numpy()
