"""Text and images -> PromptInput. Holds no weights; runs in worker processes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from PIL import Image
from transformers.utils import cached_file

from foveal.core.errors import InvalidRequestError
from foveal.models.family import Family, VisionContext, VisionFamily
from foveal.models.image_input import ImageInput, PromptInput
from foveal.models.processing.chat_template import ChatTemplate
from foveal.models.processing.content_hash import content_hash
from foveal.models.processing.pixel_budget import PIXEL_BUDGETS, check_detail, fit_to_budget
from foveal.models.processing.prompt_layout import find_spans
from foveal.protocol.model_costs import VisionFacts

__all__ = ["Processor"]


class Processor:
    """Tokenizer, image processor and chat template of one checkpoint, loaded apart.

    Apart, because several of transformers' combined processors insist on a video processor, and with it on
    torchvision, to read a still image.
    """

    def __init__(
        self,
        source: str,
        family: Family,
        tokenizer: transformers.PreTrainedTokenizerBase,
        *,
        vision: VisionContext | None = None,
        chat_template: str | None = None,
    ) -> None:
        self.source = source
        self.family = family
        self.tokenizer = tokenizer
        self.vision = vision
        self.placeholder: str | None = None
        """Text that stands for one image in a raw prompt; None for text-only models."""
        reserved: set[str] = set()
        if vision is not None and isinstance(family, VisionFamily):
            self.placeholder = vision.token(family.placeholder_id(vision.config))
            reserved = {self.placeholder, vision.token(family.image_token_id(vision.config))}
        self._template_text = chat_template
        self._template = (
            ChatTemplate(tokenizer, chat_template, self.placeholder, sorted(reserved)) if chat_template else None
        )

    @classmethod
    def load(cls, source: str, family: Family, *, chat_template: str | None = None) -> Processor:
        """Read a directory or hub id. Raises what transformers raises; `load_processor` explains it."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        settings = _read_json(source, "processor_config.json")
        vision = None
        if family.supports_images:
            config = transformers.AutoConfig.from_pretrained(source)
            # The PIL implementations: the same pixels whether torchvision is installed or not.
            image_processor = transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
            vision = VisionContext(config, tokenizer, image_processor, settings)
        template = (
            chat_template
            or tokenizer.chat_template
            or settings.get("chat_template")
            or _read_json(source, "chat_template.json").get("chat_template")
        )
        if isinstance(template, Mapping):  # several named templates
            template = template.get("default")
        return cls(source, family, tokenizer, vision=vision, chat_template=template)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reload, (self.source, self._template_text)

    @property
    def has_chat_template(self) -> bool:
        return self._template is not None

    @property
    def vision_facts(self) -> VisionFacts | None:
        """How a picture's size becomes tokens, for whoever prices requests; None for a text model."""
        if self.vision is None or not isinstance(self.family, VisionFamily):
            return None
        sized = self.family.pixel_budget
        return VisionFacts(
            family=self.family.model_type,
            options=self.family.price_options(self.vision),
            pixel_budgets=dict(PIXEL_BUDGETS) if sized else {},
            single_view_details=[] if sized else ["low"],
        )

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **options: Any
    ) -> str:
        """Messages -> prompt text with one placeholder per image part; see ChatTemplate.render.

        Raises InvalidRequestError, also for base models that have no template.
        """
        if self._template is None:
            raise InvalidRequestError(
                "this model has no chat template. Use /v1/completions with a plain prompt, or start with a chat template.",
                param="messages",
            )
        return self._template.render(messages, add_generation_prompt=add_generation_prompt, **options)

    def tokenize(self, text: str) -> list[int]:
        """Token ids, with the model's leading special tokens unless `text` (a rendered chat) already starts with them."""
        bos = self.tokenizer.bos_token
        add_special_tokens = not (bos and text.startswith(bos))
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def prepare(
        self, prompt: str | Sequence[int], images: Sequence[Image.Image] = (), details: Sequence[str] = ()
    ) -> PromptInput:
        """Preprocess RGB `images`, expand the prompt's placeholders and tokenise it.

        A prompt of token ids may hold one placeholder id per image or the image tokens already expanded. `details` has
        one entry per image or none (auto). Raises InvalidRequestError if placeholders and images do not match.
        """
        if details and len(details) != len(images):
            raise InvalidRequestError(
                f"there are {len(images)} images and {len(details)} details; give one per image or none", param="detail"
            )
        if not isinstance(self.family, VisionFamily) or self.vision is None:
            if images:
                raise InvalidRequestError(
                    f"the request has {len(images)} images, but this model reads text only. Use a vision-language model."
                )
            return PromptInput(self.tokenize(prompt) if isinstance(prompt, str) else list(prompt))
        checked = [check_detail(detail) for detail in details] or ["auto"] * len(images)
        prepared = []
        for image, detail in zip(images, checked, strict=True):
            fitted = fit_to_budget(image, detail) if self.family.pixel_budget else image
            try:
                prepared.append(self.family.prepare(self.vision, fitted, detail))
            except ValueError as error:
                raise InvalidRequestError(
                    f"an image of {image.width} x {image.height} pixels does not fit this model: {error}", param="image"
                ) from error
        texts = [item.text for item in prepared]
        counts = [item.num_tokens for item in prepared]
        token_ids = (
            self._expand_text(prompt, texts) if isinstance(prompt, str) else self._expand_ids(prompt, texts, counts)
        )
        spans = find_spans(token_ids, self.family.image_token_id(self.vision.config), counts)
        if self.family.needs_text_between_images:
            for before, after in itertools.pairwise(spans):
                if before.image_index != after.image_index and before.offset + before.length == after.offset:
                    raise InvalidRequestError(
                        f"images {before.image_index} and {after.image_index} stand side by side in the prompt; this "
                        "model needs text (its vision start and end tokens) between them",
                        param="prompt",
                    )
        inputs = []
        for item in prepared:
            arrays = {name: np.ascontiguousarray(array) for name, array in item.arrays.items()}
            inputs.append(ImageInput(arrays, item.num_tokens, item.encode_tokens, content_hash(arrays)))
        return PromptInput(token_ids, tuple(inputs), spans)

    def _expand_text(self, prompt: str, texts: Sequence[str]) -> list[int]:
        assert self.placeholder is not None
        pieces = prompt.split(self.placeholder)
        self._check_count(len(pieces) - 1, len(texts))
        expanded = [pieces[0]]
        for text, piece in zip(texts, pieces[1:], strict=True):
            expanded += (text, piece)
        return self.tokenize("".join(expanded))

    def _expand_ids(self, prompt: Sequence[int], texts: Sequence[str], counts: Sequence[int]) -> list[int]:
        assert self.vision is not None
        assert isinstance(self.family, VisionFamily)
        config = self.vision.config
        placeholder_id, image_token_id = self.family.placeholder_id(config), self.family.image_token_id(config)
        if sum(counts) > 0 and sum(token_id == image_token_id for token_id in prompt) == sum(counts):
            return list(prompt)
        self._check_count(sum(token_id == placeholder_id for token_id in prompt), len(texts))
        remaining = iter(texts)
        expanded: list[int] = []
        for token_id in prompt:
            if token_id == placeholder_id:
                expanded += self.tokenizer(next(remaining), add_special_tokens=False)["input_ids"]
            else:
                expanded.append(token_id)
        return expanded

    def _check_count(self, placeholders: int, images: int) -> None:
        if placeholders != images:
            raise InvalidRequestError(
                f"the prompt has {placeholders} image placeholders ({self.placeholder}) and the request {images} images; "
                "they must be as many. Chat messages place them by themselves.",
                param="prompt",
            )


def _reload(source: str, chat_template: str | None) -> Processor:
    from foveal.models.loading import load_processor

    return load_processor(source, chat_template=chat_template)


def _read_json(source: str, name: str) -> dict[str, Any]:
    path = cached_file(
        source, name, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if path is None:
        return {}
    loaded = json.loads(Path(path).read_text(encoding="utf-8"))
    return loaded if isinstance(loaded, dict) else {}
