"""Token ids for the quality column, cut from English text."""

from __future__ import annotations

from collections.abc import Sequence

from foveal.core.errors import ConfigurationError
from foveal.evaluation.peers.comparison import QualityTexts

__all__ = ["cut_texts"]


def cut_texts(
    token_ids: Sequence[int], *, windows: int, window_tokens: int, prompts: int, prompt_tokens: int, new_tokens: int
) -> QualityTexts:
    """Windows from the beginning, then prompts, without overlap. Raises ConfigurationError where the text is too short."""
    needed = windows * window_tokens + prompts * prompt_tokens
    if len(token_ids) < needed:
        raise ConfigurationError(
            f"the text has {len(token_ids):,} tokens; quality needs {needed:,}. Give a longer --text, or fewer --windows."
        )
    start = windows * window_tokens
    return QualityTexts(
        tuple(tuple(token_ids[at : at + window_tokens]) for at in range(0, start, window_tokens)),
        tuple(tuple(token_ids[at : at + prompt_tokens]) for at in range(start, needed, prompt_tokens)),
        new_tokens,
    )
