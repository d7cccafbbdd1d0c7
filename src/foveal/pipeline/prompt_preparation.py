"""Questions -> model inputs with the expected answer behind them, through the checkpoint's own chat template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foveal.evaluation.model import Prompt
from foveal.models.processing.processor import Processor
from foveal.pipeline.verified_decoding import DraftedPrompt

__all__ = ["batches_of_groups", "prepare_prompt"]


def prepare_prompt(processor: Processor, prompt: Prompt, eos_token_ids: Sequence[int]) -> DraftedPrompt:
    """The draft is the reference as the template would print it, up to the first end-of-turn token.

    Base models without a chat template get the question as plain text. Raises InvalidRequestError.
    """
    images = [] if prompt.picture is None else [prompt.picture]
    answer = prompt.reference
    if processor.has_chat_template:
        parts = [{"type": "image"}] * len(images) + [{"type": "text", "text": prompt.question}]
        messages = [{"role": "user", "content": parts}]
        text = processor.apply_chat_template(messages)
        spoken = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        whole = processor.apply_chat_template([*messages, spoken], add_generation_prompt=False)
        if whole.startswith(text) and answer in whole[len(text) :]:
            answer = whole[len(text) :]
    else:
        text = (processor.placeholder or "") * len(images) + prompt.question + "\n"
    draft = _up_to_end(processor.tokenizer(answer, add_special_tokens=False)["input_ids"], eos_token_ids)
    return DraftedPrompt(processor.prepare(text, images), tuple(draft))


def _up_to_end(token_ids: Sequence[int], eos_token_ids: Sequence[int]) -> list[int]:
    draft = []
    for token in token_ids:
        draft.append(token)
        if token in eos_token_ids:
            return draft
    return [*draft, *eos_token_ids[:1]]


def batches_of_groups(prompts: Sequence[Prompt], most_prompts: int) -> Iterator[list[list[int]]]:
    """Indices of the prompts, grouped by picture object (neighbours only), groups gathered to about `most_prompts`."""
    batch: list[list[int]] = []
    for index, prompt in enumerate(prompts):
        neighbour = prompts[batch[-1][-1]] if batch else None
        if neighbour is not None and prompt.picture is not None and neighbour.picture is prompt.picture:
            batch[-1].append(index)
            continue
        if sum(map(len, batch)) >= most_prompts:
            yield batch
            batch = []
        batch.append([index])
    if batch:
        yield batch
