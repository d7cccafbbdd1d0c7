"""How the API's image `detail` bounds what a picture costs."""

from __future__ import annotations

import math

from PIL import Image

from foveal.core.errors import InvalidRequestError
from foveal.models.family import Detail

__all__ = ["PIXEL_BUDGETS", "check_detail", "fit_to_budget"]

PIXEL_BUDGETS: dict[Detail, int | None] = {"low": 262_144, "auto": 1_572_864, "high": None}
"""Most pixels a picture keeps, for families whose token count follows its size (Qwen-VL, LLaVA-NeXT).

low: 512 x 512. auto: 2048 x 768, the largest picture that OpenAI's models look at. high: whatever the checkpoint's own
image processor allows. Families with tiles (Idefics 3, SmolVLM, InternVL, Gemma 3) take a single view at low; LLaVA has
one fixed size at every detail.
"""


def check_detail(detail: str) -> Detail:
    """`detail` itself; raises InvalidRequestError if it is not one of the three."""
    if detail not in PIXEL_BUDGETS:
        raise InvalidRequestError(f"image detail is {detail!r}; it must be auto, low or high", param="detail")
    return detail  # type: ignore[return-value]


def fit_to_budget(image: Image.Image, detail: Detail) -> Image.Image:
    """`image`, or a smaller copy of the same shape that fits the budget of `detail`."""
    budget = PIXEL_BUDGETS[detail]
    pixels = image.width * image.height
    if budget is None or pixels <= budget:
        return image
    scale = math.sqrt(budget / pixels)
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
