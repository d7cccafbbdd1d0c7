"""Errors of the demo model's assembly."""

from __future__ import annotations

from foveal.core.errors import FovealError

__all__ = ["ModelSourceError"]


class ModelSourceError(FovealError):
    """A part of the demo model could not be fetched, is not the expected file, or could not be written."""
