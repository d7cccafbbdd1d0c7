"""A tower on native kernels sees what it saw before, up to the rounding that was asked for."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("foveal.kernels._native", reason="the native kernels were not built")

from foveal.models.language_model import TransformersModel
from foveal.models.loading import load_model
from foveal.models.native_tower import NativeTowerLinear
from support.quantised_checkpoints import all_linears, write_rounded
from support.tiny_models import (
    NATIVE_FAMILIES,
    VISION_FAMILIES,
    tiny_checkpoint,
    tiny_image,
    tiny_model,
    tiny_processor,
)

FAMILIES = [family for family in VISION_FAMILIES if family in NATIVE_FAMILIES]


def features(model: TransformersModel, family: str) -> torch.Tensor:
    processor = tiny_processor(family)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    )
    return torch.cat(model.encode_images(processor.prepare(text, [tiny_image(0)]).images))


def tower_linears(model: TransformersModel) -> list[NativeTowerLinear]:
    return [module for module in model.core.modules() if isinstance(module, NativeTowerLinear)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_rounded_on_load_the_features_stay_near_and_cost_8_bits(family, mode):
    model = load_model(tiny_checkpoint(family), quantize=mode)
    expected, found = features(tiny_model(family), family), features(model, family)

    assert tower_linears(model)
    assert all(linear.weight.numel() == 0 for linear in tower_linears(model))
    assert 0 < (found - expected).norm() < 0.05 * expected.norm()


def test_without_rounding_nothing_moves():
    plain = load_model(tiny_checkpoint("llava"), quantize="none")
    assert tower_linears(plain) == []
    torch.testing.assert_close(features(plain, "llava"), features(tiny_model("llava"), "llava"))


@pytest.mark.parametrize("scheme", ["int8", "int4-g32", "int4-g32-asym"])
def test_stored_codes_of_a_tower_are_computed_with_as_they_are(scheme, tmp_path):
    write_rounded("llava", tmp_path / "out", all_linears(scheme))
    dense = load_model(tmp_path / "out")
    native = load_model(tmp_path / "out", quantize="stored")

    assert tower_linears(native)
    expected, found = features(dense, "llava"), features(native, "llava")
    assert (found - expected).norm() < 0.02 * expected.norm()
