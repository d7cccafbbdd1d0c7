"""Finding the KV of a prompt's beginning in blocks that another request computed.

The key of block i is a 128-bit hash of

    key of block i-1 (for i = 0: the cache salt)
    the block's token ids
    for every image span that overlaps the block: content hash, feature offset and length of the span, and where it
    starts relative to the block

Placeholder tokens are equal for all images, so token ids alone would serve one user's picture to another; and the same
image may sit at another offset of the block, so the hash alone is not enough either. A content hash stands for the
preprocessed image, resolution and grid included.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from hashlib import blake2b

from foveal.core.image_span import ImageSpan
from foveal.engine.scheduling.block_pool import BlockPool
from foveal.engine.scheduling.request import Request

__all__ = ["PrefixCache", "block_key"]

KEY_BYTES = 16
_SPAN_RECORD = struct.Struct("<qqqq")


def _span_end(span: ImageSpan) -> int:
    return span.end


def block_key(request: Request, index: int, block_size: int, parent: bytes) -> bytes:
    """Key of the request's full block `index`; `parent` is the key of the block before it (the salt's for index 0)."""
    start = index * block_size
    end = start + block_size
    digest = blake2b(parent, digest_size=KEY_BYTES)
    digest.update(array("q", request.token_slice(start, end)).tobytes())
    spans = request.spans
    if spans and start < spans[-1].end:
        for position in range(bisect_right(spans, start, key=_span_end), len(spans)):
            span = spans[position]
            if span.offset >= end:
                break
            content = request.images[span.image_index].content_hash
            digest.update(_SPAN_RECORD.pack(len(content), span.feature_offset, span.offset - start, span.length))
            digest.update(content)
    return digest.digest()


def salt_key(cache_salt: bytes) -> bytes:
    """What the first block's key is chained to."""
    return blake2b(cache_salt, digest_size=KEY_BYTES, person=b"prefix-salt").digest()


class PrefixCache:
    """Looks up and registers blocks by key. The pool keeps the blocks, the request its keys."""

    def __init__(self, pool: BlockPool, block_size: int, *, atomic_image_spans: bool = False) -> None:
        self._pool = pool
        self._block_size = block_size
        self._atomic_image_spans = atomic_image_spans

    def match(self, request: Request) -> list[int]:
        """Blocks with the KV of the longest known beginning of the request. Takes no reference.

        Recomputes at least the last token even when all are known: sampling needs its logits. With atomic image spans
        the match never ends inside a span.
        """
        blocks: list[int] = []
        for index in range((request.num_tokens - 1) // self._block_size):
            block = self._pool.find(self._key(request, index))
            if block is None:
                break
            blocks.append(block)
        if self._atomic_image_spans and request.spans:
            del blocks[self._blocks_outside_spans(request, len(blocks)) :]
        return blocks

    def register(self, request: Request) -> None:
        """Make the full blocks of the request's committed tokens findable."""
        num_full = request.num_computed_tokens // self._block_size
        for index in range(request.num_registered_blocks, num_full):
            self._pool.register(request.block_table[index], self._key(request, index))
        request.num_registered_blocks = num_full

    def _key(self, request: Request, index: int) -> bytes:
        """Key of full block `index`; hashes each block of a request once."""
        keys = request.block_keys
        while len(keys) <= index:
            parent = keys[-1] if keys else salt_key(request.cache_salt)
            keys.append(block_key(request, len(keys), self._block_size, parent))
        return keys[index]

    def _blocks_outside_spans(self, request: Request, count: int) -> int:
        """The largest number of blocks, at most `count`, that does not end inside an image span."""
        spans = request.spans
        while count:
            end = count * self._block_size
            position = bisect_right(spans, end, key=_span_end)
            if position == len(spans) or spans[position].offset >= end:
                break
            count = spans[position].offset // self._block_size
        return count
