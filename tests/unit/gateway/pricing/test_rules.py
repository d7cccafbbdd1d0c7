"""Every rule gives what the family's own image processor gives, with the numbers of real checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.image_processing_utils import select_best_resolution
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize as glm_smart_resize
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from foveal.core.errors import ConfigurationError
from foveal.gateway.pricing.rules.registry import RULES, family_of_name, make_rule
from foveal.gateway.pricing.vision_pricing import VisionPricing

_SIDES = st.one_of(st.integers(28, 4000), st.integers(28, 500), st.sampled_from([224, 336, 448, 512, 768, 1024, 1920]))


def _qwen(patch: int, least: int, most: int) -> Callable[[int, int], int]:
    def tokens(width: int, height: int) -> int:
        rows, columns = smart_resize(height, width, 2 * patch, least, most)
        return rows // (2 * patch) * (columns // (2 * patch))

    return tokens


def _glm(width: int, height: int) -> int:
    rows, columns = glm_smart_resize(2, height, width, 2, 28, 112 * 112, 28 * 28 * 15000)
    return rows // 28 * (columns // 28)


def _idefics(width: int, height: int) -> int:
    processor = Idefics3ImageProcessorPil()
    image = np.zeros((3, height, width), dtype=np.uint8)
    # `_preprocess`, without the pixels: the sizes alone decide.
    seen: list[tuple[int, int]] = [image.shape[1:]]

    def resized(self: Any, image: Any, size: Any, *_: Any, **__: Any) -> Any:
        from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size as scaled

        shape = scaled(image, size.longest_edge) if size.longest_edge else (size.height, size.width)
        seen.append(shape)
        return np.broadcast_to(np.uint8(0), (3, *shape))

    original = Idefics3ImageProcessorPil.resize
    Idefics3ImageProcessorPil.resize = resized
    try:
        large = processor.resize(
            image, processor.size_dict if hasattr(processor, "size_dict") else _size(processor.size)
        )
        fitted = processor.resize_for_vision_encoder(large, 364)
        frames, _, _ = processor.split_images(fitted, {"longest_edge": 364})
    finally:
        Idefics3ImageProcessorPil.resize = original
    return 169 * len(frames)


def _size(size: Any) -> Any:
    from transformers.image_utils import SizeDict

    return size if isinstance(size, SizeDict) else SizeDict(**size)


def _internvl(width: int, height: int) -> int:
    processor = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True)
    tiles = processor.get_number_of_image_patches(
        height, width, {"crop_to_patches": True, "patch_size": processor.size}
    )
    return 256 * int(tiles)


def _gemma(width: int, height: int) -> int:
    crops = Gemma3ImageProcessorPil().pan_and_scan(np.broadcast_to(np.uint8(0), (3, height, width)), 256, 4, 1.2)
    return 256 * (1 + len(crops))


def _llava_next(width: int, height: int) -> int:
    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    processor.patch_size, processor.num_additional_image_tokens, processor.vision_feature_select_strategy = (
        14,
        1,
        "default",
    )
    pinpoints = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
    best_height, best_width = select_best_resolution([height, width], pinpoints)
    unpadded, newlines = processor._get_unpadded_features(height, width, 24, 24, best_height // 336, best_width // 336)
    return int(unpadded + newlines + 24 * 24)


def _pixtral(longest: int, unit: int) -> Callable[[int, int], int]:
    def tokens(width: int, height: int) -> int:
        image = np.broadcast_to(np.uint8(0), (3, height, width))
        rows, columns = get_resize_output_image_size(image, longest, unit, "channels_first")
        return rows // unit * (columns // unit)

    return tokens


def _phi(width: int, height: int) -> int:
    """Phi4MultimodalImageProcessor needs torchvision; its attention mask is what counts."""
    columns, rows = math.ceil(width / 448), math.ceil(height / 448)
    if columns * rows > 36:
        grids = sorted(
            {(i, j) for n in range(1, 37) for i in range(1, n + 1) for j in range(1, n + 1) if i * j <= 36},
            key=lambda grid: grid[0] * grid[1],
        )
        best = math.inf
        for grid in grids:
            difference = abs(width / height - grid[0] / grid[1])
            if difference < best or (difference == best and width * height > 0.5 * 448 * 448 * grid[0] * grid[1]):
                best, (columns, rows) = difference, grid
    mask = np.ones((32 * rows, 32 * columns), dtype=int)
    scale_x, scale_y = 448 * columns / width, 448 * rows / height
    if scale_x < scale_y:
        padding = 448 * rows - int(height * scale_x)
        if padding >= 14:
            mask[-(padding // 14) :, :] = 0
    else:
        padding = 448 * columns - int(width * scale_y)
        if padding >= 14:
            mask[:, -(padding // 14) :] = 0
    half = mask[0::2, 0::2]
    return 256 + 1 + int(half.sum()) + int(half[:, 0].sum()) + 16


_ORACLES: dict[str, tuple[Callable[[int, int], int], dict[str, Any]]] = {
    "qwen2_vl": (_qwen(14, 56 * 56, 28 * 28 * 1280), {"max_pixels": 28 * 28 * 1280}),
    "qwen2_5_vl": (_qwen(14, 56 * 56, 28 * 28 * 16384), {}),
    "qwen3_vl": (_qwen(16, 65_536, 16_777_216), {}),
    "glm4v": (_glm, {}),
    "idefics3": (_idefics, {}),
    "internvl": (_internvl, {}),
    "gemma3": (_gemma, {"pan_and_scan": True}),
    "llava_next": (_llava_next, {}),
    "pixtral": (_pixtral(1024, 16), {}),
    "mistral3": (_pixtral(1540, 28), {}),
    "phi4_multimodal": (_phi, {}),
}


@pytest.mark.parametrize("family", _ORACLES)
@settings(max_examples=60, deadline=None)
@given(width=_SIDES, height=_SIDES)
def test_a_rule_counts_as_the_image_processor_does(family: str, width: int, height: int) -> None:
    oracle, options = _ORACLES[family]

    assert make_rule(family, options).work(width, height, False).num_tokens == oracle(width, height)


@pytest.mark.parametrize("family", RULES)
@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000))
def test_any_size_has_a_positive_price(family: str, width: int, height: int) -> None:
    work = make_rule(family, {}).work(width, height, False)
    single = make_rule(family, {}).work(width, height, True)

    assert work.num_tokens > 0
    assert work.num_patches > 0
    assert work.marker_tokens >= 0
    assert single.num_tokens <= work.num_tokens


def test_known_sizes_of_known_models() -> None:
    """From the model cards: LLaVA 1.5 has 576 tokens, SmolVLM-Instruct 81 a tile of 384, Qwen2.5-VL one per 28 x 28."""
    assert make_rule("llava", {}).work(999, 5, False).num_tokens == 576
    smolvlm = make_rule("smolvlm", {"tile": 384, "longest_edge": 1536, "patch_size": 14, "scale_factor": 3})
    assert smolvlm.work(384, 384, True).num_tokens == 81
    assert make_rule("qwen2_5_vl", {}).work(1024, 768, False).num_tokens == 37 * 27


def test_detail_shrinks_pictures_where_the_backend_says_so() -> None:
    rule = make_rule("qwen2_5_vl", {})
    pricing = VisionPricing(rule, {"low": 262_144, "high": None})

    assert pricing.work(2048, 2048, "low").num_tokens == rule.work(512, 512, False).num_tokens
    for detail in ("high", "auto", "original"):
        assert pricing.work(2048, 2048, detail).num_tokens == rule.work(2048, 2048, False).num_tokens
    assert pricing.work(100, 100, "low").num_tokens == rule.work(100, 100, False).num_tokens


@pytest.mark.parametrize(
    ("family", "options", "says"),
    [
        ("qwen2_5vl", {}, "did you mean qwen2_5_vl"),
        ("qwen2_5_vl", {"patch_size": 0}, "patch_size is 0"),
        ("qwen2_5_vl", {"max_pixels": 1.5}, "max_pixels is 1.5"),
        ("internvl", {"downsample_ratio": -1}, "downsample_ratio"),
        ("llava_next", {"pinpoints": []}, "pinpoints"),
    ],
)
def test_a_rule_that_cannot_be_is_explained(family: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make_rule(family, options)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl"),
        ("Qwen/Qwen2-VL-7B", "qwen2_vl"),
        ("Qwen/Qwen3-VL-30B-A3B", "qwen3_vl"),
        ("HuggingFaceTB/SmolVLM-256M-Instruct", "smolvlm"),
        ("OpenGVLab/InternVL3-2B-hf", "internvl"),
        ("google/gemma-3-4b-it", "gemma3"),
        ("llava-hf/llava-v1.6-mistral-7b-hf", "llava_next"),
        ("llava-hf/llava-1.5-7b-hf", "llava"),
        ("mistralai/Pixtral-12B-2409", "pixtral"),
        ("microsoft/Phi-4-multimodal-instruct", "phi4_multimodal"),
        ("Qwen/Qwen2.5-7B-Instruct", None),
        ("google/gemma-3-1b-it", None),
    ],
)
def test_a_checkpoints_name_suggests_its_family(name: str, family: str | None) -> None:
    assert family_of_name(name) == family
