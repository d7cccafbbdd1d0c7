"""When a sequence ends because of the token it just got."""

from __future__ import annotations

from collections.abc import Container

from foveal.engine.scheduling.request import FinishReason, Request

__all__ = ["finish_reason_after"]


def finish_reason_after(request: Request, eos_token_ids: Container[int], context_limit: int) -> FinishReason | None:
    """Why the request ends with the last of its output tokens, or None. A stop token also sets `stop_token_id`.

    The stop token itself stays in the output; front ends leave it out of the text. Before `min_tokens` nothing but
    length ends a request; the sampler masks end tokens as well, so that none is produced.
    """
    sampling = request.sampling
    output = request.output_token_ids
    num_output, token = len(output), output[-1]
    if num_output >= sampling.min_tokens and (
        token in sampling.stop_token_ids or (not sampling.ignore_eos and token in eos_token_ids)
    ):
        request.stop_token_id = token
        return FinishReason.STOP
    if num_output == sampling.max_tokens or request.num_tokens >= context_limit:
        return FinishReason.LENGTH
    return None
