"""LanguageModel over a transformers model: vision tower and embeddings from there, decoder fused or injected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from foveal.core.errors import ConfigurationError, IntegrityError
from foveal.core.model_spec import ModelSpec
from foveal.kernels.attention_batch import KVCache
from foveal.kernels.quantisation.scheme import LinearScheme
from foveal.models.attention_interface import attention_step, use_paged_attention
from foveal.models.base import ModelStep
from foveal.models.decoder import FusedDecoder, unsupported_reason
from foveal.models.family import Family, VisionFamily
from foveal.models.head_rows import cut_head
from foveal.models.image_input import ImageInput, PromptInput
from foveal.models.linears import PackedLinear
from foveal.models.native_decoder import NativeDecoder, native_unsupported_reason
from foveal.models.native_tower import adopt_tower
from foveal.models.native_vocabulary import pack_vocabulary
from foveal.models.quantised.packed_linears import adopt_linears
from foveal.models.weight_packer import WeightPacker

__all__ = ["DecoderKind", "TransformersModel"]

DecoderKind = Literal["auto", "native", "fused", "hf"]


class TransformersModel:
    """Any supported family. One step at a time: not for use from several threads at once.

    `decoder`: "native" runs a Llama-shaped stack in the compiled kernels, on weights packed by `packer`; "fused" is our
    implementation of the same in torch; "hf" is transformers' with our attention injected (the oracle, and the fallback
    for other shapes). "auto" is native where there is a packer and it fits, then fused, then hf.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        family: Family,
        decoder: DecoderKind = "auto",
        quantised_linears: Mapping[str, LinearScheme] = MappingProxyType({}),
        packer: WeightPacker | None = None,
    ) -> None:
        """Takes over `model`. Raises ConfigurationError if "native" or "fused" is demanded and the stack does not fit."""
        self.hf_model = model.eval().requires_grad_(False)
        self.family = family
        self.quantised_linears = quantised_linears
        """Module name -> how the checkpoint stores its weight and rounds its input; what is not named is kept as it was."""
        self.core: PreTrainedModel = model.model if family.supports_images else model
        self.dtype = model.dtype
        self.device = model.device
        self._head: PackedLinear
        self._embed: Callable[[torch.Tensor], torch.Tensor] = model.get_input_embeddings()
        self._stack = model.get_decoder()
        self.spec = _spec_of(model, family)
        self._softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        if isinstance(family, VisionFamily):
            family.prepare_model(model)
        use_paged_attention(model)
        self.fused, self.native = self._own_decoder(decoder, packer)
        if self.native is not None and packer is not None:
            self._embed, self._head = pack_vocabulary(model, packer)
            if family.supports_images:
                adopt_tower(self.core, self._stack, packer)
        else:
            self._head = adopt_linears([model.get_output_embeddings()])

    @property
    def decoder(self) -> str:
        """Which implementation runs."""
        return "native" if self.native is not None else "fused" if self.fused is not None else "hf"

    @property
    def kv_dtype(self) -> torch.dtype:
        """What keys and values are kept in unless asked otherwise: the model's format, or halves beside rounded weights.

        A half keeps more digits than bfloat16 weights have and 16 times as many as 8-bit ones, and attention reads half
        the bytes.
        """
        rounded = self.native is not None and any(matrix.kind != "float32" for matrix in self.native.matrices)
        return torch.float16 if rounded else self.dtype

    def _own_decoder(
        self, wanted: DecoderKind, packer: WeightPacker | None
    ) -> tuple[FusedDecoder | None, NativeDecoder | None]:
        if wanted == "hf":
            return None, None
        if wanted == "native" or (wanted == "auto" and packer is not None):
            reason = native_unsupported_reason(self._stack)
            if self.spec.feature_width != self.spec.hidden_size:
                reason = "its image features enter several layers"
            if reason is None:
                return None, NativeDecoder(self._stack, packer or WeightPacker("none", {}))
            if wanted == "native":
                raise self._refusal(wanted, reason)
        reason = unsupported_reason(self._stack)
        if reason is None:
            return FusedDecoder(self._stack), None
        if wanted == "fused":
            raise self._refusal(wanted, reason)
        return None, None

    def _refusal(self, wanted: DecoderKind, reason: str) -> ConfigurationError:
        misfit = "is not Llama-shaped" if wanted == "fused" else "cannot run natively"
        return ConfigurationError(
            f"decoder '{wanted}' was asked for, but the text stack of {self.family.model_type} {misfit}: {reason}. "
            "Use decoder 'auto'."
        )

    @torch.inference_mode()
    def encode_images(self, images: Sequence[ImageInput]) -> list[torch.Tensor]:
        """See LanguageModel. Images of one call may differ in tiles or, in Qwen's families, in size."""
        assert isinstance(self.family, VisionFamily), f"{self.family.model_type} has no vision tower"
        if not images:
            return []
        inputs = self.family.encode_inputs([self._tensors(image) for image in images])
        output = self.core.get_image_features(**inputs, return_dict=True)
        levels = [output.pooler_output, *(getattr(output, "deepstack_features", None) or ())]
        features = torch.cat([_rows(level, self.spec.hidden_size) for level in levels], -1).to(self.dtype)
        counts = [image.num_tokens for image in images]
        if len(features) != sum(counts):
            raise IntegrityError(
                f"the vision tower of {self.spec.model_type} returned {len(features)} features for {len(images)} images, "
                f"the processor expected {counts}: its processor_config.json does not fit its config.json"
            )
        # Copies, because a cached view would keep the features of the whole batch alive.
        return [part.clone() for part in features.split(counts)] if len(images) > 1 else [features]

    def rope_positions(self, prompt: PromptInput) -> tuple[torch.Tensor, int]:
        """See LanguageModel."""
        return self.family.rope_positions(self.core, prompt)

    @torch.inference_mode()
    def forward(self, step: ModelStep, kv_cache: KVCache) -> torch.Tensor:
        """See LanguageModel. Raises IntegrityError if image features do not fit the mask."""
        embeddings, image_rows, deepstack = self._embed_step(step)
        own = self.native or self.fused
        if own is not None:
            return own(embeddings, step.positions, step.attention, kv_cache, image_rows, deepstack)
        extra = {}
        if deepstack:
            extra = {"visual_pos_masks": step.image_mask[None], "deepstack_visual_embeds": deepstack}
        positions = step.positions if step.positions.shape[0] == 1 else step.positions[:, None]
        with attention_step(step.attention, kv_cache):
            output = self._stack(
                inputs_embeds=embeddings[None], position_ids=positions, attention_mask=None, use_cache=False, **extra
            )
        return output.last_hidden_state[0]

    @torch.inference_mode()
    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """See LanguageModel."""
        logits = self._head(hidden).float()
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def cut_head(self, token_ids: torch.Tensor) -> PackedLinear | None:
        """`compute_logits` for these tokens alone: [S, hidden] -> [S, n]. None where the head cannot be cut."""
        if self._softcap is not None:
            return None
        return cut_head(self._head, self.hf_model.get_output_embeddings(), token_ids)

    def _embed_step(self, step: ModelStep) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
        """Embeddings with image features in place, rows of image tokens, features to add per deepstack level."""
        if step.image_mask is None or step.image_features is None:
            return self._embed(step.token_ids), None, []
        # The placeholder's id may lie outside the embedding table.
        embeddings = self._embed(step.token_ids.masked_fill(step.image_mask, 0))
        rows = step.image_mask.nonzero()[:, 0]
        hidden = self.spec.hidden_size
        if step.image_features.shape != (len(rows), self.spec.feature_width):
            raise IntegrityError(
                f"image features are {tuple(step.image_features.shape)}; the step's image mask needs "
                f"{(len(rows), self.spec.feature_width)}"
            )
        first, *deepstack = step.image_features.to(embeddings.dtype).split(hidden, -1)
        embeddings.index_copy_(0, rows, first)
        return embeddings, rows, deepstack

    def _tensors(self, image: ImageInput) -> dict[str, torch.Tensor]:
        tensors = {}
        for name, array in image.arrays.items():
            tensor = torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self.device)
            tensors[name] = tensor.to(self.dtype) if tensor.is_floating_point() else tensor
        return tensors


