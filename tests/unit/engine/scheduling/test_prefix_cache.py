from __future__ import annotations

import pytest

from foveal.core.image_span import ImageSpan
from foveal.engine.scheduling.block_pool import BlockPool
from foveal.engine.scheduling.prefix_cache import PrefixCache, block_key
from foveal.engine.scheduling.request import ImageRef, Request
from unit.engine.scheduling.builders import image, request

BLOCK = 4


def known(*requests: Request, atomic: bool = False) -> PrefixCache:
    """A cache in which all tokens of these requests are committed."""
    pool = BlockPool(64)
    cache = PrefixCache(pool, BLOCK, atomic_image_spans=atomic)
    for item in requests:
        item.block_table = pool.allocate(-(-item.num_tokens // BLOCK))
        item.num_computed_tokens = item.num_tokens
        cache.register(item)
    return cache


def hit_tokens(cache: PrefixCache, item: Request) -> int:
    return len(cache.match(item)) * BLOCK


def test_equal_prompts_share_all_full_blocks_of_the_common_beginning() -> None:
    cache = known(request("a", range(10)))
    assert hit_tokens(cache, request("b", [*range(9), 99, 98, 97])) == 8
    assert hit_tokens(cache, request("c", [0, 1, 2, 3, 99, 5, 6, 7, 8])) == 4
    assert hit_tokens(cache, request("d", [99, *range(1, 10)])) == 0


def test_the_last_token_is_recomputed_even_when_all_are_known() -> None:
    cache = known(request("a", range(8)))
    assert hit_tokens(cache, request("b", range(8))) == 4
    assert hit_tokens(cache, request("c", range(9))) == 8


def test_only_committed_tokens_are_registered() -> None:
    first = request("a", range(12))
    pool = BlockPool(8)
    cache = PrefixCache(pool, BLOCK)
    first.block_table = pool.allocate(3)
    first.num_computed_tokens = 7
    cache.register(first)
    assert hit_tokens(cache, request("b", range(12))) == 4


def test_output_tokens_are_found_as_part_of_the_next_prompt() -> None:
    first = request("a", range(6))
    first.output_token_ids = [6, 7, 8]
    cache = known(first)
    assert hit_tokens(cache, request("b", range(10))) == 8


def test_prefix_keys_differ_when_only_the_image_differs() -> None:
    cache = known(request("a", [1, 2, image("cat"), 3, 4, 5]))
    assert hit_tokens(cache, request("b", [1, 2, image("cat"), 3, 4, 5])) == 8
    assert hit_tokens(cache, request("c", [1, 2, image("dog"), 3, 4, 5])) == 0


def test_prefix_keys_differ_when_the_same_image_starts_elsewhere_in_it() -> None:
    """A block full of placeholders may show the first or the second part of one image."""
    ref = image("cat", 8)

    def showing(name: str, feature_offset: int) -> Request:
        item = request(name, [99] * 4 + [1])
        item.images, item.spans = (ref,), (ImageSpan(0, 4, 0, feature_offset),)
        return item

    cache = known(showing("a", 0))
    assert hit_tokens(cache, showing("b", 0)) == 4
    assert hit_tokens(cache, showing("c", 4)) == 0


def test_prefix_keys_differ_when_the_boundary_between_two_images_moves() -> None:
    """Equal placeholder tokens, equal images, only the boundary differs."""

    def split(name: str, first: int) -> Request:
        item = request(name, [99] * 4 + [1])
        item.images = (image("cat", 4), image("dog", 4))
        item.spans = (ImageSpan(0, first, 0), ImageSpan(first, 4 - first, 1))
        return item

    cache = known(split("a", 1))
    assert hit_tokens(cache, split("b", 1)) == 4
    assert hit_tokens(cache, split("c", 2)) == 0


def test_an_image_in_an_earlier_block_changes_the_keys_of_later_text() -> None:
    parts: list[int | ImageRef] = [image("cat"), 1, 2, 3, 4, 5]
    other: list[int | ImageRef] = [image("dog"), 1, 2, 3, 4, 5]
    root = b"same parent"
    first, second = request("a", parts), request("b", other)
    assert block_key(first, 1, BLOCK, root) == block_key(second, 1, BLOCK, root)
    assert hit_tokens(known(first), second) == 0


def test_requests_with_different_salts_never_share() -> None:
    cache = known(request("a", range(8), cache_salt=b"alice"))
    assert hit_tokens(cache, request("b", range(8), cache_salt=b"bob")) == 0
    assert hit_tokens(cache, request("c", range(8))) == 0
    assert hit_tokens(cache, request("d", range(8), cache_salt=b"alice")) == 4


def test_keys_are_128_bit() -> None:
    assert len(block_key(request("a", 4), 0, BLOCK, b"")) == 16


@pytest.mark.parametrize(("atomic", "tokens"), [(False, 8), (True, 0)])
def test_a_hit_never_ends_inside_an_atomic_span(atomic: bool, tokens: int) -> None:
    """Text 0-1, image 2-9: the block boundary 8 lies inside the image, and so does 4."""
    cache = known(request("a", [1, 2, image("cat", 8), 3, 4]), atomic=atomic)
    assert hit_tokens(cache, request("b", [1, 2, image("cat", 8), 9, 9])) == tokens


def test_a_hit_may_end_where_an_atomic_span_starts_or_ends() -> None:
    cache = known(request("a", [1, 2, 3, 4, image("cat", 4), 5]), atomic=True)
    assert hit_tokens(cache, request("b", [1, 2, 3, 4, image("cat", 4), 5])) == 8
    assert hit_tokens(cache, request("c", [1, 2, 3, 4, image("dog", 4), 5])) == 4
