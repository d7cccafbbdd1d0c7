"""Which image features exist, who still needs them, and what may be encoded in this step.

A feature is pinned by each (request, image) from the step that first reads it until the request's *committed* tokens
have passed the image's last span; freeing it earlier breaks requests that are preempted or rolled back in the middle
of an image. Unpinned features stay as a cache, oldest evicted first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from foveal.core.errors import IntegrityError
from foveal.core.image_span import ImageSpan
from foveal.engine.scheduling.plan import EncodeItem
from foveal.engine.scheduling.request import ImageRef, Request

__all__ = ["VisionBudget"]


@dataclass(slots=True)
class _Feature:
    num_bytes: int
    pins: int = 0


def _span_end(span: ImageSpan) -> int:
    return span.end


class VisionBudget:
    """Encoder budget per step (patches) and feature cache (bytes).

    Two rules keep large images from blocking for ever: the first image of a step may exceed the encoder budget, and an
    image may exceed the cache while nothing else is pinned.
    """

    def __init__(self, encoder_budget_tokens: int, feature_cache_bytes: int) -> None:
        self._encoder_budget_tokens = encoder_budget_tokens
        self._capacity_bytes = feature_cache_bytes
        self._features: dict[bytes, _Feature] = {}
        self._unpinned: OrderedDict[bytes, None] = OrderedDict()
        self._held: dict[str, set[int]] = {}
        self._num_bytes = 0
        self._pinned_bytes = 0
        self._tokens_left = encoder_budget_tokens
        self._encode: list[EncodeItem] = []
        self._evicted: list[bytes] = []
        self.encode_sizes: set[int] = set()
        """encode_tokens of the images encoded in this step: same-size images make one batch."""
        self.num_queries = 0
        self.num_hits = 0

    @property
    def capacity_bytes(self) -> int:
        """Bytes of features that are kept; the next step evicts what lies above, as far as nobody needs it."""
        return self._capacity_bytes

    @capacity_bytes.setter
    def capacity_bytes(self, capacity: int) -> None:
        self._capacity_bytes = capacity

    @property
    def num_bytes(self) -> int:
        return self._num_bytes

    @property
    def pinned_bytes(self) -> int:
        return self._pinned_bytes

    def __contains__(self, content_hash: object) -> bool:
        return content_hash in self._features

    def begin_step(self) -> None:
        """A fresh encoder budget; features above the cache's capacity that nobody needs any more are evicted."""
        self._tokens_left = self._encoder_budget_tokens
        self._encode = []
        self.encode_sizes = set()
        self._evict_until(self._capacity_bytes)

    def end_step(self) -> tuple[tuple[EncodeItem, ...], tuple[bytes, ...]]:
        """(images to encode, features to drop before) since the step began."""
        encode, evicted = tuple(self._encode), tuple(self._evicted)
        self._encode, self._evicted = [], []
        return encode, evicted

    def needs_features(self, request: Request, start: int) -> bool:
        """True if positions from `start` on read any image feature."""
        return bool(request.spans) and start < request.spans[-1].end

    def next_to_encode(self, request: Request, start: int) -> int | None:
        """Patches of the first image that positions from `start` on need and that is not encoded yet; None if none is."""
        spans = request.spans
        if not spans or start >= spans[-1].end:
            return None
        for span in spans[bisect_right(spans, start, key=_span_end) :]:
            image = request.images[span.image_index]
            if image.content_hash not in self._features:
                return image.encode_tokens
        return None

    def reserve(
        self,
        request: Request,
        start: int,
        end: int,
        allows: Callable[[int, int], bool] | None = None,
        taken: Callable[[int], None] | None = None,
    ) -> int:
        """Pin what positions [start, end) read, encode what is missing; returns the end that is possible.

        Stops before the first span whose image fits neither the encoder budget nor the cache, nor what `allows(start,
        patches)` says, so the result may be `start`; then nothing was pinned. `taken(patches)` hears of each image that
        is encoded.
        """
        spans = request.spans
        if not spans or start >= spans[-1].end:
            return end
        held = self._held.get(request.request_id, ())
        for position in range(bisect_right(spans, start, key=_span_end), len(spans)):
            span = spans[position]
            if span.offset >= end:
                break
            if span.image_index in held:
                continue
            image = request.images[span.image_index]
            self.num_queries += 1
            if image.content_hash in self._features:
                self.num_hits += 1
            elif (allows is not None and not allows(start, image.encode_tokens)) or not self._encode_image(
                request, span.image_index, image
            ):
                self.num_queries -= 1  # asked again when it fits
                return max(start, span.offset)
            elif taken is not None:
                taken(image.encode_tokens)
            self._pin(request, span.image_index)
            held = self._held[request.request_id]
        return end

    def release_passed(self, request: Request) -> None:
        """Unpin the images whose last span lies before the request's committed tokens."""
        held = self._held.get(request.request_id)
        if not held:
            return
        position = bisect_right(request.spans, request.num_computed_tokens, key=_span_end)
        ahead = {span.image_index for span in request.spans[position:]}
        for image_index in held - ahead:
            self._unpin(request, image_index)

    def release_all(self, request: Request) -> None:
        """Unpin everything: the request ended or was preempted."""
        for image_index in tuple(self._held.get(request.request_id, ())):
            self._unpin(request, image_index)

    def forget(self, content_hash: bytes) -> None:
        """The encoder failed on this image: nobody has its features. The next plan drops what there may be of them."""
        feature = self._features.get(content_hash)
        if feature is None:
            return
        if feature.pins:
            raise IntegrityError(f"feature {content_hash.hex()} is forgotten while {feature.pins} requests need it")
        del self._unpinned[content_hash]
        self._drop(content_hash)

    def check(self, requests: Iterable[Request]) -> None:
        """Raises IntegrityError unless the pins are exactly those of `requests` and the byte counts add up."""
        pins: Counter[bytes] = Counter()
        known = set()
        for request in requests:
            known.add(request.request_id)
            for index in self._held.get(request.request_id, ()):
                pins[request.images[index].content_hash] += 1
        if not self._held.keys() <= known:
            raise IntegrityError(f"features are pinned for requests that do not run: {self._held.keys() - known}")
        for content_hash, feature in self._features.items():
            if feature.pins != pins.pop(content_hash, 0) or (feature.pins == 0) != (content_hash in self._unpinned):
                raise IntegrityError(f"feature {content_hash.hex()} has {feature.pins} pins, which is not who holds it")
        if pins:
            raise IntegrityError(f"{len(pins)} pinned features do not exist")
        total = sum(feature.num_bytes for feature in self._features.values())
        pinned = sum(feature.num_bytes for feature in self._features.values() if feature.pins)
        if (total, pinned) != (self._num_bytes, self._pinned_bytes):
            raise IntegrityError(f"feature bytes {self._num_bytes}/{self._pinned_bytes} are really {total}/{pinned}")

    def _encode_image(self, request: Request, image_index: int, image: ImageRef) -> bool:
        """Make room for one more image in this step's encoder batch and in the cache. False if there is none."""
        if self._encode and image.encode_tokens > self._tokens_left:
            return False
        if self._pinned_bytes and self._pinned_bytes + image.feature_bytes > self._capacity_bytes:
            return False
        self._evict_until(self._capacity_bytes - image.feature_bytes)
        self._tokens_left -= image.encode_tokens
        self._encode.append(EncodeItem(request.request_id, image_index, image.content_hash))
        self.encode_sizes.add(image.encode_tokens)
        self._features[image.content_hash] = _Feature(image.feature_bytes)
        self._unpinned[image.content_hash] = None
        self._num_bytes += image.feature_bytes
        return True

    def _pin(self, request: Request, image_index: int) -> None:
        content_hash = request.images[image_index].content_hash
        feature = self._features[content_hash]
        if feature.pins == 0:
            del self._unpinned[content_hash]
            self._pinned_bytes += feature.num_bytes
        feature.pins += 1
        self._held.setdefault(request.request_id, set()).add(image_index)

    def _unpin(self, request: Request, image_index: int) -> None:
        held = self._held[request.request_id]
        held.remove(image_index)
        if not held:
            del self._held[request.request_id]
        content_hash = request.images[image_index].content_hash
        feature = self._features[content_hash]
        feature.pins -= 1
        if feature.pins == 0:
            self._pinned_bytes -= feature.num_bytes
            self._unpinned[content_hash] = None

    def _evict_until(self, limit_bytes: int) -> None:
        """Evict the oldest unpinned features until at most `limit_bytes` are kept, or none is left to evict."""
        while self._num_bytes > limit_bytes and self._unpinned:
            content_hash, _ = self._unpinned.popitem(last=False)
            self._drop(content_hash)

    def _drop(self, content_hash: bytes) -> None:
        self._num_bytes -= self._features.pop(content_hash).num_bytes
        self._evicted.append(content_hash)