def _rows(features: torch.Tensor | Sequence[torch.Tensor], width: int) -> torch.Tensor:
    """One [N, width] tensor of what get_image_features returns: a tensor, or one per image or per sample."""
    if not isinstance(features, torch.Tensor):
        features = torch.cat([part.reshape(-1, width) for part in features])
    return features.reshape(-1, width)


def _spec_of(model: PreTrainedModel, family: Family) -> ModelSpec:
    text = model.config.get_text_config()
    num_heads = text.num_attention_heads
    generation = getattr(model, "generation_config", None)
    eos_ids: list[int] = []
    for source in (generation, model.config, text):
        found = getattr(source, "eos_token_id", None)
        eos_ids += found if isinstance(found, list) else [] if found is None else [found]
    return ModelSpec(
        model_type=family.model_type,
        num_layers=text.num_hidden_layers,
        num_heads=num_heads,
        num_kv_heads=getattr(text, "num_key_value_heads", None) or num_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // num_heads,
        hidden_size=text.hidden_size,
        vocab_size=model.get_output_embeddings().out_features,
        max_model_len=text.max_position_embeddings,
        eos_token_ids=tuple(dict.fromkeys(eos_ids)),
        feature_width=text.hidden_size * (1 + family.deepstack_levels(model.config)),
        atomic_image_spans=family.atomic_image_spans,
        supports_images=family.supports_images,
    )
