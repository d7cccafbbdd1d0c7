"""What the gateway's pages take and answer, where that differs from the engine's."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from foveal.protocol.server_status import ServerStatus

__all__ = ["BackendStatus", "FeedbackRequest", "GatewayHealth", "GatewayModel", "GatewayModelList", "Recorded"]


class GatewayModel(msgspec.Struct):
    """What a backend says of itself is passed on; a field that no backend has told is left out."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "foveal"
    root: str | UnsetType | None = UNSET
    parent: str | UnsetType | None = UNSET
    max_model_len: int | UnsetType | None = UNSET
    supports_images: bool | UnsetType | None = UNSET


class GatewayModelList(msgspec.Struct):
    data: list[GatewayModel]
    object: Literal["list"] = "list"


class BackendStatus(msgspec.Struct):
    """`state` is starting, up, returning, ejected or draining."""

    id: str
    model: str
    version: str
    state: str
    in_flight: int
    max_in_flight: int


class GatewayHealth(msgspec.Struct):
    """Counts and bytes now; `uptime_s` in seconds."""

    status: ServerStatus
    version: str
    uptime_s: float
    requests_in_flight: int
    requests_waiting: int
    body_bytes_in_flight: int
    backends: list[BackendStatus]


class FeedbackRequest(msgspec.Struct):
    """About an answer that this tenant got: its X-Request-Id."""

    request_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:\-]{1,128}$")]
    score: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    """From -1 (bad) to 1 (good)."""
    comment: Annotated[str, msgspec.Meta(max_length=4000)] = ""


class Recorded(msgspec.Struct):
    """`known` tells whether the answer is still remembered: only then the feedback counts for a model version."""

    request_id: str
    known: bool
    status: Literal["recorded"] = "recorded"
