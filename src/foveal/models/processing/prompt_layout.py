"""Where the images of a tokenised prompt are. Pure; no torch."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.core.errors import InvalidRequestError
from foveal.core.image_span import ImageSpan

__all__ = ["find_spans"]


def find_spans(token_ids: Sequence[int], image_token_id: int, counts: Sequence[int]) -> tuple[ImageSpan, ...]:
    """The runs of image tokens in a prompt, as spans of images with `counts` tokens each, in order.

    An image with marker tokens between its tiles gets several spans; neighbouring images are told apart by their
    counts. Raises InvalidRequestError if the prompt does not hold exactly sum(counts) image tokens.
    """
    positions = [index for index, token_id in enumerate(token_ids) if token_id == image_token_id]
    if len(positions) != sum(counts):
        raise InvalidRequestError(
            f"the prompt has {len(positions)} image tokens (id {image_token_id}), its {len(counts)} images need "
            f"{sum(counts)}. Put one placeholder per image and no image tokens besides.",
            param="prompt",
        )
    spans: list[ImageSpan] = []
    cursor = 0
    for image_index, count in enumerate(counts):
        own = positions[cursor : cursor + count]
        cursor += count
        first = 0
        for feature in range(1, count + 1):
            if feature == count or own[feature] != own[feature - 1] + 1:
                spans.append(ImageSpan(own[first], feature - first, image_index, first))
                first = feature
    return tuple(spans)
