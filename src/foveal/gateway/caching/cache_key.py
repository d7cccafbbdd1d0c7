"""The name of an answer: everything that decides it, and who may see it."""

from __future__ import annotations

from collections.abc import Sequence

import blake3

from foveal.core.priority import Priority
from foveal.gateway.config.models import ModelConfig
from foveal.gateway.request.view import RequestView
from foveal.gateway.tenancy.tenant import Tenant

__all__ = ["cache_key", "flight_key", "model_generation"]

KEY_BYTES = 32


def cache_key(view: RequestView, body: bytes | bytearray, tenant: Tenant, generation: bytes = b"") -> bytes:
    """32 bytes: BLAKE3 over the tenant, the model's generation and the whole body, images included (0.25 ms per MB).

    The body counts as it was sent: another order of its fields is another key. Its priority does not count. Fetched images
    count by their digests. `generation` changes when the model's deployment does.
    """
    hasher = blake3.blake3()
    digests = [image.digest for image in view.images if image.kind == "remote"]
    for part in (tenant.id.encode(), generation, view.endpoint.encode(), *digests):
        hasher.update(len(part).to_bytes(4, "little"))
        hasher.update(part)
    start, end = view.priority_start, view.priority_end
    # The place of the cut counts, or two bodies could become one by different cuts.
    hasher.update(len(digests).to_bytes(4, "little") + start.to_bytes(8, "little"))
    with memoryview(body) as whole, whole[:start] as before, whole[end:] as after:
        hasher.update(before)
        hasher.update(after)
    return hasher.digest(KEY_BYTES)


def flight_key(key: bytes, priority: Priority) -> bytes:
    """Requests at the same time are joined within a class only: an urgent one must not wait in a slower one's place."""
    return key + bytes([priority])


def model_generation(models: Sequence[ModelConfig]) -> bytes:
    """16 bytes that change when other weights may answer: versions that get traffic, and the names on their backends.

    Pass the model and those its rules and fallback lead to. Shifting weights between versions that both answer keeps it.
    """
    names = [
        f"{model.name}\0{version.version}\0{backend.served_name or model.name}"
        for model in models
        for version in model.all_versions
        if version.weight > 0
        for backend in version.backends
    ]
    return blake3.blake3("\n".join(sorted(set(names))).encode()).digest(16)
