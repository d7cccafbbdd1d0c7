"""The fused decoder: one implementation of the Llama-shaped text stack, over weights that transformers loaded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from foveal.kernels.attention_batch import AttentionBatch, KVCache
from foveal.kernels.paged_attention import paged_attention
from foveal.models.linears import PackedLinear
from foveal.models.quantised.packed_linears import adopt_linears

__all__ = ["FusedDecoder", "unsupported_reason"]

_ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm", "rotary_emb"}
_MLP_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def unsupported_reason(decoder: torch.nn.Module) -> str | None:
    """Why this transformers text model cannot be fused, or None if it can. Checks structure, never names of models."""
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList) or not hasattr(decoder, "rotary_emb"):
        return "it is not a stack of layers with one rotary embedding"
    for layer in layers:
        for module, known in ((layer, _LAYER_PARTS), (layer.self_attn, _ATTENTION_PARTS), (layer.mlp, _MLP_PARTS)):
            unknown = {name for name, _ in module.named_children()} - known
            if unknown:
                return f"layers have unknown parts {sorted(unknown)}"
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            if not hasattr(norm, "variance_epsilon"):
                return f"{type(norm).__name__} is not a plain RMSNorm"
        biases = {name: getattr(layer.self_attn, name).bias is None for name in ("q_proj", "k_proj", "v_proj")}
        if len(set(biases.values())) != 1:
            return "only some of the q, k and v projections have a bias"
        if getattr(layer.self_attn, "attn_logit_softcapping", None):
            return "attention logits are soft-capped"
    return None


class _RmsNorm:
    """Weight and epsilon of an RMSNorm; called on [..., width]."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.weight = module.weight.detach()
        self.epsilon = module.variance_epsilon
        self.shape = tuple(self.weight.shape)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.shape, self.weight, self.epsilon)


class _Layer:
    """One decoder layer. `qkv`, `out`, `gate_up` and `down` may be replaced by any PackedLinear of the same shape."""

    def __init__(self, layer: torch.nn.Module) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.index: int = attention.layer_idx
        self.head_dim: int = attention.head_dim
        self.scale: float = attention.scaling
        self.sliding_window: int | None = getattr(attention, "sliding_window", None)
        self.num_heads = attention.q_proj.out_features // self.head_dim
        self.num_kv_heads = attention.k_proj.out_features // self.head_dim
        self.qkv: PackedLinear = adopt_linears([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out: PackedLinear = adopt_linears([attention.o_proj])
        self.gate_up: PackedLinear = adopt_linears([mlp.gate_proj, mlp.up_proj])
        self.down: PackedLinear = adopt_linears([mlp.down_proj])
        self.activation = mlp.act_fn
        self.input_norm = _RmsNorm(layer.input_layernorm)
        self.mlp_norm = _RmsNorm(layer.post_attention_layernorm)
        self.query_norm = _RmsNorm(attention.q_norm) if hasattr(attention, "q_norm") else None
        self.key_norm = _RmsNorm(attention.k_norm) if hasattr(attention, "k_norm") else None

    def __call__(self, x: torch.Tensor, rotary: _Rotary, batch: AttentionBatch, kv_cache: KVCache) -> torch.Tensor:
        """[T, hidden] -> [T, hidden], in place."""
        num_tokens, heads, kv_heads = x.shape[0], self.num_heads, self.num_kv_heads
        qkv = self.qkv(self.input_norm(x)).view(num_tokens, heads + 2 * kv_heads, self.head_dim)
        if self.query_norm is None or self.key_norm is None:
            query_key = qkv[:, : heads + kv_heads]
        else:
            query = self.query_norm(qkv[:, :heads])
            query_key = torch.cat((query, self.key_norm(qkv[:, heads : heads + kv_heads])), 1)
        query_key = rotary.apply(query_key)
        attended = paged_attention(
            query_key[:, :heads],
            query_key[:, heads:],
            qkv[:, heads + kv_heads :],
            kv_cache.key[self.index],
            kv_cache.value[self.index],
            batch,
            block_size=kv_cache.block_size,
            scale=self.scale,
            sliding_window=self.sliding_window,
        )
        x.add_(self.out(attended.reshape(num_tokens, heads * self.head_dim)))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x.add_(self.down(self.activation(gate).mul_(up)))


class _Rotary:
    """cos and sin of one step, [T, 1, D]; the sin halves apart because rotation swaps the halves of a head."""

    def __init__(self, cos: torch.Tensor, sin: torch.Tensor) -> None:
        self.cos = cos[:, None]
        self.half = cos.shape[-1] // 2
        self.sin_low, self.sin_high = sin[:, None, : self.half], sin[:, None, self.half :]

    def apply(self, heads: torch.Tensor) -> torch.Tensor:
        """x * cos + rotate_half(x) * sin for [T, heads, D], without building rotate_half(x)."""
        rotated = heads * self.cos
        low, high = heads[..., : self.half], heads[..., self.half :]
        rotated[..., : self.half].addcmul_(high, self.sin_low, value=-1)
        rotated[..., self.half :].addcmul_(low, self.sin_high)
        return rotated


class FusedDecoder:
    """Runs all layers of a Llama-shaped stack: Llama, Qwen2, Qwen3 and the text stacks of the VLMs built on them.

    Differences between them are data: q/k norms, biases, M-RoPE (from the stack's own rotary module), sliding windows,
    deepstack. The transformers stack stays usable: it shares the weights.
    """

    def __init__(self, decoder: torch.nn.Module) -> None:
        """Adopts `decoder`. Raises ValueError if `unsupported_reason(decoder)` is not None."""
        reason = unsupported_reason(decoder)
        if reason is not None:
            raise ValueError(f"cannot fuse {type(decoder).__name__}: {reason}")
        self.rotary = decoder.rotary_emb
        self.layers = [_Layer(layer) for layer in decoder.layers]
        self.norm = _RmsNorm(decoder.norm)

    def __call__(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        batch: AttentionBatch,
        kv_cache: KVCache,
        image_rows: torch.Tensor | None = None,
        deepstack: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """Embeddings [T, hidden] (overwritten), positions [P, T] -> final hidden states [T, hidden].

        deepstack[i] [n, hidden] is added to the rows `image_rows` [n] after layer i. Source: DeepStack, arXiv 2406.04334.
        """
        # The rotary module wants a batch dimension: (1, T), or (3, 1, T) with M-RoPE.
        cos, sin = self.rotary(embeddings[None], positions if positions.shape[0] == 1 else positions[:, None])
        rotary = _Rotary(cos[0], sin[0])
        x = embeddings
        for level, layer in enumerate(self.layers):
            x = layer(x, rotary, batch, kv_cache)
            if level < len(deepstack) and image_rows is not None:
                x.index_add_(0, image_rows, deepstack[level])
        return self.norm(x)
