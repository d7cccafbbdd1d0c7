"""What differs between model families. One subclass per file in `foveal.models.families`; see CONTRIBUTING.

A family describes both sides of an image: how a processor turns it into arrays and placeholder text (in a worker
process, no weights), and how the loaded model turns the arrays into features and positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from foveal.models.image_input import PromptInput

__all__ = ["Arrays", "Detail", "Family", "PreparedImage", "VisionContext", "VisionFamily"]

Arrays = dict[str, npt.NDArray[np.generic]]
Detail = Literal["auto", "low", "high"]


@dataclass(frozen=True, slots=True)
class VisionContext:
    """What a family may consult while it prepares images: parts of the checkpoint, no weights."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any
    settings: Mapping[str, Any]
    """processor_config.json, or empty: patch_size, image_seq_length and the like."""

    def token(self, token_id: int) -> str:
        """The text of a special token."""
        return str(self.tokenizer.convert_ids_to_tokens(token_id))


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One image, ready for the encoder, and what stands for it in the prompt."""

    arrays: Arrays
    text: str
    """Replaces the placeholder before tokenising; holds the image token `num_tokens` times, with marker tokens."""
    num_tokens: int
    encode_tokens: int
    """Patches that the encoder computes."""


class Family:
    """A text-only family. Its name in config.json is `model_type`; the file is named after it."""

    model_type: ClassVar[str]
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    supports_images: ClassVar[bool] = False
    atomic_image_spans: ClassVar[bool] = False
    """Image tokens attend to each other in both directions (Gemma 3)."""

    def deepstack_levels(self, config: PreTrainedConfig) -> int:
        """How many decoder layers get image features added after them."""
        return 0

    def rope_positions(self, core: PreTrainedModel, prompt: PromptInput) -> tuple[torch.Tensor, int]:
        """([P, len(token_ids)], delta) as LanguageModel.rope_positions says."""
        return torch.arange(len(prompt.token_ids))[None], 0


class VisionFamily(Family):
    """A family with a vision tower. Subclasses implement `prepare` and `encode_inputs`."""

    auto_class = "AutoModelForImageTextToText"
    supports_images = True
    pixel_budget: ClassVar[bool] = False
    """Token count follows the picture's size, so that `detail` shrinks it; else the checkpoint fixes the size."""
    needs_text_between_images: ClassVar[bool] = False

    def image_token_id(self, config: PreTrainedConfig) -> int:
        """The id whose embeddings image features replace."""
        return int(config.image_token_id)

    def placeholder_id(self, config: PreTrainedConfig) -> int:
        """The token that stands for one whole image in a prompt, as chat templates write it."""
        return self.image_token_id(config)

    def prepare(self, context: VisionContext, image: Image.Image, detail: Detail) -> PreparedImage:
        """Run the checkpoint's image processor on one RGB image."""
        raise NotImplementedError

    def price_options(self, context: VisionContext) -> dict[str, Any]:
        """Numbers of this checkpoint from which a gateway knows `prepare`'s token counts (gateway/pricing/rules)."""
        raise NotImplementedError

    def encode_inputs(self, images: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Arguments of the model's `get_image_features` for several images: by default tiles one after another."""
        return {"pixel_values": torch.cat([image["pixel_values"] for image in images])}

    def prepare_model(self, model: PreTrainedModel) -> None:
        """Adjust a freshly loaded model, for example the tower's attention."""
