from __future__ import annotations

import pytest

from foveal.core.errors import IntegrityError
from foveal.engine.scheduling.block_pool import BlockPool


def test_released_blocks_are_free_again_unless_they_have_a_key() -> None:
    pool = BlockPool(4)
    plain, keyed = pool.allocate(2)
    pool.register(keyed, b"key")
    pool.release([plain, keyed])
    assert (pool.num_free, pool.num_cached, pool.num_owned) == (3, 1, 0)
    assert pool.find(b"key") == keyed


def test_a_shared_block_stays_owned_until_its_last_holder_releases_it() -> None:
    pool = BlockPool(1)
    blocks = pool.allocate(1)
    pool.share(blocks)
    pool.release(blocks)
    assert pool.num_owned == 1
    pool.release(blocks)
    assert pool.num_owned == 0


def test_a_cached_block_is_owned_again_when_shared() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    pool.register(blocks[0], b"key")
    pool.release(blocks)
    pool.share(blocks)
    assert (pool.num_cached, pool.ref_count(blocks[0])) == (0, 1)
    pool.check([blocks])


def test_free_blocks_are_used_before_cached_ones_and_the_oldest_cached_one_is_evicted_first() -> None:
    pool = BlockPool(3)
    old, new, free = pool.allocate(3)
    pool.register(old, b"old")
    pool.register(new, b"new")
    pool.release([free])
    pool.release([old])
    pool.release([new])
    assert pool.allocate(1) == [free]
    assert pool.allocate(1) == [old]
    assert pool.find(b"old") is None
    assert pool.find(b"new") == new


def test_the_tail_of_a_table_is_evicted_before_its_head() -> None:
    pool = BlockPool(2)
    head, tail = pool.allocate(2)
    pool.register(head, b"head")
    pool.register(tail, b"tail")
    pool.release([head, tail])
    assert pool.allocate(1) == [tail]
    assert pool.find(b"head") == head


def test_content_known_in_another_block_is_registered_once() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    assert pool.register(first, b"key")
    assert not pool.register(second, b"key")
    pool.release([first, second])
    assert (pool.num_cached, pool.num_free) == (1, 1)


def test_clear_cache_frees_cached_blocks_and_leaves_owned_ones() -> None:
    pool = BlockPool(3)
    owned, cached = pool.allocate(2)
    pool.register(owned, b"owned")
    pool.register(cached, b"cached")
    pool.release([cached])
    assert pool.clear_cache() == 1
    assert pool.find(b"owned") is None
    pool.check([[owned]])
    pool.release([owned])
    assert pool.num_free == 3


def test_misuse_is_an_integrity_error() -> None:
    pool = BlockPool(1)
    with pytest.raises(IntegrityError, match="2 blocks asked for, 1 available"):
        pool.allocate(2)
    with pytest.raises(IntegrityError, match="is free and cannot be shared"):
        pool.share([0])
    with pytest.raises(IntegrityError, match="released more often"):
        pool.release([0])
    with pytest.raises(IntegrityError, match="not owned"):
        pool.register(0, b"key")


def test_check_finds_a_leaked_and_a_lost_reference() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    with pytest.raises(IntegrityError, match="1 references but is in 0 block tables"):
        pool.check([])
    with pytest.raises(IntegrityError, match="1 references but is in 2 block tables"):
        pool.check([blocks, blocks])
    pool.check([blocks])
