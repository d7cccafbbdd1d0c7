"""Whether a request can be served at all; asked once, when it arrives."""

from __future__ import annotations

from foveal.core.errors import IntegrityError, InvalidRequestError, PromptTooLongError
from foveal.engine.scheduling.config import SchedulerConfig
from foveal.engine.scheduling.request import Request

__all__ = ["check_request"]


def check_request(request: Request, config: SchedulerConfig) -> None:
    """Raises InvalidRequestError (too long: PromptTooLongError), or IntegrityError for spans that cannot be."""
    prompt = request.num_prompt_tokens
    if not prompt:
        raise InvalidRequestError("the prompt is empty; send at least one token", param="prompt")
    if "#" in request.request_id:
        raise InvalidRequestError(
            f"request id {request.request_id!r} contains '#', which marks the choices of n > 1; leave it out",
            param="request_id",
        )
    n = request.sampling.n
    if n > config.max_num_seqs:
        raise InvalidRequestError(
            f"n is {n}; at most {config.max_num_seqs} sequences run at once. Lower n or raise --max-num-seqs.",
            param="n",
        )
    _check_length(request, config)
    _check_spans(request)


def _check_length(request: Request, config: SchedulerConfig) -> None:
    prompt = request.num_prompt_tokens
    image_tokens = sum(span.length for span in request.spans)
    found = f"the prompt has {prompt:,} tokens"
    if image_tokens:
        found += f" ({image_tokens:,} from {len(request.images)} images)"
    remedy = "Lower the image resolution, shorten" if image_tokens else "Shorten"
    if prompt >= config.max_model_len:
        raise PromptTooLongError(
            f"{found}; the limit is {config.max_model_len:,} with at least one output token. "
            f"{remedy} the prompt or raise --max-model-len.",
            param="prompt",
        )
    max_tokens = request.sampling.max_tokens
    longest = prompt + 1 if max_tokens is None else min(prompt + max_tokens, config.max_model_len)
    if longest > config.pool_tokens:
        asked = "" if max_tokens is None else f" and asks for up to {max_tokens:,} more"
        raise PromptTooLongError(
            f"{found}{asked}; the KV cache holds {config.pool_tokens:,}. "
            f"{remedy} the prompt, lower max_tokens or give the KV cache more memory (--memory-utilization).",
            param="prompt",
        )


def _check_spans(request: Request) -> None:
    """Spans come from our own preprocessing, so a wrong one is a bug of ours."""
    end = 0
    seen: list[int] = []
    for span in request.spans:
        if span.offset < end or span.length < 1 or span.end > request.num_prompt_tokens:
            raise IntegrityError(f"image span {span} overlaps another one or leaves the prompt")
        if not 0 <= span.image_index < len(request.images):
            raise IntegrityError(f"image span {span} refers to an image that the request does not have")
        if span.feature_offset + span.length > request.images[span.image_index].num_tokens:
            raise IntegrityError(f"image span {span} reads features that its image does not have")
        if not seen or seen[-1] != span.image_index:
            # Two images whose tiles alternate would have to be pinned together, which a small cache cannot promise.
            if span.image_index in seen:
                raise IntegrityError(f"the spans of image {span.image_index} are not next to each other")
            seen.append(span.image_index)
        end = span.end
