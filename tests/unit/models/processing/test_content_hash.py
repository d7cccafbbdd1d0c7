"""Equal preprocessed images, and only they, share a hash."""

from __future__ import annotations

import numpy as np

from foveal.models.processing.content_hash import content_hash

BASE = {"pixel_values": np.arange(12, dtype=np.float32).reshape(3, 4), "grid": np.array([1, 3, 4])}


def test_the_hash_has_sixteen_bytes_and_ignores_key_order_and_memory_layout():
    same = {"grid": BASE["grid"].copy(), "pixel_values": np.asfortranarray(BASE["pixel_values"])}

    assert len(content_hash(BASE)) == 16
    assert content_hash(same) == content_hash(BASE)


def test_bytes_shape_type_and_name_all_count():
    pixels, grid = BASE["pixel_values"], BASE["grid"]
    others = [
        {"pixel_values": pixels + 1, "grid": grid},
        {"pixel_values": pixels.reshape(4, 3), "grid": grid},
        {"pixel_values": pixels.view(np.int32), "grid": grid},
        {"pixels": pixels, "grid": grid},
        {"pixel_values": pixels},
    ]
    hashes = {content_hash(arrays) for arrays in [BASE, *others]}

    assert len(hashes) == 6
