"""What /v1/models answers. Field names are vLLM's, so that clients find `max_model_len` where they look for it."""

from __future__ import annotations

from typing import Literal

import msgspec

from foveal.protocol.model_costs import ModelCosts

__all__ = ["ModelList", "ModelObject"]


class ModelObject(msgspec.Struct):
    """`created` is in Unix seconds, `max_model_len` in tokens; `costs` is ours, for gateways."""

    id: str
    created: int
    root: str
    max_model_len: int
    supports_images: bool
    object: Literal["model"] = "model"
    owned_by: str = "foveal"
    parent: str | None = None
    costs: ModelCosts | None = None


class ModelList(msgspec.Struct):
    data: list[ModelObject]
    object: Literal["list"] = "list"
