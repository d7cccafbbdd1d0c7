"""What a gateway predicts from the published facts is what the engine's processor counts, for every family."""

from __future__ import annotations

import msgspec
import pytest
from PIL import Image

from foveal.gateway.pricing.published import read_published_costs
from foveal.gateway.pricing.vision_pricing import VisionPricing
from foveal.models.loading import load_processor
from foveal.models.processing.processor import Processor
from foveal.protocol.model_costs import ModelCosts
from foveal.protocol.model_list import ModelList, ModelObject
from support.tiny_checkpoints import build_tiny_checkpoint
from support.tiny_configs import VISION_FAMILIES

_SIZES = (
    *((8, 8), (28, 28), (29, 28), (56, 56), (57, 20), (20, 57), (100, 30), (30, 100), (64, 48), (300, 200), (200, 301)),
    *((1, 9), (140, 12), (12, 140), (1800, 1200), (1250, 1251)),
)


@pytest.fixture(scope="module", params=VISION_FAMILIES)
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Processor:
    from foveal.models.registry import family_of

    path = build_tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param))
    loaded = load_processor(str(path))
    assert loaded.family is family_of(request.param)
    return loaded


def _published(processor: Processor) -> VisionPricing:
    """Through the bytes of a /v1/models page, as a gateway gets it."""
    costs = ModelCosts(kv_bytes_per_token=64, vision=processor.vision_facts)
    page = ModelList([ModelObject(id="m", created=0, root="m", max_model_len=1, supports_images=True, costs=costs)])
    found = read_published_costs(msgspec.json.encode(page), "m")
    assert found is not None
    assert found.vision is not None
    assert found.kv_bytes_per_token == 64
    return found.vision


@pytest.mark.parametrize("detail", ["auto", "low", "high"])
def test_tokens_and_patches_are_predicted_exactly(processor: Processor, detail: str) -> None:
    pricing = _published(processor)
    placeholder = processor.placeholder or ""

    for width, height in _SIZES:
        prepared = processor.prepare(placeholder, [Image.new("RGB", (width, height))], [detail])
        work = pricing.work(width, height, detail)

        (image,) = prepared.images
        assert (work.num_tokens, work.num_patches) == (image.num_tokens, image.encode_tokens), (width, height)
